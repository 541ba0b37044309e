"""caisson.Store: a store as an object, for whoever does more with it than one save and one load."""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, overload

from caisson import _command, _native, _tensors, _url
from caisson._errors import CaissonError, InvalidArgumentError, NotFoundError
from caisson._native import CheckpointInfo, SaveOptions, SaveReport, TensorInfo

_log = logging.getLogger("caisson")


@dataclass(frozen=True, slots=True)
class Count:
    """Objects of a store, and their bytes."""

    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that verify found. `damage` is False for what is harmless."""

    checkpoint: str
    object: str
    offset: int
    id: str
    tensor: str
    what: str
    damage: bool


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verify read and found."""

    depth: str
    checkpoints: int
    objects: int
    tensors: int
    chunks: int
    bytes_read: int
    damaged: int
    harmless: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing is damaged."""
        return self.damaged == 0


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A tensor or blob that differs. `change`: "added", "removed", "changed" or "retyped". `before`
    and `after`: dtype and shape, None where there is none."""

    name: str
    kind: str
    change: str
    changed_bytes: int
    before: tuple[str, tuple[int, ...]] | None
    after: tuple[str, tuple[int, ...]] | None


@dataclass(frozen=True, slots=True)
class DiffReport:
    """How two checkpoints differ. Sizes in bytes."""

    a: str
    b: str
    same: int
    changes: tuple[TensorChange, ...]
    raw_bytes_a: int
    raw_bytes_b: int
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class RunUsage:
    """What the checkpoints of one run take."""

    run: str
    checkpoints: int
    logical_bytes: int
    newly_stored_bytes: int
    own_packs: Count
    shared_packs: Count


@dataclass(frozen=True, slots=True)
class StatReport:
    """Where the bytes of a store are."""

    checkpoints: int
    logical_bytes: int
    chunks: int
    chunk_raw_bytes: int
    chunk_stored_bytes: int
    sharing_saves: int
    coding_saves: int
    own_packs: Count
    shared_packs: Count
    metadata: Count
    log: Count
    in_progress: Count
    reclaimable: Count
    other: Count
    runs: tuple[RunUsage, ...]


@dataclass(frozen=True, slots=True)
class OpenSave:
    """A save in progress, or one whose writer died where nobody can tell."""

    checkpoint: str
    save: str
    host: str
    pid: int
    opened_unix_ns: int
    provably_dead: bool
    written: Count


@dataclass(frozen=True, slots=True)
class GcReport:
    """What gc freed, or would."""

    dry_run: bool
    reclaimed: Count
    kept: Count
    unknown: Count
    saves_closed: int
    saves_condemned: int
    objects_condemned: int
    temporary_removed: int
    open_saves: tuple[OpenSave, ...]


def _count(given: Mapping[str, int]) -> Count:
    return Count(given["objects"], given["bytes"])


def _side(given: Mapping[str, Any] | None) -> tuple[str, tuple[int, ...]] | None:
    return None if given is None else (given["dtype"], tuple(given["shape"]))


class PendingSave:
    """A save that goes on while the program does. The Store keeps it: dropping this is harmless,
    and an error that nobody asked for is raised by the next save."""

    def __init__(self, store: Store, save: _native.PendingSave, name: str) -> None:
        self._store = store
        self._save = save
        self.name = name

    def wait(self, timeout: float | None = None) -> CheckpointInfo:
        """Blocks until it is durable and committed.

        Args:
            timeout: seconds; None waits without end.

        Raises:
            WaitTimeoutError: not yet; it goes on.
            CaissonError: why it failed, the same at every call.
        """
        self._save.wait(timeout)
        return self._store.info(self.name)

    def done(self) -> bool:
        """Whether it has finished, well or not."""
        return self._save.done()

    def cancel(self) -> None:
        """Asks it to stop; wait() then raises CancelledError, unless it was too late."""
        self._save.cancel()

    def progress(self) -> tuple[int, int]:
        """Raw bytes done, and in all; (0, 0) before it knows."""
        return self._save.progress()

    @property
    def report(self) -> SaveReport:
        """What the save did, once it has finished well."""
        return self._save.report


class Store:
    """A store of checkpoints in a directory. Thread-safe; usable in a `with`.

    Args:
        url: a path, file:///path or caisson:///path.
        create: make the store where the directory is absent or empty; else NotFoundError.
        memory_bytes_max: staging memory of all saves and loads together, 0 for 192 MiB.
        io_engine: "auto", "io_uring", "threads" or "buffered".
        trace: record what saves and loads do, for trace_json().

    After os.fork() a child opens a Store of its own; the inherited one raises ForkedError.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        create: bool = True,
        memory_bytes_max: int = 0,
        io_engine: str = "auto",
        trace: bool = False,
    ) -> None:
        self.url, name = _url.split(url)
        if name is not None:
            raise InvalidArgumentError(f'"{url}" names a checkpoint, and this wants a store')
        self.native = _native.Store.open(
            self.url,
            create=create,
            memory_bytes_max=memory_bytes_max,
            io_engine=io_engine,
            trace=trace,
        )
        self._pid = os.getpid()
        self._saves: list[_native.PendingSave] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits for saves that are going on; errors of theirs that nobody asked for are logged."""
        if os.getpid() == self._pid:
            with self._lock:
                saves, self._saves = self._saves, []
            for save in saves:
                if not save.seen:
                    try:
                        save.wait()
                    except CaissonError as error:
                        _log.error("a save failed, and nobody had asked for its outcome: %s", error)
        self.native.close()

    def trace_json(self) -> str:
        """What was recorded, in the Trace Event Format: Perfetto opens it."""
        return self.native.trace_json()

    def metrics(self) -> str:
        """What saves and loads of this Store have done, in Prometheus' text format."""
        return self.native.metrics()

    # ---- saving and loading

    @overload
    def save(
        self,
        tensors: Mapping[str, Any],
        name: str,
        *,
        blobs: Mapping[str, bytes] | None = ...,
        metadata: Mapping[str, Any] | None = ...,
        wait: Literal[True] = ...,
        codec: str = ...,
        codec_cpu_max: float = ...,
        delta: str = ...,
        dedup: bool = ...,
        base: str = ...,
        stage: bool | None = ...,
        memory_check: str = ...,
        overwrite: bool = ...,
        workers: int = ...,
    ) -> CheckpointInfo: ...

    @overload
    def save(
        self,
        tensors: Mapping[str, Any],
        name: str,
        *,
        blobs: Mapping[str, bytes] | None = ...,
        metadata: Mapping[str, Any] | None = ...,
        wait: Literal[False],
        codec: str = ...,
        codec_cpu_max: float = ...,
        delta: str = ...,
        dedup: bool = ...,
        base: str = ...,
        stage: bool | None = ...,
        memory_check: str = ...,
        overwrite: bool = ...,
        workers: int = ...,
    ) -> PendingSave: ...

    def save(
        self,
        tensors: Mapping[str, Any],
        name: str,
        *,
        blobs: Mapping[str, bytes] | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait: bool = True,
        codec: str = "auto",
        codec_cpu_max: float = 0,
        delta: str = "",
        dedup: bool = True,
        base: str = "",
        stage: bool | None = None,
        memory_check: str = "sampled",
        overwrite: bool = False,
        workers: int = 0,
    ) -> CheckpointInfo | PendingSave:
        """Saves a checkpoint "run/step"; see caisson.save for the arguments."""
        options = SaveOptions(
            codec=codec,
            codec_cpu_max=codec_cpu_max,
            delta=delta,
            dedup=dedup,
            base=base,
            stage=not wait if stage is None else stage,
            memory_check=memory_check,
            overwrite=overwrite,
            metadata_json=_metadata_json(metadata),
            workers=workers,
        )
        shards, aliases = _tensors.shards_of(tensors)
        pending = self.native.save(name, shards, blobs, aliases, options)
        if wait:
            pending.finish()
            return self.info(name)
        with self._lock:
            self._saves = [save for save in self._saves if not save.done()]
            self._saves.append(pending)
        return PendingSave(self, pending, name)

    def load(
        self,
        name: str = "latest",
        *,
        tensors: str | Iterable[str] | Mapping[str, Any] | None = None,
        out: Mapping[str, Any] | None = None,
        device: str = "cpu",
        framework: str = "numpy",
        dtype: Any = None,
        convert: bool = False,
        pad: float | None = None,
        workers: int = 0,
    ) -> dict[str, Any]:
        """Loads tensors of a checkpoint; see caisson.load for the arguments."""
        info = self.info(name)
        request = _tensors.LoadRequest(
            tensors=tensors,
            out=out,
            device=device,
            framework=framework,
            dtype=dtype,
            convert=convert,
            pad=pad,
            workers=workers,
        )
        return _tensors.load(self.native, info.pinned, info.name, request)

    def read_blob(self, name: str, blob: str) -> bytes:
        """The bytes of a blob of a checkpoint."""
        return self.native.read_blob(self.resolve(name), blob)

    # ---- what there is

    def checkpoints(self, run: str | None = None) -> list[CheckpointInfo]:
        """All checkpoints, or those of a run, in the order of their commits."""
        return [c for c in self.native.checkpoints() if run is None or c.run == run]

    def resolve(self, name: str) -> str:
        """ "run/step" or "run/latest" as given; "latest" alone, of the one run that there is."""
        if name != "latest":
            return name
        runs = sorted({c.run for c in self.native.checkpoints()})
        if len(runs) == 1:
            return f"{runs[0]}/latest"
        if not runs:
            raise NotFoundError(f"{self.url} holds no checkpoint yet")
        raise InvalidArgumentError(
            f'{self.url} holds several runs, so "latest" needs one: '
            + ", ".join(f"{run}/latest" for run in runs[:20])
        )

    def info(self, name: str = "latest") -> CheckpointInfo:
        """What "run/step", "run/latest" or "latest" is."""
        return self.native.info(self.resolve(name))

    def tensors(self, name: str = "latest", glob: str = "*") -> list[TensorInfo]:
        """Tensors, blobs and aliases of a checkpoint, sorted by name."""
        return self.native.tensors(self.resolve(name), glob)

    def claim(self, run: str, base: str = "") -> None:
        """Takes the run over: saves of other processes to it are refused. It continues from `base`,
        its latest if empty; later checkpoints of it are rolled back."""
        self.native.claim(run, base)

    # ---- maintenance

    def rm(self, *names: str) -> None:
        """Gives checkpoints up; gc frees their space."""
        for name in names:
            self.native.remove(name)

    def verify(self, *names: str, depth: str = "checksums") -> VerifyReport:
        """Checks checkpoints, all when none is named. Damage is a finding, not an exception.

        Args:
            depth: "structure" (metadata), "checksums" (every stored byte) or "full" (every chunk
                decoded and compared with its content id).
        """
        found = self.native.verify(names, depth)
        return VerifyReport(
            found["depth"],
            found["checkpoints"],
            found["objects"],
            found["tensors"],
            found["chunks"],
            found["bytes_read"],
            found["damaged"],
            found["harmless"],
            tuple(Finding(**finding) for finding in found["findings"]),
        )

    def diff(self, a: str, b: str) -> DiffReport:
        """How checkpoint `b` differs from `a`."""
        found = _command.ask("diff", _url.absolute(self.url), a, b)
        changes = tuple(
            TensorChange(
                c["name"],
                c["kind"],
                c["change"],
                c["changed_bytes"],
                _side(c.get("before")),
                _side(c.get("after")),
            )
            for c in found["changes"]
        )
        return DiffReport(
            found["a"],
            found["b"],
            found["same"],
            changes,
            found["raw_bytes_a"],
            found["raw_bytes_b"],
            found["shared_bytes"],
        )

    def stat(self) -> StatReport:
        """Where the bytes are."""
        found = _command.ask("stat", _url.absolute(self.url))
        runs = tuple(
            RunUsage(
                r["run"],
                r["checkpoints"],
                r["logical_bytes"],
                r["newly_stored_bytes"],
                _count(r["own_packs"]),
                _count(r["shared_packs"]),
            )
            for r in found["runs"]
        )
        counts = ("own_packs", "shared_packs", "metadata", "log", "in_progress", "reclaimable")
        numbers = ("checkpoints", "logical_bytes", "chunks", "chunk_raw_bytes", "chunk_stored_bytes")
        savings = ("sharing_saves", "coding_saves")
        fields: dict[str, Any] = {key: found[key] for key in numbers + savings}
        fields |= {key: _count(found[key]) for key in (*counts, "other")}
        return StatReport(**fields, runs=runs)

    def gc(self, *, dry_run: bool = False) -> GcReport:
        """Frees what no checkpoint needs, and what dead saves left."""
        found = self.native.gc(dry_run=dry_run)
        return GcReport(
            found["dry_run"],
            _count(found["reclaimed"]),
            _count(found["kept"]),
            _count(found["unknown"]),
            found["saves_closed"],
            found["saves_condemned"],
            found["objects_condemned"],
            found["temporary_removed"],
            tuple(
                OpenSave(**{**save, "written": _count(save["written"])})
                for save in found["open_saves"]
            ),
        )


def _metadata_json(metadata: Mapping[str, Any] | None) -> str:
    try:
        return json.dumps(dict(metadata or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"metadata must be what JSON can hold: {error}") from None


# ---- the stores of caisson.save and caisson.load

_cache: dict[str, tuple[tuple[int, ...], Store]] = {}
_cache_lock = threading.Lock()


def _identity(path: str) -> tuple[int, ...]:
    """What tells whether a directory still holds the store that was opened there."""
    try:
        marker = os.stat(os.path.join(path.partition("?dirs=")[0], "caisson.store"))
    except OSError:
        return ()
    return (os.getpid(), marker.st_dev, marker.st_ino)


def opened(url: str, *, create: bool) -> Store:
    """The Store of a URL, opened once a process: its runs stay claimed and its staging memory stays
    warm from one save to the next. A directory that was replaced is opened anew."""
    path = _url.absolute(url)
    with _cache_lock:
        identity = _identity(path)
        cached = _cache.get(path)
        if cached is not None and identity and cached[0] == identity:
            return cached[1]
        store = Store(url, create=create)
        _cache[path] = (_identity(path), store)
        return store


def _close_all() -> None:
    for _, store in _cache.values():
        store.close()


def _forget_all() -> None:
    # In a forked child: the lock may be held by a thread that is not there, and the stores are the
    # parent's.
    global _cache, _cache_lock
    _cache, _cache_lock = {}, threading.Lock()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)

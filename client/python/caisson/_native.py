"""The engine's own surface in Python: shards in, boxes out, many ranks, one call for many tensors.

`caisson.save` and `caisson.load` are built on this, and so is `caisson.torch`. Nothing here copies
a tensor's bytes. Every call that takes time runs in a thread of the engine, with the interpreter
lock released; an interrupt (Ctrl-C) cancels it. Errors are CaissonError subclasses.
"""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Mapping, Sequence
from ctypes import byref, c_char_p, c_uint64, sizeof
from typing import Any

from caisson import _abi
from caisson._abi import encode, lib
from caisson._collector import collector_paused
from caisson._errors import CaissonError, InvalidArgumentError, WaitTimeoutError
from caisson._records import (
    DTYPE_NAMES,
    DTYPES,
    TENSOR,
    CheckpointInfo,
    CodecUse,
    Input,
    SaveOptions,
    SaveReport,
    Shard,
    Target,
    Targets,
    TensorInfo,
    pack_save_options,
    tensor_info,
)

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "CheckpointInfo",
    "CodecUse",
    "Future",
    "PendingSave",
    "SaveOptions",
    "SaveReport",
    "Shard",
    "Store",
    "Target",
    "TensorInfo",
    "Transaction",
]

_WAIT_SLICE_NS = 200_000_000  # so that an interrupt is seen; an end is seen at once


def _take_report(handle: int) -> SaveReport:
    fields = _abi.SaveReport(struct_size=sizeof(_abi.SaveReport))
    try:
        lib.call("report_get", handle, byref(fields))
        count = c_uint64()
        at = lib.functions["report_codecs"](handle, byref(count))
        uses = (_abi.CodecUse * count.value).from_address(at) if count.value else ()
        return SaveReport(
            fields.name.decode(),
            fields.tensors,
            fields.tiles,
            fields.raw_bytes,
            fields.deduplicated_bytes,
            fields.stored_bytes,
            fields.stall_seconds,
            fields.seconds,
            fields.warning.decode(),
            tuple(
                CodecUse(
                    u.codec.decode(), u.reason.decode(), u.chunks, u.raw_bytes, u.stored_bytes
                )
                for u in uses
            ),
        )
    finally:
        lib.functions["report_free"](handle)


class _Handle:
    """A handle of the library, freed once."""

    _free = ""

    def __init__(self, value: int) -> None:
        self._value: int | None = value

    @property
    def value(self) -> int:
        if self._value is None:
            raise InvalidArgumentError(f"this {type(self).__name__} was closed")
        return self._value

    def close(self) -> None:
        value, self._value = getattr(self, "_value", None), None
        if value is not None:
            lib.functions[self._free](value)

    def __del__(self) -> None:
        self.close()


class _StoreHandle(_Handle):
    _free = "store_close"


class _TransactionHandle(_Handle):
    _free = "transaction_free"


class Future(_Handle):
    """Something that the engine does meanwhile. Dropping it waits for it: memory is in use."""

    _free = "future_free"

    def __init__(self, value: int, owners: object = None) -> None:
        super().__init__(value)
        self._owners = owners  # of the memory that the engine works on
        self.seen = False  # its outcome was told

    def wait(self, timeout: float | None = None) -> None:
        """Blocks until it has finished; raises what went wrong, the same at every call.

        Args:
            timeout: seconds; None waits without end.

        Raises:
            WaitTimeoutError: not yet; it goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            nanoseconds = _WAIT_SLICE_NS
            if end is not None:
                nanoseconds = min(nanoseconds, max(0, int((end - time.monotonic()) * 1e9)))
            try:
                finished = lib.call("future_wait", self.value, nanoseconds) == _abi.OK
            except CaissonError:
                self.seen, self._owners = True, None
                raise
            if finished:
                self.seen, self._owners = True, None
                return
            if end is not None and time.monotonic() >= end:
                raise WaitTimeoutError(f"not finished within {timeout} s")

    def done(self) -> bool:
        """Whether it has finished, well or not."""
        # In a forked child wait() has something to say, so it does not block.
        return bool(lib.functions["future_poll"](self.value) != 0)

    def cancel(self) -> None:
        """Asks it to stop; wait() then raises CancelledError, unless it was too late."""
        lib.functions["future_cancel"](self.value)

    def progress(self) -> tuple[int, int]:
        """Raw bytes done, and in all; (0, 0) before it knows."""
        done, total = c_uint64(), c_uint64()
        lib.functions["future_progress"](self.value, byref(done), byref(total))
        return done.value, total.value

    def mark_ready(self, places: Sequence[int]) -> None:
        """The memory of these shards, by their places in the list of a deferred save or put, is
        filled now and must not change any more. What is ready is written together, so name many at
        a time where that is possible."""
        array = (c_uint64 * len(places))(*places)
        lib.call("future_mark_ready", self.value, ctypes.addressof(array), len(places))

    def text(self) -> str:
        """The document of a verification or collection, once it has finished."""
        return lib.take_bytes(lib.handle("future_text", self.value)).decode()

    def finish(self) -> None:
        """wait(), but an interrupt cancels it and comes out once the memory is free."""
        try:
            self.wait()
        except KeyboardInterrupt:
            self.cancel()
            self.close()
            raise


class PendingSave(Future):
    """A save that goes on while the program does."""

    @property
    def report(self) -> SaveReport:
        """What the save did, once wait() returned."""
        return _take_report(lib.handle("future_report", self.value))


class Transaction:
    """One rank's side of a save by many ranks: put() as often as needed, then seal(). One thread
    at a time. Dropped without seal(), its part is abandoned."""

    def __init__(self, handle: int) -> None:
        self._handle = _TransactionHandle(handle)

    def put(
        self,
        shards: Sequence[Shard] = (),
        blobs: Mapping[str, bytes] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Writes these; the memory may change once it returned. Blobs: name -> bytes. Aliases:
        name -> name of the tensor that it is another name for."""
        self.put_start(shards, blobs, aliases).finish()

    def put_start(
        self,
        shards: Sequence[Shard] = (),
        blobs: Mapping[str, bytes] | None = None,
        aliases: Mapping[str, str] | None = None,
        *,
        deferred: bool = False,
    ) -> Future:
        """put(), but it returns at once: the memory is lent until the future has finished.

        Args:
            deferred: no shard is read before Future.mark_ready names it.
        """
        given = Input(shards, blobs or {}, aliases or {}, deferred)
        handle = lib.handle("transaction_put_start", self._handle.value, byref(given.struct))
        return Future(handle, (given, shards, self))

    def seal(self) -> str:
        """Makes this rank's part durable; the token goes to whoever commits."""
        return lib.take_bytes(lib.handle("transaction_seal", self._handle.value)).decode()

    @property
    def report(self) -> SaveReport:
        """What this rank wrote so far."""
        return _take_report(lib.handle("transaction_report", self._handle.value))

    def close(self) -> None:
        self._handle.close()


class Store:
    """An opened store. Thread-safe. A forked child opens its own: here it gets ForkedError."""

    def __init__(self, handle: int) -> None:
        self._handle = _StoreHandle(handle)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        create: bool = True,
        memory_bytes_max: int = 0,
        io_engine: str = "auto",
        trace: bool = False,
        create_beside_files: bool = False,
    ) -> Store:
        """Opens the store in a directory.

        Args:
            url: a path, or file:// and a path.
            create: make it where the directory is absent or empty; else NotFoundError.
            memory_bytes_max: staging memory of all saves and restores, 0 for the default.
            io_engine: "auto", "io_uring", "threads" or "buffered".
            trace: record what saves and restores do, for trace_json().
            create_beside_files: make it also where the directory holds other files.
        """
        options = _abi.StoreOptions(
            sizeof(_abi.StoreOptions),
            (not create) * 1 | trace * 2 | create_beside_files * 4,
            memory_bytes_max,
            encode(io_engine, "io_engine"),
        )
        return cls(lib.handle("store_open", encode(url, "url"), byref(options)))

    def close(self) -> None:
        """Waits for saves that are going on."""
        self._handle.close()

    def trace_json(self) -> str:
        """What was recorded, in the Trace Event Format: Perfetto opens it."""
        return lib.take_bytes(lib.handle("store_trace", self._handle.value)).decode()

    # ---- saving

    def save(
        self,
        name: str,
        shards: Sequence[Shard] = (),
        blobs: Mapping[str, bytes] | None = None,
        aliases: Mapping[str, str] | None = None,
        options: SaveOptions | None = None,
        *,
        deferred: bool = False,
    ) -> PendingSave:
        """Starts a save of a whole checkpoint, "run/step". The memory is lent until the save has
        finished, unless options.stage copies it first.

        Args:
            deferred: no shard is read before PendingSave.mark_ready names it: memory that is still
                being filled, say by copies from a device. Such a save runs beside others.
        """
        given = Input(shards, blobs or {}, aliases or {}, deferred)
        handle = lib.handle(
            "save_start",
            self._handle.value,
            encode(name, "name"),
            byref(given.struct),
            byref(pack_save_options(options)),
        )
        return PendingSave(handle, (given, shards))

    def begin_save(self, name: str, options: SaveOptions | None = None) -> str:
        """Begins a save by many ranks; every rank gets the ticket."""
        handle = lib.handle(
            "save_begin",
            self._handle.value,
            encode(name, "name"),
            byref(pack_save_options(options)),
        )
        return lib.take_bytes(handle).decode()

    def join_save(self, ticket: str, rank: int, options: SaveOptions | None = None) -> Transaction:
        """This rank's side of the save that the ticket stands for."""
        return Transaction(
            lib.handle(
                "save_join",
                self._handle.value,
                encode(ticket, "ticket"),
                rank,
                byref(pack_save_options(options)),
            )
        )

    def commit_save(
        self, ticket: str, ranks: int, tokens: Sequence[str], options: SaveOptions | None = None
    ) -> SaveReport:
        """Durable and committed when it returns. Refuses, naming rank, tensor and box, when a part
        is missing, overlaps another, or a tensor is not covered."""
        array = (c_char_p * len(tokens))(*(encode(token, "token") for token in tokens))
        handle = lib.handle(
            "save_commit",
            self._handle.value,
            encode(ticket, "ticket"),
            ranks,
            array,
            len(tokens),
            byref(pack_save_options(options)),
        )
        return _take_report(handle)

    def abort_save(self, ticket: str) -> None:
        """Ends the save without a commit."""
        lib.call("save_abort", self._handle.value, encode(ticket, "ticket"))

    def claim(self, run: str, base: str = "") -> None:
        """Takes the run over: saves begun before are refused. It continues from `base`, its latest
        if empty; later checkpoints of it are rolled back."""
        lib.call("claim", self._handle.value, encode(run, "run"), encode(base, "base"))

    # ---- reading

    def restore(self, name: str, targets: Sequence[Target], *, workers: int = 1) -> None:
        """Fills every target, verified, in one batch. Fails before it reads when a tensor is
        missing or a box does not fit, listing all such targets."""
        self.restore_start(name, targets, workers=workers).finish()

    def restore_start(self, name: str, targets: Sequence[Target], *, workers: int = 1) -> Future:
        """restore(), but it returns at once."""
        packed = Targets(targets)
        options = _abi.RestoreOptions(sizeof(_abi.RestoreOptions), workers)
        handle = lib.handle(
            "restore_start",
            self._handle.value,
            encode(name, "name"),
            packed.address,
            len(targets),
            byref(options),
        )
        return Future(handle, targets)

    def read_blob(self, name: str, blob: str) -> bytes:
        """The bytes of a blob."""
        return lib.take_bytes(
            lib.handle(
                "read_blob", self._handle.value, encode(name, "name"), encode(blob, "blob")
            )
        )

    def checkpoints(self) -> list[CheckpointInfo]:
        """All of them, in the order of their commits."""
        return self._checkpoints(None)

    def info(self, name: str) -> CheckpointInfo:
        """What "run/step", "run/latest" or "run/step@commit" is."""
        return self._checkpoints(encode(name, "name"))[0]

    def _checkpoints(self, name: bytes | None) -> list[CheckpointInfo]:
        handle = lib.handle("checkpoints", self._handle.value, name)
        try:
            count = c_uint64()
            at = lib.functions["checkpoint_list_items"](handle, byref(count))
            array = (_abi.Checkpoint * count.value).from_address(at) if count.value else ()
            return [
                CheckpointInfo(
                    c.name.decode(),
                    c.run.decode(),
                    c.step,
                    bool(c.latest),
                    bool(c.rolled_back),
                    c.epoch,
                    c.commit_seq,
                    c.problem.decode("utf-8", "replace"),
                    c.created_unix_ns,
                    c.tensors,
                    c.ranks,
                    c.raw_bytes,
                    c.stored_bytes,
                    json.loads(c.metadata_json) if c.metadata_json else {},
                )
                for c in array
            ]
        finally:
            lib.functions["checkpoint_list_free"](handle)

    @collector_paused()
    def tensors(self, name: str, glob: str = "*") -> list[TensorInfo]:
        """Tensors, blobs and aliases that match ('*', '?', '[a-z]'), sorted by name."""
        handle = lib.handle(
            "tensors", self._handle.value, encode(name, "name"), encode(glob, "glob")
        )
        try:
            count = c_uint64()
            at = lib.functions["tensor_list_items"](handle, byref(count))
            if not count.value:
                return []
            records = ctypes.string_at(at, count.value * TENSOR.size)
            return [tensor_info(record) for record in TENSOR.iter_unpack(records)]
        finally:
            lib.functions["tensor_list_free"](handle)

    def verify(self, names: Sequence[str] = (), depth: str = "checksums") -> dict[str, Any]:
        """The document "caisson.verify/1" of the named checkpoints, or of the whole store."""
        array = (c_char_p * len(names))(*(encode(name, "name") for name in names))
        return self._document(
            lib.handle(
                "verify_start", self._handle.value, array, len(names), encode(depth, "depth")
            )
        )

    def gc(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Frees what no checkpoint needs, and what dead saves left: the document "caisson.gc/1"."""
        return self._document(lib.handle("gc_start", self._handle.value, dry_run))

    def _document(self, handle: int) -> dict[str, Any]:
        future = Future(handle, self)
        future.finish()
        document: dict[str, Any] = json.loads(future.text())
        return document

    def metrics(self) -> str:
        """What saves and restores of this Store have done, in Prometheus' text format."""
        return lib.take_bytes(lib.handle("store_metrics", self._handle.value)).decode()

    def remove(self, name: str) -> None:
        """Gives the checkpoint up; gc frees its space."""
        lib.call("remove", self._handle.value, encode(name, "name"))

"""The engine's own surface in Python: shards in, boxes out, many ranks, one call for many tensors.

`caisson.save` and `caisson.load` are built on this, and so is `caisson.torch`. Nothing here copies
a tensor's bytes. Every call that takes time runs in a thread of the engine, with the interpreter
lock released; an interrupt (Ctrl-C) cancels it. Errors are CaissonError subclasses.
"""

from __future__ import annotations

import ctypes
import json
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from ctypes import byref, c_char_p, c_uint64, c_void_p, sizeof
from dataclasses import dataclass, field
from typing import Any

from caisson import _abi
from caisson._abi import RANK_MAX, encode, lib
from caisson._errors import CaissonError, InvalidArgumentError, WaitTimeoutError

# safetensors' names, and the engine's for what safetensors lacks -> DLPack code, bits.
DTYPES: dict[str, tuple[int, int]] = {
    "BOOL": (6, 8),
    "F4": (17, 4),
    "F6_E2M3": (15, 6),
    "F6_E3M2": (16, 6),
    "U8": (1, 8),
    "I8": (0, 8),
    "F8_E5M2": (12, 8),
    "F8_E4M3": (10, 8),
    "F8_E8M0": (14, 8),
    "F8_E4M3FNUZ": (11, 8),
    "F8_E5M2FNUZ": (13, 8),
    "I16": (0, 16),
    "U16": (1, 16),
    "F16": (2, 16),
    "BF16": (4, 16),
    "I32": (0, 32),
    "U32": (1, 32),
    "F32": (2, 32),
    "C64": (5, 64),
    "F64": (2, 64),
    "I64": (0, 64),
    "U64": (1, 64),
    "I4": (0, 4),
    "U4": (1, 4),
    "F8_E3M4": (7, 8),
    "F8_E4M3_IEEE": (8, 8),
    "F8_E4M3B11FNUZ": (9, 8),
    "C32": (5, 32),
    "C128": (5, 128),
}
_DTYPE_NAMES = {code_and_bits: name for name, code_and_bits in DTYPES.items()}

# The structs of c.h that come in arrays, as records. Each is naturally aligned.
_SHARD = struct.Struct("=IBBBBQQII8Q8Q8Q8q")
_BLOB = struct.Struct("=IIQQQ")
_ALIAS = struct.Struct("=IIQQ")
_TARGET = struct.Struct("=IBBBBQQ8Q8Q8q")
_TENSOR = struct.Struct("=IBBBBQQQ8Q8QQQQ")
_BOX = struct.Struct("=8Q8Q")
_PAD = tuple((0,) * (RANK_MAX - rank) for rank in range(RANK_MAX + 1))
_ZEROS = (0,) * RANK_MAX

_WAIT_SLICE_NS = 200_000_000  # so that an interrupt is seen; an end is seen at once


@dataclass(slots=True)
class Shard:
    """One box of one tensor, and where its bytes are.

    Attributes:
        name: of the tensor, the same on every rank.
        dtype: safetensors' name, such as "F32", "BF16", "F8_E4M3" (DTYPES has all).
        shape: of the whole tensor, in elements.
        offset, extent: the box that this shard is.
        address: of its first element; 0 only for an empty box.
        strides_bytes: of the memory, or None where it is contiguous and row-major.
        replica: (i, n): this is copy i of n equal ones, and writes its share only.
        owner: what must stay alive while the address is used.
    """

    name: str
    dtype: str
    shape: Sequence[int]
    offset: Sequence[int]
    extent: Sequence[int]
    address: int
    strides_bytes: Sequence[int] | None = None
    replica: tuple[int, int] = (0, 1)
    owner: object = None


@dataclass(slots=True)
class Target:
    """Where a restore puts one box of one tensor. The element width is the stored tensor's."""

    name: str
    offset: Sequence[int]
    extent: Sequence[int]
    address: int
    strides_bytes: Sequence[int] | None = None
    owner: object = None


@dataclass(slots=True)
class SaveOptions:
    """How a checkpoint is saved; see caisson.save for the words.

    `memory_check` is "sampled", "off" or "full": how memory that was lent and changed during the
    save is noticed.
    """

    codec: str = "auto"
    dedup: bool = True
    base: str = ""
    stage: bool = False
    memory_check: str = "sampled"
    overwrite: bool = False
    metadata_json: str = "{}"
    workers: int = 1


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What a save did. Sizes in bytes, times in seconds."""

    name: str
    tensors: int
    tiles: int
    raw_bytes: int
    deduplicated_bytes: int
    stored_bytes: int
    stall_seconds: float
    seconds: float
    warning: str


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """One checkpoint of a store. With a `problem`, the fields after it are unknown."""

    name: str
    run: str
    step: int
    latest: bool
    rolled_back: bool
    epoch: int
    commit_seq: int
    problem: str
    created_unix_ns: int
    tensors: int
    ranks: int
    raw_bytes: int
    stored_bytes: int
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def pinned(self) -> str:
        """A name that means this checkpoint or none, whatever is saved meanwhile."""
        return f"{self.name}@{self.commit_seq}"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor or blob of a checkpoint. `shards`: (offset, extent, rank) of what was saved."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blob: bool
    alias_of: str
    raw_bytes: int
    tile: tuple[int, ...]
    shards: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...]


def _records(data: bytearray) -> int | None:
    """The address of packed records; the bytearray must outlive its use."""
    return ctypes.addressof(ctypes.c_char.from_buffer(data)) if data else None


class _Texts:
    """Names, one after the other in one buffer, so that a batch makes one allocation."""

    def __init__(self, texts: Iterable[str], what: str) -> None:
        encoded = [encode(text, what) for text in texts]
        self._buffer = ctypes.create_string_buffer(b"\0".join(encoded))
        at = ctypes.addressof(self._buffer)
        self.addresses: list[int] = []
        for text in encoded:
            self.addresses.append(at)
            at += len(text) + 1


def _dims(values: Sequence[int], rank: int) -> tuple[int, ...]:
    return (*values, *_PAD[rank])


def _check_rank(name: str, *dims: Sequence[int] | None) -> int:
    rank = len(dims[0]) if dims[0] is not None else 0
    if any(d is not None and len(d) != rank for d in dims):
        raise InvalidArgumentError(f'"{name}": shape, offset, extent and strides differ in length')
    if rank > RANK_MAX:
        raise InvalidArgumentError(f'"{name}" has {rank} dimensions; at most {RANK_MAX} are stored')
    return rank


class _Input:
    """A caisson_save_input, and all that it points to."""

    def __init__(
        self, shards: Sequence[Shard], blobs: Mapping[str, bytes], aliases: Mapping[str, str]
    ) -> None:
        self._shards = self._pack_shards(shards)
        self._blobs = self._pack_blobs(blobs)
        self._aliases = self._pack_aliases(aliases)
        self.struct = _abi.SaveInput(
            sizeof(_abi.SaveInput),
            0,
            _records(self._shards),
            len(shards),
            _records(self._blobs),
            len(blobs),
            _records(self._aliases),
            len(aliases),
        )

    def _pack_shards(self, shards: Sequence[Shard]) -> bytearray:
        self._shard_names = _Texts((s.name for s in shards), "tensor's name")
        packed = bytearray(_SHARD.size * len(shards))
        for i, (s, name) in enumerate(zip(shards, self._shard_names.addresses)):
            try:
                code, bits = DTYPES[s.dtype]
            except KeyError:
                known = ", ".join(DTYPES)
                raise InvalidArgumentError(
                    f'"{s.name}": no dtype "{s.dtype}"; known are {known}'
                ) from None
            rank = _check_rank(s.name, s.shape, s.offset, s.extent, s.strides_bytes)
            strided = s.strides_bytes is not None
            try:
                _SHARD.pack_into(
                    packed,
                    i * _SHARD.size,
                    _SHARD.size,
                    code,
                    bits,
                    rank,
                    strided,
                    name,
                    s.address,
                    *s.replica,
                    *_dims(s.shape, rank),
                    *_dims(s.offset, rank),
                    *_dims(s.extent, rank),
                    *(_ZEROS if s.strides_bytes is None else _dims(s.strides_bytes, rank)),
                )
            except struct.error as error:
                raise InvalidArgumentError(f'"{s.name}": {error}') from None
        return packed

    def _pack_blobs(self, blobs: Mapping[str, bytes]) -> bytearray:
        self._blob_names = _Texts(blobs, "blob's name")
        # A c_char_p refers to the bytes object's own memory, and keeps it alive.
        self._contents = [c_char_p(bytes(content)) for content in blobs.values()]
        packed = bytearray(_BLOB.size * len(blobs))
        for i, (name, content, given) in enumerate(
            zip(self._blob_names.addresses, self._contents, blobs.values())
        ):
            address = ctypes.cast(content, c_void_p).value or 0
            _BLOB.pack_into(packed, i * _BLOB.size, _BLOB.size, 0, name, address, len(given))
        return packed

    def _pack_aliases(self, aliases: Mapping[str, str]) -> bytearray:
        self._alias_names = _Texts(aliases, "alias")
        self._alias_targets = _Texts(aliases.values(), "alias's target")
        packed = bytearray(_ALIAS.size * len(aliases))
        for i, (name, target) in enumerate(
            zip(self._alias_names.addresses, self._alias_targets.addresses)
        ):
            _ALIAS.pack_into(packed, i * _ALIAS.size, _ALIAS.size, 0, name, target)
        return packed


_MEMORY_CHECKS = {"sampled": 0, "off": 1, "full": 2}


def _save_options(options: SaveOptions | None) -> _abi.SaveOptions:
    options = options or SaveOptions()
    if options.memory_check not in _MEMORY_CHECKS:
        raise InvalidArgumentError(
            f'memory_check "{options.memory_check}": known are {", ".join(_MEMORY_CHECKS)}'
        )
    if not 0 <= options.workers < 1 << 16:
        raise InvalidArgumentError(f"workers = {options.workers}")
    return _abi.SaveOptions(
        sizeof(_abi.SaveOptions),
        (not options.dedup) * 1 | options.stage * 2 | options.overwrite * 4,
        encode(options.codec, "codec"),
        encode(options.base, "base"),
        encode(options.metadata_json, "metadata"),
        options.workers,
        _MEMORY_CHECKS[options.memory_check],
    )


def _take_report(handle: int) -> SaveReport:
    fields = _abi.SaveReport(struct_size=sizeof(_abi.SaveReport))
    try:
        lib.call("report_get", handle, byref(fields))
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
    ) -> Future:
        """put(), but it returns at once: the memory is lent until the future has finished."""
        given = _Input(shards, blobs or {}, aliases or {})
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
    ) -> Store:
        """Opens the store in a directory.

        Args:
            url: a path, or file:// and a path.
            create: make it where the directory is absent or empty; else NotFoundError.
            memory_bytes_max: staging memory of all saves and restores, 0 for the default.
            io_engine: "auto", "io_uring", "threads" or "buffered".
            trace: record what saves and restores do, for trace_json().
        """
        options = _abi.StoreOptions(
            sizeof(_abi.StoreOptions),
            (not create) * 1 | trace * 2,
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
    ) -> PendingSave:
        """Starts a save of a whole checkpoint, "run/step". The memory is lent until the save has
        finished, unless options.stage copies it first."""
        given = _Input(shards, blobs or {}, aliases or {})
        handle = lib.handle(
            "save_start",
            self._handle.value,
            encode(name, "name"),
            byref(given.struct),
            byref(_save_options(options)),
        )
        return PendingSave(handle, (given, shards))

    def begin_save(self, name: str, options: SaveOptions | None = None) -> str:
        """Begins a save by many ranks; every rank gets the ticket."""
        handle = lib.handle(
            "save_begin",
            self._handle.value,
            encode(name, "name"),
            byref(_save_options(options)),
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
                byref(_save_options(options)),
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
            byref(_save_options(options)),
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
        names = _Texts((t.name for t in targets), "tensor's name")
        packed = bytearray(_TARGET.size * len(targets))
        for i, (t, text) in enumerate(zip(targets, names.addresses)):
            rank = _check_rank(t.name, t.offset, t.extent, t.strides_bytes)
            try:
                _TARGET.pack_into(
                    packed,
                    i * _TARGET.size,
                    _TARGET.size,
                    rank,
                    t.strides_bytes is not None,
                    0,
                    0,
                    text,
                    t.address,
                    *_dims(t.offset, rank),
                    *_dims(t.extent, rank),
                    *(_ZEROS if t.strides_bytes is None else _dims(t.strides_bytes, rank)),
                )
            except struct.error as error:
                raise InvalidArgumentError(f'"{t.name}": {error}') from None
        options = _abi.RestoreOptions(sizeof(_abi.RestoreOptions), workers)
        handle = lib.handle(
            "restore_start",
            self._handle.value,
            encode(name, "name"),
            _records(packed),
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
            records = ctypes.string_at(at, count.value * _TENSOR.size)
            return [_tensor_info(record) for record in _TENSOR.iter_unpack(records)]
        finally:
            lib.functions["tensor_list_free"](handle)

    def remove(self, name: str) -> None:
        """Gives the checkpoint up; gc frees its space."""
        lib.call("remove", self._handle.value, encode(name, "name"))


def _tensor_info(record: tuple[int, ...]) -> TensorInfo:
    _, code, bits, rank, blob, name, alias_of, raw_bytes = record[:8]
    shape, tile = record[8 : 8 + rank], record[16 : 16 + rank]
    shards_count, boxes, ranks = record[24:]
    shards = []
    if shards_count:
        places = struct.unpack(f"={shards_count}I", ctypes.string_at(ranks, 4 * shards_count))
        packed = ctypes.string_at(boxes, _BOX.size * shards_count)
        for box, place in zip(_BOX.iter_unpack(packed), places):
            shards.append((box[:rank], box[RANK_MAX : RANK_MAX + rank], place))
    return TensorInfo(
        ctypes.string_at(name).decode(),
        _DTYPE_NAMES.get((code, bits), f"?{code}/{bits}"),
        shape,
        bool(blob),
        ctypes.string_at(alias_of).decode(),
        raw_bytes,
        tile,
        tuple(shards),
    )

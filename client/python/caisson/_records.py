"""What goes into the engine and what comes out of it, as dataclasses; and batches of them packed
into the structs of c.h, one buffer for each kind.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Mapping, Sequence
from ctypes import c_char_p, c_void_p, sizeof
from dataclasses import dataclass, field
from typing import Any

from caisson import _abi
from caisson._abi import RANK_MAX, encode
from caisson._errors import InvalidArgumentError

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
DTYPE_NAMES = {code_and_bits: name for name, code_and_bits in DTYPES.items()}

# The structs of c.h that come in arrays, as records. Each is naturally aligned.
SHARD = struct.Struct("=IBBBBQQII8Q8Q8Q8q")
BLOB = struct.Struct("=IIQQQ")
ALIAS = struct.Struct("=IIQQ")
TARGET = struct.Struct("=IBBBBQQ8Q8Q8q")
TENSOR = struct.Struct("=IBBBBQQQ8Q8QQQQ")
BOX = struct.Struct("=8Q8Q")
_PAD = tuple((0,) * (RANK_MAX - rank) for rank in range(RANK_MAX + 1))
_ZEROS = (0,) * RANK_MAX

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
    save is noticed. `codec_cpu_max` bounds the cores that the codec "auto" spends, 0 does not.
    """

    codec: str = "auto"
    dedup: bool = True
    base: str = ""
    stage: bool = False
    memory_check: str = "sampled"
    overwrite: bool = False
    metadata_json: str = "{}"
    workers: int = 0
    delta: str = ""
    codec_cpu_max: float = 0
    deterministic: bool = False


@dataclass(frozen=True, slots=True)
class CodecUse:
    """How much of what was newly stored has which codec, and why that one. Sizes in bytes."""

    codec: str
    reason: str
    chunks: int
    raw_bytes: int
    stored_bytes: int


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
    codecs: tuple[CodecUse, ...] = ()


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


def address_of(data: bytearray) -> int | None:
    """The address of packed records; the bytearray must outlive its use."""
    return ctypes.addressof(ctypes.c_char.from_buffer(data)) if data else None


class Texts:
    """Names, one after the other in one buffer, so that a batch makes one allocation."""

    def __init__(self, texts: Iterable[str], what: str) -> None:
        encoded = [encode(text, what) for text in texts]
        self._buffer = ctypes.create_string_buffer(b"\0".join(encoded))
        at = ctypes.addressof(self._buffer)
        self.addresses: list[int] = []
        for text in encoded:
            self.addresses.append(at)
            at += len(text) + 1


def dims(values: Sequence[int], rank: int) -> tuple[int, ...]:
    return (*values, *_PAD[rank])


def check_rank(name: str, *dims: Sequence[int] | None) -> int:
    rank = len(dims[0]) if dims[0] is not None else 0
    if any(d is not None and len(d) != rank for d in dims):
        raise InvalidArgumentError(f'"{name}": shape, offset, extent and strides differ in length')
    if rank > RANK_MAX:
        raise InvalidArgumentError(f'"{name}" has {rank} dimensions; at most {RANK_MAX} are stored')
    return rank


class Input:
    """A caisson_save_input, and all that it points to."""

    def __init__(
        self,
        shards: Sequence[Shard],
        blobs: Mapping[str, bytes],
        aliases: Mapping[str, str],
        deferred: bool = False,
    ) -> None:
        self._shards = self._pack_shards(shards)
        self._blobs = self._pack_blobs(blobs)
        self._aliases = self._pack_aliases(aliases)
        self.struct = _abi.SaveInput(
            sizeof(_abi.SaveInput),
            deferred * 1,
            address_of(self._shards),
            len(shards),
            address_of(self._blobs),
            len(blobs),
            address_of(self._aliases),
            len(aliases),
        )

    def _pack_shards(self, shards: Sequence[Shard]) -> bytearray:
        self._shard_names = Texts((s.name for s in shards), "tensor's name")
        packed = bytearray(SHARD.size * len(shards))
        for i, (s, name) in enumerate(zip(shards, self._shard_names.addresses)):
            try:
                code, bits = DTYPES[s.dtype]
            except KeyError:
                known = ", ".join(DTYPES)
                raise InvalidArgumentError(
                    f'"{s.name}": no dtype "{s.dtype}"; known are {known}'
                ) from None
            rank = check_rank(s.name, s.shape, s.offset, s.extent, s.strides_bytes)
            strided = s.strides_bytes is not None
            try:
                SHARD.pack_into(
                    packed,
                    i * SHARD.size,
                    SHARD.size,
                    code,
                    bits,
                    rank,
                    strided,
                    name,
                    s.address,
                    *s.replica,
                    *dims(s.shape, rank),
                    *dims(s.offset, rank),
                    *dims(s.extent, rank),
                    *(_ZEROS if s.strides_bytes is None else dims(s.strides_bytes, rank)),
                )
            except struct.error as error:
                raise InvalidArgumentError(f'"{s.name}": {error}') from None
        return packed

    def _pack_blobs(self, blobs: Mapping[str, bytes]) -> bytearray:
        self._blob_names = Texts(blobs, "blob's name")
        # A c_char_p refers to the bytes object's own memory, and keeps it alive.
        self._contents = [c_char_p(bytes(content)) for content in blobs.values()]
        packed = bytearray(BLOB.size * len(blobs))
        for i, (name, content, given) in enumerate(
            zip(self._blob_names.addresses, self._contents, blobs.values())
        ):
            address = ctypes.cast(content, c_void_p).value or 0
            BLOB.pack_into(packed, i * BLOB.size, BLOB.size, 0, name, address, len(given))
        return packed

    def _pack_aliases(self, aliases: Mapping[str, str]) -> bytearray:
        self._alias_names = Texts(aliases, "alias")
        self._alias_targets = Texts(aliases.values(), "alias's target")
        packed = bytearray(ALIAS.size * len(aliases))
        for i, (name, target) in enumerate(
            zip(self._alias_names.addresses, self._alias_targets.addresses)
        ):
            ALIAS.pack_into(packed, i * ALIAS.size, ALIAS.size, 0, name, target)
        return packed


class Targets:
    """An array of caisson_target, and all that it points to."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._names = Texts((t.name for t in targets), "tensor's name")
        self._packed = bytearray(TARGET.size * len(targets))
        for i, (t, name) in enumerate(zip(targets, self._names.addresses)):
            rank = check_rank(t.name, t.offset, t.extent, t.strides_bytes)
            try:
                TARGET.pack_into(
                    self._packed,
                    i * TARGET.size,
                    TARGET.size,
                    rank,
                    t.strides_bytes is not None,
                    0,
                    0,
                    name,
                    t.address,
                    *dims(t.offset, rank),
                    *dims(t.extent, rank),
                    *(_ZEROS if t.strides_bytes is None else dims(t.strides_bytes, rank)),
                )
            except struct.error as error:
                raise InvalidArgumentError(f'"{t.name}": {error}') from None
        self.address = address_of(self._packed)


_MEMORY_CHECKS = {"sampled": 0, "off": 1, "full": 2}


def pack_save_options(options: SaveOptions | None) -> _abi.SaveOptions:
    options = options or SaveOptions()
    if options.memory_check not in _MEMORY_CHECKS:
        raise InvalidArgumentError(
            f'memory_check "{options.memory_check}": known are {", ".join(_MEMORY_CHECKS)}'
        )
    if not 0 <= options.workers < 1 << 16:
        raise InvalidArgumentError(f"workers = {options.workers}")
    return _abi.SaveOptions(
        sizeof(_abi.SaveOptions),
        (not options.dedup) * 1
        | options.stage * 2
        | options.overwrite * 4
        | options.deterministic * 8,
        encode(options.codec, "codec"),
        encode(options.base, "base"),
        encode(options.metadata_json, "metadata"),
        options.workers,
        _MEMORY_CHECKS[options.memory_check],
        encode(options.delta, "delta"),
        options.codec_cpu_max,
    )


def tensor_info(record: tuple[int, ...]) -> TensorInfo:
    _, code, bits, rank, blob, name, alias_of, raw_bytes = record[:8]
    shape, tile = record[8 : 8 + rank], record[16 : 16 + rank]
    shards_count, boxes, ranks = record[24:]
    shards = []
    if shards_count:
        places = struct.unpack(f"={shards_count}I", ctypes.string_at(ranks, 4 * shards_count))
        packed = ctypes.string_at(boxes, BOX.size * shards_count)
        for box, place in zip(BOX.iter_unpack(packed), places):
            shards.append((box[:rank], box[RANK_MAX : RANK_MAX + rank], place))
    return TensorInfo(
        ctypes.string_at(name).decode(),
        DTYPE_NAMES.get((code, bits), f"?{code}/{bits}"),
        shape,
        bool(blob),
        ctypes.string_at(alias_of).decode(),
        raw_bytes,
        tile,
        tuple(shards),
    )

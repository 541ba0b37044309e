"""Dicts of arrays to shards, and back: what a save hands to the engine, and how a load finds out
where every byte goes before it reads the first."""

from __future__ import annotations

import fnmatch
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from caisson import _arrays
from caisson._arrays import Memory
from caisson._collector import collector_paused
from caisson._errors import InvalidArgumentError, TensorMismatchError
from caisson._native import Shard, Store, Target, TensorInfo

_CONVERT_BYTES = 256 << 20  # of stored bytes that wait for their conversion at once


@collector_paused()
def shards_of(tensors: Mapping[str, Any]) -> tuple[list[Shard], dict[str, str]]:
    """The shards of whole tensors; those that are one and the same memory become aliases."""
    if not isinstance(tensors, Mapping):
        raise InvalidArgumentError(f"tensors is a {type(tensors).__name__}; give a dict of arrays")
    shards: list[Shard] = []
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, array in tensors.items():
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a tensor's name is a {type(name).__name__}: {name!r}")
        if isinstance(array, Mapping):
            raise InvalidArgumentError(
                f'"{name}" is a dict: flatten it ("{name}.key"), or save it by caisson.torch'
            )
        memory = _arrays.describe(name, array)
        first = seen.setdefault(memory.identity, name)
        if first is not name and math.prod(memory.shape) > 0:
            aliases[name] = first
            continue
        shards.append(
            Shard(
                name,
                memory.dtype,
                memory.shape,
                (0,) * len(memory.shape),
                memory.shape,
                memory.address,
                memory.strides_bytes,
                owner=memory.owner,
            )
        )
    return shards, aliases


@dataclass(slots=True)
class LoadRequest:
    """The arguments of a load; see caisson.load."""

    tensors: str | Iterable[str] | Mapping[str, Any] | None
    out: Mapping[str, Any] | None
    device: str
    framework: str
    dtype: Any
    convert: bool
    pad: float | None
    workers: int


@dataclass(slots=True)
class _Wanted:
    """A box of a stored tensor."""

    name: str
    info: TensorInfo
    offset: tuple[int, ...]
    extent: tuple[int, ...]

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for boxes of the same stored bytes: tied weights are loaded once."""
        return (self.info.alias_of or self.name, self.offset, self.extent)

    @property
    def packed_bytes(self) -> int:
        return _arrays.packed_bytes(self.info.dtype, self.extent)

    def target(self, address: int, strides: tuple[int, ...] | None, owner: object) -> Target:
        return Target(self.name, self.offset, self.extent, address, strides, owner)


def load(store: Store, pinned: str, shown: str, request: LoadRequest) -> dict[str, Any]:
    """Loads from the checkpoint `pinned`, which messages call `shown`."""
    if request.framework not in ("numpy", "torch"):
        raise InvalidArgumentError(f'framework "{request.framework}": known are numpy and torch')
    if request.device != "cpu" and (request.framework != "torch" or request.out is not None):
        raise InvalidArgumentError(
            f'device "{request.device}" is for new tensors of framework="torch"'
        )
    stored = {info.name: info for info in store.tensors(pinned)}
    problems: list[str] = []
    wanted = _select(stored, request, problems)
    if request.out is not None:
        return _load_into(store, pinned, shown, wanted, request, problems)
    _raise(shown, problems)
    return _load_new(store, pinned, wanted, request)


def _raise(shown: str, problems: list[str]) -> None:
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise TensorMismatchError(
            f"{shown} cannot fill {len(problems)} of the tensors:{lines}\nnothing was read",
            tuple(problems),
        )


# ---- what is wanted


def _select(
    stored: Mapping[str, TensorInfo], request: LoadRequest, problems: list[str]
) -> list[_Wanted]:
    chosen = request.tensors
    if chosen is None and request.out is not None:
        chosen = request.out.keys()
    if chosen is None or isinstance(chosen, str):
        glob = chosen if chosen is not None else "*"
        names = [n for n, t in stored.items() if not t.blob and fnmatch.fnmatchcase(n, glob)]
        if chosen is not None and not names:
            problems.append(f'"{chosen}": no tensor matches it')
        return [_whole(name, stored[name]) for name in names]
    wanted = []
    for name in chosen:
        info = stored.get(name)
        if info is None:
            problems.append(f'"{name}": no such tensor')
        elif info.blob:
            problems.append(f'"{name}": a blob, not a tensor; read_blob gives it')
        elif isinstance(chosen, Mapping) and chosen[name] is not None:
            box = _box(info, chosen[name], problems)
            if box is not None:
                wanted.append(box)
        else:
            wanted.append(_whole(name, info))
    return wanted


def _whole(name: str, info: TensorInfo) -> _Wanted:
    return _Wanted(name, info, (0,) * len(info.shape), info.shape)


def _box(info: TensorInfo, slices: Any, problems: list[str]) -> _Wanted | None:
    given = slices if isinstance(slices, tuple) else (slices,)
    if len(given) > len(info.shape) or not all(isinstance(s, slice) for s in given):
        problems.append(f'"{info.name}": {slices!r} is no box of shape {list(info.shape)}')
        return None
    given += (slice(None),) * (len(info.shape) - len(given))
    ranges = [range(*s.indices(extent)) for s, extent in zip(given, info.shape)]
    if any(r.step != 1 for r in ranges):
        problems.append(f'"{info.name}": a box has no steps, as {slices!r} has')
        return None
    return _Wanted(
        info.name, info, tuple(r.start for r in ranges), tuple(max(0, len(r)) for r in ranges)
    )


# ---- into new memory


def _load_new(
    store: Store, pinned: str, wanted: list[_Wanted], request: LoadRequest
) -> dict[str, Any]:
    view = _arrays.view_torch if request.framework == "torch" else _arrays.view_numpy
    into = None if request.dtype is None else _arrays.dtype_name(request.dtype)
    with collector_paused():
        once = {want.identity: want for want in wanted}
        final = {
            identity: into if into is not None and _is_float(want.info.dtype) else want.info.dtype
            for identity, want in once.items()
        }
        for dtype in set(final.values()):  # before anything is read
            view(np.empty(0, dtype=np.uint8), dtype, (0,))
        memory = dict(
            zip(
                once,
                _arrays.allocate(
                    _arrays.packed_bytes(final[identity], want.extent)
                    for identity, want in once.items()
                ),
            )
        )
        arrays = {
            identity: view(memory[identity], final[identity], want.extent)
            for identity, want in once.items()
        }
        same = {i: want for i, want in once.items() if final[i] == want.info.dtype}
        targets = [w.target(memory[i].ctypes.data, None, memory[i]) for i, w in same.items()]
    if targets:
        store.restore(pinned, targets, workers=request.workers)
    converted = [(want, arrays[i]) for i, want in once.items() if i not in same]
    _restore_converted(store, pinned, converted, request)
    if request.device != "cpu":
        arrays = {identity: array.to(request.device) for identity, array in arrays.items()}
    return {want.name: arrays[want.identity] for want in wanted}


def _is_float(dtype: str) -> bool:
    return dtype.startswith(("F", "BF"))


# ---- into memory of the caller


def _load_into(
    store: Store,
    pinned: str,
    shown: str,
    wanted: list[_Wanted],
    request: LoadRequest,
    problems: list[str],
) -> dict[str, Any]:
    assert request.out is not None
    direct: list[Target] = []
    converted: list[tuple[_Wanted, Any]] = []
    padded: list[Any] = []
    for want in wanted:
        if want.name not in request.out:
            problems.append(f'"{want.name}": out has no array for it')
            continue
        array = request.out[want.name]
        memory = _arrays.describe(want.name, array, writable=True)
        problem = _mismatch(want, memory, request)
        if problem:
            problems.append(problem)
            continue
        if memory.shape != want.extent:
            padded.append(array)
        if memory.dtype != want.info.dtype:
            converted.append((want, array))
        else:
            strides = memory.strides_bytes
            if strides is None and memory.shape != want.extent:
                strides = _contiguous_strides(memory)
            direct.append(want.target(memory.address, strides, memory.owner))
    _raise(shown, problems)
    for array in padded:
        _fill(array, request.pad)
    if direct:
        store.restore(pinned, direct, workers=request.workers)
    _restore_converted(store, pinned, converted, request)
    return {want.name: request.out[want.name] for want in wanted}


def _mismatch(want: _Wanted, memory: Memory, request: LoadRequest) -> str:
    found = []
    stored, given = want.extent, memory.shape
    grows = len(stored) == len(given) and all(s <= g for s, g in zip(stored, given))
    if stored != given and not (grows and request.pad is not None):
        hint = "; pad= loads into a larger one" if grows else ""
        found.append(f"stored with shape {list(stored)}, wanted {list(given)}{hint}")
    elif stored != given and _arrays.element_bits(want.info.dtype) % 8:
        found.append(f"{want.info.dtype} cannot be padded")
    if memory.dtype != want.info.dtype and not request.convert:
        found.append(f"stored as {want.info.dtype}, wanted {memory.dtype}; convert= converts")
    return f'"{want.name}": ' + ", ".join(found) if found else ""


def _contiguous_strides(memory: Memory) -> tuple[int, ...]:
    strides = []
    step = _arrays.element_bits(memory.dtype) // 8
    for extent in reversed(memory.shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def _is_torch(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def _fill(array: Any, value: float | None) -> None:
    if _is_torch(array):
        array.detach().fill_(value)
    else:
        np.asarray(array)[...] = value


def _restore_converted(
    store: Store, pinned: str, converted: list[tuple[_Wanted, Any]], request: LoadRequest
) -> None:
    """Restores in the stored dtype and converts, a bounded number of bytes at a time."""
    at = 0
    while at < len(converted):
        batch = [converted[at]]
        size = batch[0][0].packed_bytes
        while at + len(batch) < len(converted):
            following = converted[at + len(batch)]
            size += following[0].packed_bytes
            if size > _CONVERT_BYTES:
                break
            batch.append(following)
        at += len(batch)
        memories = _arrays.allocate(want.packed_bytes for want, _ in batch)
        targets = [w.target(m.ctypes.data, None, m) for (w, _), m in zip(batch, memories)]
        store.restore(pinned, targets, workers=request.workers)
        for (want, array), memory in zip(batch, memories):
            region = tuple(slice(0, extent) for extent in want.extent)
            if _is_torch(array):
                array.detach()[region].copy_(
                    _arrays.view_torch(memory, want.info.dtype, want.extent)
                )
            else:
                np.asarray(array)[region] = _arrays.view_numpy(
                    memory, want.info.dtype, want.extent
                )

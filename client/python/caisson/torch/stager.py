"""Copies a state dict aside for async_save, as fast as memory allows.

All tensors go to one arena of shared memory, in one batch of copies. The arena stays for the next
save, and so do the views into it while the tensors keep their shapes: then a save costs the copy.
Values are copied, not pickled; that is for the thread or process that saves.

Only one save has the arena at a time. Two saves that overlap on one process group would wait for
each other's messages for ever, so stage() first waits for the one before.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.staging import AsyncStager
from torch.distributed.tensor import DTensor

from caisson._collector import collector_paused
from caisson.torch import plain
from caisson.torch.arena import ALIGNMENT, Arena
from caisson.torch.staged import SaveInProgress, StagedState
from caisson.torch.stores import worker_count
from caisson.torch.tensors import is_plain, local_tensor

_log = logging.getLogger(__name__)

_BEGIN_SECONDS = 60.0


class CaissonStager(AsyncStager):
    """`async_stager=` of async_save; a CaissonStorageWriter brings its own. Thread-safe."""

    _synchronize_after_execute = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arena = Arena()
        self._slots: list[_Slot] = []  # of the tensors of the last state dict, in their order
        self._last: SaveInProgress | None = None

    def reserve(self, state_dict: Mapping[str, Any]) -> None:
        """Makes room for a state dict like this one and finds the memory in the background, so that
        not even the first save waits for it. Call it once the model and its optimizer are there."""
        with self._lock:
            walk = _Walk()
            walk.copy(state_dict)
            self._finish_last()
            self._lay_out(walk.tensors)
            self._arena.populate()

    def stage(self, state_dict: dict[str, Any]) -> StagedState:
        """A copy that does not change any more. Waits for the save before to finish."""
        with self._lock:
            self._finish_last()
            walk = _Walk()
            with collector_paused():
                entries = walk.copy(state_dict)
                self._lay_out(walk.tensors)
            pairs = [(s.view, t) for s, t in zip(self._slots, walk.tensors) if s.first]
            if pairs:
                _copy([v for v, _ in pairs], [local_tensor(t) for _, t in pairs])
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            walk.put([slot.value for slot in self._slots])
            staged = StagedState(entries, self._arena)
            self._last = staged.save
            return staged

    def synchronize_staging(self) -> None:
        """Nothing to wait for: stage() returns when everything is copied."""

    def close(self) -> None:
        """Gives the memory back, once the last save has finished."""
        with self._lock:
            self._finish_last()
            self._slots = []
            self._arena = Arena()

    def _finish_last(self) -> None:
        last, self._last = self._last, None
        if last is not None and not last.wait(_BEGIN_SECONDS):
            # It may still begin, and read its memory: that stays with it.
            _log.warning("a state dict was staged %.0f s ago and never saved", _BEGIN_SECONDS)
            self._slots, self._arena = [], Arena()

    def _lay_out(self, tensors: list[torch.Tensor]) -> None:
        """Gives every tensor its place; the places of the last save where they fit."""
        if len(tensors) == len(self._slots) and all(
            slot.fits(tensor) for tensor, slot in zip(tensors, self._slots)
        ):
            return
        locals_ = [local_tensor(tensor) for tensor in tensors]
        offsets: list[int] = []
        seen: dict[Any, int] = {}
        end = 0
        for local in locals_:
            key = local.data_ptr(), local.shape, local.stride(), local.dtype, local.device
            known = seen.get(key) if local.numel() else None
            if known is None:
                seen[key] = known = end
                end += -(-local.nbytes // ALIGNMENT) * ALIGNMENT
                offsets.append(known)
            else:
                offsets.append(-1 - known)  # tied: staged once
        self._arena.reserve(end)
        self._slots = [
            _Slot(tensor, local, offset, self._arena)
            for tensor, local, offset in zip(tensors, locals_, offsets)
        ]


def _copy(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """In threads that copy whole tensors, each for itself. Those that PyTorch would use meet after
    every tensor, and where a processor is not idle they wait for each other: measured, ten times
    as long as one thread alone."""
    count = worker_count()
    share = sum(target.nbytes for target in targets) // count + 1
    groups: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = [([], []) for _ in range(count)]
    done = 0
    for target, source in zip(targets, sources):
        group = groups[done // share]
        group[0].append(target)
        group[1].append(source)
        done += target.nbytes
    errors: list[Exception] = []

    def run(group: tuple[list[torch.Tensor], list[torch.Tensor]]) -> None:
        torch.set_num_threads(1)
        try:
            with torch.no_grad():
                torch._foreach_copy_(*group)
        except Exception as error:
            errors.append(error)

    threads_before = torch.get_num_threads()
    beside = [threading.Thread(target=run, args=(group,)) for group in groups[1:] if group[0]]
    for thread in beside:
        thread.start()
    run(groups[0])
    for thread in beside:
        thread.join()
    torch.set_num_threads(threads_before)
    if errors:
        raise errors[0]


class _Slot:
    """The place of one tensor in the arena, and what stands there for it."""

    def __init__(
        self, tensor: torch.Tensor, local: torch.Tensor, offset: int, arena: Arena
    ) -> None:
        self.first = offset >= 0
        place = offset if self.first else -1 - offset
        self.view = arena.view(place, local.nbytes, local.dtype, tuple(local.shape))
        self.value = self.view
        self._key = _key(tensor)
        if isinstance(tensor, DTensor):
            self.value = DTensor(  # type: ignore[no-untyped-call]
                self.view, tensor._spec, requires_grad=False
            )

    def fits(self, tensor: torch.Tensor) -> bool:
        return bool(self._key == _key(tensor))


def _key(tensor: torch.Tensor) -> Any:
    if isinstance(tensor, DTensor):
        local, spec = tensor._local_tensor, tensor._spec
        return (
            local.data_ptr(),
            local.shape,
            local.dtype,
            spec.shape,
            id(spec.mesh),
            spec.placements,
        )
    return tensor.data_ptr(), tensor.shape, tensor.dtype


class _Walk:
    """Copies the containers and values of a state dict and notes the tensors for the arena."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []
        self._places: list[tuple[Any, Any]] = []  # container and key that each stands under

    def copy(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        copied = dict(mapping)
        for key, value in copied.items():
            self._visit(copied, key, value)
        return copied

    def put(self, values: list[torch.Tensor]) -> None:
        for (container, key), value in zip(self._places, values):
            container[key] = value

    def _visit(self, container: Any, key: Any, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if _goes_to_arena(value):
                self.tensors.append(value)
                self._places.append((container, key))
            else:
                container[key] = copy.deepcopy(value.detach()).cpu()
        elif type(value) in _IMMUTABLE or (type(value) is tuple and plain.is_plain(value)):
            pass
        elif isinstance(value, Mapping):
            container[key] = self.copy(value)
        elif type(value) is list:
            copied = container[key] = list(value)
            for number, entry in enumerate(value):
                self._visit(copied, number, entry)
        else:
            container[key] = copy.deepcopy(value)


_IMMUTABLE = frozenset((type(None), bool, int, float, str, bytes))


def _goes_to_arena(tensor: torch.Tensor) -> bool:
    if isinstance(tensor, DTensor):
        return is_plain(tensor._local_tensor)
    return is_plain(tensor)


_default: CaissonStager | None = None
_default_lock = threading.Lock()


def default_stager() -> CaissonStager:
    """The one of this process, which all writers share."""
    global _default
    with _default_lock:
        if _default is None:
            _default = CaissonStager()
        return _default

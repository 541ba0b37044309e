"""A staged state dict: a dict whose tensors lie in an arena. It knows when the save that was given
it has finished, and travels to another process as one descriptor and a few bytes a tensor."""

from __future__ import annotations

import io
import pickle
import sys
import threading
import weakref
from concurrent.futures import Future
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._dtensor_spec import DTensorSpec

from caisson.torch.arena import Arena, open_arena
from caisson.torch.cover import Ints
from caisson.torch.tensors import is_plain
from caisson.torch.values import saved, unsaved

_opening = threading.local()  # the arena of the state dict that this thread unpickles


class SaveInProgress:
    """The save that a staged state dict was made for."""

    def __init__(self) -> None:
        self._began = threading.Event()
        self._future: Future[Any] | None = None

    def begin(self) -> None:
        """Called by the thread that saves."""
        if not self._began.is_set():
            self._future = _future_of_this_thread()
            self._began.set()

    def abandon(self) -> None:
        """It will not be saved, or not any more."""
        self._began.set()

    def wait(self, timeout: float) -> bool:
        """Until the save has finished, well or not. False if it did not begin in `timeout` s."""
        if not self._began.wait(timeout):
            return False
        mine = self._future is not None and self._future is _future_of_this_thread()
        if self._future is not None and not mine and not self._future.done():
            done = threading.Event()
            self._future.add_done_callback(lambda _: done.set())
            done.wait()
        return True


def _future_of_this_thread() -> Future[Any] | None:
    """That of the work item of concurrent.futures that runs in this thread: async_save gives the
    stager no other way to learn when the save has left its last collective."""
    frame = sys._getframe()
    while frame is not None:
        if (
            frame.f_code.co_name == "run"
            and type(frame.f_locals.get("self")).__name__ == "_WorkItem"
        ):
            future: Future[Any] = frame.f_locals["self"].future
            return future
        frame = frame.f_back  # type: ignore[assignment]
    return None


class StagedState(dict[str, Any]):
    def __init__(self, entries: dict[str, Any], arena: Arena) -> None:
        super().__init__(entries)
        self.arena = arena
        self.save = SaveInProgress()
        weakref.finalize(self, self.save.abandon)  # dropped: nobody waits for it

    def items(self) -> Any:
        self.save.begin()  # the first thing that a save does
        return super().items()

    def __reduce__(self) -> tuple[Any, ...]:
        self.save.begin()
        stream = io.BytesIO()
        _Pickler(stream, self.arena).dump(dict(super().items()))
        return _open, (self.arena.handle(), stream.getvalue())


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, arena: Arena) -> None:
        super().__init__(stream, protocol=5)
        self._arena = arena

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, DTensor):
            spec = value._spec
            return _dtensor, (value._local_tensor, spec.mesh, spec.placements, spec.tensor_meta)
        if type(value) is not torch.Tensor:
            return NotImplemented
        offset = self._arena.offset_of(value) if is_plain(value) else None
        if offset is not None:
            return _view, (offset, value.nbytes, value.dtype, tuple(value.shape))
        return unsaved, (saved(value),)


def _open(handle: tuple[Any, int], content: bytes) -> dict[str, Any]:
    arena = open_arena(handle)
    _opening.arena = arena
    try:
        entries: dict[str, Any] = pickle.loads(content)
    finally:
        _opening.arena = None
    return entries


def _view(offset: int, size: int, dtype: torch.dtype, shape: Ints) -> torch.Tensor:
    arena: Arena = _opening.arena
    return arena.view(offset, size, dtype, shape)


def _dtensor(local: torch.Tensor, mesh: Any, placements: Any, meta: Any) -> DTensor:
    spec = DTensorSpec(mesh, placements, tensor_meta=meta)
    return DTensor(local, spec, requires_grad=False)  # type: ignore[no-untyped-call]

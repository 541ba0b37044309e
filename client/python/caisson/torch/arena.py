"""One piece of shared memory that tensors are staged in. It is a memfd, so another process maps the
same pages through one descriptor, whatever the number of tensors."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from multiprocessing.reduction import DupFd
from typing import Any

import torch

from caisson.torch.cover import Ints

ALIGNMENT = 64
_GROWTH = 16 << 20  # capacities are multiples of it, so that a state that grows a little fits
_MADV_POPULATE_WRITE = 23


class Arena:
    """Grows, never shrinks. Views keep the mapping that they lie in alive. Not thread-safe, but for
    populating, which goes on in a thread of its own."""

    def __init__(self, fd: int | None = None, capacity: int = 0) -> None:
        self._fd = os.memfd_create("caisson-staging", os.MFD_CLOEXEC) if fd is None else fd
        self.capacity = 0
        self.base = torch.empty(0, dtype=torch.uint8)
        self._populating: threading.Thread | None = None
        if capacity:
            self._map(capacity)

    def reserve(self, size: int) -> bool:
        """Makes it hold `size` bytes; true if it had to grow, so that old views are of no use."""
        if size <= self.capacity:
            return False
        self._wait()
        capacity = -(-size // _GROWTH) * _GROWTH
        os.ftruncate(self._fd, capacity)
        self._map(capacity)
        return True

    def populate(self) -> None:
        """Finds its pages ahead of the first copy, beside whatever else goes on."""
        self._wait()
        # Not a daemon: it must not touch the mapping while the interpreter goes away.
        self._populating = threading.Thread(target=self._populate, args=(self.base,))
        self._populating.start()

    def view(self, offset: int, size: int, dtype: torch.dtype, shape: Ints) -> torch.Tensor:
        return self.base[offset : offset + size].view(dtype).view(shape)

    def offset_of(self, tensor: torch.Tensor) -> int | None:
        """Where in the arena a tensor lies; None if elsewhere."""
        at = tensor.data_ptr() - self.base.data_ptr()
        inside = tensor.numel() > 0 and 0 <= at <= self.capacity - tensor.nbytes
        return at if inside and tensor.is_contiguous() else None

    def handle(self) -> tuple[Any, int]:
        """What to send to another process for open_arena; for one receiver."""
        return DupFd(self._fd), self.capacity

    def _map(self, capacity: int) -> None:
        mapped = mmap.mmap(self._fd, capacity)
        self.base = torch.frombuffer(mapped, dtype=torch.uint8)  # keeps the mapping alive
        self.capacity = capacity
        _pin(self.base)

    def _wait(self) -> None:
        if self._populating is not None:
            self._populating.join()
            self._populating = None

    @staticmethod
    def _populate(base: torch.Tensor) -> None:
        # In steps, so that a copy that comes meanwhile does not wait long for the mapping's lock.
        libc = ctypes.CDLL(None)
        for at in range(0, base.nbytes, _GROWTH):
            length = min(_GROWTH, base.nbytes - at)
            address = ctypes.c_void_p(base.data_ptr() + at)
            if libc.madvise(address, ctypes.c_size_t(length), _MADV_POPULATE_WRITE) != 0:
                return  # an older kernel: the first copy finds the pages

    def __del__(self) -> None:
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)


def open_arena(handle: tuple[Any, int]) -> Arena:
    sent, capacity = handle
    return Arena(sent.detach(), capacity)


def _pin(memory: torch.Tensor) -> None:
    """Registers it with the device, so that copies from there run beside other work."""
    if torch.cuda.is_available() and memory.nbytes:
        code = torch.cuda.cudart().cudaHostRegister(  # type: ignore[no-untyped-call]
            memory.data_ptr(), memory.nbytes, 0
        )
        if int(code) != 0:
            raise RuntimeError(f"cudaHostRegister of {memory.nbytes} bytes: error {int(code)}")

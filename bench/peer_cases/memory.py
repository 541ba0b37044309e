"""New memory for what is measured, and the peak of a process's resident memory over a stretch of code."""

import contextlib
import ctypes
import dataclasses
import mmap
import pathlib


@dataclasses.dataclass
class Peak:
    extra_bytes: int = 0  # by how much the peak lay over what was resident before


def wake_memory(size):
    """Has the kernel find `size` bytes, and gives them back. The kernel of a virtual machine hands memory that was free for
    two seconds back to its host, which takes seconds a GB to find it again, and whoever then asks first would be charged."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    for at in range(0, size, 4096):
        memory[at] = 1
    memory.close()


def resident_bytes(field):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


@contextlib.contextmanager
def memory_peak(before=None):
    """`before`: what was resident earlier than now, to count from there."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would hide what is taken now
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    peak = Peak()
    if before is None:
        before = resident_bytes("VmRSS")
    yield peak
    peak.extra_bytes = resident_bytes("VmHWM") - before

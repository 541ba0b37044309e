"""The peak of a process's resident memory over a stretch of code."""

import contextlib
import ctypes
import dataclasses
import pathlib


@dataclasses.dataclass
class Peak:
    extra_bytes: int = 0  # by how much the peak lay over what was resident before


def resident_bytes(field):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


@contextlib.contextmanager
def memory_peak():
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would hide what is taken now
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    peak, before = Peak(), resident_bytes("VmRSS")
    yield peak
    peak.extra_bytes = resident_bytes("VmHWM") - before

"""Keeps Python's cyclic collector out of stretches that make very many small objects, none in cycles. It would walk over all
objects of the process again and again: with torch imported, once is 0.1 s in which no thread runs Python."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0
_was_on = False


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """A context manager, and a decorator. Stretches may overlap: the last one to end lets it go on."""
    global _inside, _was_on
    with _lock:
        if _inside == 0:
            _was_on = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _was_on:
                gc.enable()

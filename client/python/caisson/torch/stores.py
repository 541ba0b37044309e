"""Opened stores. A shared store is opened once a process, so that all saves of a run are made under
one claim of it; a directory that is one checkpoint is opened for each save and load, because its
owner may have deleted it meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from caisson import _native
from caisson.torch.location import STORE_FILE, Location

_lock = threading.Lock()
_shared: dict[tuple[int, str], _native.Store] = {}


def open_store(location: Location, *, create: bool) -> _native.Store:
    """`create` makes the directories above it, too, as FileSystemWriter does."""
    if create:
        _make_directory(Path(location.root).parent)
    if location.plain:
        return _native.Store.open(location.root, create=create, create_beside_files=True)
    with _lock:
        # By process: a forked child opens a store of its own.
        key = os.getpid(), location.root
        if key not in _shared:
            _shared[key] = _native.Store.open(location.root, create=create)
        return _shared[key]


def _make_directory(path: Path) -> None:
    """It and those above it that are missing, each of them durable."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(exist_ok=True)
    above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def has_store(location: Location) -> bool:
    return (Path(location.root) / STORE_FILE).exists()


def worker_count() -> int:
    """Threads that copy or read for one rank: its share of the processors, at most 4."""
    return max(1, min(4, _processors()))


def save_worker_count() -> int:
    """Threads of one rank's save: one less, which is left to the training that goes on meanwhile."""
    return max(1, min(4, _processors() - 1))


def _processors() -> int:
    ranks_here = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return len(os.sched_getaffinity(0)) // ranks_here

"""Which checkpoint to resume from, where "latest" may be damaged. Going back to an older one loses
work, so it is done only when asked for, by all ranks alike, and it is logged."""

from __future__ import annotations

import logging
import os

import torch.distributed as dist

from caisson import CaissonError, CorruptionError, NotFoundError, _native
from caisson.torch.location import Location, parse_location
from caisson.torch.stores import open_store

_log = logging.getLogger(__name__)


def newest(
    url: str | os.PathLike[str],
    *,
    process_group: dist.ProcessGroup | None = None,
    fallback: bool = True,
) -> str:
    """The URL of the newest checkpoint of a run that verifies, the same on every rank.

    A collective call where torch.distributed is initialized. Rank 0 of the group verifies what is
    stored; every rank sees that it can open it.

    Args:
        url: caisson:///path/of/store#run/latest.
        process_group: of the ranks that load; None: all.
        fallback: false: the newest, whether it verifies or not.

    Raises:
        CorruptionError: the run has checkpoints and none of them verifies.
        NotFoundError: it has none.
    """
    location = parse_location(url)
    run = location.name.rpartition("/")[0]
    group = _Group(process_group)
    names: list[str] = []
    error: CaissonError | None = None
    store: _native.Store | None = None
    try:
        store = open_store(location, create=False)
        found = [c for c in store.checkpoints() if c.run == run and not c.rolled_back]
        names = [c.name for c in reversed(found)]
    except CaissonError as raised:
        error = raised
    names = group.from_first(names)
    problems: list[str] = []
    for name in names:
        told = []
        if fallback:
            told = group.gather(_problem(store, location, name, group, error))
        if not any(told):
            if problems:
                _log.warning("going back to %s: %s", name, "; ".join(problems))
            return str(Location(location.root, name, False))
        rank = next(rank for rank, problem in enumerate(told) if problem)
        problems.append(f"{name}: {told[rank]} (rank {rank})")
    if problems:
        raise CorruptionError(f"no checkpoint of {run} verifies: " + "; ".join(problems))
    raise error or NotFoundError(f"{location.root} has no checkpoint of {run}")


def _problem(
    store: _native.Store | None,
    location: Location,
    name: str,
    group: _Group,
    error: CaissonError | None,
) -> str:
    """What is wrong with a checkpoint; "" if nothing."""
    if store is None:
        return str(error)
    try:
        if problem := store.info(name).problem:
            return problem
        if group.is_first:
            found = store.verify([name])
            if found["damaged"]:
                damage = [f for f in found["findings"] if f["damage"]]
                return "; ".join(f"{f['object']}: {f['what']}" for f in damage[:3])
    except CaissonError as raised:
        return str(raised)
    return ""


class _Group:
    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self._group = group
        self._on = dist.is_available() and dist.is_initialized()
        self.is_first = not self._on or dist.get_rank(group) == 0

    def from_first(self, value: list[str]) -> list[str]:
        if not self._on:
            return value
        box = [value]
        first = 0 if self._group is None else dist.get_global_rank(self._group, 0)
        dist.broadcast_object_list(box, src=first, group=self._group)
        return box[0]

    def gather(self, value: str) -> list[str]:
        if not self._on:
            return [value]
        told = [""] * dist.get_world_size(self._group)
        dist.all_gather_object(told, value, group=self._group)
        return told

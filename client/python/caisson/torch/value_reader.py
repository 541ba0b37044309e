"""Gives the values of a checkpoint to a load planner. Records are read once a load."""

from __future__ import annotations

import io
from typing import Any

from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.planner import LoadPlanner, ReadItem

from caisson import NotFoundError, _native
from caisson.torch import plain
from caisson.torch.record import Index, value_blob, values_blob
from caisson.torch.values import as_saved


class ValueReader:
    def __init__(self, store: _native.Store, name: str, index: Index) -> None:
        self._store = store
        self._name = name
        self._index = index
        self._records: dict[int, tuple[dict[str, Any], dict[str, bytes]]] = {}

    def load(self, item: ReadItem, planner: LoadPlanner) -> None:
        name = item.storage_index.fqn
        if name in self._index.large_values:
            content = self._store.read_blob(self._name, value_blob(name))
            planner.load_bytes(item, io.BytesIO(content))
            return
        rank = self._index.values.get(name)
        if rank is None:
            raise NotFoundError(f'{self._name} has no value "{name}"')
        if rank not in self._records:
            record = self._store.read_blob(self._name, values_blob(rank))
            self._records[rank] = plain.loads(record)
        plain_values, saved_values = self._records[rank]
        if name in saved_values:
            planner.load_bytes(item, io.BytesIO(saved_values[name]))
        elif not _place(planner, item, plain_values[name]):
            planner.load_bytes(item, as_saved(plain_values[name]))


def _place(planner: LoadPlanner, item: ReadItem, value: Any) -> bool:
    """What DefaultLoadPlanner.load_bytes does with a value once it was unpickled; false for a
    planner that has a load_bytes of its own. Thousands of values make the difference."""
    if type(planner).load_bytes is not DefaultLoadPlanner.load_bytes:
        return False
    name = item.dest_index.fqn
    if planner.flatten_state_dict:  # type: ignore[attr-defined]
        path = planner.mappings[name]  # type: ignore[attr-defined]
        set_element(planner.original_state_dict, path, value)  # type: ignore[attr-defined]
    else:
        planner.state_dict[name] = value  # type: ignore[attr-defined]
    return True

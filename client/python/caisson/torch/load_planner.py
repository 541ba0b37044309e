"""Loads with less planning, and where the state dict is larger than what was saved: a padded vocabulary."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import (
    DefaultLoadPlanner,
    create_default_local_load_plan,
)
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list
from torch.distributed.tensor import DTensor

from caisson._collector import collector_paused
from caisson.torch.planner import CaissonStorageMeta
from caisson.torch.sections import box_of, layout_key


class CaissonLoadPlanner(DefaultLoadPlanner):
    """DefaultLoadPlanner, but that it asks each kind of layout once where its box is, instead of every
    DTensor (0.2 ms), looks for overlaps only where a tensor was saved in several pieces, and does not
    send what is read from Caisson to the coordinator, which has nothing to say to it. And with one
    thing more: a tensor that is larger than it was saved, in any
    dimension, gets what was saved at its start and `fill` beyond.

    Args:
        fill: of the elements that were not saved; None: sizes must be equal, as usual.
    """

    def __init__(self, *args: bool, fill: float | None = None, **kwargs: bool) -> None:
        super().__init__(*args, **kwargs)
        self._fill = fill
        self._kept: list[ReadItem] | None = None  # between create_local_plan and finish_plan

    @collector_paused()
    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None
        if self._fill is not None:
            entries = dict(self.metadata.state_dict_metadata)
            for name, value in self.state_dict.items():
                saved = entries.get(name)
                if isinstance(saved, TensorStorageMetadata) and _is_smaller(saved, value):
                    _local(value).fill_(self._fill)
                    # As if it had been saved in this size, and only these chunks of it.
                    entries[name] = dataclasses.replace(saved, size=value.size())
            self.metadata = dataclasses.replace(self.metadata, state_dict_metadata=entries)
        plan = self._plan()
        if not isinstance(self.metadata.storage_meta, CaissonStorageMeta):
            return plan
        self._kept = plan.items
        return dataclasses.replace(plan, items=[])

    def finish_plan(self, new_plan: LoadPlan) -> LoadPlan:
        kept, self._kept = self._kept, None
        return new_plan if kept is None else dataclasses.replace(new_plan, items=kept)

    def _plan(self) -> LoadPlan:
        assert self.metadata is not None
        saved_entries = self.metadata.state_dict_metadata
        if saved_entries.keys() - self.state_dict.keys():
            return super().create_local_plan()  # which looks for the names of an older PyTorch
        chunks: dict[Any, list[ChunkStorageMetadata]] = {}
        items: list[ReadItem] = []
        for name, value in self.state_dict.items():
            saved = saved_entries.get(name)
            if isinstance(saved, TensorStorageMetadata) and _is_like(saved, value):
                key = layout_key(value)
                if key not in chunks:
                    chunks[key] = _chunks_of(value)
                items += _read_items(name, saved, chunks[key])
            else:
                strict = not self.allow_partial_load
                items += create_default_local_load_plan({name: value}, self.metadata, strict).items
        return LoadPlan(items)


def _is_like(saved: TensorStorageMetadata, value: object) -> bool:
    """Whether the value has the saved size, and is plain or a DTensor that tells its box by its layout."""
    if type(value) is torch.Tensor:
        return saved.size == value.size()
    return (
        isinstance(value, DTensor)
        and saved.size == value.size()
        and not hasattr(value._local_tensor, "__create_chunk_list__")
    )


def _read_items(
    name: str, saved: TensorStorageMetadata, wanted: list[ChunkStorageMetadata]
) -> list[ReadItem]:
    """What create_read_items_for_chunk_list gives, found at once for a tensor that was saved in one piece:
    any box of it comes from there."""
    if len(saved.chunks) != 1 or len(wanted) != 1 or 0 in wanted[0].sizes:
        return create_read_items_for_chunk_list(name, saved, wanted)
    [whole], [box] = saved.chunks, wanted
    if whole.sizes != saved.size or any(whole.offsets):
        return create_read_items_for_chunk_list(name, saved, wanted)
    return [
        ReadItem(
            type=LoadItemType.TENSOR,
            dest_index=MetadataIndex(name, box.offsets, 0),
            dest_offsets=whole.offsets,
            storage_index=MetadataIndex(name, whole.offsets, 0),
            storage_offsets=box.offsets,
            lengths=box.sizes,
        )
    ]


def _chunks_of(tensor: torch.Tensor) -> list[ChunkStorageMetadata]:
    if isinstance(tensor, DTensor) and tensor.device_mesh.get_coordinate() is None:
        return []
    box = box_of(tensor)
    if box is None:
        return []
    return [ChunkStorageMetadata(torch.Size(box[0]), torch.Size(box[1]))]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def _is_smaller(saved: TensorStorageMetadata, value: object) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and len(saved.size) == value.dim()
        and saved.size != value.size()
        and all(s <= n for s, n in zip(saved.size, value.size()))
    )

"""Loads where the state dict is larger than what was saved: a padded vocabulary."""

from __future__ import annotations

import dataclasses

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan
from torch.distributed.tensor import DTensor


class CaissonLoadPlanner(DefaultLoadPlanner):
    """DefaultLoadPlanner, with one thing more: a tensor that is larger than it was saved, in any
    dimension, gets what was saved at its start and `fill` beyond.

    Args:
        fill: of the elements that were not saved; None: sizes must be equal, as usual.
    """

    def __init__(self, *args: bool, fill: float | None = None, **kwargs: bool) -> None:
        super().__init__(*args, **kwargs)
        self._fill = fill

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
        return super().create_local_plan()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def _is_smaller(saved: TensorStorageMetadata, value: object) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and len(saved.size) == value.dim()
        and saved.size != value.size()
        and all(s <= n for s, n in zip(saved.size, value.size()))
    )

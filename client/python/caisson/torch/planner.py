"""Plans saves in time linear in the tensors, and hardly at all where nothing changed.

With a CaissonStorageWriter the ranks exchange sections (sections.py) instead of one item a tensor,
the coordinator deals them out (assign.py) and remembers the outcome while every rank says the same.
With any other writer it makes the items that PyTorch's planner makes, checked in linear time.
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap, OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import (
    DefaultSavePlanner,
    create_default_global_save_plan,
)
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan

from caisson._collector import collector_paused
from caisson.torch.assign import GlobalLayout, SectionShare, plan_save
from caisson.torch.cover import Box, Ints, cover_problem
from caisson.torch.flatten import flatten
from caisson.torch.sections import LocalLayout, Section, describe, encode, is_describable


@dataclass
class CaissonStorageMeta(StorageMeta):
    """How CaissonStorageWriter tells the planner that it understands layouts, and CaissonStorageReader
    that it has nothing to say to plans."""


@dataclass(frozen=True)
class RankWork:
    """What a rank writes: tensors as name, global shape, box and the value in the state dict."""

    tensors: list[tuple[str, Ints, Box, torch.Tensor]]
    values: dict[str, Any]


_OUTCOMES_MAX = 4
# Of this process's saves: the digests of all ranks -> what was planned. Plans hold no tensors.
_outcomes: OrderedDict[tuple[bytes, ...], tuple[GlobalLayout, Metadata]] = OrderedDict()


def forget_plans() -> None:
    _outcomes.clear()


def _chunk(box: Box) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(box[0]), torch.Size(box[1]))


def _metadata_of(layout: GlobalLayout) -> Metadata:
    entries: dict[str, Any] = {}
    properties: dict[str, TensorProperties] = {}
    paths: dict[str, Any] = {}
    sizes: dict[Ints, tuple[torch.Size, list[ChunkStorageMetadata]]] = {}
    bytes_entry = BytesStorageMetadata()
    for section in layout.sections:
        paths.update(zip(section.names + section.values, section.paths))
        entries.update(dict.fromkeys(section.values, bytes_entry))
    for name, (dtype, shape, part) in layout.tensors.items():
        if dtype not in properties:
            properties[dtype] = TensorProperties(dtype=getattr(torch, dtype))
        if shape not in sizes:
            sizes[shape] = torch.Size(shape), [_chunk(((0,) * len(shape), shape))]
        size, chunks = sizes[shape]
        if part is not None:
            chunks = [_chunk(box) for box in part]
        entries[name] = TensorStorageMetadata(properties[dtype], size, chunks)
    return Metadata(entries, planner_data=paths)


class CaissonSavePlanner(DefaultSavePlanner):
    """Takes DefaultSavePlanner's arguments; `enable_plan_caching` is not needed."""

    _own: list[tuple[Section, list[Box | None]]] | None = None
    work: RankWork | None = None  # after finish_plan, with a CaissonStorageWriter

    @collector_paused()
    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        storage_meta: StorageMeta | None = None,
        is_coordinator: bool = False,
    ) -> None:
        self.work = None
        self._compact = isinstance(storage_meta, CaissonStorageMeta)
        if self._compact:
            flat, paths = flatten(state_dict) if self.flatten_state_dict else (state_dict, {})
            self._compact = all(map(is_describable, flat.values()))
        if not self._compact:
            super().set_up_planner(state_dict, storage_meta, is_coordinator)
            return
        self.state_dict, self.mappings = flat, paths
        self.is_coordinator = is_coordinator

    @collector_paused()
    def create_local_plan(self) -> SavePlan:
        if not self._compact:
            return super().create_local_plan()
        self._own = describe(self.state_dict, self.mappings)
        self._layout = encode(self._own, send=not self.is_coordinator)
        return SavePlan([], planner_data=self._layout)

    @collector_paused()
    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        compact = [isinstance(plan.planner_data, LocalLayout) for plan in all_plans]
        if not any(compact):
            return super().create_global_plan(all_plans)
        if not all(compact):
            ranks = [rank for rank, told in enumerate(compact) if not told]
            raise ValueError(
                f"ranks {ranks} hold ShardedTensors or tensors that make their own write items and "
                "the others do not; save with DefaultSavePlanner()"
            )
        layouts: list[LocalLayout] = [plan.planner_data for plan in all_plans]
        key = tuple([layout.digest for layout in layouts])
        outcome = _outcomes.get(key)
        if outcome is None:
            own = {}
            if self._own is not None:
                own = {r.digest: s for r, (s, _) in zip(self._layout.sections, self._own)}
            planned = plan_save(layouts, own)
            outcome = _outcomes[key] = planned, _metadata_of(planned)
            while len(_outcomes) > _OUTCOMES_MAX:
                _outcomes.popitem(last=False)
        planned, metadata = outcome
        self.global_plan = [SavePlan([], planner_data=shares) for shares in planned.shares]
        # A fresh object: whoever finishes a save may write into it.
        self.metadata = dataclasses.replace(metadata)
        return self.global_plan, self.metadata

    def _create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        """As DefaultSavePlanner does, but for the check."""
        plans, metadata = create_default_global_save_plan(self._dedup_save_plans(all_plans))
        if self.flatten_state_dict:
            merged = dict(ChainMap(*[plan.planner_data for plan in plans]))
            metadata = dataclasses.replace(metadata, planner_data=merged)
        problems = []
        for name, entry in metadata.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                continue
            boxes = [(tuple(c.offsets), tuple(c.sizes)) for c in entry.chunks if 0 not in c.sizes]
            problem = cover_problem(tuple(entry.size), boxes, whole=len(plans) > 1)
            if problem is not None:
                problems.append(f'"{name}" {list(entry.size)}: {problem}')
        if problems:
            raise ValueError(
                "the ranks do not hold each tensor exactly once: " + "; ".join(problems[:10])
            )
        return plans, metadata

    @collector_paused()
    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        if not self._compact:
            return super().finish_plan(new_plan)
        shares: list[SectionShare] = new_plan.planner_data
        tensors = []
        values: dict[str, Any] = {}
        for (section, boxes), share in zip(self._own or [], shares):
            for i in share.writes(section):
                name, number = section.names[i], section.classes[i]
                box = boxes[number]
                assert box is not None
                tensors.append((name, section.shapes[number], box, self.state_dict[name]))
            names = share.values if isinstance(share.values, tuple) else section.values
            if share.values:
                values.update((name, self.state_dict[name]) for name in names)
        self.work = RankWork(tensors, values)
        self._own = None
        self.plan = new_plan
        return new_plan

"""Reads once what several ranks want equally, and passes it on: for the replicas of HSDP.

The ranks of a group want the same boxes. Each reads its share of them from storage and broadcasts
it to the others. Nobody broadcasts before all have read, so a rank that cannot read fails the load
on every rank instead of leaving the others waiting.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.planner import ReadItem

_BATCH_BYTES = 64 << 20


class ReplicaGroup:
    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def check(self, items: Iterable[ReadItem]) -> None:
        """Every rank of the group must have come with the same wishes."""
        digest = hashlib.blake2b(digest_size=16)
        for item in items:
            digest.update(repr((item.dest_index, item.storage_index, item.storage_offsets,
                                item.lengths)).encode())  # fmt: skip
        told = self._gather(digest.digest())
        if len(set(told)) > 1:
            raise ValueError(
                "the ranks of replicate_group want different boxes; give the group of the ranks "
                "that hold the same shards, as DeviceMesh.get_group of the replicate dimension"
            )

    def deal(self, sizes: Sequence[int]) -> list[int]:
        """Which rank of the group reads what, the same on all: the largest first to the one with
        the least."""
        owners = [0] * len(sizes)
        loads = [(0, rank) for rank in range(self.size)]
        for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
            load, owner = loads[0]
            owners[i] = owner
            heapq.heapreplace(loads, (load + sizes[i], owner))
        return owners

    def agree(self, error: Exception | None) -> None:
        """Raises on every rank what went wrong on any."""
        for rank, told in enumerate(self._gather(error)):
            if isinstance(told, Exception):
                if rank == self.rank:
                    raise told
                raise RuntimeError(
                    f"rank {dist.get_global_rank(self._group, rank)}, which reads for this one, "
                    f"could not: {told}"
                ) from told

    def spread(self, tensors: Sequence[torch.Tensor], owners: Sequence[int]) -> None:
        """Gives every tensor the content that it has on its owner."""
        for owner, batch in _batches(tensors, owners):
            size = sum(tensor.nbytes for tensor in batch)
            buffer = torch.empty(size, dtype=torch.uint8, device=batch[0].device)
            parts = torch.split(buffer, [tensor.nbytes for tensor in batch])
            if owner == self.rank:
                for tensor, part in zip(batch, parts):
                    part.copy_(tensor.contiguous().reshape(-1).view(torch.uint8))
            dist.broadcast(buffer, dist.get_global_rank(self._group, owner), group=self._group)
            if owner != self.rank:
                for tensor, part in zip(batch, parts):
                    # A copy of its own: a part may lie unaligned for its element type.
                    tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))

    def _gather(self, value: object) -> list[object]:
        told: list[object] = [None] * self.size
        dist.all_gather_object(told, value, group=self._group)
        return told


def _batches(
    tensors: Sequence[torch.Tensor], owners: Sequence[int]
) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """Non-empty tensors of one owner and device, some 64 MiB at a time."""
    open_batches: dict[tuple[int, torch.device], list[torch.Tensor]] = {}
    for tensor, owner in zip(tensors, owners):
        if tensor.numel() == 0:
            continue
        batch = open_batches.setdefault((owner, tensor.device), [])
        batch.append(tensor)
        if sum(t.nbytes for t in batch) >= _BATCH_BYTES or len(batch) >= 4096:
            del open_batches[owner, tensor.device]
            yield owner, batch
    for (owner, _), batch in open_batches.items():
        yield owner, batch

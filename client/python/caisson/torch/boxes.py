"""Fills the boxes that a load plan wants, in as few batches as memory allows."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence

import torch
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlanner, ReadItem

from caisson import _native
from caisson.torch.record import Index, part_name, saved_blob
from caisson.torch.replicas import ReplicaGroup
from caisson.torch.tensors import byte_strides, is_plain, local_tensor

_BOUNCE_BYTES = 256 << 20  # of tensors that are read into host memory first, at a time


class BoxReader:
    def __init__(
        self,
        store: _native.Store,
        name: str,
        index: Index,
        metadata: Metadata,
        workers: int,
        replicas: ReplicaGroup | None,
    ) -> None:
        self._store = store
        self._name = name
        self._index = index
        self._metadata = metadata
        self._workers = workers
        self._replicas = replicas

    def load(self, items: Sequence[ReadItem], planner: LoadPlanner) -> None:
        """Hooks of the planner are called here, in the thread of the load, once an item."""
        tensors = [planner.resolve_tensor(item) for item in items]
        if self._replicas is None:
            self._read(list(zip(items, tensors)))
        else:
            self._read_shared(items, tensors, self._replicas)
        for item, tensor in zip(items, tensors):
            planner.commit_tensor(item, tensor)

    def _read_shared(
        self, items: Sequence[ReadItem], tensors: Sequence[torch.Tensor], replicas: ReplicaGroup
    ) -> None:
        error: Exception | None = None
        owners = replicas.deal([math.prod(item.lengths) for item in items])
        try:
            self._read(
                [p for p, owner in zip(zip(items, tensors), owners) if owner == replicas.rank]
            )
        except Exception as raised:
            error = raised
        replicas.agree(error)
        replicas.spread([tensor.detach() for tensor in tensors], owners)

    def _read(self, wanted: Sequence[tuple[ReadItem, torch.Tensor]]) -> None:
        direct: list[tuple[ReadItem, torch.Tensor]] = []
        bounced: list[tuple[ReadItem, torch.Tensor]] = []
        for item, tensor in wanted:
            if tuple(tensor.shape) != tuple(item.lengths):
                raise ValueError(
                    f'"{item.dest_index.fqn}": the planner gave {list(tensor.shape)} for a box of '
                    f"{list(item.lengths)}"
                )
            if self._is_saved(item):
                self._load_saved(item, tensor)
            elif self._reads_into(item, tensor):
                direct.append((item, tensor))
            else:
                bounced.append((item, tensor))
        self._restore([self._target(item, tensor.detach()) for item, tensor in direct])
        for batch in _batches(bounced):
            self._load_bounced(batch)

    def _key(self, item: ReadItem) -> tuple[str, tuple[int, ...]]:
        return item.storage_index.fqn, tuple(item.storage_index.offset or ())

    def _is_saved(self, item: ReadItem) -> bool:
        return bool(self._index.saved) and self._key(item) in self._index.saved

    def _dtype(self, item: ReadItem) -> torch.dtype:
        entry = self._metadata.state_dict_metadata[item.storage_index.fqn]
        assert isinstance(entry, TensorStorageMetadata)
        return entry.properties.dtype

    def _reads_into(self, item: ReadItem, tensor: torch.Tensor) -> bool:
        return (
            is_plain(tensor)
            and tensor.device.type == "cpu"
            and tensor.dtype == self._dtype(item)
            and not tensor.is_conj()
            and not tensor.is_neg()
        )

    def _target(self, item: ReadItem, tensor: torch.Tensor) -> _native.Target:
        name, offset = self._key(item)
        place = tuple(item.storage_offsets)
        if (name, offset) in self._index.parts:
            name = part_name(name, offset)
        elif any(offset):
            place = tuple(o + p for o, p in zip(offset, place))
        return _native.Target(
            name=name,
            offset=place,
            extent=tuple(item.lengths),
            address=tensor.data_ptr(),
            strides_bytes=byte_strides(tensor),
            owner=tensor,
        )

    def _restore(self, targets: Sequence[_native.Target]) -> None:
        wanted = [target for target in targets if 0 not in target.extent]
        if wanted:
            self._store.restore(self._name, wanted, workers=self._workers)

    def _load_bounced(self, batch: Sequence[tuple[ReadItem, torch.Tensor]]) -> None:
        hosts = [
            torch.empty(tuple(item.lengths), dtype=self._dtype(item), pin_memory=tensor.is_cuda)
            for item, tensor in batch
        ]
        self._restore([self._target(item, host) for (item, _), host in zip(batch, hosts)])
        for (item, tensor), host in zip(batch, hosts):
            tensor.detach().copy_(host)

    def _load_saved(self, item: ReadItem, tensor: torch.Tensor) -> None:
        content = self._store.read_blob(self._name, saved_blob(*self._key(item)))
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        box = narrow_tensor_by_index(local_tensor(saved), item.storage_offsets, item.lengths)
        with torch.no_grad():  # not detach(): a sparse tensor would keep its old elements
            tensor.copy_(box)


def _batches(
    items: Sequence[tuple[ReadItem, torch.Tensor]],
) -> Iterator[Sequence[tuple[ReadItem, torch.Tensor]]]:
    batch: list[tuple[ReadItem, torch.Tensor]] = []
    held = 0
    for item, tensor in items:
        size = tensor.numel() * max(8, tensor.element_size())  # whatever the stored width is
        if batch and held + size > _BOUNCE_BYTES:
            yield batch
            batch, held = [], 0
        batch.append((item, tensor))
        held += size
    if batch:
        yield batch

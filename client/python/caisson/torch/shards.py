"""From what a plan says to what the engine takes: shards, values, and the exceptions to both.

Runs once a save, over all items, before the engine starts: while it drains no Python runs.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItemType

from caisson._native import Shard
from caisson.torch import plain
from caisson.torch.cover import Box, Ints
from caisson.torch.planner import CaissonSavePlanner
from caisson.torch.record import PartResult, part_name, saved_blob, value_blob
from caisson.torch.tensors import DTYPE_NAMES, byte_strides, is_plain, local_tensor, tensor_bytes
from caisson.torch.values import OWN_BLOB_BYTES, saved

_DEVICE_BATCH_BYTES = 256 << 20  # of tensors copied from a device at a time


@dataclass
class _Item:
    name: str
    shape: Ints
    box: Box
    planned_dtype: torch.dtype
    tensor: torch.Tensor


@dataclass
class RankPart:
    """What one rank hands to the engine."""

    shards: list[Shard] = field(default_factory=list)
    on_device: list[tuple[_Item, str]] = field(default_factory=list)  # with the stored name
    blobs: dict[str, bytes] = field(default_factory=dict)
    plain_values: dict[str, Any] = field(default_factory=dict)
    saved_values: dict[str, bytes] = field(default_factory=dict)
    result: PartResult = field(default_factory=PartResult)
    bytes: int = 0

    def device_batches(self) -> Iterator[list[Shard]]:
        """Shards of what lies on a device, copied to the host a bounded amount at a time."""
        batch: list[Shard] = []
        held = 0
        for item, stored_name in self.on_device:
            if batch and held + item.tensor.nbytes > _DEVICE_BATCH_BYTES:
                yield batch
                batch, held = [], 0
            host = item.tensor.cpu()
            held += host.nbytes
            batch.append(_shard(item, stored_name, host))
        if batch:
            yield batch


def _shard(item: _Item, stored_name: str, tensor: torch.Tensor) -> Shard:
    shape, (offset, extent) = item.shape, item.box
    if stored_name != item.name:  # saved without the rest of its tensor
        shape, offset = extent, (0,) * len(extent)
    return Shard(
        name=stored_name,
        dtype=DTYPE_NAMES[tensor.dtype],
        shape=shape,
        offset=offset,
        extent=extent,
        address=tensor.data_ptr(),
        strides_bytes=byte_strides(tensor),
        owner=tensor,
    )


def _items(plan: SavePlan, planner: SavePlanner) -> Iterator[_Item | tuple[str, Any]]:
    """Tensors as items; values as a name and the value, or a stream that torch.save wrote."""
    if isinstance(planner, CaissonSavePlanner) and planner.work is not None:
        for name, shape, box, value in planner.work.tensors:
            tensor = local_tensor(value)
            yield _Item(name, shape, box, tensor.dtype, tensor)
        yield from planner.work.values.items()
        return
    for item in plan.items:
        data = planner.resolve_data(item)
        if item.type == WriteItemType.BYTE_IO:
            yield item.index.fqn, data
            continue
        assert item.tensor_data is not None and isinstance(data, torch.Tensor)
        chunk = item.tensor_data.chunk
        yield _Item(
            item.index.fqn,
            tuple(item.tensor_data.size),
            (tuple(chunk.offsets), tuple(chunk.sizes)),
            item.tensor_data.properties.dtype,
            local_tensor(data),
        )


def _add_value(part: RankPart, name: str, value: Any) -> None:
    if isinstance(value, io.BytesIO):
        content = bytes(value.getbuffer())
    elif plain.is_plain(value) and not _is_long(value):
        part.plain_values[name] = value
        return
    else:
        content = saved(value)
    part.bytes += len(content)
    if len(content) > OWN_BLOB_BYTES:
        part.blobs[value_blob(name)] = content
    else:
        part.saved_values[name] = content


def _is_long(value: object) -> bool:
    return isinstance(value, (str, bytes, list, tuple, dict)) and len(value) > OWN_BLOB_BYTES // 64


def gather_part(plan: SavePlan, planner: SavePlanner, *, alone: bool) -> RankPart:
    """`alone`: this rank makes the whole checkpoint, so what is not there is nowhere else."""
    part = RankPart()
    items: list[_Item] = []
    held: dict[str, int] = {}  # elements of each tensor
    for entry in _items(plan, planner):
        if not isinstance(entry, _Item):
            _add_value(part, *entry)
            continue
        tensor, extent = entry.tensor, entry.box[1]
        if tuple(tensor.shape) != extent:
            raise ValueError(
                f'tensor "{entry.name}": planned as {list(extent)}, but it is '
                f"{list(tensor.shape)}; was a plan cached from before its shape changed?"
            )
        if tensor.numel() == 0 and math.prod(entry.shape) > 0:
            continue
        items.append(entry)
        held[entry.name] = held.get(entry.name, 0) + tensor.numel()
    parts: list[tuple[str, Ints, Ints]] = []
    saved_tensors: list[tuple[str, Ints, Ints]] = []
    for item in items:
        name, offset = item.name, item.box[0]
        part.bytes += item.tensor.nbytes if item.tensor.layout == torch.strided else 0
        if item.tensor.dtype != item.planned_dtype:
            part.result.dtypes[name] = str(item.tensor.dtype)[6:]
        if not is_plain(item.tensor):
            part.blobs[saved_blob(name, offset)] = tensor_bytes(item.tensor)
            saved_tensors.append((name, *item.box))
            continue
        stored_name = name
        if alone and held[name] != math.prod(item.shape):
            stored_name = part_name(name, offset)
            parts.append((name, *item.box))
        if item.tensor.device.type == "cpu":
            part.shards.append(_shard(item, stored_name, item.tensor))
        else:
            part.on_device.append((item, stored_name))
    part.result.values = (*part.plain_values, *part.saved_values)
    prefix = len(value_blob(""))
    part.result.large_values = tuple(
        [name[prefix:] for name in part.blobs if name.startswith(value_blob(""))]
    )
    part.result.parts, part.result.saved = tuple(parts), tuple(saved_tensors)
    return part

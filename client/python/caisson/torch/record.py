"""What a checkpoint of torch.distributed.checkpoint holds beside its tensors, as blobs:

- METADATA: a pickled torch.distributed.checkpoint Metadata, which says that every tensor is one
  chunk: the engine cuts boxes out of whole tensors, so no load is planned chunk by chunk;
- INDEX: where values are, and those tensors that are stored otherwise than under their own name;
- a record of values a rank (values.py), and the large ones by themselves.

The same Metadata is the file .metadata of a directory, published last.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from caisson.torch import plain
from caisson.torch.cover import Ints

METADATA_BLOB = "caisson.torch/metadata"
INDEX_BLOB = "caisson.torch/index"
_VERSION = "1.0.0"  # of torch.distributed.checkpoint's metadata
_INDEX_VERSION = 1


def values_blob(rank: int) -> str:
    return f"caisson.torch/values/{rank}"


def value_blob(name: str) -> str:
    return f"caisson.torch/value/{name}"


def part_name(name: str, offset: Ints) -> str:
    """Of a box of a tensor that is saved without the rest of it."""
    return f"caisson.torch/part/{name}@{','.join(map(str, offset))}"


def saved_blob(name: str, offset: Ints) -> str:
    """Of a tensor that only torch.save can write."""
    return f"caisson.torch/tensor/{name}@{','.join(map(str, offset))}"


@dataclass
class PartResult:
    """What a rank tells the coordinator about its part. Small: it travels to it."""

    token: str = ""
    values: tuple[str, ...] = ()  # in the rank's record
    large_values: tuple[str, ...] = ()  # in blobs of their own
    # Name, offset and extent of boxes saved by themselves, and of those that torch.save wrote.
    parts: tuple[tuple[str, Ints, Ints], ...] = ()
    saved: tuple[tuple[str, Ints, Ints], ...] = ()
    dtypes: dict[str, str] = field(default_factory=dict)  # where the plan says otherwise

    def as_plain(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self))


@dataclass
class Index:
    values: dict[str, int] = field(default_factory=dict)  # name -> rank whose record has it
    large_values: set[str] = field(default_factory=set)
    parts: set[tuple[str, Ints]] = field(default_factory=set)
    saved: set[tuple[str, Ints]] = field(default_factory=set)

    @classmethod
    def of(cls, results: Sequence[PartResult]) -> Index:
        index = cls()
        for rank, result in enumerate(results):
            index.values.update(dict.fromkeys(result.values, rank))
            index.large_values.update(result.large_values)
            index.parts.update((name, offset) for name, offset, _ in result.parts)
            index.saved.update((name, offset) for name, offset, _ in result.saved)
        return index

    def encode(self) -> bytes:
        content = (_INDEX_VERSION, self.values, sorted(self.large_values), sorted(self.parts),
                   sorted(self.saved))  # fmt: skip
        return plain.dumps(content)

    @classmethod
    def decode(cls, content: bytes) -> Index:
        version, values, large_values, parts, saved = plain.loads(content)
        if version != _INDEX_VERSION:
            raise ValueError(f"the checkpoint's index is of version {version}; use a newer caisson")
        return cls(values, set(large_values), set(parts), set(saved))


def final_metadata(planned: Metadata, results: Sequence[PartResult], meta: StorageMeta) -> Metadata:
    """A new Metadata: the planned one may be kept by a planner for its next save."""
    dtypes: dict[str, str] = {}
    apart: dict[str, list[ChunkStorageMetadata]] = {}
    for result in results:
        dtypes.update(result.dtypes)
        for name, offset, extent in result.parts + result.saved:
            chunk = ChunkStorageMetadata(torch.Size(offset), torch.Size(extent))
            apart.setdefault(name, []).append(chunk)
    entries: dict[str, Any] = {}
    for name, entry in planned.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            properties = entry.properties
            if name in dtypes:
                dtype = getattr(torch, dtypes[name])
                properties = TensorProperties(dtype=dtype)
            whole = ChunkStorageMetadata(torch.Size([0] * len(entry.size)), entry.size)
            entry = TensorStorageMetadata(properties, entry.size, apart.get(name, [whole]))
        entries[name] = entry
    return Metadata(
        state_dict_metadata=entries,
        planner_data=planned.planner_data,
        storage_data={},
        storage_meta=StorageMeta(
            checkpoint_id=str(meta.checkpoint_id), save_id=meta.save_id, modules=meta.modules
        ),
        version=_VERSION,
    )


def metadata_path(directory: str, rank: int | None = None) -> Path:
    return Path(directory) / (".metadata" if rank is None else f"__{rank}.metadata")


def publish_metadata(path: Path, content: bytes) -> None:
    """Puts it in place whole and durably, over what was there."""
    fresh = path.with_name(path.name + ".tmp")
    with fresh.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

"""Loads through torch.distributed.checkpoint: hand a CaissonStorageReader to load.

Every wanted box is read straight into the tensor that it is for, where that lies in host memory and
has the stored element type; else into host memory first, a bounded amount at a time. Everything
that is read was verified. Checkpoints that FileSystemWriter made are read by FileSystemReader.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import uuid
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from caisson import CorruptionError, NotFoundError, _native
from caisson.torch.boxes import BoxReader
from caisson.torch.location import Location, is_url, parse_location
from caisson.torch.newest import newest
from caisson.torch.planner import CaissonStorageMeta
from caisson.torch.record import INDEX_BLOB, METADATA_BLOB, Index, metadata_path
from caisson.torch.replicas import ReplicaGroup
from caisson.torch.stores import has_store, open_store, worker_count
from caisson.torch.tensors import DTYPES
from caisson.torch.value_reader import ValueReader

_log = logging.getLogger(__name__)


class CaissonStorageReader(StorageReader):
    """Reads what CaissonStorageWriter wrote, in any sharding, and what caisson.save wrote.

    Args:
        path: a directory, or caisson:///path/of/store#run/step, or #run/latest; a checkpoint_id
            given to load replaces it.
        fallback: where #run/latest does not verify, take the newest that does: see newest().
            Without it that is an error. Makes read_metadata a collective call.
        process_group: of the ranks that load, for `fallback`; None: all.
        replicate_group: the ranks that hold the same shards as this one (HSDP's replicas): each
            reads a share and broadcasts it, so that every stored byte is read once.
        workers: threads of this rank's restore; 0: its share of the processors, at most 4.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fallback: bool = False,
        process_group: dist.ProcessGroup | None = None,
        replicate_group: dist.ProcessGroup | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self._location = parse_location(path)
        self._fallback = fallback
        self._process_group = process_group
        self._replicate_group = replicate_group
        self._workers = workers or worker_count()
        self._load_id = uuid.uuid4().hex
        self._stock: FileSystemReader | None = None
        self._store: _native.Store | None = None
        self._by_rank = False
        self._pinned = ""  # the one checkpoint that this load reads
        self._index = Index()
        self._metadata = Metadata({})

    # ---- DCP's calls, in their order

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        if checkpoint_id:
            self._location = parse_location(checkpoint_id)
        self._load_id = uuid.uuid4().hex
        self._stock = self._store = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        rank: int | None = kwargs.get("rank")
        location = self._location if rank is None else self._location.of_rank(rank)
        self._stock = self._store = None
        self._by_rank = rank is not None
        if self._fallback and rank is None and location.name.endswith("/latest"):
            location = parse_location(newest(str(location), process_group=self._process_group))
        if location.plain and _is_foreign(location, rank):
            self._stock = FileSystemReader(location.root)
            return self._stock.read_metadata(*args, **kwargs)
        try:
            self._store = open_store(location, create=False)
            self._read_metadata(self._store, location)
        except CorruptionError:
            _log.exception("%s cannot be read", location)  # DCP may go on to ask for another
            raise
        meta = self._metadata.storage_meta or StorageMeta()
        self._metadata.storage_meta = CaissonStorageMeta(
            checkpoint_id=meta.checkpoint_id, save_id=meta.save_id, load_id=self._load_id,
            modules=meta.modules,
        )  # fmt: skip
        return self._metadata

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        if self._stock is not None:
            self._stock.set_up_storage_reader(metadata, is_coordinator, *args, **kwargs)

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        # What ranks saved on their own is of each rank alone.
        shared = self._stock is None and not self._by_rank
        return dataclasses.replace(plan, storage_data=self._pinned) if shared else plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        read = {plan.storage_data: rank for rank, plan in enumerate(plans)}
        if len(read) > 1:
            told = ", ".join(f"rank {rank} {name}" for name, rank in read.items())
            raise RuntimeError(
                f"the ranks found different checkpoints as {self._location}: {told}; a save was "
                "committed meanwhile. Load again, or name the step"
            )
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        if self._stock is not None:
            return self._stock.read_data(plan, planner)
        assert self._store is not None
        replicas = None
        if self._replicate_group is not None:
            replicas = ReplicaGroup(self._replicate_group)
            replicas.check(plan.items)
        values = ValueReader(self._store, self._pinned, self._index)
        boxes = BoxReader(
            self._store, self._pinned, self._index, self._metadata, self._workers, replicas
        )
        for item in plan.items:
            if item.type == LoadItemType.BYTE_IO:
                values.load(item, planner)
        boxes.load([i for i in plan.items if i.type != LoadItemType.BYTE_IO], planner)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        try:
            parse_location(checkpoint_id)
        except ValueError:
            return is_url(checkpoint_id)
        return True

    @property
    def checkpoint_id(self) -> str:
        return str(self._location)

    # ---- the rest

    def _read_metadata(self, store: _native.Store, location: Location) -> None:
        info = store.info(location.name)
        if info.problem:
            raise CorruptionError(f"{location}: {info.problem}")
        self._pinned = info.pinned
        try:
            content = store.read_blob(self._pinned, METADATA_BLOB)
        except NotFoundError:
            self._index, self._metadata = _described(store, self._pinned)
            return
        self._index = Index.decode(store.read_blob(self._pinned, INDEX_BLOB))
        self._metadata = pickle.loads(content)


def _is_foreign(location: Location, rank: int | None) -> bool:
    """Whether the directory is not ours, or was ours and another writer saved into it since."""
    if not has_store(location):
        return True
    try:
        metadata = pickle.loads(metadata_path(location.root, rank).read_bytes())
    except FileNotFoundError:
        return False  # committed, and not published yet
    return bool(metadata.storage_data)


def _described(store: _native.Store, name: str) -> tuple[Index, Metadata]:
    """What a checkpoint that was not saved through DCP (caisson.save, import) has for it: its
    tensors."""
    entries: dict[str, Any] = {}
    for tensor in store.tensors(name):
        if tensor.blob or tensor.dtype not in DTYPES:
            continue
        size = torch.Size(tensor.shape)
        entries[tensor.name] = TensorStorageMetadata(
            TensorProperties(dtype=DTYPES[tensor.dtype]),
            size,
            [ChunkStorageMetadata(torch.Size([0] * len(size)), size)],
        )
    return Index(), Metadata(entries, storage_data={})

"""Saves through torch.distributed.checkpoint: hand a CaissonStorageWriter to save or async_save.

What the calls of a save do here:

1. prepare_local_plan, every rank: an existing checkpoint is refused, unless `overwrite`.
2. prepare_global_plan, the coordinator: the engine begins a save; its ticket goes to the ranks.
3. write_data, every rank: one batch of shards and one record of values go to the engine, and are
   durable when it returns.
4. finish, the coordinator: the metadata becomes one more part, the checkpoint is committed, and in
   a directory that is one checkpoint the file .metadata appears, last.

A rank that fails before 4 leaves nothing that counts: DCP raises on every rank, and the engine ends
the begun save when the next one begins, or at gc.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import uuid
from collections.abc import Collection, Mapping
from typing import Any

from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import AsyncStager
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from caisson import CaissonError, NotFoundError, _native
from caisson._collector import collector_paused
from caisson.torch import plain
from caisson.torch.location import Location, is_url, parse_location
from caisson.torch.planner import CaissonStorageMeta
from caisson.torch.record import (
    INDEX_BLOB,
    METADATA_BLOB,
    Index,
    PartResult,
    final_metadata,
    metadata_path,
    publish_metadata,
    values_blob,
)
from caisson.torch.shards import gather_part
from caisson.torch.staged import StagedState
from caisson.torch.stager import default_stager
from caisson.torch.stale import latest_name, warn_of_stale
from caisson.torch.stores import has_store, open_store, save_worker_count
from caisson.torch.ticket import Ticket, take_ticket


class CaissonStorageWriter(StorageWriter, AsyncStager):
    """Writes to `path`: a directory that becomes this one checkpoint, or
    caisson:///path/of/store#run/step for a store that keeps many and stores what is equal once.

    Args:
        path: see above; a checkpoint_id given to save or async_save replaces it.
        overwrite: replace a checkpoint that is there; else CheckpointException says that one is.
        codec: "auto", "raw", "planes", "entropy", "sparse" or "zstd".
        dedup: compare with the run's latest checkpoint and store only what changed.
        base: another checkpoint to compare with, "run/step": for a fork.
        memory_check: "sampled", "off" or "full": how tensors that change during a save are noticed.
        trainable: names of tensors, as in the flattened state dict ("model.layers.0.weight"), that
            training changes. A StaleTensorWarning names those whose content is the same as in the
            run's checkpoint before. In a store, not in a directory that is one checkpoint.
        workers: threads of this rank's save; 0: its share of the processors but one, which is left to
            training, and at most 4.
    """

    _synchronize_after_execute = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        codec: str = "auto",
        dedup: bool = True,
        base: str = "",
        memory_check: str = "sampled",
        trainable: Collection[str] = (),
        workers: int = 0,
    ) -> None:
        super().__init__()
        self._location = _writable(path)
        self._trainable = tuple(trainable)
        self._before: str | None = None  # the run's latest when the save going on began
        self._overwrite = overwrite
        self._options = _native.SaveOptions(
            codec=codec, dedup=dedup, base=base, memory_check=memory_check,
            workers=workers or save_worker_count(),
        )  # fmt: skip
        self._save_id = uuid.uuid4().hex
        self._target = self._location  # of the save going on: a rank's own without collectives
        self._rank: int | None = None
        self._replaces = False
        self._begun: tuple[_native.Store, str] | None = None  # not committed yet

    # ---- async_save's calls

    def stage(self, state_dict: dict[str, Any]) -> StagedState:
        """Comes before reset and set_up_storage_writer; waits for the save before."""
        return default_stager().stage(state_dict)

    def reserve(self, state_dict: Mapping[str, Any]) -> None:
        """Finds memory for the first stage() in the background: see CaissonStager.reserve."""
        default_stager().reserve(state_dict)

    def synchronize_staging(self) -> None:
        """Nothing to wait for: stage() returns when everything is copied."""

    def close(self) -> None:
        """Ends a save of this writer that was begun and not committed."""
        self._abort()

    # ---- DCP's calls, in their order

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        if checkpoint_id:
            self._location = _writable(checkpoint_id)
        self._save_id = uuid.uuid4().hex

    def storage_meta(self) -> StorageMeta:
        return CaissonStorageMeta(checkpoint_id=str(self._location), save_id=self._save_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._target, self._rank = self._location, None
        if not kwargs.get("use_collectives", True):
            self._rank = int(kwargs["rank"])
            self._target = self._location.of_rank(self._rank)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        if not self._overwrite and self._exists():
            raise RuntimeError(f"Checkpoint already exists: {self._target} and overwrite=False.")
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        self._abort()
        self._replaces = self._target.plain and has_store(self._target)
        store = open_store(self._target, create=True)
        text = store.begin_save(self._target.name, self._save_options())
        self._begun = store, text
        self._before = None
        if self._trainable and not self._target.plain:
            self._before = latest_name(store, self._target)
        name, ranks = self._target.name, len(plans)
        tickets = [Ticket(text, name, rank, ranks) for rank in range(ranks)]
        if ranks == 1:
            tickets[0].deliver()  # without collectives no plan is pickled
        return [
            dataclasses.replace(plan, storage_data=ticket) for plan, ticket in zip(plans, tickets)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        ticket = take_ticket(self._target.name)
        store = open_store(self._target, create=False)
        transaction = store.join_save(ticket.text, ticket.rank, self._save_options())
        try:
            with collector_paused():
                part = gather_part(plan, planner, alone=ticket.ranks == 1)
                blobs = part.blobs
                if part.plain_values or part.saved_values:
                    record = plain.dumps((part.plain_values, part.saved_values))
                    blobs[values_blob(ticket.rank)] = record
                putting = transaction.put_start(part.shards, blobs)
            putting.finish()
            for batch in part.device_batches():
                transaction.put(batch)
            part.result.token = transaction.seal()
        finally:
            transaction.close()
        index = MetadataIndex("caisson.part")
        future: Future[list[WriteResult]] = Future()
        future.set_result([WriteResult(index, part.bytes, part.result.as_plain())])
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        if self._begun is None:
            raise RuntimeError("finish comes once after prepare_global_plan")
        store, text = self._begun
        parts = [PartResult(*result[0].storage_data) for result in results]
        with collector_paused():
            final = final_metadata(metadata, parts, self.storage_meta())
            content = pickle.dumps(final, protocol=4)
        options = self._save_options()
        own = store.join_save(text, len(parts), options)
        own.put((), {METADATA_BLOB: content, INDEX_BLOB: Index.of(parts).encode()})
        tokens = [part.token for part in parts] + [own.seal()]
        store.commit_save(text, len(tokens), tokens, options)
        self._begun = None
        if self._target.plain:
            publish_metadata(metadata_path(self._target.root, self._rank), content)
        if self._replaces:
            with contextlib.suppress(CaissonError):  # the checkpoint is there; the space can wait
                store.gc()
        if self._before is not None:
            warn_of_stale(self._target, self._before, self._trainable)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        try:
            _writable(checkpoint_id)
        except ValueError:
            return is_url(checkpoint_id)  # one of ours, and wrong: say so instead of passing it on
        return True

    @property
    def checkpoint_id(self) -> str:
        return str(self._location)

    # ---- the rest

    def _save_options(self) -> _native.SaveOptions:
        return dataclasses.replace(self._options, overwrite=self._overwrite)

    def _exists(self) -> bool:
        if self._target.plain and metadata_path(self._target.root, self._rank).exists():
            return True
        if not has_store(self._target):
            return False
        try:
            open_store(self._target, create=False).info(self._target.name)
        except NotFoundError:
            return False
        return True

    def _abort(self) -> None:
        """Ends a save of this writer that some rank failed in."""
        begun, self._begun = self._begun, None
        if begun is not None:
            with contextlib.suppress(CaissonError):  # gc ends it otherwise
                begun[0].abort_save(begun[1])

    def __getstate__(self) -> dict[str, Any]:
        # What travels to a process that saves is configuration.
        return {**self.__dict__, "_begun": None}


def _writable(checkpoint_id: str | os.PathLike[str]) -> Location:
    location = parse_location(checkpoint_id)
    if location.name.endswith("/latest"):
        raise ValueError(f'"{location}": a save needs a step; latest is what it becomes')
    return location

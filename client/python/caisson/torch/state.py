"""The three-line way: a model, its optimizer and where training stands, saved and loaded whole.

    save_state("/data/ckpt", model, optimizer, step=step)
    step = load_state("/data/ckpt", model, optimizer).step

Tensors are saved in whatever sharding they have (FSDP2, TP, DDP, none) and loaded into whatever
sharding the model has then, on any number of ranks. Each rank also saves its random number
generators and the position of its data loader.
"""

from __future__ import annotations

import functools
import os
import random
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

from caisson.torch.load_planner import CaissonLoadPlanner
from caisson.torch.location import is_url
from caisson.torch.newest import newest
from caisson.torch.planner import CaissonSavePlanner
from caisson.torch.reader import CaissonStorageReader
from caisson.torch.values import saved, unsaved
from caisson.torch.writer import CaissonStorageWriter

_RUN = "train"


@dataclass
class Loaded:
    """What load_state read beside the model and the optimizer."""

    name: str  # URL of the checkpoint
    step: int
    extra: dict[str, Any] = field(default_factory=dict)
    restored_rng: bool = True  # false: this rank was not there when the checkpoint was saved


def save_state(
    url: str | os.PathLike[str],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    step: int,
    dataloader: Any = None,
    extra: Mapping[str, Any] | None = None,
    wait: bool = True,
    process_group: dist.ProcessGroup | None = None,
    **writer_options: Any,
) -> Future[Any] | None:
    """Saves the checkpoint RUN/`step`. A collective call where torch.distributed is initialized.

    Args:
        url: of the store and the run: caisson:///path/of/store#run, or a path (its run is "train").
        step: the number of the checkpoint, not negative.
        dataloader: anything with state_dict() and load_state_dict(); each rank saves its own.
        extra: values or tensors of your own, the same on all ranks.
        wait: false: return once everything is copied, with a future of the save.
        process_group: of the ranks that save; None: all. With wait=False it must be one that
            nothing else uses meanwhile; None makes such a one, of gloo, at the first call.
        writer_options: of CaissonStorageWriter.

    Raises:
        CheckpointException: on every rank, if any rank failed.
    """
    if not wait and process_group is None and _is_distributed():
        process_group = _group_for_saves()
    model_state, optimizer_state = _states(model, optimizer)
    rank = _rank(process_group)
    state = {
        "model": model_state,
        "optim": optimizer_state,
        "extra": dict(extra or {}),
        "step": step,
        "rng": {f"rank-{rank}": _rng_state()},
    }
    if dataloader is not None:
        state["dataloader"] = {f"rank-{rank}": saved(dataloader.state_dict())}
    if optimizer is not None:
        writer_options.setdefault("trainable", _trainable(model, model_state))
    writer = CaissonStorageWriter(f"{_run_url(url)}/{step}", **writer_options)
    arguments: dict[str, Any] = dict(
        storage_writer=writer, planner=CaissonSavePlanner(), process_group=process_group,
        no_dist=not _is_distributed(),
    )  # fmt: skip
    if wait:
        state_dict_saver.save(state, **arguments)
        return None
    future: Future[Any] = state_dict_saver.async_save(state, **arguments)  # type: ignore[assignment]
    return future


def load_state(
    url: str | os.PathLike[str],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    step: int | None = None,
    dataloader: Any = None,
    fallback: bool = False,
    strict: bool = True,
    process_group: dist.ProcessGroup | None = None,
) -> Loaded:
    """Loads the newest checkpoint of a run, or that of `step`, in place. A collective call.

    Args:
        url: as save_state has it.
        fallback: where the newest does not verify, take the newest that does; see newest().
        strict: every tensor of the model and the optimizer must be in the checkpoint.

    Raises:
        NotFoundError: the run has no checkpoint.
        CheckpointException: on every rank, if any rank failed.
    """
    name = f"{_run_url(url)}/{'latest' if step is None else step}"
    if step is None:
        name = newest(name, process_group=process_group, fallback=fallback)
    rank = f"rank-{_rank(process_group)}"
    model_state, optimizer_state = _states(model, optimizer)
    reader = CaissonStorageReader(name)
    metadata = reader.read_metadata()
    known = metadata.state_dict_metadata
    state: dict[str, Any] = {"model": model_state, "step": 0, "extra": _skeleton(metadata, "extra")}
    if optimizer is not None:
        state["optim"] = optimizer_state
    for part in ("rng", "dataloader"):
        if f"{part}.{rank}" in known:
            state[part] = {rank: None}
    state_dict_loader.load(
        state,
        storage_reader=reader,
        planner=CaissonLoadPlanner(allow_partial_load=not strict),
        process_group=process_group,
        no_dist=not _is_distributed(),
    )
    set_state_dict(
        model,
        optimizer if optimizer is not None else (),
        model_state_dict=state["model"],
        optim_state_dict=state.get("optim", {}),
        options=StateDictOptions(strict=strict),
    )
    if "rng" in state:
        _set_rng_state(unsaved(state["rng"][rank]))
    if dataloader is not None and "dataloader" in state:
        dataloader.load_state_dict(unsaved(state["dataloader"][rank]))
    return Loaded(name, state["step"], state["extra"], "rng" in state)


def _run_url(url: str | os.PathLike[str]) -> str:
    text = os.fspath(url)
    if not is_url(text):
        return f"caisson://{os.path.abspath(text)}#{_RUN}"
    return text if "#" in text else f"{text}#{_RUN}"


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@functools.cache
def _group_for_saves() -> dist.ProcessGroup:
    group: dist.ProcessGroup = dist.new_group(backend="gloo")
    return group


def _rank(group: dist.ProcessGroup | None) -> int:
    return dist.get_rank(group) if _is_distributed() else 0


def _states(model: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> tuple[Any, Any]:
    """By the names of the model's parameters, so that they fit any sharding."""
    return get_state_dict(model, optimizer if optimizer is not None else ())


def _trainable(model: torch.nn.Module, model_state: Mapping[str, Any]) -> list[str]:
    names = [n.removeprefix("module.") for n, p in model.named_parameters() if p.requires_grad]
    return [f"model.{name}" for name in names if name in model_state]


def _skeleton(metadata: Metadata, head: str) -> dict[str, Any]:
    """What was saved under one entry of the state dict, with tensors to load into."""
    state: dict[str, Any] = {head: {}}
    for name, path in metadata.planner_data.items():
        if path[0] == head and len(path) > 1:
            entry = metadata.state_dict_metadata[name]
            value = None
            if isinstance(entry, TensorStorageMetadata):
                value = torch.empty(entry.size, dtype=entry.properties.dtype)
            set_element(state, path, value)
    found: dict[str, Any] = state[head]
    return found


def _rng_state() -> bytes:
    state = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if "numpy" in sys.modules:
        state["numpy"] = sys.modules["numpy"].random.get_state()
    return saved(state)


def _set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "numpy" in state and "numpy" in sys.modules:
        sys.modules["numpy"].random.set_state(state["numpy"])

"""async_save, install() and save_state on two ranks: staging, threads and processes, overlapping
saves, trainers that know nothing of Caisson."""

from __future__ import annotations

import need_torch  # noqa: F401, I001
import os
import pathlib
import random
import resource
import threading
import time
import warnings

import ranks
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from ranks import Ranks
from states import assert_equal, mesh_of, sharded, zeros_like
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from torch.distributed.checkpoint.staging import AsyncStager
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

import caisson.torch
from caisson.torch import (
    CaissonSavePlanner,
    CaissonStager,
    CaissonStorageReader,
    CaissonStorageWriter,
    StaleTensorWarning,
    load_state,
    save_state,
)
from caisson.torch.arena import Arena


def _state(t: Ranks, seed: float, count: int = 20) -> dict:
    mesh = mesh_of((t.world,))
    state: dict = {"w": {}, "n": {"step": seed, "list": [1, [2, "x"]]}}
    for i in range(count):
        whole = torch.arange(30.0).view(10, 3) + seed + i
        state["w"][str(i)] = sharded(whole, mesh, [Shard(0)]) if i % 2 else whole
    state["w"]["tied"] = state["w"]["0"]
    state["w"]["strided"] = torch.arange(12.0).view(3, 4).t() + seed
    state["w"]["sparse"] = torch.eye(3).to_sparse()
    return state


def _change(state: dict) -> None:
    """What training does while a save goes on."""
    for name, tensor in state["w"].items():
        if name not in ("tied", "sparse"):
            (tensor.to_local() if isinstance(tensor, DTensor) else tensor).add_(1000)
    state["n"]["step"] = -1
    state["n"]["list"][1][0] = -1


def _check(t: Ranks, target: str, want: dict) -> None:
    into = zeros_like(want)
    del into["w"]["sparse"]
    want = {**want, "w": {k: v for k, v in want["w"].items() if k != "sparse"}}
    dcp.load(into, storage_reader=CaissonStorageReader(target))
    assert_equal(want, into)


def _overlapping_saves(
    t: Ranks, kind: AsyncCheckpointerType, count: int, **arguments: object
) -> None:
    writer = CaissonStorageWriter(t.scratch / "none")
    futures = []
    for step in range(3):  # nobody waits between them
        state = _state(t, step, count)
        target = str(t.scratch / f"ck{step}")
        futures.append(dcp.async_save(
            state, checkpoint_id=target, storage_writer=writer, async_checkpointer_type=kind,
            planner=CaissonSavePlanner(), **arguments))  # fmt: skip
        _change(state)
    for future in futures:
        future.result()
    dist.barrier()
    for step in range(3):
        _check(t, str(t.scratch / f"ck{step}"), _state(t, step, count))
    assert not (t.scratch / "none").exists()


def case_threads(t: Ranks) -> None:
    _overlapping_saves(t, AsyncCheckpointerType.THREAD, 20)


def case_processes_with_few_descriptors(t: Ranks) -> None:
    # The stock stager sends one descriptor a tensor.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        _overlapping_saves(t, AsyncCheckpointerType.PROCESS, 400)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def case_the_stager_is_one(t: Ranks) -> None:
    # One that lacks a part of the protocol is ignored; one that returns a future breaks others.
    for stager in (CaissonStager(), CaissonStorageWriter("/tmp/x")):
        assert isinstance(stager, AsyncStager) and not stager.should_synchronize_after_execute
        assert isinstance(stager.stage({"w": torch.ones(2)}), dict)
        stager.close()


def case_a_failed_save_does_not_block_the_next(t: Ranks) -> None:
    class Broken(CaissonStorageWriter):
        def reset(self, checkpoint_id=None):
            raise RuntimeError("reset failed")  # before the save looks at its state dict

    state = _state(t, 1)
    caisson.torch.stager._BEGIN_SECONDS = 0.5
    failed = dcp.async_save(state, checkpoint_id="/tmp/y", storage_writer=Broken("/tmp/x"))
    t.raises(RuntimeError, "reset failed", failed.result)
    start = time.monotonic()
    target = str(t.scratch / "ck")
    writer = CaissonStorageWriter(target)
    dcp.async_save(state, storage_writer=writer, planner=CaissonSavePlanner()).result()
    assert time.monotonic() - start < 20
    dist.barrier()
    _check(t, target, _state(t, 1))
    caisson.torch.stager._BEGIN_SECONDS = 60.0


def case_views_stay_from_save_to_save(t: Ranks) -> None:
    stager = CaissonStager()
    state = {"w": torch.arange(8.0), "x": torch.arange(6).view(2, 3)}
    stager.reserve(state)
    first = stager.stage(state)
    address = first["w"].data_ptr()
    assert_equal(dict(state), dict(dict.items(first)))
    del first
    state["w"].add_(1)
    second = stager.stage(state)
    assert second["w"].data_ptr() == address
    assert_equal(dict(state), dict(dict.items(second)))
    del second
    state["w"] = torch.arange(10.0)
    third = stager.stage(state)
    assert_equal(dict(state), dict(dict.items(third)))


def case_the_arena_grows(t: Ranks) -> None:
    arena = Arena()
    assert arena.reserve(100) and not arena.reserve(1000)
    arena.populate()
    view = arena.view(64, 8, torch.float32, (2,))
    view.fill_(3)
    assert arena.offset_of(view) == 64 and arena.offset_of(torch.ones(2)) is None
    assert arena.reserve(arena.capacity + 1)
    assert arena.view(64, 8, torch.float32, (2,)).tolist() == [3, 3] == view.tolist()


def case_installed(t: Ranks) -> None:
    before = dcp.FileSystemWriter
    uninstall = caisson.torch.install()
    try:
        for i, target in enumerate(
            [str(t.scratch / "ck"), f"caisson://{t.scratch}/store#run/1",
             pathlib.Path(f"caisson://{t.scratch}/store#run/2")]):  # fmt: skip
            state = _state(t, i)
            dcp.save(state, checkpoint_id=target)
            into = zeros_like(state)
            dist.barrier()
            dcp.load(into, checkpoint_id=target)
            assert_equal(state["n"], into["n"])
            assert_equal(state["w"]["1"], into["w"]["1"])
            again = dcp.async_save(state, checkpoint_id=target)
            _change(state)
            again.result()
            dist.barrier()
            _check(t, target, _state(t, i))
        assert (t.scratch / "ck" / "caisson.store").exists()
        assert (t.scratch / "ck" / ".metadata").exists()
        # As accelerate does it.
        dcp.save(_state(t, 7), storage_writer=dcp.FileSystemWriter(str(t.scratch / "named")))
        assert (t.scratch / "named" / "caisson.store").exists()
        dist.barrier()
        _check(t, str(t.scratch / "named"), _state(t, 7))
    finally:
        uninstall()
    assert dcp.FileSystemWriter is before


class _Loader:
    def __init__(self) -> None:
        self.position = 0

    def state_dict(self) -> dict:
        return {"position": self.position}

    def load_state_dict(self, state: dict) -> None:
        self.position = state["position"]


def _trainer(t: Ranks, fsdp: bool) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.ReLU(), torch.nn.Linear(10, 3))
    if fsdp:
        mesh = mesh_of((t.world,))
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def _train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loader: _Loader) -> float:
    loader.position += 1
    loss = model(torch.randn(4, 6)).square().mean() * random.random()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss)


def case_training_goes_on_as_if_nothing_had_happened(t: Ranks) -> None:
    for fsdp in (True, False):
        url = f"caisson://{t.scratch}/store#{'fsdp' if fsdp else 'plain'}"
        model, optimizer = _trainer(t, fsdp)
        loader = _Loader()
        torch.manual_seed(t.rank if fsdp else 0)  # without sharding nothing makes ranks agree
        random.seed(t.rank if fsdp else 0)
        for _ in range(2):
            _train(model, optimizer, loader)
        extra = {"nested": {"tensor": torch.ones(2), "name": "a"}}
        saving = save_state(
            url, model, optimizer, step=2, dataloader=loader, extra=extra, wait=False
        )
        want = [_train(model, optimizer, loader) for _ in range(3)]
        saving.result()
        dist.barrier()
        model, optimizer = _trainer(t, fsdp)
        loader = _Loader()
        loaded = load_state(url, model, optimizer, dataloader=loader)
        assert loaded.step == 2 and loader.position == 2 and loaded.restored_rng
        assert_equal(extra, loaded.extra)
        assert [_train(model, optimizer, loader) for _ in range(3)] == want
        t.raises(caisson.NotFoundError, "no checkpoint", lambda: load_state(
            f"{url}-absent", model, optimizer))  # fmt: skip


def case_trainable_tensors_that_stay_are_named(t: Ranks) -> None:
    url = f"caisson://{t.scratch}/store#run"
    model, _ = _trainer(t, False)
    model[2].bias.requires_grad_(False)
    optimizer = torch.optim.SGD([model[0].weight], lr=0.1)  # three others were forgotten or frozen
    model(torch.ones(4, 6)).sum().backward()
    told: list[str] = []
    for step in (1, 2):
        optimizer.step()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            save_state(url, model, optimizer, step=step)
        told += [str(w.message) for w in caught if w.category is StaleTensorWarning]
    if t.rank == 0:
        assert len(told) == 1, told
        assert "model.0.bias, model.2.weight" in told[0] and "model.2.bias" not in told[0], told


def case_a_save_leaves_a_processor_to_training(t: Ranks) -> None:
    from caisson.torch import stores

    original = os.sched_getaffinity
    try:
        for processors, copies, saves in ((1, 1, 1), (2, 2, 1), (3, 3, 2), (64, 4, 4)):
            of_all = processors * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            os.sched_getaffinity = lambda _, count=of_all: set(range(count))
            assert (stores.worker_count(), stores.save_worker_count()) == (copies, saves)
    finally:
        os.sched_getaffinity = original


def case_no_python_runs_while_a_save_drains(t: Ranks) -> None:
    # Hooks and descriptors come before the engine's one call; the thread that saves then waits.
    from caisson import _native

    calls = []
    original = _native.Transaction.put_start

    def put_start(self, *arguments, **named):
        calls.append((threading.current_thread().name, len(arguments[0])))
        return original(self, *arguments, **named)

    _native.Transaction.put_start = put_start
    try:
        writer = CaissonStorageWriter(t.scratch / "ck")
        planner = CaissonSavePlanner()
        dcp.async_save(_state(t, 0, 300), storage_writer=writer, planner=planner).result()
    finally:
        _native.Transaction.put_start = original
    batches = [count for _, count in calls if count]
    assert len(batches) == 1, calls
    assert all(name != threading.main_thread().name for name, _ in calls)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ranks.main(globals(), world=2)

"""The contract of torch.distributed.checkpoint, point by point, on four ranks: what breaks a
storage that only looks right. Each case names the trap."""

from __future__ import annotations

import need_torch  # noqa: F401, I001
import os
import pathlib
import pickle

import ranks
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from ranks import Ranks
from states import assert_equal, mesh_of, sharded, zeros_like
from torch.distributed.checkpoint import CheckpointException, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

import caisson
import caisson.torch
from caisson import _native
from caisson.torch import (
    CaissonLoadPlanner,
    CaissonSavePlanner,
    CaissonStorageReader,
    CaissonStorageWriter,
    newest,
)


def _state(t: Ranks, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict:
    generator = torch.Generator().manual_seed(seed)
    mesh = mesh_of((t.world,))
    whole = torch.randn(13, 6, generator=generator).to(dtype)
    return {
        "model": {
            "sharded": sharded(whole, mesh, [Shard(0)]),
            "replicated": sharded(whole.t().contiguous(), mesh, [Replicate()]),
            "plain": torch.arange(5, dtype=dtype) + seed,
        },
        "step": seed,
    }


def _load(target: str, like: dict, **reader: object) -> dict:
    into = zeros_like(like)
    dcp.load(into, storage_reader=CaissonStorageReader(target, **reader))
    return into


def case_writer_and_reader_are_true(t: Ranks) -> None:
    # A falsy storage is replaced silently.
    assert CaissonStorageWriter("/tmp/x") and CaissonStorageReader("/tmp/x")


def case_saving_again_replaces(t: Ranks) -> None:
    target = str(t.scratch / "ck")
    writer = CaissonStorageWriter(target)
    for seed in (1, 2):
        dcp.save(_state(t, seed), storage_writer=writer)  # no reset between the two
        assert_equal(_state(t, seed), _load(target, _state(t)))


def case_shards_of_several_runs_are_refused(t: Ranks) -> None:
    # Interleaved rows: DCP knows one box a rank, and these boxes are not what the ranks hold.
    local = torch.arange(8.0) + 100 * t.rank
    placement = _StridedShard(0, split_factor=2)
    shape = torch.Size([8 * t.world])
    tensor = DTensor.from_local(
        local, mesh_of((t.world,)), [placement], run_check=False, shape=shape, stride=(1,)
    )
    writer = CaissonStorageWriter(t.scratch / "ck")
    save = lambda: dcp.save({"w": tensor}, storage_writer=writer, planner=CaissonSavePlanner())  # noqa: E731
    t.raises(CheckpointException, '"w" [32]: [0:8] and [4:12] overlap', save)
    assert not (t.scratch / "ck/.metadata").exists()


def case_directories_above_are_made(t: Ranks) -> None:
    for target in (str(t.scratch / "a/b/ck"), f"caisson://{t.scratch}/c/d/store#run/1"):
        dcp.save(_state(t, 1), storage_writer=CaissonStorageWriter(target))
        assert_equal(_state(t, 1), _load(target, _state(t)))


def case_overwrite_false_refuses(t: Ranks) -> None:
    for target in (str(t.scratch / "ck"), f"caisson://{t.scratch}/store#run/1"):
        dcp.save(_state(t, 1), storage_writer=CaissonStorageWriter(target))
        dist.barrier()
        writer = CaissonStorageWriter(target, overwrite=False)
        save = lambda: dcp.save(_state(t, 2), storage_writer=writer)  # noqa: E731
        t.raises(CheckpointException, "Checkpoint already exists", save)
        assert_equal(_state(t, 1), _load(target, _state(t)))


def case_the_directory_moves_and_ends_with_metadata(t: Ranks) -> None:
    import shutil

    target = t.scratch / "ck"
    dcp.save(_state(t, 1), storage_writer=CaissonStorageWriter(target))
    dist.barrier()
    if t.rank == 0:
        with (target / ".metadata").open("rb") as stream:
            metadata = pickle.load(stream)
        assert type(metadata) is Metadata
        entry = metadata.state_dict_metadata["model.sharded"]
        assert isinstance(entry, TensorStorageMetadata) and entry.size == torch.Size([13, 6])
        assert metadata.planner_data["model.sharded"] == ("model", "sharded")
        newest_file = max(
            os.scandir(target), key=lambda e: e.stat().st_mtime_ns if e.is_file() else 0
        )
        assert newest_file.name == ".metadata", newest_file
        shutil.copytree(target, t.scratch / "copy")
        shutil.rmtree(target)
    dist.barrier()
    assert_equal(_state(t, 1), _load(str(t.scratch / "copy"), _state(t)))


def case_other_files_in_the_directory_stay(t: Ranks) -> None:
    target = t.scratch / "ck"
    if t.rank == 0:
        target.mkdir()
        (target / "meta.pt").write_text("theirs")
    dist.barrier()
    dcp.save(_state(t, 1), storage_writer=CaissonStorageWriter(target))
    assert (target / "meta.pt").read_text() == "theirs"
    assert_equal(_state(t, 1), _load(str(target), _state(t)))


def case_old_checkpoints_are_read_and_replaced(t: Ranks) -> None:
    target = str(t.scratch / "ck")
    dcp.save(_state(t, 1), storage_writer=dcp.FileSystemWriter(target))
    assert_equal(_state(t, 1), _load(target, _state(t)))
    dcp.save(_state(t, 2), storage_writer=CaissonStorageWriter(target))
    dist.barrier()
    assert_equal(_state(t, 2), _load(target, _state(t)))
    dist.barrier()
    dcp.save(_state(t, 3), storage_writer=dcp.FileSystemWriter(target))
    assert_equal(_state(t, 3), _load(target, _state(t)))


def case_errors_reach_all_ranks_with_their_cause(t: Ranks) -> None:
    class Broken(CaissonStorageWriter):
        def write_data(self, plan, planner):
            if t.rank == 2:
                raise caisson.NoSpaceError("no space on rank two", "data/x", 7)
            return super().write_data(plan, planner)

    target = f"caisson://{t.scratch}/store#run/"
    dcp.save(_state(t, 1), storage_writer=CaissonStorageWriter(target + "1"))
    writer = Broken(target + "2")
    text = t.raises(
        CheckpointException,
        "no space on rank two",
        lambda: dcp.save(_state(t, 2), storage_writer=writer),
    )
    assert "RANK 2" in text, text
    dist.barrier()
    assert_equal(_state(t, 1), _load(target + "latest", _state(t)))
    dist.barrier()
    dcp.save(_state(t, 3), storage_writer=CaissonStorageWriter(target + "2"))  # goes on after it
    dist.barrier()
    assert_equal(_state(t, 3), _load(target + "latest", _state(t)))


def case_errors_pickle(t: Ranks) -> None:
    for name in dir(caisson):
        kind = getattr(caisson, name)
        if isinstance(kind, type) and issubclass(kind, caisson.CaissonError):
            again = pickle.loads(pickle.dumps(kind("what")))
            assert type(again) is kind and str(again) == "what"


def case_what_cannot_be_read_is_told(t: Ranks) -> None:
    load = lambda: _load(str(t.scratch / "absent"), _state(t))  # noqa: E731
    text = t.raises(CheckpointException, "global metadata read failed", load)
    assert "rank local metadata read failed" in text
    t.raises(ValueError, "#run/step", lambda: CaissonStorageWriter("caisson:///a/b"))
    t.raises(ValueError, "latest", lambda: CaissonStorageWriter("caisson:///a#run/latest"))
    t.raises(ValueError, "path", lambda: CaissonStorageWriter("s3://bucket/x"))


def case_a_url_through_pathlib_is_understood(t: Ranks) -> None:
    url = f"caisson://{t.scratch}/store#run/5"
    dcp.save(_state(t, 1), storage_writer=CaissonStorageWriter(pathlib.Path(url)))
    dist.barrier()
    assert not list(pathlib.Path().glob("caisson:*"))
    assert_equal(_state(t, 1), _load(url, _state(t)))


def case_cached_plans_carry_no_ticket_and_no_dtype(t: Ranks) -> None:
    # The second save gets the plan of the first, with its storage_data and element types.
    DefaultSavePlanner._cached_save_plan.clear()
    for seed, dtype in ((1, torch.float32), (2, torch.float32), (3, torch.bfloat16)):
        target = str(t.scratch / f"ck{seed}")
        planner = DefaultSavePlanner(enable_plan_caching=True)
        state = _state(t, seed, dtype)
        dcp.save(state, storage_writer=CaissonStorageWriter(target), planner=planner)
        dist.barrier()
        assert_equal(state, _load(target, state))
    grown = {**_state(t, 4)}
    grown["model"]["plain"] = torch.zeros(9)
    planner = DefaultSavePlanner(enable_plan_caching=True)
    planner._cached_plans_key = "DefaultSavePlanner"
    dcp.save(grown, storage_writer=CaissonStorageWriter(t.scratch / "ck4"), planner=planner)
    dist.barrier()
    assert_equal(grown, _load(str(t.scratch / "ck4"), grown))


def case_a_shape_that_is_not_the_planned_one_fails(t: Ranks) -> None:
    class Stale(DefaultSavePlanner):
        def resolve_data(self, write_item):
            data = super().resolve_data(write_item)
            return data[:-1] if write_item.index.fqn == "model.plain" else data

    writer = CaissonStorageWriter(t.scratch / "ck")
    save = lambda: dcp.save(_state(t), storage_writer=writer, planner=Stale())  # noqa: E731
    t.raises(CheckpointException, 'tensor "model.plain": planned as [5], but it is [4]', save)


def case_a_planner_s_metadata_is_not_written_into(t: Ranks) -> None:
    planner = CaissonSavePlanner()
    dcp.save(_state(t), storage_writer=CaissonStorageWriter(t.scratch / "ck"), planner=planner)
    if t.rank == 0:
        assert planner.metadata.storage_data is None and planner.metadata.version is None


def case_values_are_one_record(t: Ranks) -> None:
    state = {"optim": {f"group{i}": {"lr": i / 7, "betas": (0.9, 0.95)} for i in range(100)}}
    state["other"] = {"device": torch.device("cpu"), "long": list(range(50_000))}
    target = f"caisson://{t.scratch}/store#run/1"
    for planner in (DefaultSavePlanner(), CaissonSavePlanner()):
        dcp.save(state, storage_writer=CaissonStorageWriter(target), planner=planner)
        dist.barrier()
        assert_equal(state, _load(target, state))
        names = [
            b.name for b in _native.Store.open(f"{t.scratch}/store").tensors("run/1") if b.blob
        ]
        records = [name for name in names if name.startswith("caisson.torch/values/")]
        # DefaultSavePlanner deals values out to all ranks.
        assert len(records) == (1 if isinstance(planner, CaissonSavePlanner) else t.world), names
        assert "caisson.torch/value/other.long" in names and len(names) == len(records) + 3, names
        dist.barrier()


def case_without_collectives(t: Ranks) -> None:
    # Every rank is its own coordinator; replicas are not deduplicated, shards not complete.
    for target in (str(t.scratch / "ck"), f"caisson://{t.scratch}/store#run/1"):
        dcp.save(_state(t, 3), storage_writer=CaissonStorageWriter(target), use_collectives=False)
        if "store" not in target:
            assert (t.scratch / "ck" / f"__{t.rank}.metadata").exists()
        assert_equal(_state(t, 3), _load(target, _state(t)))
        dist.barrier()


def case_one_process_alone(t: Ranks) -> None:
    state = {"w": torch.randn(7, 3), "sharded": _state(t, 1)["model"]["sharded"]}
    target = str(t.scratch / f"ck{t.rank}")
    dcp.save(state, storage_writer=CaissonStorageWriter(target), no_dist=True)
    into = zeros_like(state)
    dcp.load(into, storage_reader=CaissonStorageReader(target), no_dist=True)
    assert_equal(state, into)


def case_boxes_in_two_dimensions(t: Ranks) -> None:
    # As FSDP over TP leaves them, unevenly.
    mesh = mesh_of((2, 2))
    state = {"w": sharded(torch.arange(35.0).view(5, 7), mesh, [Shard(0), Shard(1)])}
    target = str(t.scratch / "ck")
    dcp.save(state, storage_writer=CaissonStorageWriter(target), planner=CaissonSavePlanner())
    dist.barrier()
    whole = {"w": torch.zeros(5, 7)}
    dcp.load(whole, storage_reader=CaissonStorageReader(target))
    assert_equal({"w": torch.arange(35.0).view(5, 7)}, whole)


def case_partial_tensors_are_refused(t: Ranks) -> None:
    mesh = mesh_of((t.world,))
    state = {"w": DTensor.from_local(torch.ones(4), mesh, [Partial()])}
    for planner in (DefaultSavePlanner(), CaissonSavePlanner()):
        writer = CaissonStorageWriter(t.scratch / "ck")
        t.raises(CheckpointException, "artial", lambda: dcp.save(
            state, storage_writer=writer, planner=planner))  # fmt: skip


def case_ranks_that_disagree_are_told(t: Ranks) -> None:
    mesh = mesh_of((t.world,))
    local = torch.zeros(2 + (t.rank == 1), 3)
    overlapping = DTensor.from_local(local, mesh, [Shard(0)], shape=(8, 3), stride=(3, 1))
    writer = CaissonStorageWriter(t.scratch / "ck")
    shape = {"w": torch.zeros(3 + t.rank)}
    planner = CaissonSavePlanner()
    t.raises(CheckpointException, 'tensor "w" is float32 [3] on rank 0 and', lambda: dcp.save(
        shape, storage_writer=writer, planner=planner))  # fmt: skip
    kinds = {"w": torch.zeros(3) if t.rank else 3}
    t.raises(CheckpointException, '"w" is a tensor on one rank', lambda: dcp.save(
        kinds, storage_writer=writer, planner=CaissonSavePlanner()))  # fmt: skip
    t.raises(CheckpointException, "planned as [2, 3], but it is [3, 3]", lambda: dcp.save(
        {"w": overlapping}, storage_writer=writer, planner=CaissonSavePlanner()))  # fmt: skip


def case_ranks_with_tensors_of_their_own(t: Ranks) -> None:
    # Pipeline stages: different names on every rank, one shared by two of them.
    def stage(rank: int) -> dict:
        state = {
            "model": {f"layer{rank}": torch.full((3, 2), float(rank))},
            "rng": {f"r{rank}": rank},
        }
        if rank in (1, 3):
            state["model"]["tied"] = torch.arange(4.0)
        return state

    target = str(t.scratch / "ck")
    dcp.save(
        stage(t.rank), storage_writer=CaissonStorageWriter(target), planner=CaissonSavePlanner()
    )
    dist.barrier()
    other = stage((t.rank + 1) % t.world)
    assert_equal(other, _load(target, other))


def case_an_element_type_is_converted(t: Ranks) -> None:
    state = _state(t, 1)
    target = str(t.scratch / "ck")
    dcp.save(state, storage_writer=CaissonStorageWriter(target))
    dist.barrier()
    half = _load(target, _state(t, 0, torch.bfloat16))
    for name, tensor in half["model"].items():
        want = state["model"][name]
        want = want.to_local() if isinstance(want, DTensor) else want
        got = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        assert torch.equal(got, want.to(torch.bfloat16)), name


def case_a_part_of_the_checkpoint(t: Ranks) -> None:
    state = _state(t, 1)
    target = str(t.scratch / "ck")
    dcp.save(state, storage_writer=CaissonStorageWriter(target), planner=CaissonSavePlanner())
    dist.barrier()
    part = {"model": {"plain": torch.zeros(5)}}
    dcp.load(part, storage_reader=CaissonStorageReader(target))
    assert_equal(state["model"]["plain"], part["model"]["plain"])
    more = {"model": {"plain": torch.zeros(5), "absent": torch.ones(2)}}

    def load(**planner):
        dcp.load(more, storage_reader=CaissonStorageReader(target), **planner)

    t.raises(CheckpointException, "Missing key", load)
    load(planner=dcp.DefaultLoadPlanner(allow_partial_load=True))


def case_a_padded_vocabulary(t: Ranks) -> None:
    mesh = mesh_of((t.world,))
    saved = torch.arange(22.0).view(11, 2)
    target = str(t.scratch / "ck")
    dcp.save({"emb": sharded(saved, mesh, [Shard(0)])},
             storage_writer=CaissonStorageWriter(target))  # fmt: skip
    dist.barrier()
    into = {"emb": sharded(torch.ones(16, 2), mesh, [Shard(0)])}
    reader = CaissonStorageReader(target)
    dcp.load(into, storage_reader=reader, planner=CaissonLoadPlanner(fill=0.0))
    whole = into["emb"].full_tensor()
    assert torch.equal(whole[:11], saved) and not whole[11:].any()
    t.raises(CheckpointException, "Size mismatch", lambda: dcp.load(
        {"emb": torch.ones(16, 2)}, storage_reader=CaissonStorageReader(target)))  # fmt: skip


def case_replicas_read_once_and_broadcast(t: Ranks) -> None:
    mesh = mesh_of((2, 2), mesh_dim_names=("replicate", "shard"))
    placements = [Replicate(), Shard(0)]
    state = {
        f"w{i}": sharded(torch.arange(36.0 + 4 * i).view(9 + i, 4).to(dtype), mesh, placements)
        for i, dtype in enumerate([torch.float32, torch.bfloat16, torch.int64])
    }
    state["n"] = 5
    target = str(t.scratch / "ck")
    dcp.save(state, storage_writer=CaissonStorageWriter(target), planner=CaissonSavePlanner())
    dist.barrier()
    read = []
    original = _native.Store.restore

    def restore(self, name, targets, **options):
        read.extend((x.name, tuple(x.offset), tuple(x.extent)) for x in targets)
        return original(self, name, targets, **options)

    _native.Store.restore = restore
    try:
        group = mesh.get_group("replicate")
        assert_equal(state, _load(target, state, replicate_group=group))
    finally:
        _native.Store.restore = original
    everything = sum(t.everyone(read), [])
    assert len(everything) == len(set(everything)) == 6, everything
    wrong = mesh.get_group("shard")
    t.raises(CheckpointException, "want different boxes", lambda: _load(
        target, state, replicate_group=wrong))  # fmt: skip


def case_latest_that_is_damaged(t: Ranks) -> None:
    base = f"caisson://{t.scratch}/store#run/"
    for seed in (1, 2):
        dcp.save(
            _state(t, seed), storage_writer=CaissonStorageWriter(base + str(seed), dedup=False)
        )
    dist.barrier()
    if t.rank == 0:
        info = _native.Store.open(f"{t.scratch}/store").info("run/2")
        roots = sorted(t.scratch.glob("store/data/*/*.root"), key=lambda p: p.stat().st_mtime_ns)
        assert info.step == 2
        content = bytearray(roots[-1].read_bytes())
        content[len(content) // 2] ^= 1
        roots[-1].chmod(0o644)
        roots[-1].write_bytes(content)
    dist.barrier()
    caisson.torch.stores._shared.clear()
    text = t.raises(CheckpointException, "read failed", lambda: _load(base + "latest", _state(t)))
    assert "caisson" in text  # the next command
    got = _load(base + "latest", _state(t), fallback=True)
    assert_equal(_state(t, 1), got)
    assert set(t.everyone(newest(base + "latest"))) == {base + "1"}


def case_frozen_tensors_cost_no_writes(t: Ranks) -> None:
    mesh = mesh_of((t.world,))
    frozen = sharded(torch.arange(4096.0 * 256).view(4096, 256), mesh, [Shard(0)])
    written = []
    original = _native.Store.commit_save

    def commit_save(self, *args):
        report = original(self, *args)
        written.append(report.stored_bytes)
        return report

    _native.Store.commit_save = commit_save
    try:
        for step in (1, 2):
            state = {"frozen": frozen, "step": step}
            url = f"caisson://{t.scratch}/store#run/{step}"
            dcp.save(state, storage_writer=CaissonStorageWriter(url))
    finally:
        _native.Store.commit_save = original
    if t.rank == 0:
        assert written[0] > 1 << 20 and written[1] < 1 << 16, written


if __name__ == "__main__":
    ranks.main(globals(), world=4)

"""Random state dicts through FileSystemWriter and through Caisson: both must load alike, bit for
bit, in the sharding they were saved in and in others."""

from __future__ import annotations

import need_torch  # noqa: F401, I001
import copy

import ranks
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from ranks import Ranks
from states import assert_equal, fully_random, oracle, resharded
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner

from caisson.torch import (
    CaissonLoadPlanner,
    CaissonSavePlanner,
    CaissonStorageReader,
    CaissonStorageWriter,
)

_SEEDS = 12


def _round(t: Ranks, seed: int) -> None:
    t.random.seed(seed)
    state = fully_random(t.random, t.world, 14)
    into = resharded(t.random, state, t.world)
    want = oracle(state, copy.deepcopy(into), str(t.scratch / f"{seed}-stock"))
    planner = [DefaultSavePlanner, CaissonSavePlanner][seed % 2]()
    target = str(t.scratch / f"{seed}")
    if seed % 3 == 2:
        target = f"caisson://{t.scratch}/store#oracle/{seed}"
    dcp.save(state, storage_writer=CaissonStorageWriter(target), planner=planner)
    dist.barrier()
    load_planner = [DefaultLoadPlanner, CaissonLoadPlanner][seed // 2 % 2]()
    dcp.load(into, storage_reader=CaissonStorageReader(target), planner=load_planner)
    assert_equal(want, into, f"seed {seed}")


def case_resharded(t: Ranks) -> None:
    for seed in range(_SEEDS):
        _round(t, seed)


if __name__ == "__main__":
    ranks.main(globals(), world=4)

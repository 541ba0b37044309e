"""A rank that is killed in the middle of a save: the checkpoint before it stays the latest, and the
run goes on."""

from __future__ import annotations

import need_torch  # noqa: F401, I001
import os
import signal
import tempfile
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from states import mesh_of, sharded
from torch.distributed.tensor import Shard

from caisson import _native
from caisson.torch import CaissonSavePlanner, CaissonStorageReader, CaissonStorageWriter

_WORLD = 3


def _state(step: int) -> dict:
    mesh = mesh_of((_WORLD,))
    whole = torch.arange(300_000.0).view(300, 1000) + step
    return {"w": sharded(whole, mesh, [Shard(0)]), "step": step}


def _save(url: str, step: int) -> None:
    writer = CaissonStorageWriter(f"{url}{step}")
    dcp.save(_state(step), storage_writer=writer, planner=CaissonSavePlanner())


def _rank(rank: int, scratch: str, die_at: str) -> None:
    warnings.simplefilter("ignore")
    if die_at != "nowhere" and "CAISSON_TEST_VERBOSE" not in os.environ:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the others say of the one that died
    torch.set_num_threads(1)
    store = dist.FileStore(f"{scratch}/{die_at}", _WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=_WORLD)
    url = f"caisson://{scratch}/store#run/"
    if die_at == "nowhere":
        into = {"w": torch.zeros(300, 1000), "step": 0}
        dcp.load(into, storage_reader=CaissonStorageReader(url + "latest"))
        assert into["step"] == 1 and into["w"][0, 0] == 1, into
        _save(url, 2)
        dist.barrier()
        dcp.load(into, storage_reader=CaissonStorageReader(url + "latest"))
        assert into["step"] == 2 and into["w"][0, 0] == 2, into
        return
    if die_at == "put_start":
        _save(url, 1)
    if rank == 1:
        original = getattr(_native.Transaction, die_at)

        def die(self, *arguments):
            if die_at == "seal":
                original(self, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(_native.Transaction, die_at, die)
    _save(url, 2)


def main() -> None:
    context = mp.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="caisson-kill.") as scratch:
        for die_at in ("put_start", "seal", "nowhere"):
            ranks = [
                context.Process(target=_rank, args=(rank, scratch, die_at))
                for rank in range(_WORLD)
            ]
            for process in ranks:
                process.start()
            for process in ranks:
                process.join(60)
            codes = [process.exitcode for process in ranks]
            for process in ranks:
                process.kill()
            if die_at == "nowhere":
                assert codes == [0] * _WORLD, codes
            else:
                assert codes[1] == -signal.SIGKILL and 0 not in codes, (die_at, codes)
            store = _native.Store.open(f"{scratch}/store", create=False)
            latest = store.info("run/latest")
            assert latest.step == (2 if die_at == "nowhere" else 1), (die_at, latest)
            store.close()
            print(f"ok   killed at {die_at}", flush=True)


if __name__ == "__main__":
    main()

"""DCP by many ranks on a state that is sharded as FSDP2 shards it: DTensors, cut along the first dimension. Started with
the number of its ranks by peers.py, once to save and, with fewer, once to load. Rank 0 prints one line of JSON.

    ranks.py save|load SYSTEM STATE DIRECTORY RANK RANKS RENDEZVOUS
"""

import json
import pathlib
import sys
import time

import safetensors
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import state
from memory import wake_memory
from systems import SYSTEMS


def shard_rows(rows, rank, ranks):
    """The rows of one rank, as torch.chunk cuts them."""
    each = -(-rows // ranks)
    return min(rank * each, rows), min((rank + 1) * each, rows)


def sharded(source, mesh, rank, ranks, *, empty):
    """The state as DTensors; of each only this rank's rows are read."""
    tensors = {}
    for path in state.files(source):
        with safetensors.safe_open(path, framework="pt") as file:
            for name in file.keys():
                rows = file.get_slice(name)
                shape = rows.get_shape()
                begin, end = shard_rows(shape[0], rank, ranks)
                local = rows[begin:end].clone()
                if empty:
                    local = torch.empty_like(local)
                stride = torch.empty(shape, device="meta").stride()
                tensors[f"{path.stem}/{name}"] = DTensor.from_local(
                    local, mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride
                )
    return tensors


def different(loaded, expected):
    return [
        name for name, tensor in loaded.items() if not torch.equal(tensor.to_local(), expected[name].to_local())
    ]


def main():
    what, name, source, directory = sys.argv[1], sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4])
    rank, ranks, rendezvous = int(sys.argv[5]), int(sys.argv[6]), sys.argv[7]
    torch.set_num_threads(1)
    system = SYSTEMS[name]()
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    tensors = sharded(source, mesh, rank, ranks, empty=what == "load")
    wake_memory(2 * sum(tensor.to_local().nbytes for tensor in tensors.values()))
    dist.barrier()
    began = time.perf_counter()
    if what == "save":
        dcp.save(state.nested(tensors), storage_writer=system.writer(directory), planner=system.planner())
    else:
        dcp.load(state.nested(tensors), storage_reader=system.reader(directory), planner=system.load_planner())
    dist.barrier()
    seconds = time.perf_counter() - began
    if what == "load":
        wrong = different(tensors, sharded(source, mesh, rank, ranks, empty=False))
        if wrong:
            sys.exit(f"rank {rank}: {name} gave other tensors: {wrong[:3]}")
    if rank == 0:
        raw = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        print(json.dumps({"seconds": seconds, "raw_bytes": raw}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


main()

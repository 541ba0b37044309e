#!/usr/bin/env python3
"""How long the coordinator plans a save: an AdamW state of 720 parameters on 1,024 simulated ranks,
and 100,000 items on one. Prints seconds, medians of five rounds; needs torch.

    PYTHONPATH=client/python CAISSON_LIBRARY=build/release/client/libcaisson_c.so \\
        python bench/planning.py [--ranks 1024] [--stock] [--json]

`./dev bench peers --only planning` runs it.

What is simulated is what the ranks send: each layout is pickled and unpickled as it would be. Cold:
a save that nothing is known of. Warm: the next save of the same state. With --stock, PyTorch's
planner plans the same state, on fewer ranks where it would take minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pickle
import statistics
import time
import warnings

import torch
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, WriteItemType

from caisson.torch.planner import CaissonSavePlanner, CaissonStorageMeta, forget_plans
from caisson.torch.sections import describe, encode

_LAYERS, _HIDDEN = 80, 8192


def adamw_state() -> dict:
    """Nine tensors a layer, as in a decoder; on the meta device, since nothing is written."""
    shapes = [
        (_HIDDEN, _HIDDEN), (1024, _HIDDEN), (1024, _HIDDEN), (_HIDDEN, _HIDDEN),
        (28672, _HIDDEN), (28672, _HIDDEN), (_HIDDEN, 28672), (_HIDDEN,), (_HIDDEN,),
    ]  # fmt: skip
    model, state, groups = {}, {}, {}
    for layer in range(_LAYERS):
        for number, shape in enumerate(shapes):
            name = f"layers.{layer}.w{number}"
            model[name] = torch.empty(shape, device="meta")
            state[name] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.empty(shape, device="meta"),
                "exp_avg_sq": torch.empty(shape, device="meta"),
            }
            groups[name] = {
                "lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False,
                "maximize": False, "foreach": None, "capturable": False, "differentiable": False,
                "fused": None, "decoupled_weight_decay": True,
            }  # fmt: skip
    return {"model": model, "optim": {"state": state, "param_groups": groups}}


def shard_of(shape: tuple[int, ...], rank: int, ranks: int) -> tuple | None:
    """Along the first dimension, in the pieces of torch.chunk; scalars are held by all."""
    if not shape:
        return (), ()
    piece = -(-shape[0] // ranks)
    start = rank * piece
    length = min(piece, shape[0] - start)
    rest = shape[1:]
    return ((start, *(0 for _ in rest)), (length, *rest)) if length > 0 else None


def caisson_rounds(ranks: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, tuple]]:
    """Seconds of every round, and the bytes that the coordinator received and sent in the last."""
    state = adamw_state()
    moved = {}
    seconds: dict[str, list[float]] = {"cold": [], "warm": [], "rank": []}
    for _ in range(rounds):
        forget_plans()
        for kind in ("cold", "warm"):
            planner = CaissonSavePlanner()
            start = time.perf_counter()
            planner.set_up_planner(state, CaissonStorageMeta(), is_coordinator=True)
            planner.create_local_plan()
            seconds["rank"].append(time.perf_counter() - start)
            described = describe(planner.state_dict, planner.mappings)
            sent = []
            for rank in range(ranks):
                own = [
                    (section, [shard_of(shape, rank, ranks) for shape in section.shapes])
                    for section, _ in described
                ]
                if rank == 0:
                    planner._own, planner._layout = own, encode(own, send=False)
                plan = SavePlan([], planner_data=encode(own, send=rank > 0))
                sent.append(pickle.dumps(plan))
            start = time.perf_counter()
            plans, _ = planner.create_global_plan([pickle.loads(plan) for plan in sent])
            seconds[kind].append(time.perf_counter() - start)
            moved[kind] = sum(map(len, sent)), sum(len(pickle.dumps(p)) for p in plans)
    return seconds, moved


def stock_seconds(ranks: int) -> float:
    planner = DefaultSavePlanner()
    planner.set_up_planner(adamw_state(), is_coordinator=True)
    first = planner.create_local_plan()
    plans = []
    for rank in range(ranks):
        items = []
        for item in first.items:
            if item.tensor_data is not None:
                box = shard_of(tuple(item.tensor_data.size), rank, ranks)
                if box is None:
                    continue
                chunk = ChunkStorageMetadata(torch.Size(box[0]), torch.Size(box[1]))
                data = dataclasses.replace(item.tensor_data, chunk=chunk)
                index = MetadataIndex(item.index.fqn, chunk.offsets)
                kind = WriteItemType.SHARD if any(chunk.sizes) else item.type
                item = dataclasses.replace(item, type=kind, tensor_data=data, index=index)
            items.append(item)
        plans.append(dataclasses.replace(first, items=items))
    sent = [pickle.dumps(plan) for plan in plans]
    start = time.perf_counter()
    planner.create_global_plan([pickle.loads(plan) for plan in sent])
    return time.perf_counter() - start


def many_items(count: int) -> list[float]:
    state = {
        "model": {f"layer{i}.weight": torch.empty(0) for i in range(count // 2)},
        "values": {f"layer{i}": i for i in range(count // 2)},
    }
    seconds = []
    for _ in range(2):  # cold, warm
        planner = CaissonSavePlanner()
        start = time.perf_counter()
        planner.set_up_planner(state, CaissonStorageMeta(), is_coordinator=True)
        plans, _ = planner.create_global_plan([planner.create_local_plan()])
        planner.finish_plan(plans[0])
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--json", action="store_true", help="prints the medians as one line of JSON")
    given = parser.parse_args()
    seconds, moved = caisson_rounds(given.ranks, given.rounds)
    pairs = []
    for _ in range(given.rounds):
        forget_plans()
        pairs.append(many_items(100_000))
    of = {kind: statistics.median(samples) for kind, samples in seconds.items()}
    of |= {f"items_{kind}": statistics.median(pair[i] for pair in pairs) for i, kind in enumerate(("cold", "warm"))}
    if given.json:
        print(json.dumps(of))
        return
    for kind, (received, sent) in moved.items():
        print(f"{kind}: received {received / 1e6:.1f} MB, sent {sent / 1e6:.1f} MB")
    for kind, title in (("cold", "coordinator, cold"), ("warm", "coordinator, warm"),
                        ("rank", "a rank's own part")):  # fmt: skip
        print(f"{title}, {given.ranks} ranks: {of[kind]:.3f} s")
    for kind in ("cold", "warm"):
        print(f"100,000 items on one rank, {kind}: {of[f'items_{kind}']:.3f} s")
    if given.stock:
        ranks = min(given.ranks, 64)
        print(f"DefaultSavePlanner, {ranks} ranks: {stock_seconds(ranks):.3f} s")


if __name__ == "__main__":
    main()

"""DCP's async_save in a process of its own: for how long it holds up the caller, and what it leaves of the caller's
pace while it drains. Prints one line of JSON.

    async_worker.py SYSTEM STATE DIRECTORY SAVES
"""

import json
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

import state
from systems import SYSTEMS
from memory import memory_peak, resident_bytes, wake_memory

BEFORE_SECONDS = 5  # of training, before its first save
DISPATCHES = 200  # small operations in one beat of the loop, about a millisecond


def beat(tensor):
    for _ in range(DISPATCHES):
        tensor.add_(1)


def beats_until(done, seconds_max=60.0):
    """The main thread's dispatch loop: the seconds of every beat."""
    tensor, beats = torch.zeros(16), []
    ends = time.perf_counter() + seconds_max
    last = time.perf_counter()
    while not done() and last < ends:
        beat(tensor)
        now = time.perf_counter()
        beats.append(now - last)
        last = now
    return beats


def beats_for(seconds):
    ends = time.perf_counter() + seconds
    return beats_until(lambda: time.perf_counter() > ends)


def memcpy_seconds(tensors):
    """Copying the state into memory that has been touched before: the least that staging can take."""
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    times = []
    for _ in range(3):
        began = time.perf_counter()
        for name, tensor in tensors.items():
            copies[name].copy_(tensor)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def percentile(values, share):
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def main():
    name, source, directory, saves = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
    try:
        system = SYSTEMS[name]()
    except ImportError as error:
        print(json.dumps({"absent": str(error)}), flush=True)
        return
    rendezvous = tempfile.mktemp()
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    tensors = state.load(source)
    raw = state.size_of(tensors)
    answer = {"blocked": [], "pace": [], "p99": [], "longest": [], "extra_bytes": 0}
    before = resident_bytes("VmRSS")
    system.reserve(tensors, directory)
    beats_for(BEFORE_SECONDS)
    alone = beats_for(2)
    answer["beat"] = statistics.median(alone)
    rate_alone = len(alone) / sum(alone)
    for number in range(saves):
        writer = system.writer(directory / str(number))
        wake_memory(2 * raw)
        with memory_peak(before) as memory:
            began = time.perf_counter()
            future = dcp.async_save(state.nested(tensors), storage_writer=writer, planner=system.planner())
            answer["blocked"].append(time.perf_counter() - began)
            beats = beats_until(future.done)
            future.result()
        answer["extra_bytes"] = max(answer["extra_bytes"], memory.extra_bytes - raw)
        if beats:
            answer["pace"].append(len(beats) / sum(beats) / rate_alone)
            answer["p99"].append(percentile(beats, 0.99))
            answer["longest"].append(max(beats))
    dist.destroy_process_group()
    shutil.rmtree(directory)
    # Last, because the memory that it leaves warm would help the first save.
    answer["memcpy"] = memcpy_seconds(tensors)
    print(json.dumps(answer), flush=True)


main()

"""One system in a process of its own, driven by lines on standard input: `save`, `load`, `remove`. Answers each with a line
of JSON: seconds, extra bytes of memory at the peak, bytes on the disk.
"""

import json
import pathlib
import shutil
import sys
import time

import torch

import state
from memory import memory_peak, wake_memory
from systems import SYSTEMS


def measured(call):
    """What the call gave, its seconds, and by how much it raised the peak of resident memory."""
    with memory_peak() as memory:
        began = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - began
    return result, seconds, memory.extra_bytes


def main():
    name, source, directory = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    try:
        system = SYSTEMS[name]()
    except ImportError as error:
        print(json.dumps({"absent": str(error)}), flush=True)
        return
    tensors = state.load(source)
    raw = state.size_of(tensors)
    print(json.dumps({"raw_bytes": raw}), flush=True)
    checked = False
    for line in sys.stdin:
        command = line.strip()
        answer = {}
        if command == "save":
            directory.mkdir(parents=True)
            wake_memory(2 * raw)
            _, answer["seconds"], answer["extra_bytes"] = measured(lambda: system.save(tensors, directory))
            answer["stored_bytes"] = state.stored(directory)
        elif command == "load":
            state.drop_page_cache(directory)
            wake_memory(2 * raw)
            loaded, answer["seconds"], extra = measured(lambda: system.load(directory, tensors))
            answer["extra_bytes"] = extra - raw
            if not checked:
                different = [name for name in tensors if not torch.equal(tensors[name], loaded[name])]
                if different or len(loaded) != len(tensors):
                    sys.exit(f"{name} gave other tensors than it was given: {different[:3]}")
                checked = True
            del loaded
        elif command == "remove":
            shutil.rmtree(directory)
        print(json.dumps(answer), flush=True)


main()

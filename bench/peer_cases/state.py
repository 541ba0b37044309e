"""The training state that every system saves and restores: real, mixed precision, 14 bytes a parameter.

Made by bench/train_state.py when it is not there. One state of its medium model is 0.41 GB; the states of its four steps lie
side by side, so that there are enough bytes, of which no tile occurs twice.
"""

import os
import pathlib
import subprocess
import sys

import safetensors

BYTES_MIN = 1_300_000_000


def files(directory):
    return sorted(pathlib.Path(directory).glob("mixed-*.safetensors"))


def make(directory):
    """The files of the state, trained first when they are not there: some minutes."""
    script = pathlib.Path(__file__).parent.parent / "train_state.py"
    if not files(directory):
        print(f"training a model for its state, some minutes; it stays in {directory}", flush=True)
        command = [sys.executable, script, directory, "--size", "medium", "--steps", "160", "--runs", "mixed"]
        subprocess.run(command, check=True)
    size = sum(path.stat().st_size for path in files(directory))
    if size < BYTES_MIN:
        print(f"note: this state has {size / 1e9:.2f} GB, less than the {BYTES_MIN / 1e9:.1f} GB of the targets", flush=True)
    return files(directory)


def names(directory):
    """What the state holds: (file, name in it, name in the state)."""
    for path in files(directory):
        with safetensors.safe_open(path, framework="pt") as file:
            for name in file.keys():
                yield path, name, f"{path.stem}/{name}"


def load(directory):
    """The whole state in memory of its own."""
    tensors = {}
    for path in files(directory):
        with safetensors.safe_open(path, framework="pt") as file:
            for name in file.keys():
                tensors[f"{path.stem}/{name}"] = file.get_tensor(name).clone()
    return tensors


def nested(tensors):
    """As a trainer hands it over: a few dicts, of which each holds many tensors."""
    state = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        state.setdefault(group, {})[rest] = tensor
    return state


def size_of(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def paths_below(directory):
    return [path for path in pathlib.Path(directory).rglob("*") if path.is_file()]


def stored(directory):
    """Bytes on the disk, not the lengths of the files: those may have holes."""
    return sum(min(path.stat().st_blocks * 512, path.stat().st_size) for path in paths_below(directory))


def make_durable(directory):
    """For systems that leave it to others: every file and directory."""
    for path in [*paths_below(directory), *pathlib.Path(directory).rglob("*/"), pathlib.Path(directory)]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def drop_page_cache(directory):
    for path in paths_below(directory):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # only clean pages are dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

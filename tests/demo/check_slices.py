"""check_slices.py MODEL DIR: puts the slices that `caisson restore --ranks` wrote together again and
compares every tensor with the original. Exits with 1 when anything differs."""

import pathlib
import re
import sys

import numpy as np
from safetensors import safe_open


def main() -> None:
    original = safe_open(sys.argv[1], framework="np")
    names = set(original.keys())
    whole = {name: np.zeros_like(original.get_tensor(name)) for name in names}
    covered = {name: 0 for name in names}
    slices = sorted(pathlib.Path(sys.argv[2]).glob("*.safetensors"))
    for path in slices:
        with safe_open(path, framework="np") as part:
            metadata = part.metadata()
            for name in part.keys():
                box = metadata.get("caisson.box." + name)
                where = ()
                if box is not None:  # "[0:4, 8:16] of [4, 24]"
                    ranges = re.findall(r"(\d+):(\d+)", box)
                    where = tuple(slice(int(begin), int(end)) for begin, end in ranges)
                values = part.get_tensor(name)
                whole[name][where] = values
                covered[name] += values.size
    for name in sorted(names):
        expected = original.get_tensor(name)
        if covered[name] != expected.size or whole[name].tobytes() != expected.tobytes():
            sys.exit(f"{name}: {covered[name]} of {expected.size} elements, or other bytes")
    print(f"{len(slices)} slices, {len(names)} tensors: equal element by element")


main()

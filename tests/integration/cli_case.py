"""What the tests of the command line share: a directory to work in, the program, and model files.

Each of them, cli_*_test.py, is run as

    cli_verbs_test.py CAISSON [unittest arguments]
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import safetensors

CAISSON = os.path.abspath(sys.argv.pop(1))
OK, DIFFERENT, USAGE, NOT_FOUND, CORRUPTION, CONFLICT = 0, 1, 2, 3, 4, 5
IO, NO_SPACE, UNSUPPORTED = 6, 7, 8

# What safetensors.serialize calls a dtype, and bytes of one element.
LIBRARY_DTYPES = {
    "bool": 1, "uint8": 1, "int8": 1, "float8_e5m2": 1, "float8_e4m3fn": 1, "float8_e8m0fnu": 1,
    "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float4_e2m1fn_x2": 1, "int16": 2, "uint16": 2,
    "float16": 2, "bfloat16": 2, "int32": 4, "uint32": 4, "float32": 4, "complex64": 8,
    "float64": 8, "int64": 8, "uint64": 8,
}  # fmt: skip


def library_file(path, specs, metadata=None, seed=0):
    """Writes a file with the safetensors library: specs are (name, dtype, shape)."""
    rng = np.random.default_rng(seed)
    keep, tensors = [], {}
    for name, dtype, shape in specs:
        data = rng.integers(0, 2, int(np.prod(shape)) * LIBRARY_DTYPES[dtype], dtype=np.uint8)
        keep.append(data)
        tensors[name] = safetensors.TensorSpec(
            dtype=dtype, shape=list(shape), data_ptr=data.ctypes.data, data_len=data.nbytes
        )
    pathlib.Path(path).write_bytes(bytes(safetensors.serialize(tensors, metadata=metadata)))
    return path


def raw_file(path, header, data=b""):
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def sha(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class CliCase(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="caisson-cli-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.store = self.dir / "store"

    def run_cli(self, *arguments, code=OK):
        done = subprocess.run(
            [CAISSON, *map(str, arguments)], capture_output=True, text=True, timeout=120
        )
        self.assertEqual(done.returncode, code, f"{arguments}\n{done.stdout}\n{done.stderr}")
        return done

    def json_of(self, *arguments, code=OK):
        return json.loads(self.run_cli(*arguments, "--json", code=code).stdout)

    def import_file(self, path, name="run/0", *options):
        return self.json_of("import", self.store, name, path, *options)

    def small(self, name="m.safetensors", seed=0, rows=1000):
        return library_file(
            self.dir / name,
            [("a.weight", "float32", (rows, 64)), ("a.bias", "bfloat16", (64,)), ("s", "int64", ())],
            {"format": "pt"},
            seed,
        )

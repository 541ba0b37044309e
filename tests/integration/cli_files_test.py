"""Files of others in and out: exports compared with the real safetensors library, hostile files."""

import json
import os
import pathlib
import random
import sys
import unittest

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from cli_case import (
    CORRUPTION, LIBRARY_DTYPES, NOT_FOUND, UNSUPPORTED, CliCase, library_file, raw_file, sha,
)  # fmt: skip


class Files(CliCase):
    def test_float_codecs_by_the_specification(self):
        rng = np.random.default_rng(3)
        normal = rng.standard_normal(70_001).astype(np.float32) * 0.02
        tensors = {
            "bf16": normal.astype(ml_dtypes.bfloat16), "fp32": normal, "v": normal * normal,
            "fp16": normal.astype(np.float16), "fp64": normal.astype(np.float64),
            "e4m3": normal.astype(ml_dtypes.float8_e4m3fn),
            "e5m2": normal.astype(ml_dtypes.float8_e5m2),
            "rows": np.where(np.arange(70_001) // 500 % 3 == 0, normal, 0).astype(np.float32),
        }  # fmt: skip
        source = self.dir / "floats.safetensors"
        safetensors.numpy.save_file(tensors, source)
        sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "format"))
        import reader

        for codec, number in (("planes", 2), ("entropy", 3), ("sparse", 6)):
            store = self.dir / codec
            self.run_cli("import", store, "run/1", source, "--codec", codec)
            self.run_cli("verify", store, "--depth", "full")
            manifest = reader.Store(str(store)).checkpoint("run/1")
            for name, want in tensors.items():
                self.assertEqual(manifest.tensor_bytes(name), want.tobytes(), name)
            self.assertIn(number, manifest.codecs())

    def test_exports_of_library_files_are_byte_identical(self):
        rng = random.Random(5)
        specs = []
        for index, dtype in enumerate(LIBRARY_DTYPES):
            for shape in ((), (0,), (3, 0, 2), (7,), (5, 4), (2, 3, 4)):
                if dtype == "float4_e2m1fn_x2" and shape == ():
                    continue
                specs.append((f"t{rng.randrange(10**6)}.{index}.{len(shape)}", dtype, shape))
        specs.append(("käse/\u4e2d\"\\\n", "float32", (8,)))
        for number, metadata in enumerate((None, {"format": "pt"}, {"z": "1", "a": '"\n', "m": ""})):
            path = library_file(self.dir / f"f{number}.safetensors", specs, metadata, number)
            self.import_file(path, f"run/{number}")
            self.run_cli("export", self.store, f"run/{number}", self.dir / f"o{number}.safetensors")
            self.assertEqual(sha(path), sha(self.dir / f"o{number}.safetensors"))

    def test_our_own_headers_are_the_librarys(self):
        specs = [(f"t{i}", dtype, (3, 2)) for i, dtype in enumerate(LIBRARY_DTYPES)]
        specs += [(f"u{i}", "float32", (2,)) for i in range(12)]
        path = library_file(self.dir / "f.safetensors", specs, {"format": "pt"})
        self.import_file(path)
        # A glob that excludes nothing of "t*" and "u*" but is not "*": the header is made anew from
        # a selection, then compared with what the library writes for that selection.
        self.run_cli("export", self.store, "run/0", self.dir / "o.safetensors", "--tensors", "t*")
        ours = (self.dir / "o.safetensors").read_bytes()
        read = safetensors.deserialize(ours)
        self.assertEqual(sorted(n for n, _ in read), sorted(s[0] for s in specs if s[0][0] == "t"))
        again = {}
        keep = []
        names = {n: d for n, d, _ in specs}
        for name, tensor in read:
            data = np.frombuffer(bytes(tensor["data"]), dtype=np.uint8)
            keep.append(data)
            again[name] = safetensors.TensorSpec(
                dtype=names[name], shape=[3, 2], data_ptr=data.ctypes.data, data_len=data.nbytes
            )
        theirs = bytes(safetensors.serialize(again, metadata={"format": "pt"}))
        self.assertEqual(ours, theirs)

    def test_foreign_layout_is_kept(self):
        # Tensors not in the library's order, spaces in the JSON, unpadded header.
        header = (
            b'{ "b" : {"shape":[2],"data_offsets":[0,2],"dtype":"U8"} ,'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[2,6],"x":[1,{"y":null}]}} '
        )
        path = raw_file(self.dir / "odd.safetensors", header, b"123456")
        self.import_file(path)
        self.run_cli("export", self.store, "run/0", self.dir / "o.safetensors")
        self.assertEqual(sha(path), sha(self.dir / "o.safetensors"))

    def test_sub_byte_types(self):
        header = {
            "f4": {"dtype": "F4", "shape": [6, 5, 2], "data_offsets": [0, 30]},
            "f6": {"dtype": "F6_E2M3", "shape": [4, 3], "data_offsets": [30, 39]},
            "f6b": {"dtype": "F6_E3M2", "shape": [8], "data_offsets": [39, 45]},
        }
        path = raw_file(self.dir / "f.safetensors", header, os.urandom(45))
        self.import_file(path, "run/0", "--ranks", 2)
        self.run_cli("export", self.store, "run/0", self.dir / "o.safetensors")
        self.assertEqual(sha(path), sha(self.dir / "o.safetensors"))
        self.run_cli("restore", self.store, "run/0", "--out", self.dir / "r", "--ranks", 3)

    def model_directory(self):
        model = self.dir / "model"
        (model / "sub").mkdir(parents=True)
        (model / "config.json").write_text('{"hidden_size": 64}')
        (model / "sub" / "empty.txt").write_bytes(b"")
        library_file(model / "model-00001-of-00002.safetensors", [("a", "float32", (700, 512))])
        library_file(model / "model-00002-of-00002.safetensors", [("b", "bfloat16", (99, 3))], seed=1)
        places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        return model

    def test_model_directory_there_and_back(self):
        model = self.model_directory()
        self.import_file(model, "run/0", "--ranks", 3)
        self.run_cli("export", self.store, "run/0", self.dir / "back")
        for path in model.rglob("*"):
            if path.is_file():
                self.assertEqual(sha(path), sha(self.dir / "back" / path.relative_to(model)), path)
        # Imported by another number of ranks: everything is shared.
        again = self.import_file(model, "run/1", "--ranks", 1)
        self.assertLess(again["stored_bytes"], 5000)

    def test_exported_in_shards(self):
        self.import_file(self.model_directory())
        out = self.dir / "shards"
        self.run_cli("export", self.store, "run/0", out, "--max-shard-size", "1MB")
        index = json.loads((out / "model.safetensors.index.json").read_text())
        self.assertEqual(sorted(index["weight_map"]), ["a", "b"])
        self.assertEqual(index["metadata"]["total_size"], 700 * 512 * 4 + 99 * 3 * 2)
        for name, file in index["weight_map"].items():
            with safetensors.safe_open(out / file, framework="np") as part:
                self.assertIn(name, part.keys())
        self.assertEqual((out / "config.json").read_text(), '{"hidden_size": 64}')

    def test_incomplete_directory(self):
        model = self.model_directory()
        (model / "model-00002-of-00002.safetensors").unlink()
        error = self.json_of("import", self.store, "run/0", model, code=NOT_FOUND)
        self.assertIn("model-00002-of-00002.safetensors", error["message"])
        self.assertFalse(self.store.exists())

    def test_resharded_slices(self):
        rng = np.random.default_rng(2)
        tensors = {
            "w": rng.standard_normal((999, 700), dtype=np.float32),
            "half": rng.standard_normal((300, 301)).astype(np.float16),
            "v": np.arange(2, dtype=np.int64),
        }
        path = self.dir / "m.safetensors"
        safetensors.numpy.save_file(tensors, path)
        self.import_file(path, "run/0", "--ranks", 4)
        for ranks, dim in ((3, 1), (5, 0)):
            out = self.dir / f"out{ranks}"
            self.run_cli("restore", self.store, "run/0", "--out", out, "--ranks", ranks,
                         "--shard-dim", dim)  # fmt: skip
            parts = [safetensors.numpy.load_file(file) for file in sorted(out.iterdir())]
            for name in ("w", "half"):
                joined = np.concatenate([part[name] for part in parts], axis=dim)
                np.testing.assert_array_equal(joined, tensors[name])
            self.assertEqual(sum("v" in part for part in parts), 1)
        self.run_cli("restore", self.store, "run/0", "--out", self.dir / "npy", "--format", "npy",
                     "--shard", "1/2", "--tensors", "[wv]")  # fmt: skip
        part = np.load(self.dir / "npy" / "slice-00001-of-00002" / "w.npy")
        np.testing.assert_array_equal(part, tensors["w"][500:])

    def test_numpy_has_no_bfloat16(self):
        tensors = {"b": np.ones(4, dtype=ml_dtypes.bfloat16)}
        path = library_file(self.dir / "m.safetensors", [("b", "bfloat16", tensors["b"].shape)])
        self.import_file(path)
        self.run_cli("restore", self.store, "run/0", "--out", self.dir / "o", "--format", "npy",
                     code=UNSUPPORTED)  # fmt: skip

    def test_hostile_files(self):
        entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
        files = {
            "empty": b"",
            "short": b"\0\0\0",
            "huge-header": (2**63).to_bytes(8, "little") + b"{}",
            "above-limit": (100_000_001).to_bytes(8, "little") + b"{}",
            "past-end": (10).to_bytes(8, "little") + b"{}",
            "garbage": os.urandom(4096),
        }
        for name, data in files.items():
            (self.dir / f"{name}.safetensors").write_bytes(data)
        headers = {
            "not-json": (b"{x", b""),
            "hole": ({"a": entry | {"data_offsets": [1, 5]}}, b"12345"),
            "longer": ({"a": entry}, b"12345"),
            "shorter": ({"a": entry}, b"123"),
            "twice": (b'{"a":%s,"a":%s}' % ((json.dumps(entry).encode(),) * 2), b"1234"),
            "deep": (b'{"a":{"x":' + b"[" * 500_000, b""),
            "overflow": ({"a": entry | {"shape": [2**32, 2**32, 2**32]}}, b"1234"),
        }
        for name, (header, data) in headers.items():
            raw_file(self.dir / f"{name}.safetensors", header, data)
        for name in [*files, *headers]:
            path = self.dir / f"{name}.safetensors"
            error = self.json_of("import", self.store, "run/0", path, code=CORRUPTION)
            self.assertIn(str(path), error["message"], name)
        self.assertFalse(self.store.exists())

    def test_truncated_anywhere(self):
        whole = pathlib.Path(self.small(rows=4)).read_bytes()
        path = self.dir / "cut.safetensors"
        for length in range(0, len(whole), 97):
            path.write_bytes(whole[:length])
            self.run_cli("import", self.store, "run/0", path, code=CORRUPTION)


if __name__ == "__main__":
    unittest.main()

"""caisson.save and caisson.load, the Store around them, and files in and out."""

import array
import contextlib
import gc
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import unittest

import ml_dtypes
import numpy as np
import safetensors.numpy

import caisson
from caisson import _arrays
from caisson._collector import collector_paused

RNG = np.random.default_rng(5)


def sample():
    weight = RNG.normal(size=(300, 700)).astype(np.float32)
    return {
        "weight": weight,
        "tied": weight,
        "half": RNG.normal(size=(64, 64)).astype(ml_dtypes.bfloat16),
        "fp8": RNG.normal(size=(5, 9)).astype(ml_dtypes.float8_e4m3fn),
        "columns": RNG.normal(size=(128, 128))[:, ::2],
        "reversed": np.arange(1000, dtype=np.int32)[::-1],
        "big_endian": np.arange(10, dtype=">i8"),
        "complex": RNG.normal(size=8) + 1j,
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3), dtype=np.float16),
        "step": 17,
        "rate": 2.5,
        "buffer": array.array("d", [1.0, 2.0]),
        "bytes": b"abc",
        "large": RNG.integers(0, 255, 40 << 20, dtype=np.uint8),
    }


class Foreign:
    """An array of a library that nobody knows, on a device."""

    def __init__(self, inner, device=1):
        self.inner, self.device = inner, device

    def __dlpack__(self, **_):
        return self.inner.__dlpack__()

    def __dlpack_device__(self):
        return (self.device, 0)


class PackageTest(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="caisson-package-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.url = str(self.dir / "store")

    def assert_equal(self, loaded, saved):
        if isinstance(saved, bytes):
            saved = np.frombuffer(saved, dtype=np.uint8)
        saved = np.asarray(saved)
        self.assertEqual(loaded.dtype, saved.dtype.newbyteorder("="))
        self.assertEqual(loaded.shape, saved.shape)
        np.testing.assert_array_equal(loaded, saved)


class SaveAndLoad(PackageTest):
    def test_every_kind_of_array(self):
        tensors = sample()
        info = caisson.save(tensors, self.url, "run/1", blobs={"b": b"x"}, metadata={"loss": 2.5})
        self.assertEqual((info.name, info.metadata, info.latest), ("run/1", {"loss": 2.5}, True))
        loaded = caisson.load(self.url)
        self.assertEqual(sorted(loaded), sorted(tensors))
        for name, saved in tensors.items():
            with self.subTest(name=name):
                self.assert_equal(loaded[name], saved)
                self.assertTrue(loaded[name].flags.writeable)
        self.assertIs(loaded["tied"], loaded["weight"])
        self.assertEqual(loaded["large"].ctypes.data % (2 << 20), 0)

    def test_dlpack(self):
        inner = RNG.normal(size=(20, 30)).astype(np.float32)
        caisson.save({"a": Foreign(inner), "t": Foreign(inner.T)}, self.url, "run/1")
        loaded = caisson.load(self.url)
        self.assert_equal(loaded["a"], inner)
        self.assert_equal(loaded["t"], inner.T)
        with self.assertRaisesRegex(caisson.InvalidArgumentError, "another device"):
            caisson.save({"a": Foreign(inner, device=2)}, self.url, "run/2")

    def test_what_cannot_be_saved(self):
        for tensors, words in (
            ({"a": "text"}, "str"),
            ({"a": [1, 2]}, "list"),
            ({"a": {"b": np.zeros(1)}}, "flatten"),
            ({"a": np.array([object()])}, "no tensor"),
            ({"a": np.zeros((1,) * 9)}, "9 dimensions"),
            ({"a": np.ma.masked_equal([1, 2], 1)}, "mask"),
            ({1: np.zeros(1)}, "name"),
            (np.zeros(1), "dict"),
        ):
            with self.subTest(words=words):
                with self.assertRaisesRegex(caisson.InvalidArgumentError, words):
                    caisson.save(tensors, self.url, "run/1")

    def test_urls_and_names(self):
        tensors = {"a": np.ones(3)}
        caisson.save(tensors, f"caisson://{self.url}#run/1")
        caisson.save(tensors, "file://" + self.url, "run/2")
        caisson.save(tensors, pathlib.Path(self.url), "run/3")
        self.assertEqual(len(caisson.Store(self.url).checkpoints()), 3)
        caisson.load(f"caisson://{self.url}#run/2")
        caisson.load(f"caisson://{self.url}")
        for url, name in (
            (self.url, None),
            (self.url, "step"),
            (pathlib.Path(f"caisson://{self.url}"), "run/4"),
            (f"caisson://{self.url}#run/4", "run/5"),
            ("caisson://relative", "run/4"),
        ):
            with self.subTest(url=url), self.assertRaises(caisson.InvalidArgumentError):
                caisson.save(tensors, url, name)
        with self.assertRaises(caisson.NotFoundError):
            caisson.load(str(self.dir / "none"))
        self.assertFalse((self.dir / "none").exists())
        caisson.save(tensors, self.url, "other/1")
        with self.assertRaisesRegex(caisson.InvalidArgumentError, "other/latest, run/latest"):
            caisson.load(self.url)

    def test_a_save_in_the_background(self):
        weight = np.ones(1 << 20, dtype=np.float32)
        pending = caisson.save({"w": weight}, self.url, "run/1", wait=False)
        weight[:] = 2  # copied, so this is allowed
        info = pending.wait(60)
        self.assertTrue(pending.done())
        self.assertEqual(info.name, "run/1")
        self.assertEqual(pending.report.raw_bytes, weight.nbytes)
        self.assertEqual(caisson.load(self.url)["w"].max(), 1)
        # One that nobody waits for is finished all the same.
        caisson.save({"w": weight}, self.url, "run/2", wait=False)
        caisson.save({"w": weight}, self.url, "run/3")
        self.assertEqual(caisson.load(self.url, "run/2")["w"].max(), 2)

    def test_the_error_of_a_save_that_nobody_asked_for(self):
        weight = np.ones(1 << 20, dtype=np.float32)
        with caisson.Store(self.url) as store:
            store.save({"w": weight}, "run/1")
            first = store.save({"w": weight}, "run/2", wait=False)
            store.save({"w": weight}, "run/2", wait=False)  # the name is taken when it runs
            first.wait()
            with self.assertRaisesRegex(caisson.CaissonError, "run/2"):
                while True:
                    store.save({"w": weight}, "run/3", overwrite=True)

    def test_parts_of_tensors(self):
        tensors = sample()
        caisson.save(tensors, self.url, "run/1")
        self.assertEqual(list(caisson.load(self.url, tensors=["step"])), ["step"])
        self.assertEqual(sorted(caisson.load(self.url, tensors="f*")), ["flags", "fp8"])
        part = caisson.load(self.url, tensors={"weight": np.s_[10:20, 5:], "half": None})
        self.assert_equal(part["weight"], tensors["weight"][10:20, 5:])
        self.assert_equal(part["half"], tensors["half"])
        for slices in (np.s_[0], np.s_[::2], np.s_[0:1, 0:1, 0:1]):
            with self.subTest(slices=slices), self.assertRaises(caisson.TensorMismatchError):
                caisson.load(self.url, tensors={"weight": slices})

    def test_in_place(self):
        tensors = sample()
        caisson.save(tensors, self.url, "run/1")
        whole = np.zeros((300, 1400), dtype=np.float32)
        out = {"weight": whole[:, ::2], "step": np.zeros((), dtype=np.int64)}
        loaded = caisson.load(self.url, out=out)
        self.assertIs(loaded["weight"], out["weight"])
        self.assert_equal(out["weight"], tensors["weight"])
        self.assertEqual(whole[:, 1::2].max(), 0)
        self.assertEqual(out["step"], 17)

    def test_all_that_does_not_fit_is_listed_and_nothing_is_read(self):
        caisson.save(sample() | {"blobby": np.zeros(2)}, self.url, "run/1", blobs={"b": b"x"})
        out = {
            "missing": np.zeros(3),
            "weight": np.full((301, 700), 5, dtype=np.float32),
            "half": np.zeros((64, 64), dtype=np.float32),
            "b": np.zeros(1, dtype=np.uint8),
            "step": np.full((), 5, dtype=np.int64),
        }
        with self.assertRaises(caisson.TensorMismatchError) as raised:
            caisson.load(self.url, out=out)
        text = str(raised.exception)
        self.assertEqual(len(raised.exception.problems), 4)
        for words in ("missing", "[300, 700], wanted [301, 700]", "BF16, wanted F32", "read_blob"):
            self.assertIn(words, text)
        self.assertEqual(out["step"], 5)
        again = pickle.loads(pickle.dumps(raised.exception))
        self.assertEqual(again.problems, raised.exception.problems)
        frozen = np.zeros((), dtype=np.int64)
        frozen.flags.writeable = False
        with self.assertRaisesRegex(caisson.InvalidArgumentError, "read-only"):
            caisson.load(self.url, out={"step": frozen})

    def test_another_dtype_and_a_larger_shape_when_asked(self):
        tensors = sample()
        caisson.save(tensors, self.url, "run/1")
        out = {
            "weight": np.zeros((310, 701), dtype=np.float64),
            "half": np.zeros((80, 64), dtype=ml_dtypes.bfloat16),
        }
        caisson.load(self.url, out=out, convert=True, pad=-1)
        np.testing.assert_array_equal(out["weight"][:300, :700], tensors["weight"])
        np.testing.assert_array_equal(out["half"][:64], tensors["half"])
        self.assertTrue((out["weight"][300:] == -1).all() and (out["weight"][:, 700] == -1).all())
        self.assertTrue((out["half"][64:] == -1).all())
        loaded = caisson.load(self.url, dtype="BF16", tensors=["weight", "tied", "step"])
        self.assertEqual(loaded["weight"].dtype, ml_dtypes.bfloat16)
        self.assertIs(loaded["weight"], loaded["tied"])
        self.assertEqual(loaded["step"].dtype, np.int64)
        np.testing.assert_array_equal(
            loaded["weight"], tensors["weight"].astype(ml_dtypes.bfloat16)
        )

    def test_a_store_of_several_directories(self):
        other = self.dir / "other"
        url = f"caisson://{self.url}?dirs={other}"
        for step in (1, 2):
            caisson.save({"w": np.full(100000, step)}, f"{url}#run/{step}")
        self.assertTrue(list(other.rglob("*")))
        self.assertEqual(caisson.load(f"{url}#run/1")["w"][0], 1)
        self.assertEqual(caisson.load(self.url)["w"][0], 2)
        with caisson.Store(url) as store:
            self.assertTrue(store.verify(depth="full").ok)
            self.assertEqual(store.stat().checkpoints, 2)
            # Both saves are of one epoch: the store stayed open between them.
            self.assertEqual({c.epoch for c in store.checkpoints()}, {1})

    def test_a_store_that_was_replaced_is_opened_anew(self):
        caisson.save({"w": np.zeros(1)}, self.url, "run/1")
        shutil.rmtree(self.url)
        caisson.save({"w": np.ones(1)}, self.url, "run/1")
        self.assertEqual(caisson.load(self.url)["w"], 1)

    def test_a_forked_child_saves_by_itself(self):
        caisson.save({"w": np.zeros(1)}, self.url, "run/1")
        child = os.fork()
        if child == 0:
            try:
                caisson.save({"w": np.ones(1)}, self.url, "child/1")
                os._exit(0)
            finally:
                os._exit(1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(caisson.load(self.url, "child/latest")["w"], 1)

    def test_new_arrays_lie_in_private_memory(self):
        # What could be shared is never made of hugepages.
        caisson.save({"a": np.ones(3 << 20, np.uint8)}, self.url, "run/1")
        loaded = caisson.load(self.url, "run/1")
        address = loaded["a"].ctypes.data
        for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
            area, permissions, *_ = line.split()
            begin, end = (int(side, 16) for side in area.split("-"))
            if begin <= address < end:
                self.assertEqual(permissions, "rw-p")
                return
        self.fail("no mapping has the array")

    def test_new_arrays_lie_side_by_side(self):
        small, direct, own = 100, 300 << 10, 16 << 20
        sizes = [0, small, direct, own, small, *[8 << 20] * 9, small, 0, own + 1, direct]
        arrays = _arrays.allocate(sizes)
        self.assertEqual([len(array) for array in arrays], sizes)
        for number, array in enumerate(arrays):
            array[:] = number
        for number, array in enumerate(arrays):
            self.assertTrue((array == number).all())
            self.assertEqual(array.ctypes.data % (4096 if len(array) >= direct else 1), 0)
        # Neighbours, so that they share hugepages; a mapping of many ends with the last of them.
        self.assertEqual(arrays[4].ctypes.data, arrays[2].ctypes.data + direct)
        pools = {id(array.base) for array, size in zip(arrays, sizes) if size < own}
        self.assertEqual(len(pools), 2)

    def test_the_collector_goes_on_when_the_last_stretch_ends(self):
        for on in (True, False):
            gc.enable() if on else gc.disable()
            try:
                with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
                    first.enter_context(collector_paused())
                    second.enter_context(collector_paused())
                    first.close()
                    self.assertFalse(gc.isenabled())
                self.assertEqual(gc.isenabled(), on)
            finally:
                gc.enable()

    def test_torch_is_not_imported(self):
        code = (
            "import sys, numpy, caisson; caisson.save({'a': numpy.ones(2)}, sys.argv[1], 'r/1');"
            "caisson.load(sys.argv[1]); sys.exit('torch' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code, self.url], check=True)


class StoreTest(PackageTest):
    def setUp(self):
        super().setUp()
        self.store = caisson.Store(self.url)
        self.addCleanup(self.store.close)
        self.weight = RNG.normal(size=(500, 500)).astype(np.float32)
        self.store.save({"w": self.weight, "a": np.zeros(9)}, "run/1", blobs={"b": b"xyz"})
        self.store.save({"w": self.weight, "c": np.ones(9)}, "run/2")

    def test_what_there_is(self):
        self.assertEqual([c.name for c in self.store.checkpoints()], ["run/1", "run/2"])
        self.assertEqual(self.store.checkpoints("none"), [])
        self.assertEqual(self.store.info().name, "run/2")
        self.assertEqual([t.name for t in self.store.tensors("run/1")], ["a", "b", "w"])
        self.assertEqual(self.store.read_blob("run/1", "b"), b"xyz")

    def test_diff(self):
        found = self.store.diff("run/1", "run/2")
        self.assertEqual((found.same, found.a, found.b), (1, "run/1", "run/2"))
        self.assertEqual(
            {(c.name, c.change, c.before, c.after) for c in found.changes},
            {
                ("a", "removed", ("F64", (9,)), None),
                ("b", "removed", ("U8", (3,)), None),
                ("c", "added", None, ("F64", (9,))),
            },
        )

    def test_verify_finds_damage(self):
        self.assertTrue(self.store.verify(depth="full").ok)
        (pack, *_) = sorted(pathlib.Path(self.url).rglob("*.pack"), key=lambda p: -p.stat().st_size)
        pack.chmod(0o644)
        damaged = bytearray(pack.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        pack.write_bytes(damaged)
        found = self.store.verify("run/1")
        self.assertFalse(found.ok)
        self.assertIn("w", [finding.tensor for finding in found.findings])
        with self.assertRaises(caisson.CorruptionError):
            self.store.load("run/1")

    def test_rm_gc_and_stat(self):
        before = self.store.stat()
        self.assertEqual((before.checkpoints, before.runs[0].run), (2, "run"))
        self.store.rm("run/1")
        self.assertGreater(self.store.gc(dry_run=True).reclaimed.objects, 0)
        self.assertGreater(self.store.gc().reclaimed.objects, 0)
        self.assertEqual(self.store.stat().checkpoints, 1)
        np.testing.assert_array_equal(self.store.load("run/2")["w"], self.weight)
        with self.assertRaises(caisson.NotFoundError):
            self.store.rm("run/1")

    def test_errors_of_the_executable_have_their_class(self):
        with self.assertRaises(caisson.NotFoundError):
            self.store.verify("run/7")
        with self.assertRaises(caisson.InvalidArgumentError):
            self.store.verify(depth="bottomless")

    def test_safetensors_in_and_out(self):
        source = self.dir / "m.safetensors"
        safetensors.numpy.save_file({"x": self.weight}, source, metadata={"format": "np"})
        info = caisson.safetensors.import_files(source, url=self.url, name="model/0")
        self.assertEqual(info.name, "model/0")
        np.testing.assert_array_equal(caisson.load(self.url, "model/0")["x"], self.weight)
        (written,) = caisson.safetensors.export(
            self.url, "model/latest", path=self.dir / "out.safetensors"
        )
        self.assertEqual(pathlib.Path(written).read_bytes(), source.read_bytes())


if __name__ == "__main__":
    unittest.main()

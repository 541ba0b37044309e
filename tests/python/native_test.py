"""The engine's surface in Python: saves by one process and by many ranks, restores, and calls that
are wrong in every way, which must raise and never crash or hang."""

import ctypes
import os
import pathlib
import pickle
import random
import shutil
import signal
import tempfile
import unittest
from unittest import mock

import numpy as np

import caisson
from caisson import _abi, _records
from caisson._native import SaveOptions, Shard, Store, Target


def shard(name, array, **more):
    return Shard(
        name,
        more.pop("dtype", "F32"),
        more.pop("shape", array.shape),
        more.pop("offset", (0,) * array.ndim),
        array.shape,
        array.ctypes.data,
        None if array.flags.c_contiguous else array.strides,
        owner=array,
        **more,
    )


class NativeTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="caisson-native-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.store = Store.open(self.dir + "/store")
        self.addCleanup(self.store.close)
        self.array = np.arange(600 * 500, dtype=np.float32).reshape(600, 500)

    def test_a_save_and_what_it_says(self):
        save = self.store.save(
            "run/1",
            [shard("w", self.array)],
            {"tokenizer": b"abc", "empty": b""},
            {"tied": "w"},
            SaveOptions(metadata_json='{"loss": 2.5}'),
        )
        save.wait()
        save.wait(0)
        self.assertTrue(save.done())
        self.assertEqual(save.report.raw_bytes, self.array.nbytes + 3)
        self.assertEqual(save.progress(), (self.array.nbytes + 3,) * 2)
        # The blob is so small that it is no chunk.
        self.assertEqual(sum(u.raw_bytes for u in save.report.codecs), self.array.nbytes)
        (info,) = self.store.checkpoints()
        self.assertEqual((info.name, info.latest, info.metadata), ("run/1", True, {"loss": 2.5}))
        self.assertEqual(self.store.info(info.pinned), info)
        found = {t.name: t for t in self.store.tensors("run/latest")}
        self.assertEqual(sorted(found), ["empty", "tied", "tokenizer", "w"])
        self.assertEqual((found["w"].dtype, found["w"].shape), ("F32", (600, 500)))
        self.assertEqual(found["w"].shards, (((0, 0), (600, 500), 0),))
        self.assertEqual(found["tied"].alias_of, "w")
        self.assertEqual([t.name for t in self.store.tensors("run/1", "t[io]?d")], ["tied"])
        self.assertEqual(self.store.read_blob("run/1", "tokenizer"), b"abc")
        self.assertEqual(self.store.read_blob("run/1", "empty"), b"")

    def test_boxes_of_any_strides_by_many_ranks(self):
        rng = random.Random(7)
        ticket = self.store.begin_save("run/1")
        tokens = []
        columns = [0, 100, 350, 500]
        for rank, (a, b) in enumerate(zip(columns, columns[1:])):
            part = self.store.join_save(ticket, rank)
            part.put([shard("w", self.array[:, a:b], shape=(600, 500), offset=(0, a))])
            part.put(blobs={f"rng.{rank}": bytes([rank])})
            tokens.append(part.seal())
            self.assertGreater(part.report.raw_bytes, 0)
        report = self.store.commit_save(ticket, 3, tokens)
        self.assertEqual(report.name, "run/1")
        for _ in range(20):
            r, c = rng.randrange(600), rng.randrange(500)
            rows, width = rng.randrange(601 - r), rng.randrange(501 - c)
            whole = np.zeros((width, rows), dtype=np.float32).T
            self.store.restore(
                "run/1",
                [Target("w", (r, c), whole.shape, whole.ctypes.data, whole.strides)],
            )
            np.testing.assert_array_equal(whole, self.array[r : r + rows, c : c + width])

    def test_errors_have_their_class_and_travel(self):
        self.store.save("run/1", [shard("w", self.array)]).wait()
        cases = [
            (caisson.AlreadyExistsError, FileExistsError, lambda: self.store.save("run/1")),
            (caisson.NotFoundError, FileNotFoundError, lambda: self.store.info("run/2")),
            (caisson.InvalidArgumentError, ValueError, lambda: self.store.info("nonsense")),
            (caisson.NotFoundError, OSError, lambda: Store.open(self.dir + "/x", create=False)),
            (caisson.UnsupportedError, NotImplementedError, lambda: Store.open("gopher://x")),
            (caisson.FencedError, RuntimeError, lambda: self.fenced()),
            (caisson.NotFoundError, OSError, lambda: self.store.read_blob("run/1", "none")),
        ]
        for kind, built_in, call in cases:
            with self.assertRaises(kind) as raised:
                call()
            error = raised.exception
            self.assertIsInstance(error, built_in)
            again = pickle.loads(pickle.dumps(error))
            self.assertIs(type(again), kind)
            self.assertEqual((str(again), again.__dict__), (str(error), error.__dict__))
            self.assertGreater(len(str(error)), 10)

    def fenced(self):
        other = Store.open(self.dir + "/store")
        self.addCleanup(other.close)
        other.claim("run")
        self.store.save("run/5", [])

    def test_exceptions_of_others_travel_too(self):
        for error in (
            caisson.TensorMismatchError("m", ("a", "b")),
            Custom("x", 1, key="y"),
            caisson.OutOfMemoryError("m"),
            caisson.CorruptionError("m", "data/x.pack", 4096),
        ):
            again = pickle.loads(pickle.dumps(error))
            self.assertIs(type(again), type(error))
            self.assertEqual(again.__dict__, error.__dict__)

    def test_every_target_that_cannot_be_filled_is_listed(self):
        self.store.save("run/1", [shard("w", self.array)]).wait()
        with self.assertRaises(caisson.CaissonError) as raised:
            self.store.restore(
                "run/1",
                [Target("no", (0,), (1,), 8), Target("w", (599, 0), (2, 500), 8)],
            )
        self.assertIn('"no"', str(raised.exception))
        self.assertIn('"w"', str(raised.exception))

    def test_timeouts_and_cancelling(self):
        # The second save waits for the first one's end.
        array = np.random.default_rng(0).integers(0, 255, 64 << 20, dtype=np.uint8)
        first = self.store.save("run/1", [shard("w", array, dtype="U8")])
        second = self.store.save("run/2", [shard("w", array, dtype="U8")], None, None)
        second.cancel()
        with self.assertRaises(TimeoutError):
            second.wait(0)
        first.wait(60)
        with self.assertRaises(caisson.CancelledError):
            second.wait(60)
        with self.assertRaises(caisson.CancelledError):
            second.wait()

    def test_an_interrupt_cancels_what_is_waited_for(self):
        save = self.store.save("run/1", [shard("w", self.array)], deferred=True)  # never ready

        def interrupt(*_):
            raise KeyboardInterrupt

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, interrupt))
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        with mock.patch.object(save, "cancel", wraps=save.cancel) as cancel:
            with self.assertRaises(KeyboardInterrupt):
                save.finish()
        cancel.assert_called_once()
        self.assertEqual(self.store.checkpoints(), [])

    def test_dropping_a_save_waits_for_it(self):
        self.store.save("run/1", [shard("w", np.ones(8 << 20, dtype=np.float32))])
        self.assertEqual(self.store.info("run/1").tensors, 1)

    def test_after_fork_everything_answers_at_once(self):
        save = self.store.save("run/1", [shard("w", self.array)])
        part = self.store.join_save(self.store.begin_save("run/2"), 0)
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a hang is the failure
            status = 1
            try:
                for call in (
                    self.store.checkpoints,
                    lambda: self.store.save("run/3"),
                    lambda: self.store.restore("run/1", []),
                    save.wait,
                    lambda: save.wait(5),
                    part.seal,
                    lambda: part.put([shard("w", self.array)]),
                ):
                    try:
                        call()
                        os._exit(2)
                    except caisson.ForkedError:
                        pass
                assert save.done()
                for handle in (save, part, self.store):
                    handle.close()
                with_own = Store.open(self.dir + "/store")
                with_own.save("child/1", [shard("w", self.array)]).wait()
                with_own.close()
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        save.wait()
        self.assertEqual({c.name for c in self.store.checkpoints()}, {"run/1", "child/1"})

    def test_shards_that_become_ready_one_by_one(self):
        rng = random.Random(3)
        arrays = [np.zeros(1000 + i, dtype=np.float32) for i in range(50)]
        shards = [shard(f"t{i}", array) for i, array in enumerate(arrays)]
        save = self.store.save("run/1", shards, {"b": b"xyz"}, {"tied": "t7"}, deferred=True)
        ticket = self.store.begin_save("run/2")
        part = self.store.join_save(ticket, 0)
        put = part.put_start(shards, deferred=True)
        with self.assertRaises(caisson.InvalidArgumentError):
            part.seal()  # while the put goes on
        self.assertFalse(save.done())
        with self.assertRaisesRegex(caisson.InvalidArgumentError, "shard 50"):
            save.mark_ready([0, 50])
        order = list(range(50))
        rng.shuffle(order)
        while order:
            some = [order.pop() for _ in range(min(len(order), rng.randrange(1, 9)))]
            for i in some:
                arrays[i][:] = i + 1  # now, not before
            for future in (save, put):
                future.mark_ready(some)
                future.mark_ready(some[:1])
        save.wait(60)
        put.wait(60)
        self.store.commit_save(ticket, 1, [part.seal()])
        self.assertEqual(save.report.raw_bytes, sum(a.nbytes for a in arrays) + 3)
        for name in ("run/1", "run/2"):
            out = [np.zeros_like(a) for a in arrays]
            self.store.restore(
                name, [Target(f"t{i}", (0,), o.shape, o.ctypes.data) for i, o in enumerate(out)]
            )
            for i, o in enumerate(out):
                self.assertTrue((o == i + 1).all())
        self.assertTrue(all(f["damage"] is False for f in self.store.verify()["findings"]))

    def test_a_deferred_save_that_is_given_up(self):
        save = self.store.save("run/1", [shard("w", self.array)], deferred=True)
        with self.assertRaises(TimeoutError):
            save.wait(0.05)
        save.cancel()
        with self.assertRaises(caisson.CancelledError):
            save.wait(60)
        save = self.store.save("run/1", [shard("w", self.array)], deferred=True)
        save.close()  # cancels, since nobody is left to mark the rest
        self.assertEqual(self.store.checkpoints(), [])
        with self.assertRaisesRegex(caisson.InvalidArgumentError, "staged"):
            self.store.save(
                "run/1", [shard("w", self.array)], options=SaveOptions(stage=True), deferred=True
            )
        plain = self.store.save("run/1", [shard("w", self.array)])
        with self.assertRaisesRegex(caisson.InvalidArgumentError, "nothing is deferred"):
            plain.mark_ready([0])

    def test_damage_says_where_it_is(self):
        self.store.save("run/1", [shard("w", self.array)]).wait()
        (pack,) = pathlib.Path(self.dir).rglob("*.pack")
        pack.chmod(0o644)
        damaged = bytearray(pack.read_bytes())
        damaged[100_000] ^= 1
        pack.write_bytes(damaged)
        out = np.zeros_like(self.array)
        with self.assertRaises(caisson.CorruptionError) as raised:
            self.store.restore("run/1", [Target("w", (0, 0), out.shape, out.ctypes.data)])
        error = raised.exception
        self.assertTrue(str(pack).endswith(error.object) and error.object, error)
        self.assertGreaterEqual(error.offset, 4096, error)
        found = self.store.verify(["run/1"])
        self.assertEqual((found["damaged"], found["findings"][0]["object"]), (1, error.object))
        self.assertFalse(self.store.gc(dry_run=True)["reclaimed"]["objects"])
        self.assertIn("caisson_save_bytes_total", self.store.metrics())

    def test_a_trace_is_recorded_when_asked_for(self):
        with self.assertRaises(caisson.InvalidArgumentError):
            self.store.trace_json()
        traced = Store.open(self.dir + "/store", trace=True)
        traced.save("run/1", [shard("w", self.array)]).wait()
        self.assertIn("traceEvents", traced.trace_json())
        traced.close()
        with self.assertRaises(caisson.InvalidArgumentError):
            traced.checkpoints()

    def test_wrong_shards(self):
        good = shard("w", self.array)
        wrong = {
            "dtype": ["", "F31", "f32"],
            "name": ["", "a\0b", "\ud800", "x" * 5000],
            "shape": [(1,), (600, 500, 1), (2**64, 1), (-1, 2), (1,) * 9, (600.5, 500)],
            "offset": [(1, 0), (0, 2**63), (0,), (2**64, 0)],
            "extent": [(601, 500), (0, -1), ()],
            "strides_bytes": [(1,), (2**63, 0)],
            "replica": [(3, 2), (-1, 1), (2**32, 1)],
            "address": [0, -1, 2**64],
        }
        for attribute, values in wrong.items():
            for value in values:
                with self.subTest(attribute=attribute, value=value):
                    bad = shard("w", self.array)
                    setattr(bad, attribute, value)
                    with self.assertRaises((caisson.InvalidArgumentError, caisson.CaissonError)):
                        self.store.save("run/1", [good, bad]).wait()
        self.assertEqual(self.store.checkpoints(), [])

    def test_wrong_options(self):
        for options in (
            SaveOptions(codec="magic"),
            SaveOptions(memory_check="sometimes"),
            SaveOptions(metadata_json="[1]"),
            SaveOptions(base="no/1"),
            SaveOptions(workers=-1),
            SaveOptions(codec_cpu_max=-1),
            SaveOptions(codec_cpu_max=float("nan")),
        ):
            with self.subTest(options=options), self.assertRaises(caisson.CaissonError):
                self.store.save("run/1", [shard("w", self.array)], None, None, options).wait()


class Custom(caisson.CaissonError):
    """As a user's own, with an __init__ that pickle could not call."""

    def __init__(self, what, count, *, key):
        super().__init__(f"{what} {count} {key}")
        self.key = key


class RawCalls(unittest.TestCase):
    """The C functions with arguments that no well-meaning caller gives."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="caisson-raw-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.store = Store.open(self.dir + "/store")
        self.addCleanup(self.store.close)
        self.functions = _abi.lib.functions

    def code_of(self, name, *arguments):
        """The code, which must come with an error object that says something."""
        error = ctypes.c_void_p()
        code = self.functions[name](*arguments, ctypes.byref(error))
        if code not in (_abi.OK, _abi.TIMEOUT):
            self.assertTrue(error.value, name)
            self.assertTrue(self.functions["error_message"](error), name)
            self.functions["error_free"](error)
        return code

    def test_struct_sizes_and_counts(self):
        rng = random.Random(11)
        handle = self.store._handle.value
        given = _records.Input([shard("w", np.zeros(4, dtype=np.float32))], {"b": b"x"}, {"a": "w"})
        for i in range(400):
            trial = _abi.SaveInput.from_buffer_copy(given.struct)
            options = _abi.SaveOptions(ctypes.sizeof(_abi.SaveOptions), 0, b"auto", b"", b"{}")
            kind = rng.choice(("size", "options", "count", "null", "null_out", "flags"))
            out = ctypes.byref(ctypes.c_void_p())
            if kind == "size":
                trial.struct_size = rng.choice((0, 1, rng.randrange(56), 2**31, 2**32 - 1))
            elif kind == "options":
                options.struct_size = rng.choice((0, rng.randrange(40), 2**32 - 1))
            elif kind == "count":
                field = rng.choice(("shards_count", "blobs_count", "aliases_count"))
                setattr(trial, field, rng.choice((2**64 - 1, 2**63, 2**40, 2**28)))
            elif kind == "null":
                setattr(trial, rng.choice(("shards", "blobs", "aliases")), None)
            elif kind == "null_out":
                out = None
            else:
                options.flags = 1 << rng.randrange(4, 32)
            code = self.code_of(
                "save_start", handle, b"run/1", ctypes.byref(trial), ctypes.byref(options), out
            )
            self.assertIn(code, (1, 10), (i, kind))

    def test_null_everywhere(self):
        for name, (result, arguments) in _abi._SIGNATURES.items():
            if result is not ctypes.c_int32 or not arguments or arguments[-1] is not _abi._OUT:
                continue
            nulls = [0 if a in _INTEGERS else None for a in arguments[:-1]]
            self.assertEqual(self.code_of(name, *nulls), 1, name)
            self.assertEqual(self.functions[name](*nulls, None), 1, name)

    def test_handles_of_another_kind(self):
        handle = self.store._handle.value
        out = ctypes.byref(ctypes.c_void_p())
        self.assertEqual(self.code_of("transaction_seal", handle, out), 1)
        self.assertEqual(self.code_of("future_wait", handle, 0), 1)
        self.assertEqual(self.functions["future_poll"](handle), -1)

    def test_records_are_what_the_header_says(self):
        # The library refuses an array whose struct_size is too small; these are the exact ones.
        for record, size in (
            (_records.SHARD, 288),
            (_records.BLOB, 32),
            (_records.ALIAS, 24),
            (_records.TARGET, 216),
            (_records.TENSOR, 184),
            (_records.BOX, 128),
        ):
            self.assertEqual(record.size, size)


_INTEGERS = (ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64)

if __name__ == "__main__":
    unittest.main()

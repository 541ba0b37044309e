"""The command line as scripts see it: exit codes, JSON shapes, hostile files, and exports compared
with the real safetensors library.

    cli_test.py CAISSON [unittest arguments]
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import pty
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

CAISSON = os.path.abspath(sys.argv.pop(1))
OK, DIFFERENT, USAGE, NOT_FOUND, CORRUPTION, CONFLICT = 0, 1, 2, 3, 4, 5
NO_SPACE, UNSUPPORTED = 7, 8

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


class CliTest(unittest.TestCase):
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


class Verbs(CliTest):
    def test_help_and_usage(self):
        for verb in "import export restore ls show diff verify stat rm rewrite gc doctor".split():
            text = self.run_cli(verb, "--help").stdout
            self.assertIn("Example:", text, verb)
            self.assertIn("--json", text, verb)
        self.run_cli(code=USAGE)
        self.run_cli("nonsense", code=USAGE)
        self.run_cli("ls", code=USAGE)
        self.run_cli("import", self.store, "run/0", self.small(), "--ranks", 0, code=USAGE)
        self.run_cli("show", self.store, "x", "--memory", "12QB", code=USAGE)
        self.assertIn("caisson", self.run_cli("--version").stdout)

    def test_manual_and_completion(self):
        page = self.run_cli("man").stdout
        self.assertTrue(page.startswith(".TH CAISSON 1"))
        for verb in ("import", "verify", "doctor"):
            self.assertIn(f".SS {verb}", page)
        self.assertNotIn("import\\-rank", page)
        script = self.run_cli("completion", "bash").stdout
        self.assertIn("--keep-last", script)
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)

    def test_traces_show_every_rank(self):
        picture = self.dir / "trace.json"

        def rows():
            events = json.loads(picture.read_text())["traceEvents"]
            names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
            spans = [e for e in events if e["ph"] == "X"]
            self.assertTrue(spans)
            return {(e["pid"], names[e["pid"], e["tid"]]) for e in spans}

        self.import_file(self.small(rows=20000), "run/0", "--ranks", 3, "--trace", picture)
        found = rows()
        for rank in range(3):
            self.assertIn(f"save rank {rank} worker 0: 2 hash", {name for _, name in found})
        self.assertIn("commit: 7", {name for _, name in found})
        self.assertEqual(len({pid for pid, _ in found}), 4)  # three ranks, and who committed
        self.json_of("restore", self.store, "run/0", "--out", self.dir / "out", "--ranks", 2, "--trace", picture)
        found = rows()
        self.assertEqual(len({pid for pid, name in found if "verify" in name}), 2)
        # Of a failure, too; and a place that cannot be written is an error by itself.
        self.run_cli("restore", self.store, "run/7", "--out", self.dir / "out2", "--trace", picture, code=3)
        self.assertNotIn("X", {e["ph"] for e in json.loads(picture.read_text())["traceEvents"]})
        done = self.run_cli("ls", self.store, "--trace", self.dir / "no" / "t.json", code=3)
        self.assertIn("--trace", done.stderr)

    def test_metrics_sum_up_every_rank(self):
        numbers = self.dir / "metrics.prom"

        def value(series):
            lines = [line.rpartition(" ") for line in numbers.read_text().splitlines()]
            return next(float(value) for name, _, value in lines if name == series)

        self.import_file(self.small(rows=20000), "run/0", "--ranks", 3, "--metrics", numbers)
        raw_bytes = value('caisson_save_bytes_total{stage="raw"}')
        self.assertGreaterEqual(raw_bytes, 20000 * 4)
        self.assertEqual(value("caisson_part_seconds_count"), 3)
        self.assertEqual(value("caisson_commit_seconds_count"), 1)
        self.assertGreater(value("caisson_memory_peak_bytes"), 0)
        self.json_of("restore", self.store, "run/0", "--out", self.dir / "out", "--ranks", 2, "--metrics", numbers)
        self.assertEqual(value("caisson_restore_seconds_count"), 2)
        # Of a failure, too; and a place that cannot be written is an error by itself.
        self.run_cli("import", self.store, "run/0", self.small(rows=20), "--metrics", numbers, code=5)
        self.assertEqual(value('caisson_errors_total{operation="save",code="already_exists"}'), 1)
        done = self.run_cli("ls", self.store, "--metrics", self.dir / "no" / "m.prom", code=3)
        self.assertIn("--metrics", done.stderr)

    def test_a_store_in_several_directories(self):
        url = f"{self.dir}/a?dirs={self.dir}/b,{self.dir}/c"
        source = self.small(rows=200000)
        self.run_cli("import", url, "run/0", source)
        first = self.dir / "a"
        self.run_cli("import", first, "run/1", self.small("other.safetensors", rows=190000), "--ranks", 8, "--no-dedup")
        self.assertTrue([p for d in "bc" for p in (self.dir / d).rglob("*.pack")])
        self.assertEqual(self.json_of("verify", first, "--depth", "full")["findings"], [])
        self.run_cli("export", first, "run/0", self.dir / "back.safetensors")
        self.assertEqual((self.dir / "back.safetensors").read_bytes(), source.read_bytes())
        self.run_cli("rewrite", first, "run/0")
        self.run_cli("rm", first, "run/1")
        self.run_cli("gc", first)
        usage = self.json_of("stat", url)
        packs = [p for d in "abc" for p in (self.dir / d).rglob("*.pack")]
        self.assertEqual(usage["own_packs"]["objects"], len(packs))
        self.assertEqual(usage["own_packs"]["bytes"], sum(p.stat().st_size for p in packs))
        findings = self.json_of("doctor", first)["findings"]
        self.assertEqual([f["grade"] for f in findings if f["check"] == "directories"], ["good"])
        self.assertEqual(len([f for f in findings if f["check"] == "file_system"]), 3)
        (self.dir / "c").rename(self.dir / "elsewhere")
        done = self.run_cli("ls", first, code=3)
        self.assertIn(f"{self.dir}/c", done.stderr)
        self.run_cli("doctor", first, code=8)
        self.run_cli("ls", f"{first}?dirs={self.dir}/elsewhere,{self.dir}/b")
        self.run_cli("ls", f"{first}?dirs={self.dir}/b", code=2)

    def test_quiet_where_expected(self):
        self.import_file(self.small())
        for arguments in (
            ("verify", self.store),
            ("export", self.store, "run/0", self.dir / "out.safetensors"),
            ("restore", self.store, "run/0", "--out", self.dir / "out"),
            ("rm", self.store, "run/0"),
            ("ls", self.store),
        ):
            done = self.run_cli(*arguments)
            self.assertEqual((done.stdout, done.stderr), ("", ""), arguments)

    def test_json_shapes(self):
        report = self.import_file(self.small(), "run/0", "--metadata", '{"loss": 1.5}')
        self.assertEqual(
            list(report),
            ["schema", "checkpoint", "ranks", "tensors", "tiles", "raw_bytes",
             "deduplicated_bytes", "stored_bytes", "codecs", "seconds"],
        )  # fmt: skip
        self.import_file(self.small(seed=1), "run/1")
        listed = self.json_of("ls", self.store)["checkpoints"]
        self.assertEqual([c["name"] for c in listed], ["run/0", "run/1"])
        self.assertEqual([c["latest"] for c in listed], [False, True])
        self.assertEqual(listed[0]["metadata"], {"loss": 1.5})
        shown = self.json_of("show", self.store, "run/latest")
        by_name = {tensor["name"]: tensor for tensor in shown["tensors"]}
        self.assertEqual(by_name["a.weight"]["shape"], [1000, 64])
        self.assertEqual(by_name["a.weight"]["dtype"], "F32")
        self.assertEqual(by_name["s"]["shape"], [])
        self.assertEqual(by_name["safetensors/m.safetensors/header"]["kind"], "blob")
        difference = self.json_of("diff", self.store, "run/0", "run/1")
        self.assertEqual({c["change"] for c in difference["changes"]}, {"changed"})
        self.run_cli("diff", self.store, "run/0", "run/1", "--exit-code", code=DIFFERENT)
        self.run_cli("diff", self.store, "run/0", "run/0", "--exit-code")
        usage = self.json_of("stat", self.store)
        self.assertEqual(usage["checkpoints"], 2)
        self.assertGreater(usage["own_packs"]["bytes"], 0)
        self.assertEqual(usage["reclaimable"]["bytes"], 0)
        self.assertEqual(usage["logical_bytes"], sum(c["raw_bytes"] for c in listed))
        self.assertEqual([run["run"] for run in usage["runs"]], ["run"])
        verified = self.json_of("verify", self.store, "--depth", "full")
        self.assertEqual((verified["damaged"], verified["checkpoints"]), (0, 2))
        grades = {f["check"]: f["grade"] for f in self.json_of("doctor", self.dir)["findings"]}
        self.assertEqual(grades["create_once"], "good")

    def test_errors_have_codes_and_next_steps(self):
        error = self.json_of("ls", self.store, code=NOT_FOUND)
        self.assertEqual((error["error"], error["exit_code"]), ("not found", NOT_FOUND))
        self.import_file(self.small())
        self.run_cli("import", self.store, "run/0", self.small(), code=CONFLICT)
        self.import_file(self.small(seed=3), "run/0", "--overwrite")
        self.run_cli("import", self.store, "noslash", self.small(), code=USAGE)
        self.run_cli("import", self.store, "run/9", self.dir / "none", code=NOT_FOUND)
        self.run_cli("import", self.store, "run/9", self.small(), "--metadata", "[]", code=USAGE)
        self.assertIn("run/0", self.run_cli("show", self.store, "run/7", code=NOT_FOUND).stderr)
        self.run_cli("show", self.store, "run/0", "nothing*", code=NOT_FOUND)
        self.run_cli("rm", self.store, code=USAGE)
        self.run_cli("rm", self.store, "run/7", code=NOT_FOUND)
        out = self.dir / "out.safetensors"
        self.run_cli("export", self.store, "run/0", out)
        self.run_cli("export", self.store, "run/0", out, code=CONFLICT)
        self.run_cli("export", self.store, "run/0", out, "--overwrite")
        self.run_cli("import-rank", code=USAGE)
        there = self.dir / "file"
        there.write_text("not a directory")
        for verb in ("ls", "stat", "doctor"):
            self.run_cli(verb, there, code=USAGE)
        (self.dir / "empty").mkdir()
        refused = self.run_cli("import", self.store, "run/9", self.dir / "empty", code=USAGE)
        self.assertIn(str(self.dir / "empty"), refused.stderr)

    def test_destinations_in_the_working_directory(self):
        source = self.small()
        self.import_file(source)
        with contextlib.chdir(self.dir):
            self.run_cli("export", "store", "run/0", "out.safetensors")
            self.run_cli("restore", "store", "run/0", "--out", "slices")
        self.assertEqual(sha(self.dir / "out.safetensors"), sha(source))
        self.assertEqual(len(list((self.dir / "slices").iterdir())), 1)

    def test_a_verb_prints_one_document(self):
        self.import_file(self.small())
        nowhere = ("find", self.store, "0" * 32, "--bytes", 100)
        self.assertEqual(self.json_of("index", *nowhere, code=NOT_FOUND)["places"], [])
        self.assertIn("no pack", self.run_cli("index", *nowhere, code=NOT_FOUND).stderr)

    def test_output_that_cannot_be_written_is_an_error(self):
        self.import_file(self.small())
        verbs = (["ls", self.store], ["show", self.store, "run/0", "--json"], ["man"])
        for arguments in (*verbs, ["completion", "bash"]):
            with open("/dev/full", "w", encoding="utf-8") as full:
                command = [CAISSON, *map(str, arguments)]
                done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, NO_SPACE, arguments)
            self.assertIn("standard output", done.stderr)

    def test_progress_is_for_terminals(self):
        source = self.small(rows=200_000)
        self.assertEqual(self.run_cli("import", self.store, "run/0", source, "--quiet").stderr, "")
        ours, theirs = pty.openpty()
        command = [CAISSON, "export", self.store, "run/0", self.dir / "out.safetensors"]
        done = subprocess.run(list(map(str, command)), stderr=theirs, stdout=subprocess.PIPE)
        os.close(theirs)
        with open(ours, "rb", buffering=0) as terminal:
            drawn = terminal.read(4096).decode()
        self.assertEqual((done.returncode, done.stdout), (OK, b""))
        self.assertRegex(drawn, r"export run/0  [0-9.]+ \S*B of [0-9.]+ MB  [0-9.]+ %  [0-9.]+ \S+/s")

    def test_doctor_leaves_nothing(self):
        found = self.json_of("doctor", self.dir / "later" / "store")["findings"]
        self.assertIn(str(self.dir), next(f["found"] for f in found if f["check"] == "directory"))
        self.assertIn("create_once", [f["check"] for f in found])
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_a_directory_of_others_is_no_store(self):
        (self.dir / "home").mkdir()
        (self.dir / "home" / "thesis.txt").write_text("mine")
        before = os.listdir(self.dir / "home")
        self.assertNotEqual(
            subprocess.run(
                [CAISSON, "import", self.dir / "home", "run/0", self.small()], capture_output=True
            ).returncode,
            OK,
        )
        self.assertEqual(os.listdir(self.dir / "home"), before)

    def test_rm_keeps_what_the_policy_says(self):
        for step in range(6):
            self.import_file(self.small(seed=step), f"run/{step}", "--codec", "raw")
        policy = ("--run", "run", "--keep-last", 2, "--keep-every", 3)
        planned = self.run_cli("rm", self.store, *policy, "--dry-run").stdout.split()
        self.assertEqual(planned, ["run/1", "run/2"])
        self.assertEqual(self.json_of("rm", self.store, *policy)["removed"], planned)
        left = [c["step"] for c in self.json_of("ls", self.store)["checkpoints"]]
        self.assertEqual(left, [0, 3, 4, 5])
        would = self.json_of("gc", self.store, "--dry-run")["reclaimed"]["bytes"]
        self.assertEqual(self.json_of("gc", self.store)["reclaimed"]["bytes"], would)
        self.assertGreater(would, 2 * 1000 * 64 * 4)
        self.run_cli("verify", self.store, "--depth", "full")

    def test_rewrite_frees_what_others_left(self):
        first, second = self.small(rows=5000), self.small("n.safetensors", seed=1, rows=100)
        self.import_file(first, "run/0", "--codec", "raw")
        both = self.dir / "both"
        both.mkdir()
        shutil.copy(first, both / "a.safetensors")
        tensors = [("b", "float32", (100, 64))]
        library_file(both / "b.safetensors", tensors, None, 2)
        self.import_file(both, "run/1", "--codec", "raw")
        self.import_file(second, "run/2", "--codec", "raw")
        self.run_cli("rm", self.store, "run/0")
        self.json_of("gc", self.store)
        before = self.json_of("ls", self.store)["checkpoints"]
        report = self.json_of("rewrite", self.store, "run/1", "--codec", "zstd")
        self.assertEqual(
            list(report),
            ["schema", "checkpoint", "tensors", "raw_bytes", "stored_bytes", "packs",
             "packs_before", "foreign_packs_before", "seconds"],
        )  # fmt: skip
        self.assertEqual((report["checkpoint"], report["foreign_packs_before"]), ("run/1", 1))
        self.assertGreater(self.json_of("gc", self.store)["reclaimed"]["bytes"], 5000 * 64 * 4)
        after = self.json_of("ls", self.store)["checkpoints"]
        kept = ("name", "commit_seq", "created_unix_ns", "tensors", "raw_bytes", "latest")
        for a, b in zip(before, after, strict=True):
            self.assertEqual([a[k] for k in kept], [b[k] for k in kept])
        self.assertEqual(after[0]["stored_bytes"], report["stored_bytes"])
        self.run_cli("export", self.store, "run/1", self.dir / "out")
        out = (self.dir / "out" / "a.safetensors").read_bytes()
        self.assertEqual(out, first.read_bytes())
        self.run_cli("verify", self.store, "--depth", "full")
        self.run_cli("rewrite", self.store, "run/0", code=NOT_FOUND)
        text = self.run_cli("rewrite", self.store, "run/1")
        self.assertIn("caisson gc", text.stderr)
        done = self.run_cli("rewrite", self.store, "run/1", "--quiet")
        self.assertEqual((done.stdout, done.stderr), ("", ""))

    def test_rewrite_of_a_damaged_checkpoint_changes_nothing(self):
        self.import_file(self.small(), "run/0", "--codec", "raw")
        pack = next(self.store.glob("data/*/*.pack"))
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)
        error = self.json_of("rewrite", self.store, "run/0", code=CORRUPTION)
        self.assertIn(pack.name, error["message"])
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
        self.json_of("gc", self.store)
        self.run_cli("verify", self.store, "--depth", "full")
        self.assertEqual(len(list(self.store.glob("data/*/*.root"))), 1)

    def test_damage_is_found_and_named(self):
        self.import_file(self.small(), "run/0", "--codec", "raw")
        pack = next(self.store.glob("data/*/*.pack"))
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)
        report = self.json_of("verify", self.store, "--depth", "full", code=CORRUPTION)
        self.assertGreaterEqual(report["damaged"], 1)
        self.assertTrue(any(pack.name in f["object"] for f in report["findings"]), report)
        self.run_cli("export", self.store, "run/0", self.dir / "x.safetensors", code=CORRUPTION)
        self.assertFalse((self.dir / "x.safetensors").exists())
        self.assertEqual([p for p in self.dir.iterdir() if p.name.endswith(".tmp")], [])
        # Saved again as verify says: unchanged data is not shared with what is damaged.
        told = self.run_cli("verify", self.store, code=CORRUPTION).stderr
        self.assertIn("--no-dedup", told)
        self.import_file(self.small(), "run/1", "--no-dedup")
        self.run_cli("verify", self.store, "run/1", "--depth", "full")

    def test_a_store_whose_log_is_gone_is_not_empty(self):
        self.import_file(self.small())
        shutil.rmtree(self.store / "log")
        verbs = (["ls"], ["verify"], ["gc"], ["import", "run/1", self.small()])
        for verb, *rest in verbs:
            told = self.run_cli(verb, self.store, *rest, code=CORRUPTION).stderr
            self.assertIn("log/0000000000000001", told)
        self.assertFalse((self.store / "log").exists())

    def test_names_cannot_reach_the_terminal(self):
        header = {"a\x1b[2J": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
        self.import_file(raw_file(self.dir / "m.safetensors", header, b"x"))
        self.assertNotIn("\x1b", self.run_cli("show", self.store, "run/0").stdout)

    def test_killed_rewrite_leaves_the_checkpoint_whole(self):
        big = library_file(self.dir / "big.safetensors", [("w", "uint8", (64 << 20,))])
        self.import_file(big, "run/0", "--codec", "raw")
        for seed in range(4):
            writer = subprocess.Popen([CAISSON, "rewrite", self.store, "run/0", "--quiet"])
            time.sleep(random.Random(seed).uniform(0.0, 0.3))
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            self.json_of("gc", self.store)
            self.run_cli("verify", self.store)
            self.assertEqual(len(list(self.store.glob("data/*/*.root"))), 1)
        self.run_cli("export", self.store, "run/0", self.dir / "out.safetensors")
        self.assertEqual((self.dir / "out.safetensors").read_bytes(), big.read_bytes())

    def test_killed_import_leaves_the_store_whole(self):
        self.import_file(self.small(), "run/0")
        big = library_file(self.dir / "big.safetensors", [("w", "uint8", (64 << 20,))])
        for seed in range(4):
            writer = subprocess.Popen(
                [CAISSON, "import", self.store, f"run/{seed + 1}", big, "--ranks", "3", "--quiet"]
            )
            time.sleep(random.Random(seed).uniform(0.0, 0.3))
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        self.run_cli("verify", self.store, "--depth", "full")
        self.json_of("gc", self.store)
        self.run_cli("verify", self.store, "--depth", "full")
        self.import_file(big, "run/9", "--ranks", 3)
        self.assertEqual(self.json_of("ls", self.store)["checkpoints"][-1]["name"], "run/9")


class Index(CliTest):
    """The index is a cache: whatever becomes of it, the answers are the same, and it is said."""

    def setUp(self):
        super().setUp()
        self.index = self.store / "index"
        plain = ("--codec", "raw")
        self.import_file(self.small(), "a/0", *plain)
        self.import_file(self.small(seed=1), "a/1", *plain)
        self.import_file(self.small(), "b/0", "--metadata", '{"n": 1}')  # what a/0 has
        other = library_file(
            self.dir / "m.safetensors",  # one tensor retyped, one gone, one new
            [("a.weight", "float32", (1000, 64)), ("a.bias", "float16", (64,)), ("t", "bool", (3,))],
        )
        self.import_file(other, "b/1")
        self.import_file(self.small(seed=2), "c/0", *plain)
        self.run_cli("rm", self.store, "c/0")
        shutil.rmtree(self.index)

    def asked(self, form="--json"):
        """What ls, stat and diff answer, and what they say of the index."""
        answers, said = [], []
        for question in (
            ("ls", self.store),
            ("ls", self.store, "b"),
            ("stat", self.store),
            ("diff", self.store, "a/0", "a/1"),
            ("diff", self.store, "a/1", "b/1"),
            ("diff", self.store, "a/1", "b/0"),
        ):
            done = self.run_cli(*question, form)
            answers.append(done.stdout)
            said += done.stderr.splitlines()
        return answers, said

    def test_what_the_answers_are(self):
        kinds = {"a.weight": "changed", "a.bias": "retyped", "s": "removed", "t": "added"}
        for _ in range(2):  # found out, and remembered
            changes = self.json_of("diff", self.store, "a/1", "b/1")["changes"]
            found = {c["name"]: c["change"] for c in changes if c["kind"] == "tensor"}
            self.assertEqual(found, kinds)
            changes = self.json_of("diff", self.store, "a/1", "b/0")["changes"]
            self.assertEqual({c["change"] for c in changes}, {"changed"})
            usage = self.json_of("stat", self.store)
            self.assertEqual(usage["shared_packs"]["objects"], 1)  # of a/0, which b/0 needs too
            self.assertGreater(usage["sharing_saves"], 1000 * 64 * 4)
            runs = {run["run"]: run for run in usage["runs"]}
            self.assertEqual(set(runs), {"a", "b"})
            self.assertEqual(runs["b"]["shared_packs"], usage["shared_packs"])
            self.assertEqual(runs["a"]["checkpoints"], 2)
            self.assertGreater(usage["reclaimable"]["bytes"], 1000 * 64 * 4)
            where = ("own_packs", "shared_packs", "metadata", "log", "in_progress", "reclaimable",
                     "other")  # fmt: skip
            files = [p for p in self.store.rglob("*") if p.is_file() and self.index not in p.parents]
            self.assertEqual(sum(usage[w]["objects"] for w in where), len(files))
            self.assertEqual(
                sum(usage[w]["bytes"] for w in where), sum(p.stat().st_size for p in files)
            )

    def test_absent_present_and_deleted(self):
        first, said = self.asked()
        self.assertEqual(len(said), 1, said)
        self.assertIn("there was none", said[0])
        self.assertEqual(self.asked(), (first, []))
        words, _ = self.asked("--io=auto")
        shutil.rmtree(self.index)
        self.assertEqual(self.asked("--io=auto")[0], words)
        shutil.rmtree(self.index)
        again, said = self.asked()
        self.assertEqual(again, first)
        self.assertEqual(len(said), 1, said)

    def test_any_file_damaged(self):
        first, _ = self.asked()
        sound = self.dir / "sound"
        shutil.copytree(self.index, sound)
        names = sorted(p.name for p in sound.iterdir() if p.stat().st_size > 0)
        read_back = [n for n in names if n.endswith(".sst") or n.split("-")[0] in
                     ("CURRENT", "MANIFEST", "SEAL")]  # fmt: skip
        self.assertGreaterEqual(len(read_back), 4, names)
        for name in names:
            shutil.rmtree(self.index)
            shutil.copytree(sound, self.index)
            data = bytearray((sound / name).read_bytes())
            data[len(data) // 2] ^= 0x10
            (self.index / name).write_bytes(data)
            answers, said = self.asked()
            self.assertEqual(answers, first, name)
            if name in read_back:
                self.assertEqual(len(said), 1, (name, said))
                self.assertIn("the index was built", said[0], name)

    def test_of_a_killed_writer(self):
        first, _ = self.asked()
        for seed in range(6):
            shutil.rmtree(self.index)
            writer = subprocess.Popen([CAISSON, "index", "sync", self.store, "--quiet"])
            time.sleep(random.Random(seed).uniform(0.0, 0.04))
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            self.assertEqual(self.asked()[0], first, seed)
        (self.index / "SEAL").unlink()  # as one that is killed for certain leaves it
        answers, said = self.asked()
        self.assertEqual(answers, first)
        self.assertEqual(len(said), 1, said)
        self.assertIn("not closed cleanly", said[0])

    def test_when_it_cannot_be_had(self):
        first, _ = self.asked()
        with open(self.index / "caisson.lock", "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            answers, said = self.asked()
            self.assertEqual(answers, first)
            self.assertEqual(len(said), len(answers))
            self.assertIn("another process has the index open", said[0])
        shutil.rmtree(self.index)
        self.index.write_bytes(b"no directory")
        answers, said = self.asked()
        self.assertEqual(answers, first)
        self.assertEqual(len(said), len(answers))

    def test_what_was_found_out_is_not_read_again(self):
        first, _ = self.asked()
        for kind in ("dir", "pack"):  # what diff and what stat reads
            for path in self.store.glob(f"data/*/*.{kind}"):
                path.chmod(0o644)
                path.write_bytes(bytes(path.stat().st_size))
        self.assertEqual(self.asked(), (first, []))
        shutil.rmtree(self.index)
        self.run_cli("diff", self.store, "a/0", "a/1", code=CORRUPTION)
        self.run_cli("stat", self.store, code=CORRUPTION)

    def given_up_meanwhile(self, name, *question):
        """The answer of a verb that has read the log when `name` is removed and collected."""
        shutil.rmtree(self.index, ignore_errors=True)
        verb = subprocess.Popen(
            [CAISSON, *map(str, question), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        while not self.index.exists():  # it comes after the log
            self.assertIsNone(verb.poll())
        verb.send_signal(signal.SIGSTOP)
        self.run_cli("rm", self.store, name)
        self.run_cli("gc", self.store)
        verb.send_signal(signal.SIGCONT)
        answer, _ = verb.communicate(timeout=120)
        return verb.returncode, json.loads(answer)

    def test_what_is_given_up_meanwhile_is_no_damage(self):
        code, usage = self.given_up_meanwhile("a/1", "stat", self.store)
        self.assertEqual((code, usage["checkpoints"]), (OK, 3), usage)
        self.assertEqual(usage, self.json_of("stat", self.store))
        code, listed = self.given_up_meanwhile("a/0", "ls", self.store)
        self.assertEqual((code, [c["name"] for c in listed["checkpoints"]]), (OK, ["b/0", "b/1"]))
        code, error = self.given_up_meanwhile("b/0", "diff", self.store, "b/0", "b/1")
        self.assertEqual(code, CONFLICT, error)
        self.assertIn("pruned", error["message"])


class Files(CliTest):
    def test_float_codecs_by_the_specification(self):
        rng = np.random.default_rng(3)
        normal = rng.standard_normal(70_001).astype(np.float32) * 0.02
        tensors = {
            "bf16": normal.astype(ml_dtypes.bfloat16), "fp32": normal, "v": normal * normal,
            "fp16": normal.astype(np.float16), "fp64": normal.astype(np.float64),
            "e4m3": normal.astype(ml_dtypes.float8_e4m3fn),
            "e5m2": normal.astype(ml_dtypes.float8_e5m2),
        }  # fmt: skip
        source = self.dir / "floats.safetensors"
        safetensors.numpy.save_file(tensors, source)
        sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "format"))
        import reader

        for codec, number in (("planes", 2), ("entropy", 3)):
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

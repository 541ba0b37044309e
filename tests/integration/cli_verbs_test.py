"""The command line as scripts see it: exit codes, JSON shapes, output for people and for pipes."""

import collections
import contextlib
import json
import os
import pty
import shutil
import subprocess
import unittest

from cli_case import (
    CAISSON, CONFLICT, DIFFERENT, NO_SPACE, NOT_FOUND, OK, USAGE,
    CliCase, library_file, raw_file, sha,
)  # fmt: skip


class Verbs(CliCase):
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

    def test_show_tells_why_each_codec_was_taken(self):
        imported = self.import_file(self.small(rows=20_000), "run/0")["codecs"]
        told = {(use["codec"], use["reason"]): use["raw_bytes"] for use in imported}
        shown = collections.Counter()
        for tensor in self.json_of("show", self.store, "run/0")["tensors"]:
            for codec, count in tensor["codecs"].items():
                self.assertEqual(
                    sum(count["reasons"].values()), 0 if codec == "inline" else count["raw_bytes"]
                )
                shown.update({(codec, why): size for why, size in count["reasons"].items()})
        self.assertEqual(shown, told)
        self.assertTrue(told)
        for _, why in told:
            self.assertIn(why, self.run_cli("show", self.store, "run/0").stdout)

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

    def test_names_cannot_reach_the_terminal(self):
        header = {"a\x1b[2J": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
        self.import_file(raw_file(self.dir / "m.safetensors", header, b"x"))
        self.assertNotIn("\x1b", self.run_cli("show", self.store, "run/0").stdout)


if __name__ == "__main__":
    unittest.main()

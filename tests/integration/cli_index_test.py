"""The index as the command line shows it: whatever happens to it, the answers are the same."""

import fcntl
import json
import random
import resource
import shutil
import signal
import subprocess
import time
import unittest

from cli_case import CAISSON, CONFLICT, CORRUPTION, IO, OK, CliCase, library_file


class Index(CliCase):
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
            self.run_cli("index", "sync", self.store, code=CONFLICT)
        shutil.rmtree(self.index)
        self.index.write_bytes(b"no directory")
        told = self.run_cli("index", "sync", self.store, code=IO).stderr
        self.assertIn(str(self.index), told)
        answers, said = self.asked()
        self.assertEqual(answers, first)
        self.assertEqual(len(said), len(answers))

    def test_of_files_that_cannot_grow(self):
        first, _ = self.asked()

        def small_files(bytes_max):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails, as on a full device
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))

        for bytes_max in (0, 20, 100, 200, 500, 1000, 3000, 8000):
            shutil.rmtree(self.index, ignore_errors=True)
            done = subprocess.run(
                [CAISSON, "ls", self.store, "--json"], capture_output=True, text=True,
                preexec_fn=lambda: small_files(bytes_max),
            )  # fmt: skip
            self.assertEqual(done.returncode, OK, (bytes_max, done.stderr))
            self.assertEqual(done.stdout, first[0], bytes_max)
            if bytes_max <= 500:
                self.assertIn("without the index", done.stderr, bytes_max)
        self.assertEqual(self.asked()[0], first)

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


if __name__ == "__main__":
    unittest.main()

"""What the command line makes of damaged stores and of processes that are killed."""

import random
import shutil
import signal
import subprocess
import time
import unittest

from cli_case import CAISSON, CORRUPTION, CliCase, library_file


class Harm(CliCase):
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


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Caisson against what people use now, on a real training state, every figure a share of what the device did just before.

    ./dev bench peers                       # sets up what it needs, then runs all of this
    ./dev bench peers --only caisson ranks --rounds 5

For every system and round: L (the device limit: one write and one read of as many bytes with nothing else to do), a save
that is durable when it ends, a restore into new tensors with nothing of it in the page cache. Before each, as much memory as
it may want is touched and freed, so that no system pays for what a virtual machine's host does to find memory. Then DCP by
4 ranks of FSDP2, restored on 2; then DCP's async_save: for how long it holds up the caller, and the caller's pace while it
drains; and how long the planning of a save takes. Systems whose packages are not installed are named as left out. `--json`
keeps the samples; runs with the same file add up.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

CASES = pathlib.Path(__file__).parent / "peer_cases"
sys.path.insert(0, str(CASES))
import state  # noqa: E402
import table  # noqa: E402
from systems import SYSTEMS  # noqa: E402

RANKED = ("DCP FileSystem", "DCP through Caisson")  # also measured by many ranks and asynchronously


class LeftOut(Exception):
    """A system is not installed, or failed at its task."""


class Bench:
    def __init__(self, options, results):
        self.options, self.results = options, results
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="caisson-peers-", dir=options.directory.resolve()))

    def limit(self):
        """L of this moment, in bytes a second."""
        size = -(-self.results["raw_bytes"] // 2**22) * 2**22
        command = [self.options.caisson, "bench", self.scratch, "--limit", "--size", str(size), "--json"]
        rates = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        limit = {what: rates[f"{what}_bytes_per_second"] for what in ("write", "read")}
        for what, rate in limit.items():
            self.results["limits"][what].append(rate)
        return limit

    def share(self, seconds, limit):
        return self.results["raw_bytes"] / seconds / limit

    def script(self, name, *arguments):
        return [sys.executable, str(CASES / name), *map(str, arguments)]

    def tell(self, what):
        print(what, file=sys.stderr, flush=True)

    def system(self, name):
        """Every round of one system, in one process."""
        directory = self.scratch / "checkpoint"
        command = self.script("worker.py", name, self.options.state, directory)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:

            def ask(command):
                worker.stdin.write(command + "\n")
                worker.stdin.flush()
                return answer_of(worker)

            first = answer_of(worker)
            if "absent" in first:
                raise LeftOut(first["absent"])
            samples = self.results["systems"].setdefault(name, {})
            for number in range(self.options.rounds):
                self.tell(f"{name}: round {number + 1} of {self.options.rounds}")
                limit = self.limit()
                for what, device in (("save", "write"), ("load", "read")):
                    answer = ask(what)
                    if what == "save" and not SYSTEMS[name].saves:
                        continue
                    samples.setdefault(what, []).append(self.share(answer["seconds"], limit[device]))
                    samples.setdefault(f"{what}_extra_bytes", []).append(answer["extra_bytes"])
                    if what == "save":
                        samples.setdefault("stored", []).append(answer["stored_bytes"] / self.results["raw_bytes"])
                ask("remove")

    def ranks(self, name):
        samples = self.results["ranks"].setdefault(name, {})
        for number in range(self.options.rounds):
            self.tell(f"{name}, 4 ranks, then 2: round {number + 1} of {self.options.rounds}")
            directory = self.scratch / "ranks"
            limit = self.limit()
            for what, device, count in (("save", "write", 4), ("load", "read", 2)):
                seconds = self.rank_team(what, name, directory, count)
                samples.setdefault(what, []).append(self.share(seconds, limit[device]))
                state.drop_page_cache(directory)
            shutil.rmtree(directory)

    def rank_team(self, what, name, directory, count):
        rendezvous = self.scratch / f"rendezvous-{what}"
        rendezvous.unlink(missing_ok=True)
        team = [
            subprocess.Popen(
                self.script("ranks.py", what, name, self.options.state, directory, rank, count, rendezvous),
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"LOCAL_WORLD_SIZE": str(count)},  # as torchrun says it
            )
            for rank in range(count)
        ]
        said = [rank.communicate()[0] for rank in team]
        if any(rank.returncode for rank in team):
            raise LeftOut(f"a rank could not {what}; what it said is above")
        return json.loads(said[0])["seconds"]

    def async_saves(self, name):
        samples = self.results["async"].setdefault(name, {})
        for number in range(self.options.rounds):
            self.tell(f"{name}, async_save: process {number + 1} of {self.options.rounds}")
            command = self.script("async_worker.py", name, self.options.state, self.scratch / "async", 3)
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise LeftOut("async_save failed; what it said is above")
            answer = json.loads(done.stdout)
            samples.setdefault("first_seconds", []).append(answer["blocked"][0])
            samples.setdefault("first", []).append(answer["blocked"][0] / answer["memcpy"])
            for what in ("blocked", "pace", "p99", "longest"):
                samples.setdefault(what, []).extend(answer[what])
            samples.setdefault("memcpy", []).extend([answer["memcpy"]] * len(answer["blocked"]))
            samples.setdefault("extra_bytes", []).append(answer["extra_bytes"])

    def planning(self, name):
        """The coordinator of a save, without one: see planning.py."""
        self.tell("planning")
        command = [sys.executable, str(pathlib.Path(__file__).with_name("planning.py")), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise LeftOut("planning failed; what it said is above")
        self.results["planning"] = json.loads(done.stdout)

    def run(self, parts):
        if "planning" in parts:
            self.attempt("planning", self.planning)
        for name in SYSTEMS:
            if name in parts:
                self.attempt(name, self.system)
        for name in RANKED:
            if name in self.results["left_out"]:
                continue
            if "ranks" in parts:
                self.attempt(name, self.ranks)
            if "async" in parts:
                self.attempt(name, self.async_saves)

    def attempt(self, name, measure):
        try:
            measure(name)
        except LeftOut as why:
            self.results["left_out"][name] = str(why)


def answer_of(worker):
    line = worker.stdout.readline()
    if not line:
        raise LeftOut("it failed; what it said is above")
    return json.loads(line)


def machine():
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"


def parsed():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parts = [*SYSTEMS, "ranks", "async", "planning"]
    parser.add_argument("--caisson", required=True, help="the command, which measures L")
    parser.add_argument("--state", type=pathlib.Path, required=True, help="made here when it holds none")
    parser.add_argument("--directory", type=pathlib.Path, required=True, help="on the device to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART", help=", ".join(parts))
    parser.add_argument("--json", type=pathlib.Path, help="adds the samples to this file")
    return parser.parse_args()


def main():
    options = parsed()
    files = state.make(options.state)
    raw = sum(tensor_bytes(path) for path in files)
    results = {"machine": machine(), "raw_bytes": raw, "rounds": options.rounds, "left_out": {}}
    results |= {part: {} for part in ("systems", "ranks", "async", "planning")} | {"limits": {"write": [], "read": []}}
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text())
        if results["raw_bytes"] != raw:
            sys.exit(f"peers: {options.json} is of another state")
    bench = Bench(options, results)
    try:
        bench.run(options.only)
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(results))
    print(table.text(results))


def tensor_bytes(path):
    """Of a safetensors file: its length without the header."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


if __name__ == "__main__":
    main()

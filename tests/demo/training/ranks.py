"""Rank processes as one group: started together, followed through their event files, ended together.

A rank that dies takes the group with it, as under any launcher: the others cannot go on without it.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys


class RanksFailed(Exception):
    """A rank ended by itself with an error; the message has what it said last."""


class Ranks:
    """`count` processes of rank.py; `options` are its command line, `directory` is for their files."""

    def __init__(self, count, directory, options):
        directory.mkdir(parents=True)
        self.directory = directory
        self.events = [[] for _ in range(count)]
        self._files = []
        self.processes = []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for rank in range(count):
            path = directory / f"rank-{rank}.jsonl"
            path.touch()
            self._files.append(path.open())
            command = [sys.executable, pathlib.Path(__file__).with_name("rank.py"), "--rank", rank]
            command += ["--ranks", count, "--rendezvous", directory / "rendezvous", "--events", path, *options]
            with (directory / f"rank-{rank}.err").open("w") as err:
                self.processes.append(
                    subprocess.Popen([str(part) for part in command], stdout=err, stderr=err, env=environment)
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        for file in self._files:
            file.close()

    def poll(self):
        """Reads what the ranks told since the last call. False once all have ended well."""
        for rank, file in enumerate(self._files):
            while line := file.readline():
                self.events[rank].append(json.loads(line))
        codes = [process.poll() for process in self.processes]
        for rank, code in enumerate(codes):
            if code not in (None, 0):
                raise RanksFailed(f"rank {rank} ended with {code}:\n{self.said(rank)}")
        return any(code is None for code in codes)

    def told(self, event, rank=0):
        return [one for one in self.events[rank] if one["event"] == event]

    def said(self, rank):
        return "\n".join((self.directory / f"rank-{rank}.err").read_text().splitlines()[-20:])

    def stop(self, rank):
        self.processes[rank].send_signal(signal.SIGSTOP)

    def go_on(self, rank):
        self.processes[rank].send_signal(signal.SIGCONT)

    def kill(self, rank):
        self.processes[rank].kill()
        return self.processes[rank].wait()

    def end(self):
        """What a launcher does after a rank died: ends those that are left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()

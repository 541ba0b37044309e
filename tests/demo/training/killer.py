"""Kills one rank of a group in the middle of a save.

The save is not asked: its files are watched. As soon as it has written something the rank is stopped, and if the
checkpoint is not committed some time later the stopped rank was needed for it: SIGKILL. Otherwise the save was faster,
the rank goes on and the next save is tried.
"""

import os
import pathlib
import time

import caisson


class Killer:
    """Looks at `ranks` each time it is asked; `killed` has the facts once it has happened."""

    def __init__(self, ranks, store, victim, from_step, settle=0.5):
        self.ranks, self.store, self.victim = ranks, store, victim
        self.from_step, self.settle = from_step, settle
        self.step = None  # of the save that is watched
        self.before = {}
        self.killed = None

    def look(self):
        started = [one["step"] for one in self.ranks.told("saving", self.victim)]
        committed = len(self.ranks.told("saved", self.victim))
        if len(started) == committed:  # between two saves: remember what lies there
            self.before, self.step = files_of(self.store), None
            return
        if started[-1] < self.from_step:
            return
        self.step = started[-1]
        new = {path: size for path, size in files_of(self.store).items() if size and path not in self.before}
        if not new:
            return
        self.ranks.stop(self.victim)
        time.sleep(self.settle)
        if self.step in [one.step for one in caisson.Store(self.store).checkpoints()]:
            self.before = files_of(self.store)
            self.ranks.go_on(self.victim)
            return
        code = self.ranks.kill(self.victim)
        self.killed = {"rank": self.victim, "save": self.step, "code": code, "files": len(new), "time": time.time()}


def files_of(store):
    sizes = {}
    for folder, _, names in os.walk(store):
        for name in names:
            path = pathlib.Path(folder, name)
            try:
                sizes[path] = path.stat().st_size
            except FileNotFoundError:  # renamed meanwhile
                pass
    return sizes

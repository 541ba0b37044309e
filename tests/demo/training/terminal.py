"""What the training part of the demo says on the terminal."""

import sys


def step(title):
    print(f"\n\033[1m== {title}\033[0m", flush=True)


def say(line):
    print(line, flush=True)


def shows(line):
    print(f"shown: {line}", flush=True)


def mb(count):
    return f"{count / 1e6:.2f} MB"


def ms(seconds):
    return "-" if seconds is None else f"{seconds * 1e3:.0f} ms"


class Progress:
    """The training as one line: rewritten in place on a terminal, a line for every ten steps elsewhere."""

    def __init__(self, name, steps):
        self.name, self.steps = name, steps
        self.told = 0

    def show(self, steps):
        if not steps or steps[-1]["step"] == self.told:
            return
        self.told = steps[-1]["step"]
        if sys.stdout.isatty():
            done = 30 * self.told // self.steps
            bar = "#" * done + "." * (30 - done)
            print(f"\r{self.name}: [{bar}] {self._line(steps)}", end="", flush=True)
        elif self.told % 10 == 0:
            print(f"{self.name}: {self._line(steps)}", flush=True)

    def end(self, steps):
        if sys.stdout.isatty() and steps:
            self.show(steps)
            print(flush=True)

    def _line(self, steps):
        last = steps[-1]
        return f"step {last['step']} of {self.steps}, loss {last['loss']:.4f}, {last['seconds'] * 1e3:.0f} ms"

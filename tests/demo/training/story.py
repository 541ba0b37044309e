"""The training part of the demo: a run that is killed in the middle of a save and resumed, against one that is not.

    story.py --report PAGE.html [--size tiny] [--work DIRECTORY]

Every claim is checked; the first that does not hold ends it with a message and exit code 1.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import statistics
import sys
import tempfile
import time

import torch

import caisson
import page
from killer import Killer
from ranks import Ranks, RanksFailed
from terminal import Progress, mb, ms, say, shows, step

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "bench"))
from train_state import token_ids  # noqa: E402


@dataclasses.dataclass
class Size:
    model: tuple  # width, layers, heads
    steps: int
    save_every: int
    kill_from: int  # the first save that may be killed
    ranks: int
    ranks_after: int
    text_bytes: int


SIZES = {
    "demo": Size((320, 6, 5), 32, 5, 25, 4, 2, 3_000_000),
    "tiny": Size((128, 2, 4), 10, 2, 4, 2, 1, 300_000),
}
VICTIM = 1  # not the coordinator: that one waits for it
NOISE = 1e-4  # relative; what another order of adding may do to the losses over the steps of the demo


class Untrue(Exception):
    """Something is not as the demo claims."""


def claim(holds, otherwise):
    if not holds:
        raise Untrue(otherwise)


@dataclasses.dataclass
class Run:
    """What one group of ranks did."""

    name: str
    ranks: int
    losses: dict  # step -> loss
    steps: list  # the events of rank 0
    saves: list  # the events of all ranks
    restore_seconds: float | None


class Story:
    def __init__(self, work, size):
        self.work, self.size = work, size
        self.store, self.tokens = work / "store", work / "tokens.pt"

    def text(self):
        tokens = token_ids(self.size.text_bytes)
        torch.save(tokens.to(torch.int16), self.tokens)
        return len(tokens)

    def train(self, name, ranks, *, until=None, save_every=0, resume=None, kill=False):
        """Runs one group to the end, or until its rank is killed; gives the run and the killer's facts."""
        options = ["--tokens", self.tokens, "--store", self.store, "--steps", until or self.size.steps]
        options += ["--save-every", save_every, "--model", *self.size.model]
        if resume is not None:
            options += ["--resume", resume]
        progress = Progress(name, self.size.steps)
        killed = None
        with Ranks(ranks, self.work / name.replace(" ", "-"), options) as group:
            killer = Killer(group, self.store, VICTIM, self.size.kill_from) if kill else None
            while group.poll():
                progress.show(group.told("step"))
                if killer:
                    killer.look()
                    if killer.killed:
                        killed = killer.killed
                        break
                time.sleep(0.001 if killer else 0.05)
            if not killed:
                group.poll()
            progress.end(group.told("step"))
            restored = [one["seconds"] for rank in range(ranks) for one in group.told("restored", rank)]
            run = Run(
                name,
                ranks,
                {one["step"]: one["loss"] for one in group.told("step")},
                group.told("step"),
                [one for rank in range(ranks) for one in group.told("saved", rank)],
                max(restored) if restored else None,
            )
        return run, killed


def act_undisturbed(story):
    size, tokens = story.size, story.text()
    width, layers, _ = size.model
    step(f"7. A GPT in training: FSDP2 on {size.ranks} ranks; nothing is saved, nobody is killed")
    say(f"width {width}, {layers} layers, {tokens / 1e6:.1f} M tokens of the text of Python's own library")
    run, _ = story.train("uninterrupted", size.ranks)
    first, last = (run.losses[one] for one in (1, size.steps))
    shows(f"the losses to meet, from {first:.3f} to {last:.3f} in {size.steps} steps")
    return run


def act_killed(story, reference):
    """Gives the run, the killer's facts and the step of the newest committed checkpoint."""
    size = story.size
    step(f"8. The same, saved asynchronously every {size.save_every} steps; a rank is killed in the middle of a save")
    run, killed = story.train("killed", size.ranks, save_every=size.save_every, kill=True)
    claim(killed, "no save could be killed: all were faster")
    last = max(run.losses)
    say(
        f"rank {killed['rank']} got SIGKILL while it saved step {killed['save']}, {killed['files']} files of that save"
        f" begun; the training was at step {last}"
    )
    listed = caisson.Store(story.store).checkpoints()
    for one in listed:
        say(f"  committed: step {one.step:>3}  {mb(one.raw_bytes)}, stored {mb(one.stored_bytes)}")
    newest = listed[-1].step
    claim(killed["save"] not in [one.step for one in listed], f"the killed save of step {killed['save']} is listed")
    claim(newest == killed["save"] - size.save_every, f"the newest checkpoint is of step {newest}")
    claim(agrees(run, reference), "saving changed the losses")
    shows(f"the torn save is not there; step {newest} is the newest, {last - newest} steps are lost")
    return run, killed, newest


def act_resharded(story, reference, newest):
    """Gives the run, and how far its losses are from the undisturbed ones, relative to them."""
    size = story.size
    step(f"9. Resumed in world size {size.ranks_after} instead of {size.ranks}, from the newest committed checkpoint")
    run, _ = story.train(f"world size {size.ranks_after}", size.ranks_after, save_every=size.save_every, resume="latest")
    claim(min(run.losses) == newest + 1, f"it went on from step {min(run.losses) - 1}")
    apart = max(abs(loss - reference.losses[one]) / reference.losses[one] for one, loss in run.losses.items())
    claim(apart < NOISE, f"the losses are {apart:.1e} apart")
    say(f"restored in {run.restore_seconds:.2f} s")
    shows(f"{len(run.losses)} losses in world size {size.ranks_after} within {apart:.1e} of the uninterrupted run's")
    return run, apart


def act_same(story, reference, newest):
    size = story.size
    step(f"10. Resumed in world size {size.ranks} from the same checkpoint")
    run, _ = story.train(f"world size {size.ranks}", size.ranks, resume=newest)
    claim(agrees(run, reference), "the losses differ from the uninterrupted run's")
    say(f"restored in {run.restore_seconds:.2f} s")
    shows(f"{len(run.losses)} losses in world size {size.ranks} equal the uninterrupted run's bit for bit")
    return run


def agrees(run, reference):
    return all(loss == reference.losses[one] for one, loss in run.losses.items())


def tell(story):
    reference = act_undisturbed(story)
    killed_run, killed, newest = act_killed(story, reference)
    resharded, apart = act_resharded(story, reference, newest)
    same = act_same(story, reference, newest)
    return {
        "size": story.size,
        "runs": [reference, killed_run, resharded, same],
        "killed": killed,
        "killed_at": max(killed_run.losses),
        "newest": newest,
        "apart": apart,
        "listing": caisson.Store(story.store).checkpoints(),
    }


def step_seconds(run, draining):
    """The median step, without the first of a process, which warms up."""
    seconds = [one["seconds"] for one in run.steps[1:] if one["draining"] == draining]
    return statistics.median(seconds) if seconds else None


def figures(facts):
    _, killed_run, resharded, same = facts["runs"]
    first = facts["size"].save_every
    facts["figures"] = {
        "stall_first": max(one["stall"] for one in killed_run.saves if one["step"] == first),
        "stall": statistics.median(one["stall"] for one in killed_run.saves),
        "step": step_seconds(killed_run, False),
        "step_draining": step_seconds(killed_run, True),
        "restore": [resharded.restore_seconds, same.restore_seconds],
        "raw_bytes": facts["listing"][-1].raw_bytes,
        "stored_bytes": statistics.median(one.stored_bytes for one in facts["listing"]),
    }
    return facts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=pathlib.Path, help="an empty directory, which stays; else a temporary one")
    parser.add_argument("--report", type=pathlib.Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="demo")
    options = parser.parse_args()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if options.work is None:
            options.work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="caisson-demo-")))
        try:
            facts = figures(tell(Story(options.work.resolve(), SIZES[options.size])))
        except (Untrue, RanksFailed) as failure:
            sys.exit(f"demo: NOT AS CLAIMED: {failure}")
    options.report.write_text(page.html(facts))
    summary(facts, began, options.report)


def summary(facts, began, report):
    values, size = facts["figures"], facts["size"]
    step(f"What the training showed, in {time.monotonic() - began:.0f} s")
    rows = {
        "stall per save": f"{ms(values['stall'])}, median of ranks and saves; the first {ms(values['stall_first'])}",
        "a step": f"{ms(values['step'])}, {ms(values['step_draining'])} beside a save that drains",
        "a checkpoint": f"{mb(values['raw_bytes'])}, stored {mb(values['stored_bytes'])}, "
        f"{values['stored_bytes'] / values['raw_bytes']:.2f} of it",
        "restore": f"{values['restore'][0]:.2f} s on {size.ranks_after}, {values['restore'][1]:.2f} s on {size.ranks} ranks",
        "lost by the kill": f"{facts['killed_at'] - facts['newest']} steps",
        "report": os.path.relpath(report),
    }
    for name, value in rows.items():
        say(f"  {name:<18}{value}")


if __name__ == "__main__":
    main()

"""Runs test cases on several processes joined by gloo. The processes start once and run all cases,
because importing torch takes longer than most of them.

    def case_something(t: Ranks) -> None: ...     # on every rank
    if __name__ == "__main__":
        ranks.main(globals(), world=4)            # "main.py [name...]" runs these cases alone
"""

from __future__ import annotations

import datetime
import logging
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

_CASE_SECONDS = 120


class Ranks:
    """What a case is given."""

    def __init__(self, rank: int, world: int, scratch: pathlib.Path) -> None:
        self.rank = rank
        self.world = world
        self.scratch = scratch  # the same empty directory on every rank
        self.random = random.Random(0)  # the same on every rank

    def everyone(self, value: Any) -> list[Any]:
        told = [None] * self.world
        dist.all_gather_object(told, value)
        return told

    def raises(self, kind: type[BaseException], part: str, call: Callable[[], Any]) -> str:
        """The whole message of what `call` must raise, which has `part` in it."""
        try:
            call()
        except kind as error:
            text = str(error)
            assert part in text, f"{part!r} is not in: {text}"
            return text
        raise AssertionError(f"nothing was raised; {part!r} was expected")


def _worker(rank: int, world: int, module: str, names: list[str], scratch: str, queue: Any) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="localhost",
    )  # fmt: skip
    store = dist.FileStore(f"{scratch}/rendezvous", world)
    timeout = datetime.timedelta(seconds=_CASE_SECONDS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)
    cases = __import__(module).__dict__
    for name in names:
        directory = pathlib.Path(scratch) / name
        directory.mkdir(exist_ok=True)
        problem = None
        try:
            cases["case_" + name](Ranks(rank, world, directory))
        except BaseException:
            problem = traceback.format_exc()
        queue.put((name, rank, problem))
        dist.barrier()
    dist.destroy_process_group()


def main(module: dict[str, Any], world: int) -> None:
    name = pathlib.Path(module["__file__"]).stem
    names = [case[5:] for case in module if case.startswith("case_")]
    wanted = sys.argv[1:] or names
    scratch = tempfile.mkdtemp(prefix="caisson-ranks.")
    context = mp.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=_worker, args=(rank, world, name, wanted, scratch, queue))
        for rank in range(world)
    ]
    failed = False
    try:
        for process in processes:
            process.start()
        # A rank's report may be overtaken by another's of the next case.
        reports: dict[str, dict[int, str | None]] = {case: {} for case in wanted}
        for case in wanted:
            failed |= _report(case, world, queue, reports, processes)
        for process in processes:
            process.join(30)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(failed)


def _report(
    case: str,
    world: int,
    queue: Any,
    reports: dict[str, dict[int, str | None]],
    processes: list[Any],
) -> bool:
    """Waits for a case on all ranks; true if it failed. A rank that is gone ends everything."""
    problems = reports[case]
    end = time.monotonic() + _CASE_SECONDS + 30
    started = time.monotonic()
    while len(problems) < world:
        try:
            name, rank, problem = queue.get(timeout=1)
        except Exception:
            dead = [p.exitcode for p in processes if p.exitcode not in (None, 0)]
            if not dead and time.monotonic() < end:
                continue
            for rank, problem in problems.items():
                print(f"--- rank {rank}: {problem or 'ok'}")
            print(f"FAIL {case}: {'a rank ended: ' + str(dead) if dead else 'it hangs'}")
            for process in processes:
                process.kill()
            sys.exit(1)
        reports[name][rank] = problem
    failed = any(problems.values())
    print(f"{'FAIL' if failed else 'ok'}   {case} ({time.monotonic() - started:.1f} s)", flush=True)
    shown = set()
    for rank, problem in sorted(problems.items()):
        if problem and problem not in shown:
            shown.add(problem)
            print(f"--- rank {rank}:\n{problem}", flush=True)
    return failed

"""Where a checkpoint is. Two forms:

- a plain path: a directory that holds this one checkpoint and nothing else is needed to read it;
- caisson:///path#run/step: a checkpoint of a store that holds many, and shares what is equal.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_SCHEME = "caisson:"
# The name of the only checkpoint of a directory, and of those that ranks saved on their own.
_DIRECTORY_NAME = "checkpoint/0"
STORE_FILE = "caisson.store"


@dataclass(frozen=True)
class Location:
    root: str  # directory of the store
    name: str  # "run/step" or "run/latest"
    plain: bool  # the directory is the checkpoint

    def of_rank(self, rank: int) -> Location:
        """Where a rank saves on its own, without the others."""
        run, step = self.name.rsplit("/", 1)
        return Location(self.root, f"{run}/rank-{rank}/{step}", self.plain)

    def __str__(self) -> str:
        return self.root if self.plain else f"caisson://{self.root}#{self.name}"


def is_url(checkpoint_id: str | os.PathLike[str]) -> bool:
    return os.fspath(checkpoint_id).startswith(_SCHEME)


def parse_location(checkpoint_id: str | os.PathLike[str]) -> Location:
    """ValueError says how a URL looks. A URL that went through pathlib, which makes one slash of
    two, is understood."""
    text = os.fspath(checkpoint_id)
    if not text.startswith(_SCHEME):
        if "://" in text and not isinstance(checkpoint_id, Path):
            raise ValueError(f'"{text}": Caisson saves to a path or to caisson:///path#run/step')
        if not text:
            raise ValueError("an empty path is no checkpoint")
        return Location(os.path.abspath(text), _DIRECTORY_NAME, True)
    rest = text[len(_SCHEME) :]
    path, _, name = rest.rpartition("#")
    if path.startswith("//"):
        path = path[2:]
    run, _, step = name.rpartition("/")
    if not path.startswith("/") or not run or not (step == "latest" or step.isdecimal()):
        raise ValueError(
            f'"{text}": a URL is caisson:///path/of/store#run/step, with an absolute path and a '
            "decimal step (or latest, to read)"
        )
    return Location(os.path.normpath(path), name, False)

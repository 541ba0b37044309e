"""The bundled `caisson` executable: started for people, and asked with --json by the package for
what only it can answer, because it alone links the index.

The environment variable CAISSON_COMMAND names another one, such as that of a build tree.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from caisson._errors import (
    AlreadyExistsError,
    CaissonError,
    CancelledError,
    CorruptionError,
    FencedError,
    InternalError,
    InvalidArgumentError,
    NoSpaceError,
    NotFoundError,
    OutOfMemoryError,
    StorageError,
    UnsupportedError,
)

# The words of its "error" field.
_BY_WORD: dict[str, type[CaissonError]] = {
    "invalid argument": InvalidArgumentError,
    "not found": NotFoundError,
    "already exists": AlreadyExistsError,
    "corruption": CorruptionError,
    "I/O error": StorageError,
    "no space": NoSpaceError,
    "out of memory": OutOfMemoryError,
    "fenced": FencedError,
    "cancelled": CancelledError,
    "unsupported": UnsupportedError,
}


def path() -> str:
    """Where the executable is. UnsupportedError where there is none."""
    named = os.environ.get("CAISSON_COMMAND")
    bundled = pathlib.Path(__file__).parent / "bin" / "caisson"
    if named:
        return named
    if bundled.exists():
        return str(bundled)
    raise UnsupportedError(
        "this installation has no caisson executable, which this needs; set CAISSON_COMMAND to one"
    )


def ask(verb: str, *arguments: str) -> dict[str, Any]:
    """What `caisson VERB ARGUMENTS --json` answers. Exit codes that mean a finding are no errors."""
    done = subprocess.run(
        [path(), verb, "--json", *arguments], capture_output=True, stdin=subprocess.DEVNULL
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        said = done.stderr.decode("utf-8", "replace").strip()
        kind = InvalidArgumentError if done.returncode == 2 else InternalError
        raise kind(f"caisson {verb} ended with {done.returncode}: {said}")
    if answer.get("schema") == "caisson.error/1":
        raise _BY_WORD.get(answer["error"], InternalError)(answer["message"])
    return answer


def main() -> None:
    """The console script `caisson`: becomes the executable."""
    try:
        executable = path()
    except UnsupportedError as error:
        sys.exit(f"caisson: {error}")
    os.execv(executable, ["caisson", *sys.argv[1:]])

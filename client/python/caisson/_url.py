"""Where a store is and which checkpoint is meant: a path, file:///path, or caisson:///path#run/step."""

from __future__ import annotations

import os
import re

from caisson._errors import InvalidArgumentError


def split(url: str | os.PathLike[str], name: str | None = None) -> tuple[str, str | None]:
    """The store's path or URL, and the checkpoint's name: the given one, or that after '#'."""
    text = os.fspath(url)
    if not text.startswith("caisson://"):
        if re.match(r"(caisson|file|s3):/[^/]", text):
            raise InvalidArgumentError(
                f'"{text}": a slash is missing, as in caisson:///path; pathlib.Path drops it, '
                "so give a URL as a str"
            )
        return text, name
    path, _, fragment = text[len("caisson://") :].partition("#")
    if not path.startswith("/"):
        raise InvalidArgumentError(f'"{text}": as in caisson:///absolute/path#run/step')
    if fragment and name is not None and fragment != name:
        raise InvalidArgumentError(f'"{text}" names {fragment}, and the call {name}: which one?')
    return path, fragment or name


def absolute(url: str) -> str:
    """A store's path, absolute, with the `?dirs=` that may follow it: what the executable takes, and
    never anything that begins with '-'."""
    path, mark, directories = url.removeprefix("file://").partition("?dirs=")
    return os.path.abspath(path) + mark + directories

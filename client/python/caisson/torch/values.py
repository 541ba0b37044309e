"""Everything of a state dict that is no tensor, in one record a rank.

A record is two dicts. Plain values (plain.py) are pickled together, and reading them back runs no
code. The others are kept as torch.save wrote them, one by one; one of more than OWN_BLOB_BYTES is a
blob of its own.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch

OWN_BLOB_BYTES = 64 << 10

# What torch.save(..., _use_new_zipfile_serialization=False) writes before and after the object, for
# an object that holds no tensor: so torch.load reads a plain value without a zip archive around it.
_HEAD_AND_TAIL: tuple[bytes, bytes] | None = None


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def unsaved(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=False)


def as_saved(value: object) -> io.BytesIO:
    """A plain value as a stream for torch.load, which is what load planners give it to."""
    global _HEAD_AND_TAIL
    if _HEAD_AND_TAIL is None:
        marker = "caisson value marker"
        stream = io.BytesIO()
        torch.save(marker, stream, pickle_protocol=2, _use_new_zipfile_serialization=False)
        head, tail = stream.getvalue().split(pickle.dumps(marker, protocol=2))
        _HEAD_AND_TAIL = head, tail
    head, tail = _HEAD_AND_TAIL
    return io.BytesIO(head + pickle.dumps(value, protocol=2) + tail)

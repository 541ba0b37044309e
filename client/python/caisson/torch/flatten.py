"""A nested state dict as one level of names, exactly as torch.distributed.checkpoint names them:
paths joined by dots; a list is entered only if a tensor or a mapping lies within."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from caisson.torch.sections import Path

_LEAVES = frozenset(
    (torch.Tensor, torch.nn.Parameter, DTensor, int, float, bool, str, bytes, type(None), tuple)
)


def _is_leaf(value: object) -> bool:
    if isinstance(value, Mapping):
        return False
    if not isinstance(value, list):
        return True
    return not any(
        isinstance(entry, torch.Tensor)
        or (isinstance(entry, (Mapping, list)) and not _is_leaf(entry))
        for entry in value
    )


def flatten(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Path]]:
    """Names to values, and names to their paths. ValueError where two entries get one name."""
    flat: dict[str, Any] = {}
    paths: dict[str, Path] = {}

    def add(name: str, path: Path, value: Any) -> None:
        if type(value) in _LEAVES or _is_leaf(value):
            if name in flat:
                raise ValueError(f'two entries of the state dict are named "{name}"')
            flat[name] = value
            paths[name] = path
        elif isinstance(value, Mapping):
            for key, entry in value.items():
                key = str(key)
                add(f"{name}.{key}", (*path, key), entry)
        else:
            for number, entry in enumerate(value):
                add(f"{name}.{number}", (*path, number), entry)

    for key, value in state_dict.items():
        key = str(key)
        add(key, (key,), value)
    return flat, paths

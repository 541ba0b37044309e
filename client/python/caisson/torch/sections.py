"""What a rank says about its state dict when a save is planned, in columns.

A state dict falls into sections, one for each top-level entry ("model", "optim", ...). A section
is the same on every rank that holds the same tensors: names, element types, global shapes. Only
the boxes differ. Tensors of the same shape and placement share a class, and a rank gives one box a
class. So the coordinator decodes each distinct section once, whatever the number of ranks, and
plans classes instead of tensors.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from caisson.torch.cover import Box, Ints

Path = tuple[str | int, ...]  # of an entry within the nested state dict

_PLAIN = (torch.Tensor, torch.nn.Parameter)


@dataclass(frozen=True)
class Section:
    names: tuple[str, ...]  # of the tensors
    dtypes: tuple[str, ...]  # of each tensor: "float32"
    classes: tuple[int, ...]  # of each tensor: where in `shapes`
    shapes: tuple[Ints, ...]  # of each class: the global shape
    values: tuple[str, ...]  # names of everything that is no tensor
    paths: tuple[Path, ...]  # of the tensors, then of the values


@dataclass(frozen=True)
class SectionRef:
    """A section on its way to the coordinator."""

    digest: bytes
    payload: bytes
    boxes: tuple[Box | None, ...]  # of each class, this rank's; None where it holds nothing


@dataclass(frozen=True)
class LocalLayout:
    """Everything that a rank sends."""

    sections: tuple[SectionRef, ...]
    digest: bytes  # of all of the above: equal digests, equal plans


class _Builder:
    def __init__(self) -> None:
        self.names: list[str] = []
        self.dtypes: list[torch.dtype] = []
        self.classes: list[int] = []
        self.class_of: dict[Any, int] = {}
        self.shapes: list[Ints] = []
        self.boxes: list[Box | None] = []
        self.values: list[str] = []
        self.tensor_paths: list[Path] = []
        self.value_paths: list[Path] = []

    def add_tensor(self, name: str, path: Path, tensor: torch.Tensor) -> None:
        key = layout_key(tensor)
        number = self.class_of.get(key)
        if number is None:
            number = self.class_of[key] = len(self.shapes)
            self.shapes.append(tuple(tensor.shape))
            self.boxes.append(box_of(tensor))
        self.names.append(name)
        self.dtypes.append(tensor.dtype)
        self.classes.append(number)
        self.tensor_paths.append(path)

    def add_value(self, name: str, path: Path) -> None:
        self.values.append(name)
        self.value_paths.append(path)

    def section(self) -> Section:
        return Section(
            names=tuple(self.names),
            dtypes=tuple([str(dtype)[6:] for dtype in self.dtypes]),
            classes=tuple(self.classes),
            shapes=tuple(self.shapes),
            values=tuple(self.values),
            paths=tuple(self.tensor_paths + self.value_paths),
        )


def layout_key(tensor: torch.Tensor) -> Any:
    """Equal for tensors of one state dict that are laid out alike: this rank's box is the same."""
    if isinstance(tensor, DTensor):
        spec = tensor._spec
        return spec.shape, id(spec.mesh), spec.placements
    return tensor.shape


def box_of(tensor: torch.Tensor) -> Box | None:
    """The box of the global tensor that this rank holds; None where it is empty."""
    if isinstance(tensor, DTensor):
        tensor._raise_if_contains_partial_placements()
    if not isinstance(tensor, DTensor) or tensor.numel() == 0:
        return (0,) * tensor.dim(), tuple(tensor.shape)
    extent, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return None if 0 in extent else (tuple(offset), tuple(extent))


def is_describable(value: object) -> bool:
    """Whether a section can describe it: a tensor in one box, or no tensor at all. The others
    (ShardedTensor, whatever makes its own write items) are planned as PyTorch does."""
    if type(value) in _PLAIN or not isinstance(value, torch.Tensor):
        return True
    if isinstance(value, DTensor):
        return not hasattr(value._local_tensor, "__create_write_items__")
    return not isinstance(value, ShardedTensor) and not hasattr(value, "__create_write_items__")


def describe(
    flat: Mapping[str, Any], paths: Mapping[str, Path]
) -> list[tuple[Section, list[Box | None]]]:
    """The sections of a flat state dict and the boxes of their classes, in the order of their first
    entries."""
    builders: dict[str | int, _Builder] = {}
    for name, value in flat.items():
        path = paths.get(name, (name,))
        head = path[0] if len(path) > 1 else ""
        builder = builders.get(head)
        if builder is None:
            builder = builders[head] = _Builder()
        if not isinstance(value, torch.Tensor):
            builder.add_value(name, path)
        elif not isinstance(value, DTensor) or value.device_mesh.get_coordinate() is not None:
            builder.add_tensor(name, path, value)
    return [(builder.section(), builder.boxes) for builder in builders.values()]


def encode(described: Iterable[tuple[Section, list[Box | None]]], send: bool) -> LocalLayout:
    """`send` false: the coordinator's own, whose payloads nobody needs."""
    refs = []
    whole = hashlib.blake2b(digest_size=16)
    for section, boxes in described:
        columns = json.dumps(
            [section.paths, section.dtypes, section.classes, section.shapes],
            separators=(",", ":"),
        ).encode()
        digest = hashlib.blake2b(columns, digest_size=16).digest()
        payload = zlib.compress(columns, 1) if send else b""
        refs.append(SectionRef(digest, payload, tuple(boxes)))
        whole.update(digest)
        whole.update(repr(refs[-1].boxes).encode())
    return LocalLayout(tuple(refs), whole.digest())


def decode(payload: bytes) -> Section:
    paths, dtypes, classes, shapes = json.loads(zlib.decompress(payload))
    names = tuple([".".join(map(str, path)) for path in paths])
    return Section(
        names=names[: len(dtypes)],
        dtypes=tuple(dtypes),
        classes=tuple(classes),
        shapes=tuple([tuple(shape) for shape in shapes]),
        values=names[len(dtypes) :],
        paths=tuple([tuple(path) for path in paths]),
    )

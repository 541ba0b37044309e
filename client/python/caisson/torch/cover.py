"""Do the boxes of one tensor cover it exactly once? Linear where they form a grid, as every
sharding by a device mesh does; a sweep where they do not."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Sequence

Ints = tuple[int, ...]
Box = tuple[Ints, Ints]  # offset and extent per dimension


def box_text(box: Box) -> str:
    """ "[0:512, 128:256]", as the engine writes boxes."""
    return "[" + ", ".join(f"{o}:{o + e}" for o, e in zip(*box)) + "]"


def _is_grid(shape: Ints, boxes: Sequence[Box]) -> bool:
    """Whether every box reaches, in each dimension, exactly to the next start. Then boxes with
    different offsets are disjoint."""
    for d, length in enumerate(shape):
        starts = sorted({offset[d] for offset, _ in boxes})
        following = dict(zip(starts, [*starts[1:], length]))
        if any(offset[d] + extent[d] != following[offset[d]] for offset, extent in boxes):
            return False
    return True


def _overlap(a: Box, b: Box) -> bool:
    return all(ao < bo + be and bo < ao + ae for ao, ae, bo, be in zip(a[0], a[1], b[0], b[1]))


def _sweep_overlap(shape: Ints, boxes: Sequence[Box]) -> tuple[Box, Box] | None:
    """Goes along the dimension that the boxes divide most, so that few are open at a time."""
    along = max(range(len(shape)), key=lambda d: len({offset[d] for offset, _ in boxes}))
    open_boxes: list[tuple[int, int]] = []  # where it ends, its number
    order = sorted(range(len(boxes)), key=lambda i: boxes[i][0][along])
    for i in order:
        start = boxes[i][0][along]
        del open_boxes[: bisect_right(open_boxes, (start, len(boxes)))]
        for _, other in open_boxes:
            if _overlap(boxes[i], boxes[other]):
                return boxes[other], boxes[i]
        insort(open_boxes, (start + boxes[i][1][along], i))
    return None


def cover_problem(shape: Ints, boxes: Sequence[Box], *, whole: bool = True) -> str | None:
    """What is wrong with the non-empty `boxes` of a tensor of this shape, or None. With
    `whole` false a part of the tensor may be missing."""
    for box in boxes:
        if len(box[0]) != len(shape):
            return f"{box_text(box)} has {len(box[0])} dimensions, the tensor {len(shape)}"
        if any(o < 0 or e < 0 or o + e > n for o, e, n in zip(box[0], box[1], shape)):
            return f"{box_text(box)} does not lie within the tensor"
    held = sum(math.prod(extent) for _, extent in boxes)
    total = math.prod(shape)
    if shape and held > 0:
        if _is_grid(shape, boxes):
            if len({offset for offset, _ in boxes}) != len(boxes):
                return "two of its boxes overlap"
        elif (pair := _sweep_overlap(shape, boxes)) is not None:
            return f"{box_text(pair[0])} and {box_text(pair[1])} overlap"
    elif len(boxes) > 1:
        return "a scalar is held more than once"
    if whole and held != total:
        return f"its boxes hold {held} of {total} elements"
    return None

"""Plans a whole save: from what every rank says to what every rank writes. Runs on the coordinator.

Tensors whose boxes are held by the same ranks form a pattern, which is checked and dealt out once.
Where several ranks hold the same box, whole tensors are dealt among them, largest first, to the one
with the least so far. A value is written by the lowest rank that has it.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from caisson.torch.cover import Box, Ints, cover_problem
from caisson.torch.sections import LocalLayout, Section, decode

Place = tuple[int, int]  # a distinct section, a class in it
PatternKey = tuple[Place, ...]  # everywhere that a tensor is described


@dataclass(frozen=True)
class SectionShare:
    """What one rank writes of one of its sections."""

    # Of each pattern that the rank has part in: its place among the `count` holders of its box.
    position: dict[int, tuple[int, int]]
    values: bool | tuple[str, ...]  # all of them, none, or these
    # The same for every rank that has this section; empty: one pattern a class, nothing dealt.
    patterns: bytes = b""  # of each tensor
    columns: bytes = b""  # of each tensor: which of the holders writes it

    def writes(self, section: Section) -> list[int]:
        """Numbers of the tensors that the rank writes."""
        pattern_of: Sequence[int] = section.classes
        if self.patterns:
            pattern_of = array("I", self.patterns)
        if not self.columns:
            return [i for i, pattern in enumerate(pattern_of) if pattern in self.position]
        mine = []
        for i, (pattern, column) in enumerate(zip(pattern_of, array("I", self.columns))):
            place = self.position.get(pattern)
            if place is not None and column % place[1] == place[0]:
                mine.append(i)
        return mine


@dataclass
class GlobalLayout:
    shares: list[list[SectionShare]]  # of each rank, of each of its sections
    sections: list[Section]  # the distinct ones
    # Of each tensor, by name: element type, shape, and its boxes where they do not cover it.
    tensors: dict[str, tuple[str, Ints, list[Box] | None]] = field(default_factory=dict)


@dataclass
class _Pattern:
    boxes: dict[Box, list[int]]  # the ranks that hold each
    tensors: list[tuple[int, int, int]]  # bytes, distinct section, number in it (its first place)
    members: list[list[tuple[int, int]]]  # of each tensor: every section and number that it has


class _Planner:
    def __init__(self, layouts: Sequence[LocalLayout], own: Mapping[bytes, Section]):
        self.layouts = layouts
        self.number_of: dict[bytes, int] = {}  # digest -> distinct section
        self.sections: list[Section] = []
        self.holders: list[list[tuple[int, int]]] = []  # rank, which of its sections
        for rank, layout in enumerate(layouts):
            for at, ref in enumerate(layout.sections):
                number = self.number_of.setdefault(ref.digest, len(self.sections))
                if number == len(self.sections):
                    self.sections.append(own.get(ref.digest) or decode(ref.payload))
                    self.holders.append([])
                self.holders[number].append((rank, at))

    def plan(self) -> GlobalLayout:
        places = self._places()
        patterns = self._patterns(places)
        result = GlobalLayout([], self.sections)
        self._check(patterns, result)
        columns = self._deal(patterns)
        self._check_values(result)
        result.shares = self._shares(patterns, columns)
        return result

    def _places(self) -> dict[str, list[tuple[int, int]]]:
        """Where each tensor is described: distinct section and number in it."""
        places: dict[str, list[tuple[int, int]]] = {}
        for s, section in enumerate(self.sections):
            for i, name in enumerate(section.names):
                places.setdefault(name, []).append((s, i))
        for name, found in places.items():
            if len(found) > 1:
                self._check_same(name, found)
        return places

    def _check_same(self, name: str, found: list[tuple[int, int]]) -> None:
        def kind(s: int, i: int) -> tuple[str, Ints]:
            section = self.sections[s]
            return section.dtypes[i], section.shapes[section.classes[i]]

        first = kind(*found[0])
        for s, i in found[1:]:
            if kind(s, i) != first:
                ranks = self.holders[found[0][0]][0][0], self.holders[s][0][0]
                raise ValueError(
                    f'tensor "{name}" is {first[0]} {list(first[1])} on rank {ranks[0]} and '
                    f"{kind(s, i)[0]} {list(kind(s, i)[1])} on rank {ranks[1]}"
                )

    def _patterns(self, places: dict[str, list[tuple[int, int]]]) -> dict[PatternKey, _Pattern]:
        patterns: dict[PatternKey, _Pattern] = {}
        for members in places.values():
            key = tuple([(s, self.sections[s].classes[i]) for s, i in members])
            pattern = patterns.get(key)
            if pattern is None:
                pattern = patterns[key] = _Pattern(self._boxes(key), [], [])
            s, i = members[0]
            section = self.sections[s]
            size = math.prod(section.shapes[section.classes[i]])
            pattern.tensors.append((size * getattr(torch, section.dtypes[i]).itemsize, s, i))
            pattern.members.append(members)
        return patterns

    def _boxes(self, key: tuple[Place, ...]) -> dict[Box, list[int]]:
        boxes: dict[Box, list[int]] = {}
        for s, cls in key:
            for rank, at in self.holders[s]:
                box = self.layouts[rank].sections[at].boxes[cls]
                if box is not None:
                    boxes.setdefault(box, []).append(rank)
        for ranks in boxes.values():
            ranks.sort()
        return boxes

    def _check(self, patterns: dict[PatternKey, _Pattern], result: GlobalLayout) -> None:
        alone = len(self.layouts) == 1  # one rank may save a part of a tensor, as PyTorch allows
        problems = []
        for key, pattern in patterns.items():
            s, cls = key[0]
            shape = self.sections[s].shapes[cls]
            boxes = list(pattern.boxes)
            problem = cover_problem(shape, boxes, whole=not alone)
            if problem is not None:
                names = [self.sections[s].names[i] for _, s, i in pattern.tensors]
                others = f" and {len(names) - 1} others" if len(names) > 1 else ""
                problems.append(f'"{names[0]}" {list(shape)}{others}: {problem}')
            part = boxes if boxes != [((0,) * len(shape), shape)] and alone else None
            for _, s, i in pattern.tensors:
                section = self.sections[s]
                result.tensors[section.names[i]] = section.dtypes[i], shape, part
        if problems:
            shown = "; ".join(problems[:10])
            more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise ValueError(f"the ranks do not hold each tensor exactly once: {shown}{more}")

    def _deal(self, patterns: dict[PatternKey, _Pattern]) -> list[array[int] | None]:
        """Of each section, of each tensor: the column that writes it; None: nothing was dealt."""
        columns: list[array[int] | None] = [None] * len(self.sections)
        loads: dict[int, list[tuple[int, int]]] = {}  # of each number of columns: a heap
        dealt = []
        for pattern in patterns.values():
            count = max((len(ranks) for ranks in pattern.boxes.values()), default=1)
            if count > 1:
                share = max(1, len(pattern.boxes))
                for (size, _, _), members in zip(pattern.tensors, pattern.members):
                    dealt.append((size // share, count, members))
        for size, count, members in sorted(dealt, key=lambda d: -d[0]):
            heap = loads.setdefault(count, [(0, column) for column in range(count)])
            load, column = heap[0]
            heapq.heapreplace(heap, (load + size, column))
            for s, i in members:
                chosen = columns[s]
                if chosen is None:
                    chosen = columns[s] = array("I", bytes(4 * len(self.sections[s].names)))
                chosen[i] = column
        return columns

    def _check_values(self, result: GlobalLayout) -> None:
        for section in self.sections:
            for name in section.values:
                if name in result.tensors:
                    raise ValueError(f'"{name}" is a tensor on one rank and no tensor on another')

    def _values(self) -> dict[tuple[int, int], bool | tuple[str, ...]]:
        """Of those sections (rank and which of its) that write values: which."""
        seen: set[str] = set()
        chosen: dict[tuple[int, int], bool | tuple[str, ...]] = {}
        order = sorted(range(len(self.sections)), key=lambda s: self.holders[s][:1])
        for s in order:
            names = self.sections[s].values
            fresh = tuple([name for name in names if name not in seen])
            seen.update(fresh)
            if fresh:
                chosen[self.holders[s][0]] = True if len(fresh) == len(names) else fresh
        return chosen

    def _shares(
        self, patterns: dict[PatternKey, _Pattern], columns: list[array[int] | None]
    ) -> list[list[SectionShare]]:
        pattern_of = [array("I", bytes(4 * len(section.names))) for section in self.sections]
        position: list[dict[int, dict[int, tuple[int, int]]]] = [{} for _ in self.sections]
        for number, (key, pattern) in enumerate(patterns.items()):
            for members in pattern.members:
                for s, i in members:
                    pattern_of[s][i] = number
            for ranks in pattern.boxes.values():
                for at, rank in enumerate(ranks):
                    for s, _ in key:
                        position[s].setdefault(rank, {})[number] = (at, len(ranks))
        values = self._values()
        shares = []
        for rank, layout in enumerate(self.layouts):
            own = []
            for at, ref in enumerate(layout.sections):
                s = self.number_of[ref.digest]
                chosen = columns[s]
                own.append(
                    SectionShare(
                        position=position[s].get(rank, {}),
                        values=values.get((rank, at), False),
                        patterns=pattern_of[s].tobytes(),
                        columns=b"" if chosen is None else chosen.tobytes(),
                    )
                )
            shares.append(own)
        return shares


def plan_save(layouts: Sequence[LocalLayout], own: Mapping[bytes, Section]) -> GlobalLayout:
    """`own`: the coordinator's sections by digest. ValueError names what does not fit together."""
    return _Planner(layouts, own).plan()

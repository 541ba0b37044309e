"""The planner without processes: coverage, dealing out, flattening, caching, against plain models
and against PyTorch's own."""

from __future__ import annotations

import need_torch  # noqa: F401, I001
import dataclasses
import itertools
import pickle
import random
import unittest

import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from caisson.torch import planner as planner_module
from caisson.torch.assign import plan_save
from caisson.torch.cover import cover_problem
from caisson.torch.flatten import flatten
from caisson.torch.load_planner import _read_items
from caisson.torch.location import parse_location
from caisson.torch.planner import CaissonSavePlanner, CaissonStorageMeta, forget_plans
from caisson.torch.sections import LocalLayout, Section, decode, describe, encode
from caisson.torch.values import as_saved, saved, unsaved


def _cells(box):
    offset, extent = box
    return set(itertools.product(*[range(o, o + e) for o, e in zip(offset, extent)]))


class CoverTest(unittest.TestCase):
    def test_against_counting_every_element(self):
        found = {True: 0, False: 0}
        for seed in range(4000):
            rng = random.Random(seed)
            shape = tuple(rng.randrange(1, 5) for _ in range(rng.randrange(1, 4)))
            boxes = self._cut(rng, ((0,) * len(shape), shape))
            if rng.random() < 0.3:
                boxes.pop(rng.randrange(len(boxes)))
            if rng.random() < 0.3 and boxes:
                offset, extent = rng.choice(boxes)
                d = rng.randrange(len(shape))
                moved = list(offset)
                moved[d] += rng.choice([-1, 1])
                boxes.append((tuple(moved), extent))
                boxes = list(dict.fromkeys(boxes))
            if not boxes:
                continue
            cells = [cell for box in boxes for cell in _cells(box)]
            inside = all(0 <= c < n for cell in cells for c, n in zip(cell, shape))
            good = inside and len(cells) == len(set(cells)) == len(
                _cells(((0,) * len(shape), shape))
            )
            problem = cover_problem(shape, boxes)
            self.assertEqual(problem is None, good, (seed, shape, boxes, problem))
            found[good] += 1
        self.assertGreater(min(found.values()), 500)

    def test_a_box_that_is_there_twice(self):
        half = ((0, 0), (2, 3))
        self.assertIsNotNone(cover_problem((4, 3), [half, half]))
        self.assertIsNotNone(cover_problem((2, 3), [half, half], whole=False))
        self.assertIsNone(cover_problem((4, 3), [half], whole=False))

    def _cut(self, rng, box):
        offset, extent = box
        d = rng.randrange(len(extent))
        if extent[d] < 2 or rng.random() < 0.3:
            return [box]
        at = rng.randrange(1, extent[d])
        low, high = list(extent), list(extent)
        low[d], high[d] = at, extent[d] - at
        beyond = list(offset)
        beyond[d] += at
        return self._cut(rng, (offset, tuple(low))) + self._cut(rng, (tuple(beyond), tuple(high)))


def _layout(section: Section, boxes: list) -> LocalLayout:
    return encode([(section, boxes)], send=True)


def _section(shapes, names, values=()):
    paths = tuple((*name.split("."),) for name in (*names, *values))
    return Section(
        names=tuple(names), dtypes=("float32",) * len(names), classes=tuple(range(len(names))),
        shapes=tuple(shapes), values=tuple(values), paths=paths,
    )  # fmt: skip


class AssignTest(unittest.TestCase):
    def test_every_box_is_written_once_and_by_a_holder(self):
        for seed in range(300):
            rng = random.Random(seed)
            ranks, count = rng.randrange(1, 9), rng.randrange(1, 12)
            layouts, sections = [], []
            splits = {i: rng.choice([n for n in range(1, ranks + 1) if ranks % n == 0])
                      for i in range(count)}  # fmt: skip
            for rank in range(ranks):
                names = [f"m.t{i}" for i in range(count)]
                shapes = [(ranks * 3, 2)] * count
                boxes = []
                for i in range(count):
                    part = ranks * 3 // splits[i]
                    at = rank % splits[i] * part
                    boxes.append(((at, 0), (part, 2)))
                section = _section(shapes, names, [f"m.v{i}" for i in range(3)] + [f"m.own{rank}"])
                sections.append((section, boxes))
                layouts.append(_layout(section, boxes))
            layouts = pickle.loads(pickle.dumps(layouts))
            planned = pickle.loads(pickle.dumps(plan_save(layouts, {}).shares))
            written, values = [], []
            for (section, boxes), shares in zip(sections, planned):
                for i in shares[0].writes(section):
                    written.append((section.names[i], boxes[section.classes[i]]))
                told = shares[0].values
                values.extend(section.values if told is True else told or ())
            wanted = {(s.names[i], b[i]) for s, b in sections for i in range(count)}
            self.assertEqual(len(written), len(set(written)), seed)
            self.assertEqual(set(written), wanted, seed)
            self.assertEqual(len(values), len(set(values)), seed)
            self.assertEqual(set(values), {v for s, _ in sections for v in s.values}, seed)

    def test_replicas_share_the_work(self):
        names = [f"m.t{i}" for i in range(64)]
        section = _section([(8, 1 + i % 5) for i in range(64)], names)
        boxes = [((0, 0), shape) for shape in section.shapes]
        planned = plan_save([_layout(section, boxes)] * 8, {})
        sizes = [sum(section.shapes[i][1] for i in s[0].writes(section)) for s in planned.shares]
        self.assertLess(max(sizes) - min(sizes), 5, sizes)

    def test_what_does_not_fit_is_named(self):
        section = _section([(4, 2)], ["m.w"])
        half = _layout(section, [((0, 0), (2, 2))])
        with self.assertRaisesRegex(ValueError, r'"m.w" \[4, 2\]: its boxes hold 4 of 8'):
            plan_save([half, half], {})
        overlapping = _layout(section, [((1, 0), (3, 2))])
        with self.assertRaisesRegex(ValueError, "overlap"):
            plan_save([half, overlapping], {})

    def test_sections_travel(self):
        section = _section([(4, 2), ()], ["m.w", "m.größe"], ["m.v"])
        layout = _layout(section, [None, None])
        self.assertEqual(decode(layout.sections[0].payload), section)


class PlannerTest(unittest.TestCase):
    def test_names_are_those_of_pytorch(self):
        def value(rng, depth=0):
            kind = rng.random()
            if depth < 4 and kind < 0.3:
                keys = [1, "a", "b.c", f"x{rng.randrange(9)}"]
                return {rng.choice(keys): value(rng, depth + 1) for _ in range(rng.randrange(4))}
            if depth < 4 and kind < 0.7:
                entries = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
                return entries if kind < 0.6 else tuple(entries)
            return rng.choice([1, 2.5, None, "s", torch.zeros(2)])

        def outcome(function, state):
            try:
                flat, paths = function(state)
            except ValueError:
                return "two of one name"
            return [(name, id(entry)) for name, entry in flat.items()], paths

        for seed in range(2000):
            rng = random.Random(seed)
            state = {f"k{i}": value(rng) for i in range(4)}
            self.assertEqual(outcome(flatten, state), outcome(flatten_state_dict, state), seed)

    def _plan(self, state, **arguments):
        planner = CaissonSavePlanner(**arguments)
        planner.set_up_planner(state, CaissonStorageMeta(), True)
        plans, metadata = planner.create_global_plan([planner.create_local_plan()])
        planner.finish_plan(plans[0])
        return planner, metadata

    def test_an_unchanged_state_is_planned_once(self):
        forget_plans()
        calls = []
        original = planner_module.plan_save
        planner_module.plan_save = lambda *a: calls.append(1) or original(*a)
        try:
            for _ in range(3):
                self._plan({"m": {"w": torch.zeros(3)}, "v": 1})
            self.assertEqual(len(calls), 1)
            _, metadata = self._plan({"m": {"w": torch.zeros(3).bfloat16()}, "v": 1})
            self.assertEqual(len(calls), 2)
            entry = metadata.state_dict_metadata["m.w"]
            self.assertEqual(entry.properties.dtype, torch.bfloat16)
        finally:
            planner_module.plan_save = original

    def test_the_remembered_metadata_is_not_the_one_given_out(self):
        _, first = self._plan({"w": torch.zeros(3)})
        first.storage_data = "written by somebody"
        _, second = self._plan({"w": torch.zeros(3)})
        self.assertIsNone(second.storage_data)

    def test_with_other_writers_it_plans_as_pytorch_does(self):
        planner = CaissonSavePlanner()
        planner.set_up_planner({"m": {"w": torch.zeros(3)}, "v": 1}, StorageMeta(), True)
        plans, metadata = planner.create_global_plan([planner.create_local_plan()])
        self.assertEqual([item.index.fqn for item in plans[0].items], ["m.w", "v"])
        self.assertIsNone(planner.work)
        with self.assertRaisesRegex(ValueError, "exactly once"):
            item = plans[0].items[0]
            chunk = dataclasses.replace(item.tensor_data.chunk, sizes=torch.Size([9]))
            data = dataclasses.replace(item.tensor_data, chunk=chunk)
            wrong = dataclasses.replace(item, tensor_data=data)
            planner._create_global_plan([dataclasses.replace(plans[0], items=[wrong])])

    def test_sections_are_top_level_entries(self):
        flat = {"a.x": torch.zeros(1), "b.y": 1, "c": 2, "d": torch.zeros(2)}
        paths = {name: tuple(name.split(".")) for name in flat}
        self.assertEqual([s.names + s.values for s, _ in describe(flat, paths)],
                         [("a.x",), ("b.y",), ("d", "c")])  # fmt: skip


class ReadItemsTest(unittest.TestCase):
    def test_they_are_those_of_pytorch(self):
        random.seed(3)
        at_once = 0
        for _ in range(500):
            size = torch.Size(random.choices((0, 1, 2, 7, 12), k=random.randrange(4)))
            whole = ChunkStorageMetadata(torch.Size([0] * len(size)), size)
            saved = [whole]
            if size and random.random() < 0.3:
                cut, rest = random.randint(0, size[0]), (0,) * (len(size) - 1)
                saved = [
                    ChunkStorageMetadata(torch.Size((0, *rest)), torch.Size((cut, *size[1:]))),
                    ChunkStorageMetadata(
                        torch.Size((cut, *rest)), torch.Size((size[0] - cut, *size[1:]))
                    ),
                ]
            begins = [random.randint(0, extent) for extent in size]
            ends = [random.randint(begin, extent) for begin, extent in zip(begins, size)]
            box = ChunkStorageMetadata(
                torch.Size(begins), torch.Size(e - b for b, e in zip(begins, ends))
            )
            wanted = random.choice(([], [box], [whole]))
            tensor = TensorStorageMetadata(TensorProperties(), size, saved)
            items = _read_items("t", tensor, wanted)
            self.assertEqual(items, create_read_items_for_chunk_list("t", tensor, wanted))
            at_once += bool(items) and len(saved) == 1
        self.assertGreater(at_once, 50)


class ValuesTest(unittest.TestCase):
    def test_plain_values_load_as_torch_saved_ones(self):
        for value in (
            None,
            1,
            True,
            -2.5,
            "größe",
            b"x",
            (0.9, 0.95),
            [1, "a"],
            {"a": [1]},
            10**30,
        ):
            loaded = torch.load(as_saved(value), weights_only=False)
            self.assertEqual(loaded, value)
            self.assertIs(type(loaded), type(value))
            self.assertEqual(unsaved(saved(value)), value)


class LocationTest(unittest.TestCase):
    def test_paths_and_urls(self):
        self.assertEqual(str(parse_location("caisson:///a/b#run/7")), "caisson:///a/b#run/7")
        self.assertEqual(
            str(parse_location("caisson:/a/b#x/run/latest")), "caisson:///a/b#x/run/latest"
        )
        self.assertTrue(parse_location("/a/b").plain)
        self.assertEqual(parse_location("/a/b").of_rank(3).name, "checkpoint/rank-3/0")
        for wrong in ("", "s3://a/b", "caisson://a#run/1", "caisson:///a", "caisson:///a#run/x"):
            with self.assertRaises(ValueError, msg=wrong):
                parse_location(wrong)


if __name__ == "__main__":
    unittest.main()

"""The records of a checkpoint's directory: docs/format.md, "Directory"."""

import itertools

from conventions import need


class Shard:
    def __init__(self, data, shape, tile):
        rank = len(shape)
        flags = data.u8()
        need(flags & ~15 == 0 and flags & 12 != 12, "unknown flags of a shard")
        self.part, self.first_entry = data.u32(), data.u64()
        self.offset, self.extent = [0] * rank, shape
        if not flags & 1:
            self.offset, self.extent = data.varints(rank), data.varints(rank)
        self.origin = self.offset if flags & 8 else [0] * rank
        if not flags & 12:
            self.origin = data.varints(rank)
        self.cell = tile if flags & 4 else data.varints(rank)
        need(all(self.cell) and all(o <= b for o, b in zip(self.origin, self.offset)), "grid")
        need(all(o + e <= s for o, e, s in zip(self.offset, self.extent, shape)), "box")
        pieces = list(self.pieces())
        self.first_piece, self.count = (0, len(pieces)) if flags & 2 else data.varints(2)
        need(self.first_piece + self.count <= len(pieces), "pieces of a shard")
        self.held = pieces[self.first_piece:self.first_piece + self.count]

    def pieces(self):
        """Every piece of the box as (offsets, extents), in order."""
        if any(e == 0 for e in self.extent):
            return
        axes = []
        for offset, extent, origin, cell in zip(self.offset, self.extent, self.origin, self.cell):
            first = (offset - origin) // cell
            last = (offset + extent - 1 - origin) // cell
            spans = []
            for k in range(first, last + 1):
                begin = max(origin + k * cell, offset)
                spans.append((begin, min(origin + (k + 1) * cell, offset + extent) - begin))
            axes.append(spans)
        for cells in itertools.product(*axes):
            yield [c[0] for c in cells], [c[1] for c in cells]


class Tensor:
    def __init__(self, data):
        self.name = data.text()
        self.code, self.bits, self.kind = data.u8(), data.u8(), data.u8()
        need(self.kind <= 2, "kind of a tensor")
        rank = data.u8()
        need(rank <= 8, "rank")
        self.shape, tile = data.varints(rank), data.varints(rank)
        self.alias_of = data.text() if self.kind == 2 else None
        self.shards = [Shard(data, self.shape, tile) for _ in range(data.varint())]

"""One checkpoint: its root, directory and parts, and the bytes of its tensors."""

import itertools
import json
import struct

import bases
from chunks import BaseRef, Entry, decode_alone, pack_salt
from conventions import BLOCK, Input, Ref, Sealed, checksum, content_id, digest, envelope, frame, need, salt
from directory import Tensor


class Manifest:
    def __init__(self, store, root):
        self.store = store
        data = store.read(root.ref.key())
        need(len(data) == root.bytes >= 64, "length of the root")
        head = 64 + struct.unpack("<Q", data[24:32])[0]
        need(digest(data[:head]) == root.digest, "digest of the root")
        content, uuid = envelope(b"CSN_ROOT", data[:head])
        need(Ref(content) == root.ref and uuid == root.ref.writer, "the root of another")
        self.run, self.step, _ = content.text(), content.u64(), content.u64()
        content.i64()
        self.metadata = json.loads(content.text())
        directory, index_offset = Sealed(content), content.u64()
        self.tensor_count, self.raw_bytes, _ = content.u64(), content.u64(), content.u64()
        packs, tables_digest = content.u64(), content.take(16)
        self.parts = []
        for _ in range(content.varint()):
            part = {"part": Sealed(content), "rank": content.u32(), "entries": content.u64()}
            part["inline"], part["inline_bytes"] = content.u64(), content.u64()
            part["packs"] = content.u32()
            self.parts.append(part)
        content.end()
        need(digest(data[head:]) == tables_digest, "digest of the tables of packs")
        self.packs, at = self.read_rows(data, head, uuid, b"CSNP", 61, packs, Sealed)
        rows = sum(part["packs"] for part in self.parts)
        indices, at = self.read_rows(data, at, uuid, b"CSNX", 4, rows, Input.u32)
        need(at == len(data), "bytes left over")
        for part in self.parts:
            part["packs"], indices = indices[:part["packs"]], indices[part["packs"]:]
        self.tensors = self.read_directory(directory, index_offset)
        self.tables = [self.read_table(part) for part in self.parts]

    @staticmethod
    def read_rows(data, offset, uuid, magic, row_bytes, count, row):
        """The rows of a table behind the head, and where it ends."""
        rows, per_block = [], (BLOCK - 16) // row_bytes
        while len(rows) < count:
            here = min(per_block, count - len(rows))
            end = offset + (BLOCK if here == per_block else 16 + here * row_bytes)
            block = frame(data[offset:end], magic, uuid, offset)
            need(block.u16() == here, "rows of a block")
            block.zeros(2)
            rows += [row(block) for _ in range(here)]
            block.zeros(end - offset - block.at)
            offset = end
        return rows, offset

    def read_directory(self, directory, index_offset):
        data = self.store.read(directory.ref.key())
        need(len(data) == directory.bytes and digest(data) == directory.digest, "directory")
        uuid = directory.ref.writer
        index = frame(data[index_offset:], b"CSNI", uuid, index_offset)
        index.zeros(4)
        tensors, end = {}, 0
        for _ in range(index.u64()):
            offset, count, records, first = index.u64(), index.u32(), index.u32(), index.text()
            need(offset == end, "pages do not follow each other")
            end += count
            page = frame(data[offset:end], b"CSNT", uuid, offset)
            need(page.u32() == records, "records of a page")
            for number in range(records):
                tensor = Tensor(page)
                need(number > 0 or tensor.name == first, "first name of a page")
                tensors[tensor.name] = tensor
            page.end()
        index.end()
        need(end == index_offset and len(tensors) == self.tensor_count, "directory")
        return tensors

    def read_table(self, part):
        ref, entries = part["part"].ref, []
        trailer = self.store.read(ref.key(), part["part"].bytes - BLOCK, BLOCK)
        need(digest(trailer) == part["part"].digest, "digest of a part")
        content, uuid = envelope(b"CSN_PART", trailer, block=True)
        need(Ref(content) == ref and uuid == ref.writer, "the trailer of another part")
        body = self.store.read(ref.key(), 0, part["part"].bytes - BLOCK)
        need(digest(body) == content.data[-16:], "digest of a part's body")
        for offset in range(0, -(-part["entries"] // 102) * BLOCK, BLOCK):
            block = frame(body[offset:offset + BLOCK], b"CSNE", ref.writer, offset)
            count = block.u16()
            block.zeros(2)
            entries += [Entry(block) for _ in range(count)]
            block.zeros(BLOCK - block.at)
        need(len(entries) == part["entries"], "entries of a part")
        return entries

    def codecs(self):
        return {entry.codec for table in self.tables for entry in table}

    # ---- Reading a checkpoint

    def chunk(self, part_index, entry, bits):
        part = self.parts[part_index]
        if entry.pack == 0xFFFF:
            ref, offset = part["part"].ref, part["inline"] + entry.offset
            seed = salt(ref.writer, entry.offset)
        else:
            ref, offset = self.packs[part["packs"][entry.pack]].ref, entry.offset * 64
            seed = pack_salt(ref, offset)
        stored = self.store.read(ref.key(), offset, entry.stored_bytes)
        need(checksum(digest(stored), seed) == entry.checksum, "stored checksum of a chunk")
        if entry.flags:
            need(entry.codec in (4, 5), "a base for a codec without one")
            base = self.base(BaseRef(Input(stored[:80])), bits, entry.raw_bytes)
            raw = bases.decode(entry.codec, stored[80:], base, entry.raw_bytes)
        else:
            raw = decode_alone(entry.codec, stored, entry.raw_bytes)
        need(len(raw) == entry.raw_bytes, "raw bytes of a chunk")
        need(content_id(raw, bits) == entry.id, "content id of a chunk")
        return raw

    def base(self, ref, bits, raw_bytes):
        need(any(pack.ref == ref.pack for pack in self.packs), "the pack of a base in the root")
        stored = self.store.read(ref.pack.key(), ref.offset * 64, ref.stored_bytes)
        raw = decode_alone(ref.codec, stored, ref.raw_bytes)
        need(content_id(raw, bits * ref.raw_bytes // raw_bytes) == ref.id, "content id of a base")
        return raw

    def tensor_bytes(self, name):
        tensor = self.tensors[name]
        if tensor.kind == 2:
            return self.tensor_bytes(tensor.alias_of)
        total = tensor.bits
        for extent in tensor.shape:
            total *= extent
        out, filled = bytearray(-(-total // 8)), bytearray(-(-total // 8))
        for shard in tensor.shards:
            for number, (offset, extent) in enumerate(shard.held):
                entry = self.tables[shard.part][shard.first_entry + number]
                raw = self.chunk(shard.part, entry, tensor.bits)
                place(out, filled, tensor, offset, extent, raw)
        need(all(filled), "elements that nobody holds")
        return bytes(out)


def place(out, filled, tensor, offset, extent, raw):
    """Copies a piece to its place, one contiguous run at a time."""
    rank = len(extent)
    strides = [1] * rank
    for axis in range(rank - 2, -1, -1):
        strides[axis] = strides[axis + 1] * tensor.shape[axis + 1]
    # A run spans the innermost dimensions that the piece has whole, and one more.
    axis, run, whole = rank, 1, True
    while axis > 0 and whole:
        axis -= 1
        run *= extent[axis]
        whole = extent[axis] == tensor.shape[axis]
    at = 0
    for outer in itertools.product(*(range(e) for e in extent[:axis])):
        place_at = list(outer) + [0] * (rank - axis)
        element = sum((o + p) * s for o, p, s in zip(offset, place_at, strides))
        begin, size = element * tensor.bits, run * tensor.bits
        need(begin % 8 == 0 and size % 8 == 0, "a piece that cuts a byte")
        begin, size = begin // 8, size // 8
        out[begin:begin + size] = raw[at:at + size]
        filled[begin:begin + size] = b"\1" * size
        at += size
    need(at == len(raw), "size of a piece")

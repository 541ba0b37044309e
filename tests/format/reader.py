#!/usr/bin/env python3
"""A second reader of the format, written from docs/format.md alone, without the engine.

    reader.py STORE list
    reader.py STORE restore RUN/STEP DIRECTORY     one raw file a tensor
    reader.py STORE check EXPECTED.json            SHA-256 of every tensor of every checkpoint

STORE is a directory; DIRECTORY?dirs=OTHER,... where a store in several directories is not where it was made.
Checks every checksum, digest and content id on the way. Needs the packages xxhash and zstandard.
Plain and slow on purpose; section names in comments are those of docs/format.md.
"""
import hashlib
import itertools
import json
import os
import struct
import sys

import bases
import planes
import xxhash
import zstandard

BLOCK = 4096


class Damaged(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Damaged(what)


# ---- Conventions


def digest(data):
    return xxhash.xxh3_128_digest(data)


def content_id(raw, bits):
    whole = digest(raw)
    return whole[:15] + bytes([whole[15] ^ bits])


def salt(uuid, offset):
    return xxhash.xxh3_64_intdigest(uuid, seed=offset)


def checksum(data, seed):
    return xxhash.xxh3_64_intdigest(data, seed=seed)


class Input:
    """Reads forward; running out is damage."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        need(count <= len(self.data) - self.at, "cut short")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def u8(self):
        return self.number("B")

    def u16(self):
        return self.number("H")

    def u32(self):
        return self.number("I")

    def u64(self):
        return self.number("Q")

    def i64(self):
        return self.number("q")

    def varint(self):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need(value < 1 << 64 and not (byte == 0 and shift > 0), "malformed varint")
                return value
        raise Damaged("malformed varint")

    def text(self):
        return self.take(self.varint()).decode("utf-8")

    def varints(self, count):
        return [self.varint() for _ in range(count)]

    def zeros(self, count):
        need(not any(self.take(count)), "reserved bytes are not zero")

    def end(self):
        need(self.at == len(self.data), "bytes left over")


# ---- Objects

EXTENSIONS = {1: "pack", 2: "part", 3: "dir", 4: "root"}


class Ref:
    def __init__(self, data):
        self.kind = data.u8()
        need(self.kind in EXTENSIONS, "unknown kind of object")
        self.save = data.take(16)
        self.writer = data.take(16)
        self.number = data.u32()

    def key(self):
        return "data/%s/%s-%06x.%s" % (
            self.save.hex(), self.writer.hex(), self.number, EXTENSIONS[self.kind])

    def __eq__(self, other):
        return self.key() == other.key()


class Sealed:
    def __init__(self, data):
        self.ref = Ref(data)
        self.bytes = data.u64()
        self.digest = data.take(16)

    def __eq__(self, other):
        return (self.ref, self.bytes, self.digest) == (other.ref, other.bytes, other.digest)


# ---- Envelope


def envelope(magic, data, block=False, known=0):
    """The content and the salt. `known`: the incompatible features that are."""
    head = Input(data)
    need(head.take(8) == magic, "does not start with %r" % magic)
    version, header_bytes = head.u16(), head.u16()
    head.u32()  # compatible features
    head.u32()  # read-only-compatible features
    incompatible, length = head.u32(), head.u64()
    uuid, content_sum, header_sum = head.take(16), head.u64(), head.u64()
    need(checksum(data[:56], salt(uuid, 0)) == header_sum, "header checksum")
    if version > 1 or incompatible & ~known != 0:
        raise Damaged("written by a newer version")
    need(version == 1 and header_bytes == 64, "version")
    content = head.take(length)
    need(not any(data[head.at:]) if block else head.at == len(data), "bytes left over")
    need(checksum(content, salt(uuid, 64)) == content_sum, "content checksum")
    return Input(content), uuid


# ---- Log


class Checkpoint:
    def __init__(self, run, step, root, parent):
        self.run, self.step, self.root, self.parent = run, step, root, parent
        self.rolled_back = False


def fold(records):
    """The live checkpoints by the sequence number of their commit."""
    live, epochs, latest, opened, known = {}, {}, {}, {}, set()

    def retire(seq):
        gone = live.pop(seq)
        for other in live.values():
            if other.parent == seq:
                other.parent = gone.parent
        if latest.get(gone.run) == seq:
            latest[gone.run] = gone.parent

    for seq, (kind, body) in enumerate(records, 1):
        if kind == 1:
            save, run, step, epoch = body.take(16), body.text(), body.u64(), body.u64()
            bases = [body.u64() for _ in range(body.varint())]
            body.end()
            if save not in known and epochs.get(run) == epoch and all(b in live for b in bases):
                known.add(save)
                opened[save] = (run, step, epoch)
        elif kind == 2:
            run, epoch, base = body.text(), body.u64(), body.u64()
            body.end()
            if epoch != epochs.get(run, 0) + 1 or (
                    base and (base not in live or live[base].run != run)):
                continue
            if latest.get(run, 0) != base:
                line = base
                for other in sorted((s for s in live if live[s].run == run), reverse=True):
                    live[other].rolled_back = other != line
                    if other == line:
                        line = live[other].parent
            epochs[run], latest[run] = epoch, base
            opened = {s: o for s, o in opened.items() if o[0] != run}
        elif kind == 3:
            save, run, step, epoch = body.take(16), body.text(), body.u64(), body.u64()
            root, replaces = Sealed(body), body.u8()
            body.end()
            if opened.get(save) != (run, step, epoch) or root.ref.save != save:
                continue
            taken = [s for s, c in live.items() if (c.run, c.step) == (run, step)]
            if taken and not live[taken[0]].rolled_back and not replaces:
                continue
            for other in taken:
                retire(other)
            live[seq] = Checkpoint(run, step, root, latest[run])
            latest[run] = seq
            del opened[save]
        elif kind == 4:
            checkpoint = body.u64()
            body.end()
            if checkpoint in live:
                retire(checkpoint)
        elif kind == 6:
            opened.pop(body.take(16), None)
            body.end()
        elif kind == 7:
            checkpoint, old, new = body.u64(), Sealed(body), Sealed(body)
            body.end()
            c = live.get(checkpoint)
            if c and c.root == old and opened.get(new.ref.save, ())[:2] == (c.run, c.step):
                live[checkpoint].root = new
                del opened[new.ref.save]
        else:
            need(kind == 5, "unknown log record type: written by a newer version")
    return live


# ---- Chunk entry


class Entry:
    def __init__(self, data):
        self.id = data.take(16)
        self.checksum, self.raw_bytes, self.stored_bytes = data.u64(), data.u32(), data.u32()
        self.offset, self.pack, self.codec, self.flags = (
            data.u32(), data.u16(), data.u8(), data.u8())
        need(0 < self.raw_bytes <= 16 << 20, "raw bytes of a chunk")
        need(self.flags & ~1 == 0, "unknown flags of a chunk")


class BaseRef:
    def __init__(self, data):
        self.id = data.take(16)
        self.raw_bytes, self.stored_bytes, self.offset = data.u32(), data.u32(), data.u32()
        self.codec = data.u8()
        data.zeros(3)
        self.pack = Ref(data)
        data.zeros(11)
        data.end()
        need(self.pack.kind == 1, "the base of a chunk lies in a pack")


def decode_alone(codec, stored, raw_bytes):
    if codec == 0:
        return stored
    if codec == 1:
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=raw_bytes)
    if codec in (2, 3):
        return planes.decode(codec, stored, raw_bytes)
    raise Damaged("codec %d: has a base, or is of a newer version" % codec)


def pack_salt(ref, offset):
    last = struct.unpack("<I", ref.writer[12:])[0] ^ ref.number
    return salt(ref.writer[:12] + struct.pack("<I", last), offset)


# ---- Directory


def frame(data, magic, uuid, offset):
    head = Input(data)
    need(head.u64() == checksum(data[8:], salt(uuid, offset)), "checksum of %r" % magic)
    need(head.take(4) == magic, "does not start with %r" % magic)
    return head


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


# ---- The store


class Store:
    def __init__(self, path):
        first, _, further = path.partition("?dirs=")
        self.paths = [first]
        self.uuid = uuid = self.read_store_file()
        if self.is_spread:
            self.find_directories([name for name in further.split(",") if name])
        self.live = fold(self.records())

    def read_store_file(self):
        data = self.read("caisson.store")
        content, uuid = envelope(b"CAISSON1", data, known=1)
        self.is_spread = data[20] & 1 == 1
        need(content.take(16) == uuid, "uuid of the store file")
        need((content.u8(), content.u8()) == (1, 16), "hash kind: written by a newer version")
        content.zeros(6)
        content.i64()
        content.end()
        return uuid

    # Several directories

    def find_directories(self, further):
        content, uuid = envelope(b"CSN_DIRS", self.read("caisson.directories"))
        listed = [content.text() for _ in range(content.varint())]
        content.end()
        need(uuid == self.uuid and 1 <= len(listed) < 64, "list of directories")
        need(all(path.startswith("/") for path in listed), "path of a directory")
        found = {}
        for path in further or listed:
            with open(os.path.join(path, "caisson.directory"), "rb") as file:
                content, uuid = envelope(b"CSN_DIRM", file.read())
            number, count = content.u32(), content.u32()
            content.end()
            need(uuid == self.uuid and count == len(listed) + 1, path + " is of another store")
            found[number] = path
        need(sorted(found) == list(range(1, len(listed) + 1)), "not all directories are there")
        self.paths += [found[number] for number in sorted(found)]

    def path_of(self, key):
        directory = 0
        if key.endswith(".pack"):
            writer, _, number = os.path.basename(key)[:-len(".pack")].partition("-")
            first = struct.unpack("<I", bytes.fromhex(writer)[:4])[0]
            directory = (first + int(number, 16)) % len(self.paths)
        return os.path.join(self.paths[directory], key)

    def read(self, key, offset=0, count=-1):
        with open(self.path_of(key), "rb") as file:
            file.seek(offset)
            data = file.read(count)
        need(count in (-1, len(data)), key + " is too short")
        return data

    def records(self):
        for seq in itertools.count(1):
            key = "log/%016x" % seq
            if not os.path.exists(self.path_of(key)):
                return
            content, _ = envelope(b"CSN_LOGR", self.read(key))
            need(content.u64() == seq, key)
            kind = content.u8()
            content.zeros(7)
            content.text()  # host
            content.text()  # boot id
            content.take(24)
            yield kind, content

    def checkpoint(self, name):
        run, _, step = name.rpartition("/")
        for found in self.live.values():
            if (found.run, str(found.step)) == (run, step):
                return Manifest(self, found.root)
        raise SystemExit("no checkpoint " + name)


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


# ---- Commands


def check(store, expected):
    names = {"%s/%d" % (c.run, c.step) for c in store.live.values()}
    need(names == set(expected), "checkpoints %s, expected %s" % (sorted(names), sorted(expected)))
    count = 0
    for name, tensors in sorted(expected.items()):
        manifest = store.checkpoint(name)
        need(set(manifest.tensors) == set(tensors), "tensors of " + name)
        for tensor, sha in sorted(tensors.items()):
            found = hashlib.sha256(manifest.tensor_bytes(tensor)).hexdigest()
            need(found == sha, "%s of %s has SHA-256 %s" % (tensor, name, found))
            count += 1
    print("%d tensors of %d checkpoints are as expected" % (count, len(expected)))


def main(arguments):
    if len(arguments) < 3:
        raise SystemExit(__doc__)
    store, command = Store(arguments[1]), arguments[2]
    if command == "list":
        for seq, found in sorted(store.live.items()):
            manifest = store.checkpoint("%s/%d" % (found.run, found.step))
            print("%s/%d  record %d" % (found.run, found.step, seq))
            for tensor in manifest.tensors.values():
                what = "alias of " + tensor.alias_of if tensor.kind == 2 else tensor.shape
                print("  %s  %d:%d  %s" % (tensor.name, tensor.code, tensor.bits, what))
    elif command == "restore" and len(arguments) == 5:
        manifest = store.checkpoint(arguments[3])
        os.makedirs(arguments[4], exist_ok=True)
        for name in manifest.tensors:
            file_name = name.replace("%", "%25").replace("/", "%2f")
            with open(os.path.join(arguments[4], file_name), "wb") as file:
                file.write(manifest.tensor_bytes(name))
    elif command == "check" and len(arguments) == 4:
        with open(arguments[3], encoding="utf-8") as file:
            check(store, json.load(file))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv)
    except (Damaged, bases.Damaged, planes.Damaged, OSError, ValueError, zstandard.ZstdError) as error:
        sys.exit("reader.py: damaged: %s" % error)

"""The chunk entries of a part, and what the stored bytes of a chunk stand for: docs/format.md, "Chunk entry"."""

import struct

import planes
import sparse
import zstandard
from conventions import Damaged, Ref, need, salt


class Entry:
    def __init__(self, data):
        self.id = data.take(16)
        self.checksum, self.raw_bytes, self.stored_bytes = data.u64(), data.u32(), data.u32()
        self.offset, self.pack, self.codec = data.u32(), data.u16(), data.u8()
        self.flags = data.u8() & 15  # the high bits say why it has this codec, for display
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
    if codec == 6:
        return sparse.decode(stored, raw_bytes)
    raise Damaged("codec %d: has a base, or is of a newer version" % codec)


def pack_salt(ref, offset):
    last = struct.unpack("<I", ref.writer[12:])[0] ^ ref.number
    return salt(ref.writer[:12] + struct.pack("<I", last), offset)

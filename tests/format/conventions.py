"""What every object of a store is made of: docs/format.md, "Conventions", "Objects" and "Envelope"."""

import struct

import xxhash

BLOCK = 4096


class Damaged(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Damaged(what)


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


def frame(data, magic, uuid, offset):
    head = Input(data)
    need(head.u64() == checksum(data[8:], salt(uuid, offset)), "checksum of %r" % magic)
    need(head.take(4) == magic, "does not start with %r" % magic)
    return head

"""Codecs 4 and 5 of compression/SPEC.md in plain Python, written from the specification alone."""

import zstandard
from conventions import need

SECTION_ELEMENTS = 65536


def u16(data, at):
    return int.from_bytes(data[at : at + 2], "little")


def u32(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def decode_twin(stored, base, raw_bytes):
    n = raw_bytes // 4
    need(raw_bytes == 4 * n and len(base) == 2 * n, "twin: another number of elements")
    need(len(stored) >= 48 + 2 * n, "twin: cut off")
    need(not any(stored[2:4]) and not any(stored[8:48]), "twin: zeros")
    threshold, exceptions = u16(stored, 0), u32(stored, 4)
    need(len(stored) == 48 + 2 * n + 6 * exceptions, "twin: exceptions")
    lows = [u16(stored, 48 + 2 * i) for i in range(n)]
    highs = [(u16(base, 2 * i) - (lows[i] > threshold)) & 0xFFFF for i in range(n)]
    last = -1
    for at in range(48 + 2 * n, len(stored), 6):
        need(last < u32(stored, at) < n, "twin: an exception out of place")
        last = u32(stored, at)
        highs[last] = u16(stored, at + 4)
    return b"".join((high << 16 | low).to_bytes(4, "little") for high, low in zip(highs, lows))


def decode_delta(stored, base, raw_bytes):
    need(len(stored) >= 16 and not any(stored[2:16]), "delta: header")
    width, order = stored[0], stored[1]
    need(width in (1, 2, 4, 8) and order in (0, 1), "delta: header")
    need(raw_bytes % width == 0 and len(base) == raw_bytes, "delta: another size")
    bits, top = 2 ** (8 * width) - 1, 1 << 8 * width - 1
    out, at, left = bytearray(), 16, raw_bytes // width
    while left:
        n = min(left, SECTION_ELEMENTS)
        left -= n
        sizes = [u32(stored, at + 4 * j) for j in range(width)]
        need(at + 4 * width <= len(stored), "delta: cut off")
        at += 4 * width
        planes = []
        for size in sizes:
            need(size <= n and at + size <= len(stored), "delta: size of a plane")
            plane = stored[at : at + size] if size else bytes(n)
            at += size
            if len(plane) < n:
                plane = zstandard.ZstdDecompressor().decompress(plane)
            need(len(plane) == n, "delta: bytes of a plane")
            planes.append(plane)
        for i in range(n):
            z = sum(plane[i] << 8 * j for j, plane in enumerate(planes))
            difference = -(z + 1) // 2 if z & 1 else z // 2
            before = int.from_bytes(base[len(out) : len(out) + width], "little")
            if order:
                before = ~before & bits if before & top else before | top
            value = before + difference & bits
            if order:
                value = value ^ top if value & top else ~value & bits
            out += value.to_bytes(width, "little")
    need(at == len(stored), "delta: bytes behind the last section")
    return bytes(out)


def decode(codec, stored, base, raw_bytes):
    return (decode_twin if codec == 4 else decode_delta)(stored, base, raw_bytes)


def check_examples():
    """The worked examples of the specification."""
    twin = bytes.fromhex("00800000 01000000") + bytes(40)
    twin += bytes.fromhex("0100ffff0080 02000000813f")
    raw = decode(4, twin, bytes.fromhex("803f813f823f"), 12)
    need(raw == bytes.fromhex("0100803f ffff803f 0080813f"), "the example of codec 4")
    delta = b"\x02\x01" + bytes(14) + bytes.fromhex("03000000 00000000 000102")
    raw = decode(5, delta, bytes.fromhex("803f80bf0080"), 6)
    need(raw == bytes.fromhex("803f81bf0000"), "the example of codec 5")


if __name__ == "__main__":
    check_examples()

"""Codec 6 of compression/SPEC.md in plain Python, written from the specification alone."""

import planes
from conventions import need

BLOCK, HEADER, ALIGNMENT = 64, 16, 64


def decode(stored, raw_bytes):
    blocks = (raw_bytes + BLOCK - 1) // BLOCK
    words_end = HEADER + (blocks + 63) // 64 * 8
    at = (words_end + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    need(len(stored) >= at, "sparse: cut off")
    count, codec = int.from_bytes(stored[4:8], "little"), stored[8]
    need(int.from_bytes(stored[:4], "little") == raw_bytes, "sparse: raw bytes")
    need(not any(stored[9:HEADER]) and not any(stored[words_end:at]), "sparse: zeros")
    need(codec in (0, 2, 3), "sparse: inner codec")
    bits = int.from_bytes(stored[HEADER:words_end], "little")
    need(bits >> blocks == 0, "sparse: a block that is not there")
    sizes = [min(BLOCK, raw_bytes - BLOCK * i) if bits >> i & 1 else 0 for i in range(blocks)]
    need(sum(size > 0 for size in sizes) == count, "sparse: kept blocks")
    kept = stored[at:] if codec == 0 else planes.decode(codec, stored[at:], sum(sizes))
    need(len(kept) == sum(sizes), "sparse: bytes of the kept blocks")
    out, used = bytearray(raw_bytes), 0
    for i, size in enumerate(sizes):
        out[BLOCK * i : BLOCK * i + size] = kept[used : used + size]
        used += size
    return bytes(out)


def check_example():
    """The worked example of the specification."""
    stored = bytes.fromhex("e6000000 02000000") + bytes(8) + b"\x0a" + bytes(7 + 40)
    stored += b"\x07" + bytes(63) + bytes(37) + b"\x09"
    need(decode(stored, 230) == bytes(64) + b"\x07" + bytes(164) + b"\x09", "the example of codec 6")


if __name__ == "__main__":
    check_example()

"""Codecs 2 and 3 of compression/SPEC.md in plain Python, written from the specification alone."""

import zstandard
from conventions import need

SECTION_ELEMENTS, HEADER, ALIGNMENT, GROUP, LEVELS = 65536, 64, 64, 64, 4
# layout: (bytes of an element, first bit of the symbol, bits of the symbol, bits of low)
LAYOUTS = {1: (2, 7, 8, 0), 2: (4, 23, 8, 16), 3: (2, 10, 5, 8), 4: (8, 52, 8, 48),
           5: (1, 3, 4, 0), 6: (1, 2, 5, 0)}  # fmt: skip


def plane_words(data, symbols, bits):
    """The words of each group: `bits` numbers of 64 bits."""
    groups = (symbols + GROUP - 1) // GROUP
    need(len(data) == groups * bits * 8, "planes are cut off")
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
    return [words[g * bits : (g + 1) * bits] for g in range(groups)]


def decode_level(bits, low, data, symbols, escapes):
    width = 2**bits - 1
    out, used = bytearray(), 0
    for group, words in enumerate(plane_words(data, symbols, bits)):
        for i in range(min(GROUP, symbols - group * GROUP)):
            code = sum((word >> i & 1) << j for j, word in enumerate(words))
            if code < width:
                out.append(low + code)
                continue
            need(used < len(escapes), "more escapes than stored")
            escape = escapes[used]
            used += 1
            out.append((escape + width) & 255 if escape >= low else escape)
    need(used == len(escapes), "fewer escapes than stored")
    return bytes(out)


def decode_section(codec, data, elements, layout):
    """Gives the raw bytes and the stored bytes that were used."""
    need(len(data) >= HEADER, "a section is cut off")
    width, symbol_bit, symbol_bits, low_bits = LAYOUTS[layout]
    coder, levels, varying, constant = data[1:5]
    need(data[0] == layout and coder == codec - 2, "the section of another codec")
    need(not constant & varying, "a bit that varies and is constant")
    counts = [int.from_bytes(data[16 + 4 * i : 20 + 4 * i], "little") for i in range(LEVELS)]
    at = HEADER

    def take(count):
        nonlocal at
        need(at + count <= len(data), "a section is cut off")
        at += count
        return data[at - count : at]

    if varying == 255:
        top = take(elements)
    else:
        places = [bit for bit in range(8) if varying >> bit & 1]
        words = plane_words(
            take((elements + GROUP - 1) // GROUP * len(places) * 8), elements, len(places)
        )
        top = bytes(
            constant
            | sum((word >> i % GROUP & 1) << bit for bit, word in zip(places, words[i // GROUP]))
            for i in range(elements)
        )
    low_bytes = low_bits // 8
    low = take(elements * low_bytes)

    if coder == 1:
        frame = take(counts[0] or elements)
        symbols = zstandard.ZstdDecompressor().decompress(frame) if counts[0] else frame
        need(len(symbols) == elements, "symbols of a section")
    else:
        need(levels <= LEVELS, "too many levels")
        planes, n = [], elements
        for level in range(levels):
            bits, start = data[8 + 2 * level], data[9 + 2 * level]
            need(1 <= bits <= 7 and start + 2**bits - 1 <= 256, "a window out of bounds")
            planes.append((bits, start, take((n + GROUP - 1) // GROUP * bits * 8), n))
            need(counts[level] <= n, "more escapes than symbols")
            n = counts[level]
        symbols = take(n)
        for bits, start, words, count in reversed(planes):
            symbols = decode_level(bits, start, words, count, symbols)

    out = bytearray()
    mantissa = symbol_bit - low_bits  # bits of the mantissa in top
    for i in range(elements):
        value = symbols[i] << symbol_bit
        value |= (top[i] & 2**mantissa - 1) << low_bits
        value |= top[i] >> mantissa << symbol_bit + symbol_bits
        value |= int.from_bytes(low[i * low_bytes : (i + 1) * low_bytes], "little")
        out += (value & 2 ** (8 * width) - 1).to_bytes(width, "little")
    return bytes(out), at


def decode(codec, stored, raw_bytes):
    need(stored and stored[0] in LAYOUTS, "no section of a known layout")
    layout = stored[0]
    width = LAYOUTS[layout][0]
    elements, tail = divmod(raw_bytes, width)
    out, at = bytearray(), 0
    while elements:
        at = (at + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        count = min(elements, SECTION_ELEMENTS)
        raw, used = decode_section(codec, stored[at:], count, layout)
        out += raw
        at += used
        elements -= count
    need(len(stored) - at == tail, "the stored form does not end with its last section")
    return bytes(out) + stored[at:]

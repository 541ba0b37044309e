#!/usr/bin/env python3
"""Measures what others would store a training state with, beside memcpy, on one core: zstd, lz4, blosc2 with bitshuffle,
ZipNN. The chunks are those that caisson_codecs takes: 512 Ki elements of one kind of tensor, laid one behind the other.

    peers.py [--rounds N] [--mib N] [--json FILE] PATH

PATH is a safetensors file or a directory that train_state.py filled; there the last mixed state is taken. FILE is what caisson_codecs wrote: its rows are compared, and what was measured is added to it. Needs zstandard,
lz4, blosc2, zipnn, numpy.
"""

import argparse
import json
import pathlib
import statistics
import struct
import time

import blosc2
import lz4.frame
import numpy
import zipnn
import zstandard

CHUNK_ELEMENTS = 512 * 1024
WIDTHS = {"BF16": 2, "F32": 4}
WORDS = {"exp_avg": "Adam m", "exp_avg_sq": "Adam v", "master": "master beside bf16"}
ZIPNN_DTYPES = {"BF16": "bfloat16", "F32": "float32"}
# Of caisson's own codecs, those that another may be compared with.
OURS = ("planes", "entropy", "auto")


def read_kinds(path):
    """What caisson_codecs calls each kind of tensor, its element type, and its bytes."""
    data = path.read_bytes()
    header_bytes = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + header_bytes])
    kinds = {}
    for name, entry in sorted(header.items()):
        if name == "__metadata__" or entry["dtype"] not in WIDTHS:
            continue
        begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
        kinds.setdefault((name.split(".")[0], entry["dtype"]), []).append(data[begin:end])
    for (kind, dtype), parts in kinds.items():
        weights = "bf16 weights" if dtype == "BF16" else "fp32 weights"
        words = WORDS.get(kind, weights if kind == "model" else f"pretrained {dtype}")
        yield words, dtype, parts


def last_state(path):
    if not path.is_dir():
        return path
    return max(path.glob("mixed-*.safetensors"), key=lambda state: int(state.stem.split("-")[1]))


def chunks_of(parts, width, bytes_min):
    size = sum(map(len, parts))
    step = CHUNK_ELEMENTS * width
    once = [part[at : at + step] for part in parts for at in range(0, len(part), step)]
    return [bytes(bytearray(chunk)) for _ in range(-(-bytes_min // size)) for chunk in once]  # copies


def blosc(codec, width):
    options = {"typesize": width, "codec": codec, "clevel": 5, "filters": [blosc2.Filter.BITSHUFFLE], "nthreads": 1}
    return lambda chunk: blosc2.compress2(chunk, **options), lambda stored: blosc2.decompress2(stored, nthreads=1)


def peers(dtype):
    """Name, encoder and decoder of one chunk."""
    width = WIDTHS[dtype]
    decoder = zstandard.ZstdDecompressor()
    for level in (1, 3):
        yield f"zstd -{level}", zstandard.ZstdCompressor(level=level).compress, decoder.decompress
    yield "lz4", lz4.frame.compress, lz4.frame.decompress
    yield "blosc2 bitshuffle lz4", *blosc(blosc2.Codec.LZ4, width)
    yield "blosc2 bitshuffle zstd", *blosc(blosc2.Codec.ZSTD, width)
    net = zipnn.ZipNN(bytearray_dtype=ZIPNN_DTYPES[dtype], input_format="byte", threads=1)
    # It changes what it is given, so it is given a copy.
    yield "ZipNN", lambda chunk: net.compress(bytearray(chunk)), net.decompress


def seconds_of(work):
    start = time.process_time()  # of all threads: some peers start one
    result = work()
    return time.process_time() - start, result


def figure(name, unit, values):
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"name": name, "unit": unit, "median": median, "q1": q1, "q3": q3}


def measure(data, dtype, parts, options):
    """The rows of every peer on one kind of tensor."""
    chunks = chunks_of(parts, WIDTHS[dtype], options.mib << 20)
    raw = numpy.frombuffer(b"".join(chunks), numpy.uint8)
    out = numpy.zeros_like(raw)
    rows = []
    for name, encode, decode in peers(dtype):
        encoded, decoded, ratio = [], [], 0
        for turn in range(options.rounds + 1):  # the first one warms up
            copy, _ = seconds_of(lambda: numpy.copyto(out, raw))
            encoding, stored = seconds_of(lambda: [encode(chunk) for chunk in chunks])
            decoding, _ = seconds_of(lambda: [len(decode(chunk)) for chunk in stored])
            if turn == 0:
                assert all(bytes(decode(a)) == b for a, b in zip(stored[:8], chunks[:8])), name
                ratio = len(raw) / sum(map(len, stored))
                continue
            encoded.append(copy / encoding)
            decoded.append(copy / decoding)
        rows.append(
            {
                "data": data,
                "codec": name,
                "figures": [
                    figure("ratio", "", [ratio]),
                    figure("encode", "of memcpy", encoded),
                    figure("decode", "of memcpy", decoded),
                ],
            }
        )
        print_row(rows[-1], options.ours)
    return rows


def medians(row):
    return {one["name"]: one["median"] for one in row["figures"] if one["unit"] in ("", "of memcpy")}


def print_row(row, ours):
    values = medians(row)
    line = f"{row['data']:<20} {row['codec']:<23} {values['ratio']:.3f}"
    line += "".join(f"  {name} {values[name]:.3f} of memcpy" for name in ("encode", "decode"))
    for codec in OURS:
        us = ours.get((row["data"], codec))
        if us:
            line += f"  {codec}: {100 * (us['ratio'] / values['ratio'] - 1):+.1f} % ratio"
            line += "".join(f", {name} x{us[name] / values[name]:.1f}" for name in ("encode", "decode"))
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    report = json.loads(options.json.read_text()) if options.json else {"rows": []}
    options.ours = {(row["data"], row["codec"]): medians(row) for row in report["rows"]}
    rows = []
    for data, dtype, parts in read_kinds(last_state(options.path)):
        if data == "master beside bf16":  # as others see it
            data = "fp32 weights"
        rows += measure(data, dtype, parts, options)
    report["peers"] = rows
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

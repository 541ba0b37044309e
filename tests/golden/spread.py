#!/usr/bin/env python3
"""spread.py STORE FIRST SECOND: a copy of a store of one directory as one of two, made from docs/format.md
alone ("Several directories"), without the engine. Needs the package xxhash.
"""
import pathlib
import shutil
import struct
import sys

import xxhash

PLACE = "/golden/second"  # what the list says; nothing is there


def checksum(data, uuid, offset):
    return xxhash.xxh3_64_intdigest(data, seed=xxhash.xxh3_64_intdigest(uuid, seed=offset))


def envelope(magic, uuid, content, incompatible=0):
    head = magic + struct.pack("<HHIIIQ", 1, 64, 0, 0, incompatible, len(content)) + uuid
    head += struct.pack("<Q", checksum(content, uuid, 64))
    return head + struct.pack("<Q", checksum(head, uuid, 0)) + content


store, first, second = map(pathlib.Path, sys.argv[1:])
shutil.copytree(store, first)
second.mkdir()
old = (first / "caisson.store").read_bytes()
uuid, content = old[32:48], old[64:]
(first / "caisson.store").unlink()
(first / "caisson.store").write_bytes(envelope(b"CAISSON1", uuid, content, incompatible=1))
(second / "caisson.directory").write_bytes(envelope(b"CSN_DIRM", uuid, struct.pack("<II", 1, 2)))
path = PLACE.encode()
(first / "caisson.directories").write_bytes(envelope(b"CSN_DIRS", uuid, bytes([1, len(path)]) + path))
for pack in sorted(first.rglob("*.pack")):
    writer, _, number = pack.stem.partition("-")
    if (struct.unpack("<I", bytes.fromhex(writer)[:4])[0] + int(number, 16)) % 2 == 1:
        target = second / pack.relative_to(first)
        target.parent.mkdir(parents=True, exist_ok=True)
        pack.rename(target)

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

import zstandard
from conventions import Damaged, envelope, need
from log import fold
from manifest import Manifest


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
    except (Damaged, OSError, ValueError, zstandard.ZstdError) as error:
        sys.exit("reader.py: damaged: %s" % error)

#!/usr/bin/env python3
"""expect.py RAW_DIRECTORY: SHA-256 of each file that make_golden wrote there, as expected.json."""
import hashlib
import json
import pathlib
import sys

raw = pathlib.Path(sys.argv[1])
expected = {}
for file in sorted(path for path in raw.rglob("*") if path.is_file()):
    name = file.relative_to(raw)
    checkpoint = expected.setdefault(str(name.parent), {})
    checkpoint[name.name.replace("%2f", "/")] = hashlib.sha256(file.read_bytes()).hexdigest()
print(json.dumps(expected, indent=1, ensure_ascii=False))

"""change_layer.py IN OUT PREFIX: copies a safetensors file and changes every byte of the floats of
the tensors whose names start with PREFIX. Prints how many bytes changed. Standard library only."""

import json
import sys


def main() -> None:
    source, target, prefix = sys.argv[1:]
    with open(source, "rb") as file:
        data = bytearray(file.read())
    header_bytes = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_bytes])
    flip = bytes(value ^ 0x55 for value in range(256))
    changed = 0
    for name, tensor in header.items():
        if name == "__metadata__" or not name.startswith(prefix):
            continue
        begin, end = (8 + header_bytes + offset for offset in tensor["data_offsets"])
        data[begin:end] = data[begin:end].translate(flip)
        changed += end - begin
    with open(target, "wb") as file:
        file.write(data)
    print(changed)


main()

"""safetensors files into a store, and out of it.

A file that was imported is exported byte for byte as it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from caisson import _command, _store, _url
from caisson._errors import InvalidArgumentError
from caisson._native import CheckpointInfo


def import_files(
    *files: str | os.PathLike[str],
    url: str | os.PathLike[str],
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    codec: str = "auto",
    overwrite: bool = False,
    ranks: int = 1,
) -> CheckpointInfo:
    """Stores safetensors files, model directories (with their index) or any other files, which are
    kept as blobs, as one checkpoint.

    Args:
        files: at least one.
        url, name, metadata, codec, overwrite: as in caisson.save.
        ranks: processes that write it together.
    """
    path, chosen = _url.split(url, name)
    if chosen is None or not files:
        raise InvalidArgumentError("give files, and the checkpoint's name")
    store = _url.absolute(path)
    options = ["--codec", codec, "--ranks", str(ranks)]
    if metadata:
        options += ["--metadata", json.dumps(dict(metadata))]
    if overwrite:
        options.append("--overwrite")
    sources = [os.path.abspath(file) for file in files]
    _command.ask("import", *options, store, chosen, *sources)
    return _store.opened(store, create=False).info(chosen)


def export(
    url: str | os.PathLike[str],
    name: str | None = None,
    *,
    path: str | os.PathLike[str],
    tensors: str = "*",
    max_shard_bytes: int = 0,
    overwrite: bool = False,
) -> list[str]:
    """Writes a checkpoint as safetensors files, verified; each appears whole or not at all.

    Args:
        url, name: as in caisson.load.
        path: a file that ends in .safetensors, or a directory.
        tensors: a glob.
        max_shard_bytes: split into files of at most this size, with an index; 0: do not.
        overwrite: replace files that exist.

    Returns:
        The files' paths.
    """
    store_path, chosen = _url.split(url, name)
    store = _store.opened(store_path, create=False)
    options = ["--tensors", tensors]
    if max_shard_bytes:
        options += ["--max-shard-size", f"{max_shard_bytes}B"]
    if overwrite:
        options.append("--overwrite")
    found = _command.ask(
        "export",
        *options,
        _url.absolute(store_path),
        store.resolve(chosen or "latest"),
        os.path.abspath(path),
    )
    return [file["path"] for file in found["files"]]

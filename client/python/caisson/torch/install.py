"""Makes what trains already save through Caisson, without changing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import _storage_utils, state_dict_saver

from caisson.torch.planner import CaissonSavePlanner
from caisson.torch.reader import CaissonStorageReader
from caisson.torch.stager import CaissonStager, default_stager
from caisson.torch.writer import CaissonStorageWriter


def install(**writer_options: Any) -> Callable[[], None]:
    """From now on torch.distributed.checkpoint's save, async_save and load use Caisson where they
    are given a checkpoint_id instead of a storage writer or reader, and so does whoever makes a
    FileSystemWriter or FileSystemReader by those names. Plain paths become directories that are one
    checkpoint each; caisson:///path/of/store#run/step works as well. Checkpoints that were saved
    before are still read.

    Args:
        writer_options: for every CaissonStorageWriter that is made, such as codec="entropy".

    Returns:
        A function that puts everything back.
    """

    class Writer(CaissonStorageWriter):
        """Takes FileSystemWriter's arguments; those about files mean nothing here."""

        def __init__(
            self, path: str | os.PathLike[str], *args: Any, overwrite: bool = True, **kwargs: Any
        ) -> None:
            super().__init__(path, **{"overwrite": overwrite, **writer_options})

    class Reader(CaissonStorageReader):
        def __init__(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
            super().__init__(path)

    class SharedStager(CaissonStager):
        """async_save makes a stager for each save and closes it; the memory stays for the next."""

        def __init__(self, *args: Any) -> None:
            self.stage = default_stager().stage  # type: ignore[method-assign]

        def close(self) -> None:
            pass

    new = {
        (_storage_utils, "FileSystemWriter"): Writer,
        (_storage_utils, "FileSystemReader"): Reader,
        (dcp, "FileSystemWriter"): Writer,
        (dcp, "FileSystemReader"): Reader,
        (state_dict_saver, "DefaultSavePlanner"): CaissonSavePlanner,
        (state_dict_saver, "DefaultStager"): SharedStager,
    }
    old = {(module, name): getattr(module, name) for module, name in new}

    def put(names: dict[Any, Any]) -> None:
        for (module, name), value in names.items():
            setattr(module, name, value)

    put(new)
    return lambda: put(old)

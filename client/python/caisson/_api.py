"""caisson.save and caisson.load: a dict of arrays into a checkpoint, and back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal, overload

from caisson import _store, _url
from caisson._errors import InvalidArgumentError
from caisson._native import CheckpointInfo
from caisson._store import PendingSave


@overload
def save(
    tensors: Mapping[str, Any],
    url: str | os.PathLike[str],
    name: str | None = ...,
    *,
    blobs: Mapping[str, bytes] | None = ...,
    metadata: Mapping[str, Any] | None = ...,
    wait: Literal[True] = ...,
    codec: str = ...,
    codec_cpu_max: float = ...,
    delta: str = ...,
    dedup: bool = ...,
    base: str = ...,
    stage: bool | None = ...,
    memory_check: str = ...,
    overwrite: bool = ...,
    workers: int = ...,
) -> CheckpointInfo: ...


@overload
def save(
    tensors: Mapping[str, Any],
    url: str | os.PathLike[str],
    name: str | None = ...,
    *,
    blobs: Mapping[str, bytes] | None = ...,
    metadata: Mapping[str, Any] | None = ...,
    wait: Literal[False],
    codec: str = ...,
    codec_cpu_max: float = ...,
    delta: str = ...,
    dedup: bool = ...,
    base: str = ...,
    stage: bool | None = ...,
    memory_check: str = ...,
    overwrite: bool = ...,
    workers: int = ...,
) -> PendingSave: ...


def save(
    tensors: Mapping[str, Any],
    url: str | os.PathLike[str],
    name: str | None = None,
    *,
    blobs: Mapping[str, bytes] | None = None,
    metadata: Mapping[str, Any] | None = None,
    wait: bool = True,
    codec: str = "auto",
    codec_cpu_max: float = 0,
    delta: str = "",
    dedup: bool = True,
    base: str = "",
    stage: bool | None = None,
    memory_check: str = "sampled",
    overwrite: bool = False,
    workers: int = 0,
) -> CheckpointInfo | PendingSave:
    """Saves a dict of arrays as the checkpoint `name`, "run/step", of the store at `url`.

    Args:
        tensors: name -> numpy array, torch tensor, object with __dlpack__ or the buffer protocol, or
            a number (a tensor of no dimensions). Any strides. Names that share their memory are
            stored once, and loaded as one.
        url: a directory, file:///path or caisson:///path#run/step. Created when absent.
        name: "run/step", the step a number; may stand in the URL instead.
        blobs: name -> bytes that belong to the checkpoint.
        metadata: what JSON can hold, kept with the checkpoint.
        wait: False returns a PendingSave at once, having copied the tensors (see stage).
        codec: "auto" chooses for each chunk; or "raw", "zstd", "planes", "entropy", "sparse".
        codec_cpu_max: cores that "auto" spends on coding at most; 0: no bound.
        delta: a glob; tensors that match are stored as differences from the checkpoint that the save
            is compared with, where that is clearly smaller.
        dedup: store only what changed since the run's latest checkpoint, or since `base`.
        stage: copy the tensors before returning, so that they may change at once. The default is to
            copy exactly if wait is False. Without it the memory is lent until the save has finished
            and must not change; memory_check ("sampled", "full", "off") is how a change is noticed.
        overwrite: replace a checkpoint of this name.
        workers: threads that hash and write; 0 for the default.

    Returns:
        What the store now says of the checkpoint, durable and committed; or a PendingSave.

    Raises:
        AlreadyExistsError: the name is taken.
        FencedError: another process claimed the run since this one did.
        NoSpaceError, StorageError: nothing was committed.
        CaissonError: an earlier save failed whose outcome nobody had asked for, or any other.
    """
    path, chosen = _url.split(url, name)
    if chosen is None:
        raise InvalidArgumentError('which checkpoint? name="run/step", or a URL that ends in #run/step')
    store = _store.opened(path, create=True)
    options: dict[str, Any] = {
        "blobs": blobs,
        "metadata": metadata,
        "codec": codec,
        "codec_cpu_max": codec_cpu_max,
        "delta": delta,
        "dedup": dedup,
        "base": base,
        "stage": stage,
        "memory_check": memory_check,
        "overwrite": overwrite,
        "workers": workers,
    }
    if wait:
        return store.save(tensors, chosen, wait=True, **options)
    return store.save(tensors, chosen, wait=False, **options)


def load(
    url: str | os.PathLike[str],
    name: str | None = None,
    *,
    tensors: str | Iterable[str] | Mapping[str, Any] | None = None,
    out: Mapping[str, Any] | None = None,
    device: str = "cpu",
    framework: str = "numpy",
    dtype: Any = None,
    convert: bool = False,
    pad: float | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """Loads tensors of a checkpoint, every byte verified.

    Args:
        url: a directory, file:///path or caisson:///path#run/step.
        name: "run/step", "run/latest", or "latest" (the default) where the store holds one run.
        tensors: a glob, names, or name -> slice or tuple of slices for a box of it; all by default.
        out: name -> array to fill in place; only these are loaded. Numpy arrays, torch tensors and
            writable buffers, of any strides.
        device: of new torch tensors.
        framework: "numpy" or "torch": what new arrays are.
        dtype: new arrays of floating-point tensors have this dtype ("F32", numpy's or torch's).
        convert: an array of `out` may have another dtype than the stored tensor.
        pad: an array of `out` may be larger than the stored tensor; the rest becomes this value.
        workers: threads that read and verify; 0 for the default.

    Returns:
        name -> array. Numpy has bf16 and fp8 by ml_dtypes. Tied weights are one array.

    Raises:
        TensorMismatchError: tensors are missing, or arrays of `out` do not fit; lists all of them.
            Nothing was read.
        NotFoundError: no such store or checkpoint.
        CorruptionError: stored bytes are damaged. The content of `out` is unspecified then.
    """
    path, chosen = _url.split(url, name)
    return _store.opened(path, create=False).load(
        chosen or "latest",
        tensors=tensors,
        out=out,
        device=device,
        framework=framework,
        dtype=dtype,
        convert=convert,
        pad=pad,
        workers=workers,
    )

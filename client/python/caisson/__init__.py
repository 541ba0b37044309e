"""Caisson: a checkpoint storage engine for large-model training.

    info = caisson.save({"weight": array}, "/data/ckpt", "run/100")
    tensors = caisson.load("/data/ckpt", "run/latest")

`caisson.Store` is a store as an object, `caisson.safetensors` brings files in and out, and
`caisson.torch` is for torch.distributed.checkpoint. Nothing here imports torch by itself.
"""

from caisson import safetensors
from caisson._abi import version as _version
from caisson._api import load, save
from caisson._errors import (
    AlreadyExistsError,
    CaissonError,
    CancelledError,
    CorruptionError,
    FencedError,
    ForkedError,
    InternalError,
    InvalidArgumentError,
    NoSpaceError,
    NotFoundError,
    OutOfMemoryError,
    StorageError,
    TensorMismatchError,
    UnsupportedError,
    WaitTimeoutError,
)
from caisson._native import CheckpointInfo, CodecUse, SaveReport, TensorInfo
from caisson._store import (
    Count,
    DiffReport,
    Finding,
    GcReport,
    OpenSave,
    PendingSave,
    RunUsage,
    StatReport,
    Store,
    TensorChange,
    VerifyReport,
)

__version__ = _version()

__all__ = [
    "AlreadyExistsError",
    "CaissonError",
    "CancelledError",
    "CheckpointInfo",
    "CodecUse",
    "CorruptionError",
    "Count",
    "DiffReport",
    "FencedError",
    "Finding",
    "ForkedError",
    "GcReport",
    "InternalError",
    "InvalidArgumentError",
    "NoSpaceError",
    "NotFoundError",
    "OpenSave",
    "OutOfMemoryError",
    "PendingSave",
    "RunUsage",
    "SaveReport",
    "StatReport",
    "StorageError",
    "Store",
    "TensorChange",
    "TensorInfo",
    "TensorMismatchError",
    "UnsupportedError",
    "VerifyReport",
    "WaitTimeoutError",
    "load",
    "safetensors",
    "save",
]

"""PyTorch tensors as the engine sees them: a name of the element type, an address, strides."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor

_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}
_RANK_MAX = 8

DTYPE_NAMES = {
    getattr(torch, name): engine_name for name, engine_name in _NAMES.items()
    if hasattr(torch, name)
}  # fmt: skip
DTYPES = {engine_name: dtype for dtype, engine_name in DTYPE_NAMES.items()}


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The memory behind a value of a state dict: without autograd, without DTensor, and with a
    collective that is still going on waited for."""
    if isinstance(tensor, DTensor):
        tensor = tensor._local_tensor
    if isinstance(tensor, AsyncCollectiveTensor):
        tensor = tensor.wait()
    tensor = tensor.detach()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    return tensor


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether its elements lie in memory as the engine knows them. The others (sparse, quantized,
    wrapper subclasses) are kept as torch.save writes them."""
    return (
        tensor.layout == torch.strided
        and tensor.dtype in DTYPE_NAMES
        and tensor.dim() <= _RANK_MAX
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not tensor.is_quantized
        and tensor.device.type != "meta"
    )


def byte_strides(tensor: torch.Tensor) -> Sequence[int] | None:
    """None where it is contiguous."""
    if tensor.is_contiguous():
        return None
    size = tensor.element_size()
    return [stride * size for stride in tensor.stride()]


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """One tensor as torch.save writes it, without the rest of the storage that it is a view of."""
    if tensor.layout == torch.strided and not tensor.is_quantized:
        tensor = tensor.clone()
    stream = io.BytesIO()
    torch.save(tensor.cpu(), stream)
    return stream.getvalue()

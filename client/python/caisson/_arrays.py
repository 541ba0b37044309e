"""What an array is to the engine: element type, shape, address, strides. No bytes are copied.

Understood are numpy arrays (bf16, fp8 and the like by ml_dtypes), torch tensors, whatever exports
DLPack on the host, whatever has the buffer protocol, and Python's numbers. torch is looked at only
where the program has imported it.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from caisson._abi import RANK_MAX
from caisson._errors import InvalidArgumentError, UnsupportedError
from caisson._native import DTYPE_NAMES, DTYPES

# numpy's name of a dtype (ml_dtypes included) <-> safetensors'.
_FROM_NUMPY = {
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
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "complex128": "C128",
    "bfloat16": "BF16",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e3m4": "F8_E3M4",
    "float8_e4m3": "F8_E4M3_IEEE",
    "float8_e4m3b11fnuz": "F8_E4M3B11FNUZ",
}
_TO_NUMPY = {dtype: name for name, dtype in _FROM_NUMPY.items()}
# torch's names where they differ from numpy's.
_FROM_TORCH = _FROM_NUMPY | {"complex32": "C32", "float4_e2m1fn_x2": "F4"}
_TO_TORCH = {dtype: name for name, dtype in _FROM_TORCH.items()}


@dataclass(slots=True)
class Memory:
    """An array as the engine takes it. `strides_bytes` is None where it is contiguous."""

    dtype: str
    shape: tuple[int, ...]
    address: int
    strides_bytes: tuple[int, ...] | None
    owner: object

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for two arrays that are the same memory seen the same way: tied weights."""
        return (self.dtype, self.shape, self.address, self.strides_bytes)


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype for safetensors' name. UnsupportedError where numpy has none."""
    name = _TO_NUMPY.get(dtype)
    if name is None:
        raise UnsupportedError(
            f"numpy has no dtype for {dtype}; load these tensors with framework='torch', or as "
            "bytes through caisson export"
        )
    return np.dtype(getattr(ml_dtypes, name, name))


def dtype_name(dtype: Any) -> str:
    """safetensors' name of a dtype given as such, as numpy's or as torch's."""
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    text = str(dtype)
    if text.startswith("torch."):
        found = _FROM_TORCH.get(text.removeprefix("torch."))
    else:
        try:
            found = _FROM_NUMPY.get(np.dtype(dtype).name)
        except TypeError:
            found = None
    if found is None:
        raise InvalidArgumentError(f"no dtype of a tensor: {dtype!r}; known are {', '.join(DTYPES)}")
    return found


def element_bits(dtype: str) -> int:
    return DTYPES[dtype][1]


def packed_bytes(dtype: str, shape: Iterable[int]) -> int:
    return (math.prod(shape) * element_bits(dtype) + 7) // 8


def describe(name: str, array: Any, *, writable: bool = False) -> Memory:
    """The memory of an array. `name` is for messages.

    Args:
        writable: it will be written; what is read-only or would have to be copied is refused.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return _describe_torch(name, array, writable)
    if not isinstance(array, np.ndarray):
        if not writable and isinstance(array, (bool, int, float, complex, np.generic)):
            return _describe_numpy(name, np.asarray(array))
        if not writable and hasattr(array, "__dlpack__"):
            return _describe_dlpack(name, array)
        try:
            view = memoryview(array)
        except TypeError:
            raise InvalidArgumentError(
                f'"{name}" is a {type(array).__name__}: give a numpy array, a torch tensor, or what '
                "has __dlpack__ or the buffer protocol; blobs= takes bytes"
            ) from None
        array = np.asarray(view)
    if isinstance(array, np.ma.MaskedArray):
        raise InvalidArgumentError(f'"{name}" is a masked array: its mask would be lost')
    if writable and not array.flags.writeable:
        raise InvalidArgumentError(f'"{name}": its memory is read-only')
    if not array.dtype.isnative:
        if writable:
            raise InvalidArgumentError(f'"{name}": its bytes are in the other order')
        array = array.astype(array.dtype.newbyteorder("="))
    return _describe_numpy(name, array)


def _describe_numpy(name: str, array: np.ndarray[Any, Any]) -> Memory:
    dtype = _FROM_NUMPY.get(array.dtype.name)
    if dtype is None:
        raise InvalidArgumentError(f'"{name}": no tensor has elements of {array.dtype!r}')
    _check_dimensions(name, array.ndim)
    strides = None if array.flags.c_contiguous else array.strides
    return Memory(dtype, array.shape, array.ctypes.data, strides, array)


def _check_dimensions(name: str, count: int) -> None:
    if count > RANK_MAX:
        raise InvalidArgumentError(f'"{name}" has {count} dimensions; at most {RANK_MAX} are stored')


def _describe_torch(name: str, tensor: Any, writable: bool) -> Memory:
    torch = sys.modules["torch"]
    dtype = _FROM_TORCH.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None or tensor.layout is not torch.strided or tensor.is_quantized:
        raise UnsupportedError(
            f'"{name}" is no plain dense tensor ({tensor.dtype}, {tensor.layout}); caisson.torch '
            "saves such ones"
        )
    if tensor.device.type != "cpu":
        if writable or tensor.device.type == "meta":
            raise InvalidArgumentError(f'"{name}" is on {tensor.device}: not memory of this host')
        tensor = tensor.detach().cpu()
    if tensor.is_conj() or tensor.is_neg():
        if writable:
            raise InvalidArgumentError(f'"{name}" is a lazy conjugate or negative')
        tensor = tensor.detach().resolve_conj().resolve_neg()
    _check_dimensions(name, tensor.dim())
    shape = tuple(tensor.shape)
    address = tensor.data_ptr()
    if address == 0 and tensor.numel() > 0:
        raise UnsupportedError(
            f'"{name}" is a {type(tensor).__name__} without memory of its own; caisson.torch takes '
            "it apart"
        )
    strides = None
    if not tensor.is_contiguous():
        strides = tuple(s * tensor.element_size() for s in tensor.stride())
    if dtype == "F4":  # torch counts pairs
        if strides is not None or not shape:
            raise UnsupportedError(f'"{name}": elements of less than a byte must lie contiguous')
        shape = (*shape[:-1], shape[-1] * 2)
    return Memory(dtype, shape, address, strides, tensor)


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_HOST_DEVICES = (1, 3)  # of DLPack: the host's memory, and pinned memory of the host

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def _describe_dlpack(name: str, array: Any) -> Memory:
    device, _ = array.__dlpack_device__()
    if int(device) not in _HOST_DEVICES:
        raise InvalidArgumentError(f'"{name}" is on another device: move it to the host first')
    # The capsule stays unconsumed: its own destructor gives the memory back.
    capsule = array.__dlpack__()
    tensor = _DLTensor.from_address(_capsule_pointer(capsule, b"dltensor"))
    _check_dimensions(name, tensor.ndim)
    dtype = DTYPE_NAMES.get((tensor.code, tensor.bits))
    if dtype is None or tensor.lanes != 1:
        raise InvalidArgumentError(
            f'"{name}": no tensor has elements of DLPack code {tensor.code}, {tensor.bits} bits, '
            f"{tensor.lanes} lanes"
        )
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = None
    if tensor.strides:
        in_elements = tuple(tensor.strides[i] for i in range(tensor.ndim))
        if in_elements != _contiguous(shape) and 0 not in shape:
            if tensor.bits % 8:
                raise UnsupportedError(f'"{name}": elements of less than a byte must lie contiguous')
            strides = tuple(s * (tensor.bits // 8) for s in in_elements)
    return Memory(dtype, shape, (tensor.data or 0) + tensor.byte_offset, strides, (array, capsule))


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


# ---- new memory

_HUGE_PAGE = 2 << 20
_OWN_MAPPING_BYTES = 16 << 20  # a tensor of its own mapping goes when it goes
_POOL_BYTES = 64 << 20
_TRIMMED_MAPPINGS_MAX = 1000  # a process may have 65,530 mappings
_DIRECT_BYTES = 256 << 10  # from here on a read may go straight into place, if that is aligned


def _map(size: int, trim: bool) -> np.ndarray[Any, Any]:
    """New memory that starts on a hugepage, and is made of them where the kernel has some: pages are
    found 512 at a time, and once they are there a restore reads straight into place.

    Args:
        trim: not the end, which would lie in one that is hardly used. Takes two mappings more.
    """
    # Private: the kernel gives memory that could be shared none.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    whole = mmap.mmap(-1, size + _HUGE_PAGE, flags=flags)
    flat = np.frombuffer(whole, dtype=np.uint8)
    start = -flat.ctypes.data % _HUGE_PAGE
    if size >= _HUGE_PAGE:
        try:
            if trim:
                whole.madvise(mmap.MADV_HUGEPAGE, start, size - size % _HUGE_PAGE)
            else:
                whole.madvise(mmap.MADV_HUGEPAGE)
        except (AttributeError, OSError):
            pass  # a system without them
    return flat[start : start + size]


def allocate(sizes: Iterable[int]) -> list[np.ndarray[Any, Any]]:
    """New byte arrays, one for each size. Large ones lie in mappings of their own, small ones share
    some: a mapping lives as long as any array of it."""
    sizes = list(sizes)
    mappings: list[int] = []  # their sizes
    places = []  # (mapping, offset) of each array
    pool = -1  # the mapping that small arrays share
    for size in sizes:
        if size >= _OWN_MAPPING_BYTES:
            mappings.append(size)
            places.append((len(mappings) - 1, 0))
            continue
        at = -1
        if pool >= 0:
            at = mappings[pool]
            at += -at % (4096 if size >= _DIRECT_BYTES else 64)
        if at < 0 or at + size > _POOL_BYTES:
            mappings.append(0)
            pool, at = len(mappings) - 1, 0
        places.append((pool, at))
        mappings[pool] = at + size
    memory = [_map(size, number < _TRIMMED_MAPPINGS_MAX) for number, size in enumerate(mappings)]
    return [memory[m][at : at + size] for (m, at), size in zip(places, sizes)]


def view_numpy(data: np.ndarray[Any, Any], dtype: str, shape: tuple[int, ...]) -> Any:
    """Bytes as an array of numpy's."""
    return data.view(numpy_dtype(dtype)).reshape(shape)


def view_torch(data: np.ndarray[Any, Any], dtype: str, shape: tuple[int, ...]) -> Any:
    """Bytes as a tensor of torch's, which is imported here."""
    import torch

    name = _TO_TORCH.get(dtype)
    if name is None or not hasattr(torch, name):
        raise UnsupportedError(f"this torch has no dtype for {dtype}")
    if dtype == "F4":
        shape = (*shape[:-1], shape[-1] // 2)
    if not len(data):
        return torch.empty(shape, dtype=getattr(torch, name))
    return torch.from_numpy(data).view(getattr(torch, name)).reshape(shape)

"""caisson/c.h in ctypes: finds the shared library, declares its functions, checks its answers.

The library lies in the package; the environment variable CAISSON_LIBRARY names another one, such as
that of a build tree. ctypes releases the interpreter lock for the length of every call.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

from caisson._errors import CaissonError, error_of

ABI_VERSION = 1
RANK_MAX = 8
OK = 0
TIMEOUT = 12


class StoreOptions(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("memory_bytes_max", c_uint64),
        ("io_engine", c_char_p),
    ]


class SaveInput(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("shards", c_void_p),
        ("shards_count", c_uint64),
        ("blobs", c_void_p),
        ("blobs_count", c_uint64),
        ("aliases", c_void_p),
        ("aliases_count", c_uint64),
    ]


class SaveOptions(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("codec", c_char_p),
        ("base", c_char_p),
        ("metadata_json", c_char_p),
        ("workers", c_uint32),
        ("memory_check", c_uint32),
        ("delta", c_char_p),
        ("codec_cpu_max", ctypes.c_double),
    ]


class SaveReport(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("name", c_char_p),
        ("warning", c_char_p),
        ("tensors", c_uint64),
        ("tiles", c_uint64),
        ("raw_bytes", c_uint64),
        ("deduplicated_bytes", c_uint64),
        ("stored_bytes", c_uint64),
        ("stall_seconds", ctypes.c_double),
        ("seconds", ctypes.c_double),
    ]


class CodecUse(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("codec", c_char_p),
        ("reason", c_char_p),
        ("chunks", c_uint64),
        ("raw_bytes", c_uint64),
        ("stored_bytes", c_uint64),
    ]


class RestoreOptions(Structure):
    _fields_ = [("struct_size", c_uint32), ("workers", c_uint32)]


class Checkpoint(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("latest", ctypes.c_uint8),
        ("rolled_back", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 2),
        ("name", c_char_p),
        ("run", c_char_p),
        ("metadata_json", c_char_p),
        ("problem", c_char_p),
        ("step", c_uint64),
        ("epoch", c_uint64),
        ("commit_seq", c_uint64),
        ("created_unix_ns", c_int64),
        ("tensors", c_uint64),
        ("ranks", c_uint64),
        ("raw_bytes", c_uint64),
        ("stored_bytes", c_uint64),
    ]


_HANDLE = c_void_p
_OUT = POINTER(c_void_p)
_COUNT = POINTER(c_uint64)

# name -> result, arguments. Every function that answers a code takes the error last.
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "abi_version": (c_uint32, []),
    "version": (c_char_p, []),
    "error_code": (c_int32, [_HANDLE]),
    "error_message": (c_char_p, [_HANDLE]),
    "error_object": (c_char_p, [_HANDLE]),
    "error_offset": (c_int64, [_HANDLE]),
    "error_free": (None, [_HANDLE]),
    "bytes_data": (c_void_p, [_HANDLE]),
    "bytes_size": (c_uint64, [_HANDLE]),
    "bytes_free": (None, [_HANDLE]),
    "store_open": (c_int32, [c_char_p, POINTER(StoreOptions), _OUT, _OUT]),
    "store_close": (None, [_HANDLE]),
    "store_trace": (c_int32, [_HANDLE, _OUT, _OUT]),
    "future_wait": (c_int32, [_HANDLE, c_int64, _OUT]),
    "future_poll": (c_int32, [_HANDLE]),
    "future_cancel": (None, [_HANDLE]),
    "future_progress": (None, [_HANDLE, _COUNT, _COUNT]),
    "future_free": (None, [_HANDLE]),
    "future_text": (c_int32, [_HANDLE, _OUT, _OUT]),
    "future_mark_ready": (c_int32, [_HANDLE, c_void_p, c_uint64, _OUT]),
    "future_report": (c_int32, [_HANDLE, _OUT, _OUT]),
    "report_get": (c_int32, [_HANDLE, POINTER(SaveReport), _OUT]),
    "report_codecs": (c_void_p, [_HANDLE, _COUNT]),
    "report_free": (None, [_HANDLE]),
    "save_start": (
        c_int32,
        [_HANDLE, c_char_p, POINTER(SaveInput), POINTER(SaveOptions), _OUT, _OUT],
    ),
    "save_begin": (c_int32, [_HANDLE, c_char_p, POINTER(SaveOptions), _OUT, _OUT]),
    "save_join": (c_int32, [_HANDLE, c_char_p, c_uint32, POINTER(SaveOptions), _OUT, _OUT]),
    "transaction_put_start": (c_int32, [_HANDLE, POINTER(SaveInput), _OUT, _OUT]),
    "transaction_seal": (c_int32, [_HANDLE, _OUT, _OUT]),
    "transaction_report": (c_int32, [_HANDLE, _OUT, _OUT]),
    "transaction_free": (None, [_HANDLE]),
    "save_commit": (
        c_int32,
        [_HANDLE, c_char_p, c_uint32, POINTER(c_char_p), c_uint64, POINTER(SaveOptions), _OUT, _OUT],
    ),
    "save_abort": (c_int32, [_HANDLE, c_char_p, _OUT]),
    "claim": (c_int32, [_HANDLE, c_char_p, c_char_p, _OUT]),
    "restore_start": (
        c_int32,
        [_HANDLE, c_char_p, c_void_p, c_uint64, POINTER(RestoreOptions), _OUT, _OUT],
    ),
    "read_blob": (c_int32, [_HANDLE, c_char_p, c_char_p, _OUT, _OUT]),
    "checkpoints": (c_int32, [_HANDLE, c_char_p, _OUT, _OUT]),
    "checkpoint_list_items": (c_void_p, [_HANDLE, _COUNT]),
    "checkpoint_list_free": (None, [_HANDLE]),
    "tensors": (c_int32, [_HANDLE, c_char_p, c_char_p, _OUT, _OUT]),
    "tensor_list_items": (c_void_p, [_HANDLE, _COUNT]),
    "tensor_list_free": (None, [_HANDLE]),
    "verify_start": (c_int32, [_HANDLE, POINTER(c_char_p), c_uint64, c_char_p, _OUT, _OUT]),
    "gc_start": (c_int32, [_HANDLE, c_int32, _OUT, _OUT]),
    "store_metrics": (c_int32, [_HANDLE, _OUT, _OUT]),
    "remove": (c_int32, [_HANDLE, c_char_p, _OUT]),
}


def _library_path() -> pathlib.Path:
    named = os.environ.get("CAISSON_LIBRARY")
    if named:
        return pathlib.Path(named)
    return pathlib.Path(__file__).parent / "lib" / "libcaisson_c.so"


class Library:
    """The loaded library: `lib.call("save_abort", ...)` raises what the engine answers."""

    def __init__(self) -> None:
        path = _library_path()
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError as error:
            raise ImportError(
                f"{path}: {error}; install the wheel, or set CAISSON_LIBRARY to the "
                "libcaisson_c.so of a build tree"
            ) from None
        self.functions: dict[str, Any] = {}
        for name, (result, arguments) in _SIGNATURES.items():
            try:
                function = getattr(loaded, "caisson_" + name)
            except AttributeError:
                raise ImportError(f"{path} is of another version: it has no caisson_{name}") from None
            function.restype = result
            function.argtypes = arguments
            self.functions[name] = function
        if self.functions["abi_version"]() < ABI_VERSION:
            raise ImportError(f"{path} is older than this package")

    def call(self, name: str, *arguments: Any) -> int:
        """Calls, with an error object last; raises unless it answers OK or TIMEOUT."""
        error = c_void_p()
        code: int = self.functions[name](*arguments, byref(error))
        if code in (OK, TIMEOUT):
            return code
        raise self._take_error(code, error)

    def handle(self, name: str, *arguments: Any) -> int:
        """Calls, with a handle to be filled and an error object last; gives the handle."""
        out = c_void_p()
        self.call(name, *arguments, byref(out))
        assert out.value is not None
        return out.value

    def take_bytes(self, handle: int) -> bytes:
        """The content of a caisson_bytes, which is freed."""
        try:
            size = self.functions["bytes_size"](handle)
            return ctypes.string_at(self.functions["bytes_data"](handle), size)
        finally:
            self.functions["bytes_free"](handle)

    def _take_error(self, code: int, error: c_void_p) -> CaissonError:
        if not error.value:
            return error_of(code, f"code {code}, and no memory to say more")
        functions = self.functions
        try:
            return error_of(
                code,
                functions["error_message"](error).decode("utf-8", "replace"),
                functions["error_object"](error).decode("utf-8", "replace"),
                functions["error_offset"](error),
            )
        finally:
            functions["error_free"](error)


lib = Library()


def encode(text: str, what: str) -> bytes:
    """UTF-8 for the engine; a NUL would end it early, so it is refused."""
    if "\0" in text:
        raise error_of(1, f"the {what} has a NUL: {text!r}")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise error_of(1, f"the {what} is no text that UTF-8 can hold: {text!r}") from None


def version() -> str:
    found: bytes = lib.functions["version"]()
    return found.decode()

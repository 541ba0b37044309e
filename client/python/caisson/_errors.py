"""The exceptions: one class for each code of the engine, all of them CaissonError, all picklable.

Each also is the built-in exception that a caller of plain Python would expect: NotFoundError is a
FileNotFoundError, AlreadyExistsError a FileExistsError, and so on.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CaissonError(RuntimeError):
    """What went wrong, where, and what to do next.

    Attributes:
        code: the engine's code, one number for each subclass; never renumbered.
        message: the whole message.
        object: path within the store of the stored object concerned; "" where there is none.
        offset: where in that object, in bytes; -1 where it is not known.
    """

    code: ClassVar[int] = 13
    message: str
    object: str
    offset: int

    def __init__(self, message: str = "", object: str = "", offset: int = -1) -> None:
        super().__init__(message)
        self.message = message
        self.object = object
        self.offset = offset

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # What travels between ranks must be rebuilt from plain values, whatever a subclass adds.
        return (_rebuild, (type(self), self.message, self.object, self.offset, self.__dict__.copy()))


def _rebuild(
    kind: type[CaissonError], message: str, object: str, offset: int, state: dict[str, Any]
) -> CaissonError:
    # The built-in class whose memory layout the exception has is the one that can make it.
    base: type[Any] = kind
    while base.__module__ != "builtins":
        assert base.__base__ is not None
        base = base.__base__
    make: Any = base.__new__
    error: CaissonError = make(kind)
    CaissonError.__init__(error, message, object, offset)
    error.__dict__.update(state)
    return error


class InvalidArgumentError(CaissonError, ValueError):
    """The caller asked for what cannot be; do not retry as it is."""

    code = 1


class TensorMismatchError(InvalidArgumentError):
    """Tensors are missing or do not fit. `problems` has one line for each of them."""

    problems: tuple[str, ...]

    def __init__(self, message: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class NotFoundError(CaissonError, FileNotFoundError):
    """The store, checkpoint, tensor or blob is not there."""

    code = 2


class AlreadyExistsError(CaissonError, FileExistsError):
    """The checkpoint's name is taken."""

    code = 3


class CorruptionError(CaissonError):
    """Bytes from storage are not what was written; the message says where."""

    code = 4


class StorageError(CaissonError, OSError):
    """The device or the network failed. Nothing was acknowledged that is not durable."""

    code = 5


class NoSpaceError(CaissonError, OSError):
    """Disk, quota or descriptor table is full. Nothing was acknowledged."""

    code = 6


class OutOfMemoryError(CaissonError, MemoryError):
    """The host refused memory."""

    code = 7


class FencedError(CaissonError):
    """A newer claim or prune came first: this writer or reader lost."""

    code = 8


class CancelledError(CaissonError):
    """The caller cancelled it."""

    code = 9


class UnsupportedError(CaissonError, NotImplementedError):
    """A newer format, or a feature that this build or target lacks."""

    code = 10


class ForkedError(CaissonError):
    """The object belongs to the process that forked this one: open a store of your own."""

    code = 11


class WaitTimeoutError(CaissonError, TimeoutError):
    """It has not finished yet; it goes on."""

    code = 12


class InternalError(CaissonError):
    """A bug of Caisson's."""

    code = 13


_BY_CODE: dict[int, type[CaissonError]] = {
    kind.code: kind
    for kind in (
        InvalidArgumentError,
        NotFoundError,
        AlreadyExistsError,
        CorruptionError,
        StorageError,
        NoSpaceError,
        OutOfMemoryError,
        FencedError,
        CancelledError,
        UnsupportedError,
        ForkedError,
        WaitTimeoutError,
        InternalError,
    )
}


def error_of(code: int, message: str, object: str = "", offset: int = -1) -> CaissonError:
    """The exception for a code of the C ABI."""
    return _BY_CODE.get(code, InternalError)(message, object, offset)

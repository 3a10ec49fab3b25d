"""Read the body of a WSGI request, never past its declared length or a limit.

A server may block for ever when an application reads past the declared length (PEP 3333), so the
length is checked before the first byte is read.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_LENGTH = re.compile(r"[0-9]{1,18}")
_PIECE_BYTES = 65_536


class BodyError(Exception):
    """The body cannot be read.

    Attributes:
        status: the HTTP status of the answer: 400 (the length is not a number, or the body ended
            early), 411 (nobody says where the body ends) or 413 (the body is too large).
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def parse_length(environ: WSGIEnvironment, max_bytes: int) -> int | None:
    """Return the declared length of the body in bytes.

    Returns:
        ``None`` when the request declares no length.

    Raises:
        BodyError: 400, the length is not a number; 413, it is over ``max_bytes``.
    """
    declared = environ.get("CONTENT_LENGTH") or ""
    if not declared:
        return None
    if not _LENGTH.fullmatch(declared):
        raise BodyError(400, "The request has a Content-Length that is not a number.")
    length = int(declared)
    if length > max_bytes:
        raise _too_large(max_bytes)
    return length


def limit_reads(read: Callable[[int], bytes], length: int) -> Callable[[int], bytes]:
    """Return a function that reads like ``read``, but never past ``length`` bytes in all."""
    left = length

    def read_within(size: int) -> bytes:
        nonlocal left
        if left <= 0:
            return b""
        data = read(min(size, left))
        left -= len(data)
        return data

    return read_within


def read_body(environ: WSGIEnvironment, max_bytes: int) -> bytes:
    """Read the whole body.

    Args:
        environ: the request. Without ``CONTENT_LENGTH`` the server must set
            ``wsgi.input_terminated``.
        max_bytes: the largest body that is read.

    Raises:
        BodyError: the body cannot be read, or it is over ``max_bytes``.
    """
    length = parse_length(environ, max_bytes)
    if length is None and not environ.get("wsgi.input_terminated"):
        raise BodyError(411, "The request must say how long it is: send a Content-Length header.")
    # One byte more than the limit is enough to know that a body is too large.
    read = limit_reads(environ["wsgi.input"].read, max_bytes + 1 if length is None else length)
    parts: list[bytes] = []
    size = 0
    try:
        while part := read(_PIECE_BYTES):
            parts.append(part)
            size += len(part)
    except Exception:  # noqa: BLE001 - each server has its own error for a client that left
        raise BodyError(400, "The request could not be read to its end.") from None
    if length is not None and size < length:
        raise BodyError(400, "The request ended before its stated length.")
    if size > max_bytes:
        raise _too_large(max_bytes)
    return b"".join(parts)


def _too_large(max_bytes: int) -> BodyError:
    return BodyError(413, f"The request is too large: at most {max_bytes:,} bytes are read.")


def close_body(body: object) -> None:
    """Call ``close`` of a response's body, if it has one."""
    close = getattr(body, "close", None)
    if close is not None:
        close()


class TimeIsUp(BaseException):
    """Ends code that waits; no ``except Exception`` of an application catches it."""


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeIsUp` in code that waits for too long, such as a body without an end.

    It works in the main thread, where commands run, and where the system has ``SIGALRM``.
    """
    if not hasattr(signal, "SIGALRM") or current_thread() is not main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeIsUp

    handler = signal.signal(signal.SIGALRM, stop)
    # again and again, because a bare "except:" may have caught the first one
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def is_file_body(wrapper: Any, body: object) -> bool:
    """Whether a response's body was made by the server's ``wsgi.file_wrapper``.

    Args:
        wrapper: a class, or a function as in uWSGI, which returns the file itself.
    """
    if isinstance(wrapper, type):
        return isinstance(body, wrapper)
    return hasattr(body, "read")


T = TypeVar("T")


@overload
def convert(data: object, kind: type[T]) -> T: ...
@overload
def convert(data: object, kind: Any) -> Any: ...
def convert(data: object, kind: Any) -> Any:
    """Read data that anybody may have written as a typed value, with ``msgspec.convert``.

    Args:
        data: what was decoded from JSON or read from a shared store.
        kind: the type that it must have.

    Raises:
        ValueError: it is not of that type. Msgspec's own error is a ``ValueError`` only since 0.22.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None

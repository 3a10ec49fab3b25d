"""Where the body of an answer ends, and reading it to there and no further.

After RFC 9112 section 6, strictly: what can be read in two ways is read in none, because what one
side takes for the end of a body the other may take for the next answer ("response smuggling").
``http.client`` takes ``-5``, ``+5`` and ``0x5`` for lengths, the first of several, and anything
for the end of a chunk.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_READ = 65_536
_MAX_LINE = 4096  # a chunk's size and its extensions, or one trailer
_MAX_TRAILERS = 100
_LENGTH = re.compile(r"[0-9]{1,15}")
_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class BadBodyError(ValueError):
    """A body that does not end where its head says, or whose head says no clear thing."""


class Framing(NamedTuple):
    """How a body is delimited.

    Attributes:
        length: bytes, when they are known; 0 for an answer that has no body.
        chunked: it comes in chunks.
        reusable: the connection may carry another answer after it.
    """

    length: int | None = None
    chunked: bool = False
    reusable: bool = True


def framing_of(
    method: str, status: int, version: int, headers: Iterable[tuple[str, str]]
) -> Framing:
    """How the body of an answer is delimited (RFC 9112 section 6.3).

    Args:
        version: 10 for HTTP/1.0, 11 for HTTP/1.1.
        headers: all of them; repeated ones apart.

    Raises:
        BadBodyError: it is delimited in two ways, or in none that is known.
    """
    codings: list[str] = []
    lengths: set[str] = set()
    for name, value in headers:
        match name.lower():
            case "transfer-encoding":
                codings += [one.strip().lower() for one in value.split(",")]
            case "content-length":
                lengths.update(one.strip() for one in value.split(","))
    if method == "HEAD" or status in (204, 304) or 100 <= status < 200:
        return Framing(0)
    if codings:
        if codings != ["chunked"]:
            raise BadBodyError("the answer has a Transfer-Encoding other than chunked")
        return Framing(chunked=True, reusable=version > 10 and not lengths)
    if not lengths:
        return Framing(reusable=False)
    if len(lengths) > 1 or not _LENGTH.fullmatch(length := lengths.pop()):
        raise BadBodyError("the answer has no clear Content-Length")
    return Framing(int(length))


def body_chunks(file: io.BufferedReader, framing: Framing) -> Iterator[bytes]:
    """The body as it comes, in pieces of at most 64 KiB; nothing of what follows is read.

    Raises:
        BadBodyError: it ended early, or a chunk is none.
        OSError: as the file raises it.
    """
    if framing.chunked:
        return _dechunked(file)
    if framing.length is None:
        return iter(lambda: file.read1(_READ), b"")
    return _counted(file, framing.length)


def _counted(file: io.BufferedReader, length: int) -> Iterator[bytes]:
    left = length
    while left:
        data = file.read1(min(left, _READ))
        if not data:
            raise BadBodyError(f"the answer ended {left} bytes early")
        left -= len(data)
        yield data


def _dechunked(file: io.BufferedReader) -> Iterator[bytes]:
    while True:
        line = file.readline(_MAX_LINE + 1)
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise BadBodyError("the answer has a chunk without a size" if line else _EARLY)
        left = int(found[1], 16)
        if not left:
            return _skip_trailers(file)
        while left:
            data = file.read1(min(left, _READ))
            if not data:
                raise BadBodyError(_EARLY)
            left -= len(data)
            yield data
        end = file.readline(3)
        if end not in (b"\r\n", b"\n"):
            raise BadBodyError("the answer has a chunk of another size than it says")


_EARLY = "the answer ended early, inside a chunk or before the last one"


def _skip_trailers(file: io.BufferedReader) -> None:
    """Read the trailers and drop them: nobody asked for them (RFC 9110 section 6.5.1)."""
    for _ in range(_MAX_TRAILERS):
        line = file.readline(_MAX_LINE + 1)
        if line in (b"\r\n", b"\n"):
            return
        if not line.endswith(b"\n"):
            raise BadBodyError("the answer has a trailer without an end")
    raise BadBodyError(f"the answer has more than {_MAX_TRAILERS} trailers")

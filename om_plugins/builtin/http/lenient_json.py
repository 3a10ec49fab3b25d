"""JSON of an upstream, read as most readers do: not every service writes what RFC 8259 says.

msgspec reads what is valid. What it refuses is read a second time with Python's :mod:`json`, which
accepts the deviations that are common: ``NaN`` and ``Infinity``, line breaks inside of strings, and
``\\uD800`` to ``\\uDFFF`` without their other half. RFC 8259 section 8.1 lets a reader ignore a
byte order mark; services on .NET and Java also send UTF-16 and UTF-32.
"""

from __future__ import annotations

import codecs
import json
import re

import msgspec

_SURROGATE = re.compile("[\ud800-\udfff]")
_FIRST_HALF = re.compile("[\ud800-\udbff]\\Z")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UTF_BY_ZEROS = {
    "x000": "utf-32-le",
    "000x": "utf-32-be",
    "x0x0": "utf-16-le",
    "0x0x": "utf-16-be",
}
"""Encodings without a mark by which of the first four bytes are zero (RFC 4627 section 3): a JSON
text begins with two ASCII characters."""


def read_json(data: bytes | str, *, halves: bool = False, charset: str = "") -> object:
    """Return the value of a JSON text.

    Args:
        data: the text, or its bytes in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.
            Bytes that are no characters become U+FFFD.
        halves: leave surrogates without their other half in strings, because the next piece of a
            stream may bring it; see :class:`SurrogateJoiner`. By default they become U+FFFD.
        charset: as for :func:`decode_json`.

    Raises:
        ValueError: it is no JSON, or it is nested too deep.
    """
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError, msgspec.MsgspecError):  # no ValueError in 0.19
        text = data if isinstance(data, str) else decode_json(data, charset)
    try:
        value = json.loads(text.removeprefix("\ufeff"), strict=False)
        return value if halves or "\\" not in text else join_all_surrogates(value)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def join_surrogates(text: str) -> str:
    """Return a text whose surrogates are joined to characters. Single ones become U+FFFD."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def join_all_surrogates(value: object) -> object:
    """Return a JSON value with :func:`join_surrogates` applied to all of its texts.

    Raises:
        RecursionError: it is nested too deep.
    """
    if isinstance(value, str):
        return join_surrogates(value)
    if isinstance(value, list):
        return [join_all_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {join_surrogates(key): join_all_surrogates(item) for key, item in value.items()}
    return value


class SurrogateJoiner:
    """Pieces of one text, any of which may end between the two halves of a character."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    def add(self, piece: str) -> str:
        """Return what is complete of the text so far and was not returned before."""
        if not self._half and piece.isascii():
            return piece
        if self._half:
            piece, self._half = self._half + piece, ""
        if _FIRST_HALF.search(piece):
            piece, self._half = piece[:-1], piece[-1]
        return join_surrogates(piece)

    def end(self) -> str:
        """Return U+FFFD for a half that never got its other one, else nothing."""
        half, self._half = self._half, ""
        return join_surrogates(half)


def decode_json(data: bytes, charset: str = "") -> str:
    """Return the text of JSON in UTF-8, UTF-16 or UTF-32, without a byte order mark.

    Args:
        data: the text.
        charset: the encoding that its media type names, for a text that is in none of the three.
            RFC 8259 knows no such parameter, but services of its time before send it.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    zeros = "".join("0x"[byte != 0] for byte in data[:4])
    encoding = _UTF_BY_ZEROS.get(zeros, "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode(charset or encoding, "replace")

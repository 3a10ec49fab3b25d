"""Heads of HTTP/1.1 answers: where one ends, and the repair of malformed lines that RFC 9112 names.

A line is repaired only where the RFC says how, and where every reader then sees the same headers:

- white space between a name and its colon is removed (section 5.1);
- a bare CR, a NUL or another control character in a value becomes a space (section 2.2 and RFC 9110
  section 5.5), so that nothing after it can pass for a line of its own.

Everything else goes to h11 as it is. h11 joins folded lines (section 5.2), and refuses a line
without a colon, a name that is no token, and a status line that is none. Fields that frame the body
are never repaired: two readers of them could disagree about where the answer ends.
"""

from __future__ import annotations

import re

_START = b"HTTP/"
_LINE = re.compile(rb"[^\n]*\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:(.*)", re.DOTALL)
_CONTROLS = bytes(set(range(0x20)) - set(b"\t\r\n")) + b"\x7f"
_TO_SPACE = bytes.maketrans(_CONTROLS + b"\r", b" " * (len(_CONTROLS) + 1))
_FRAMING = (b"content-length", b"transfer-encoding")


def find_head_end(data: bytes) -> int:
    """Where the head at the start of ``data`` ends, behind its empty line; 0 when more is needed.

    Raises:
        ValueError: it is no HTTP/1 answer.
    """
    if not data.startswith(_START[: len(data)]):
        raise ValueError(f"illegal status line: {data[:60]!r}")
    end = data.find(b"\n\r\n") + 3
    bare = data.find(b"\n\n", 0, end - 1 if end > 2 else None) + 2
    return bare if bare > 1 else end if end > 2 else 0


def repair_head(head: bytes) -> bytes:
    """The head of an answer, with the malformed lines repaired that RFC 9112 says how to repair."""
    if (
        b" :" not in head
        and b"\t:" not in head
        and head.count(b"\r") == head.count(b"\r\n")
        and len(head.translate(None, _CONTROLS)) == len(head)
    ):
        return head
    status, *fields = _LINE.findall(head)
    return b"".join([status, *map(_repair_line, fields)])


def _repair_line(line: bytes) -> bytes:
    end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
    text = line[: -len(end)]
    if text.startswith((b" ", b"\t")):  # the rest of a folded value
        return text.translate(_TO_SPACE) + end
    found = _FIELD.fullmatch(text)
    if found is None or found[1].lower() in _FRAMING:
        return line
    return found[1] + b":" + found[2].translate(_TO_SPACE) + end

"""A stored response: what is kept of it, and the answer that is made of it.

A page that used a CSP nonce is kept in pieces, split where its nonce stood, and joined with a new
one for each answer. Its entity tag is a weak one: two answers are never the same byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .rfc9111 import Verdict

__all__ = ["Stored", "Variants", "read", "split", "written"]

Header = tuple[str, str]

_LENGTH = "content-length"
_NO_BODY = frozenset({204, 304})


@dataclass(slots=True)
class Stored:
    """One response.

    Attributes:
        code, status: ``200`` and ``200 OK``.
        headers: without those of one connection, ``Age`` and ``Content-Length``.
        body: whole; empty when there are ``pieces``.
        pieces: what stood between the nonces.
        nonced: indices of headers that had the nonce, and their pieces.
        verdict: how long it is good, and its validators.
        made: Unix time of its ``Date``, or of its arrival.
        received: Unix time at which it had the age ``verdict.age_s``.
        fetch_s: how long the application took.
        tags: what it can be purged by.
        marks: what the environ of a request that gets it must have.
    """

    code: int
    status: str
    headers: list[Header]
    body: bytes
    verdict: Verdict
    made: float
    received: float
    pieces: list[bytes] | None = None
    nonced: list[tuple[int, list[str]]] = field(default_factory=list)
    fetch_s: float = 0.0
    tags: tuple[str, ...] = ()
    marks: dict[str, Any] = field(default_factory=dict)
    size: int = field(init=False)
    fixed: list[Header] = field(init=False)

    def __post_init__(self) -> None:
        if self.pieces is None:
            self.size = len(self.body)
        else:
            self.size = sum(map(len, self.pieces)) + _NONCE_LENGTH * (len(self.pieces) - 1)
        self.fixed = self.headers
        if self.code not in _NO_BODY:
            self.fixed = [*self.headers, ("Content-Length", str(self.size))]

    @property
    def language(self) -> str:
        """Its ``Content-Language`` in lower case, when it has one."""
        found = [v.strip().lower() for n, v in self.headers if n.lower() == "content-language"]
        return found[0] if len(found) == 1 and "," not in found[0] else ""

    def answer(self, nonce: str) -> tuple[list[Header], bytes]:
        """The headers, in a new list, and the body of one answer.

        Args:
            nonce: for this answer; used only when there are ``pieces``.
        """
        headers = list(self.fixed)
        if self.pieces is None:
            return headers, self.body
        for index, pieces in self.nonced:
            headers[index] = (headers[index][0], nonce.join(pieces))
        return headers, nonce.encode("ascii").join(self.pieces)


_NONCE_LENGTH = 32


def split(stored: Stored, nonce: str) -> Stored | None:
    """The response in pieces, for one that used ``nonce``; ``None`` when it cannot be had.

    It cannot when the body is encoded, does not contain the nonce (a tag without a valid nonce
    would never run again), or the nonce has an unknown form.
    """
    names = {name.lower() for name, _ in stored.headers}
    mark = nonce.encode("latin-1", "replace")
    if "content-encoding" in names or len(mark) != _NONCE_LENGTH or mark not in stored.body:
        return None
    nonced = [
        (index, value.split(nonce))
        for index, (_, value) in enumerate(stored.headers)
        if nonce in value
    ]
    headers = [
        (name, "W/" + value if name.lower() == "etag" and value.startswith('"') else value)
        for name, value in stored.headers
    ]
    verdict = stored.verdict
    if verdict.etag.startswith('"'):
        verdict.etag = "W/" + verdict.etag
    return Stored(
        stored.code, stored.status, headers, b"", verdict, stored.made, stored.received,
        pieces=stored.body.split(mark), nonced=nonced, fetch_s=stored.fetch_s, tags=stored.tags,
        marks=stored.marks,
    )  # fmt: skip


@dataclass(slots=True)
class Variants:
    """What is stored at an address whose responses depend on request fields.

    Attributes:
        names: the sets of fields that were named so far, the newest first.
        generation: part of the variants' keys: a new one forgets them all.
        idents: the keys of the variants, the oldest first.
        languages: which of them is in which language, for those that depend on that alone.
        memo: keys by the fields' values, as they were sent.
    """

    names: list[tuple[str, ...]]
    generation: str
    idents: list[str] = field(default_factory=list)
    languages: dict[str, str] = field(default_factory=dict)
    memo: dict[tuple[object, ...], str] = field(default_factory=dict)


# --- in a store ---------------------------------------------------------------------------------

_Verdict = tuple[float, float, float, float, bool, bool, list[str], str, float | None]
_Response = tuple[
    int, str, list[tuple[str, str]], list[bytes], bool, list[tuple[int, list[str]]], _Verdict,
    float, float, float, list[str], bytes,
]  # fmt: skip
_Variants = tuple[list[list[str]], str, list[str], dict[str, str]]

_encode = msgspec.msgpack.Encoder().encode
_read_response = msgspec.msgpack.Decoder(_Response).decode
_read_variants = msgspec.msgpack.Decoder(_Variants).decode

PackMarks = Callable[[Mapping[str, Any]], bytes]
ReadMarks = Callable[[bytes], dict[str, Any]]


def written(kept: Stored | Variants, pack_marks: PackMarks) -> bytes:
    """The bytes that a store keeps."""
    if isinstance(kept, Variants):
        names = [list(one) for one in kept.names]
        return b"V" + _encode((names, kept.generation, kept.idents, kept.languages))
    v = kept.verdict
    verdict: _Verdict = (
        v.lifetime_s, v.age_s, v.while_revalidating_s, v.if_error_s, v.validate, v.public,
        list(v.vary), v.etag, v.modified,
    )  # fmt: skip
    pieces = kept.pieces
    return b"R" + _encode(
        (
            kept.code, kept.status, kept.headers, [kept.body] if pieces is None else pieces,
            pieces is not None, kept.nonced, verdict, kept.made, kept.received, kept.fetch_s,
            list(kept.tags), pack_marks(kept.marks) if kept.marks else b"",
        )
    )  # fmt: skip


def read(data: bytes, read_marks: ReadMarks) -> Stored | Variants | None:
    """Read what a store gave; ``None`` when it is not ours or damaged."""
    try:
        if data[:1] == b"V":
            names, generation, idents, languages = _read_variants(data[1:])
            return Variants([tuple(one) for one in names], generation, idents, languages)
        if data[:1] != b"R":
            return None
        (
            code, status, headers, pieces, split_up, nonced, v, made, received, fetch_s, tags,
            marks,
        ) = _read_response(data[1:])  # fmt: skip
        if not pieces or (not split_up and len(pieces) != 1) or not 200 <= code <= 599:
            return None
        if any(not 0 <= index < len(headers) for index, _ in nonced):
            return None
        verdict = Verdict("", v[0], v[1], v[2], v[3], v[4], v[5], tuple(v[6]), etag=v[7])
        verdict.modified = v[8]
        return Stored(
            code, status, headers, b"" if split_up else pieces[0], verdict, made, received,
            pieces=pieces if split_up else None, nonced=nonced, fetch_s=fetch_s, tags=tuple(tags),
            marks=read_marks(marks) if marks else {},
        )  # fmt: skip
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, RecursionError):
        return None

"""A stored response: what is kept of it, and the answer that is made of it.

A page that used a CSP nonce is kept in pieces, split where its nonce stood, and joined with a new
one for each answer. Its entity tag is a weak one: two answers are never the same byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from .rfc9111 import CacheVerdict

__all__ = [
    "StoredResponse",
    "Variants",
    "decode_stored",
    "encode_stored",
    "in_pieces",
    "nonced_headers",
    "split",
]

Header = tuple[str, str]

_NO_BODY = frozenset({204, 304})


Outgoing = Callable[[list[Header]], list[Header]]
"""Makes the headers of a page with a nonce fit for caches further out, which must not keep it."""


@dataclass(slots=True)
class StoredResponse:
    """One response.

    Attributes:
        code, status: ``200`` and ``200 OK``.
        headers: the application's, without those of one connection, ``Age`` and
            ``Content-Length``.
        body: whole; empty when there are ``pieces``.
        verdict: how long it is good, and its validators.
        made: Unix time of its ``Date``, or of its arrival.
        received: Unix time at which it had the age ``verdict.age_s``.
        pieces: what stood between the nonces.
        nonce: the one that stood there, for headers that have it too.
        sent: the headers as they are sent, where these are others.
        fetch_s: how long the application took.
        tags: what it can be purged by.
        marks: what the environ of a request that gets it must have.
        size: of the body, in bytes.
    """

    code: int
    status: str
    headers: list[Header]
    body: bytes
    verdict: CacheVerdict
    made: float
    received: float
    pieces: list[bytes] | None = None
    nonce: str = ""
    sent: list[Header] = field(default_factory=list)
    fetch_s: float = 0.0
    tags: tuple[str, ...] = ()
    marks: dict[str, Any] = field(default_factory=dict)
    size: int = field(init=False)
    plan: Any = field(init=False, default=None, repr=False, compare=False)
    _fixed: list[Header] = field(init=False)
    _nonced: list[tuple[int, list[str]]] = field(init=False)

    def __post_init__(self) -> None:
        if self.pieces is None:
            self.size = len(self.body)
        else:
            self.size = sum(map(len, self.pieces)) + _NONCE_LENGTH * (len(self.pieces) - 1)
        self.sent = self.sent or self.headers
        self._nonced = [
            (index, value.split(self.nonce))
            for index, (_, value) in enumerate(self.sent)
            if self.nonce and self.nonce in value
        ]
        self._fixed = self.sent
        if self.code not in _NO_BODY:
            self._fixed = [*self.sent, ("Content-Length", str(self.size))]

    @property
    def language(self) -> str:
        """Its ``Content-Language`` in lower case, when it has one."""
        found = [v.strip().lower() for n, v in self.headers if n.lower() == "content-language"]
        return found[0] if len(found) == 1 and "," not in found[0] else ""

    def outline(self) -> tuple[list[Header], list[tuple[int, str, tuple[str, ...]]]]:
        """The headers, and index, name and pieces of those in which a nonce belongs."""
        return self._fixed, [
            (index, self._fixed[index][0], tuple(pieces)) for index, pieces in self._nonced
        ]

    def answer(self, nonce: str) -> tuple[list[Header], bytes]:
        """The headers, in a new list, and the body of one answer.

        Args:
            nonce: for this answer; used only when there are ``pieces``.
        """
        headers = list(self._fixed)
        if self.pieces is None:
            return headers, self.body
        for index, pieces in self._nonced:
            headers[index] = (headers[index][0], nonce.join(pieces))
        return headers, nonce.encode("ascii").join(self.pieces)


_NONCE_LENGTH = 32


def split(stored: StoredResponse, nonce: str, outgoing: Outgoing) -> StoredResponse | None:
    """The response in pieces, for one that used ``nonce``; ``None`` when it cannot be had.

    It cannot when the body is encoded, does not contain the nonce (a tag without a valid nonce
    would never run again), or the nonce has an unknown form.
    """
    encoded = any(name.lower() == "content-encoding" for name, _ in stored.headers)
    mark = nonce.encode("latin-1", "replace")
    if encoded or len(mark) != _NONCE_LENGTH or mark not in stored.body:
        return None
    return in_pieces(stored, stored.body.split(mark), nonce, outgoing)


def in_pieces(
    stored: StoredResponse, pieces: list[bytes], nonce: str, outgoing: Outgoing
) -> StoredResponse:
    """The response with these pieces for its body."""
    sent = nonced_headers(stored.headers, outgoing)
    found = replace(stored, body=b"", pieces=pieces, nonce=nonce, sent=sent)
    found.verdict.etag = _weak(found.verdict.etag)
    return found


def nonced_headers(headers: list[Header], outgoing: Outgoing) -> list[Header]:
    """The headers of a page with a nonce, as they are sent."""
    return [
        (name, _weak(value) if name.lower() == "etag" else value)
        for name, value in outgoing(headers)
    ]


def _weak(etag: str) -> str:
    return "W/" + etag if etag.startswith('"') else etag


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
    int, str, list[tuple[str, str]], list[bytes], str | None, list[tuple[str, str]], _Verdict,
    float, float, float, list[str], bytes,
]  # fmt: skip
_Variants = tuple[list[list[str]], str, list[str], dict[str, str]]

_encode = msgspec.msgpack.Encoder().encode
_read_response = msgspec.msgpack.Decoder(_Response).decode
_read_variants = msgspec.msgpack.Decoder(_Variants).decode

PackMarks = Callable[[Mapping[str, Any]], bytes]
ReadMarks = Callable[[bytes], dict[str, Any]]


def encode_stored(kept: StoredResponse | Variants, pack_marks: PackMarks) -> bytes:
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
            None if pieces is None else kept.nonce, [] if pieces is None else kept.sent, verdict,
            kept.made, kept.received, kept.fetch_s,
            list(kept.tags), pack_marks(kept.marks) if kept.marks else b"",
        )
    )  # fmt: skip


def decode_stored(data: bytes, read_marks: ReadMarks) -> StoredResponse | Variants | None:
    """Read what a store gave; ``None`` when it is not ours or damaged."""
    try:
        if data[:1] == b"V":
            names, generation, idents, languages = _read_variants(data[1:])
            return Variants([tuple(one) for one in names], generation, idents, languages)
        if data[:1] != b"R":
            return None
        (
            code, status, headers, pieces, nonce, sent, v, made, received, fetch_s, tags,
            marks,
        ) = _read_response(data[1:])  # fmt: skip
        if not pieces or (nonce is None and len(pieces) != 1) or not 200 <= code <= 599:
            return None
        verdict = CacheVerdict("", v[0], v[1], v[2], v[3], v[4], v[5], tuple(v[6]), etag=v[7])
        verdict.modified = v[8]
        return StoredResponse(
            code, status, headers, pieces[0] if nonce is None else b"", verdict, made, received,
            pieces=None if nonce is None else pieces, nonce=nonce or "", sent=sent,
            fetch_s=fetch_s, tags=tuple(tags), marks=read_marks(marks) if marks else {},
        )  # fmt: skip
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, RecursionError):
        return None

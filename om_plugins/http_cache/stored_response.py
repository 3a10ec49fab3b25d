"""A stored response: what the cache keeps of it, its answers, its entry in memory.

A page that used a CSP nonce is stored in pieces, split where its nonce stood. Each answer joins the
pieces with a new nonce. The entity tag of such a page is weak, because no two answers are the same
bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from werkzeug.http import http_date as format_http_date

from ..cache.entry import CacheEntry
from ..cache.memory import MemoryTable
from .fields import http_date, ranges, same_tag
from .rfc9111 import CacheVerdict, Headers, ResponseFacts, matches
from .variants import Looks, VariantIndex

Header = tuple[str, str]

_NO_BODY = frozenset({204, 304})
_IN_304 = frozenset(
    {"cache-control", "cdn-cache-control", "content-location", "date", "etag", "expires", "vary"}
    | {"last-modified"}
)
_NOT_IN_206 = frozenset({"content-length", "content-range"})
_NOT_STORED = frozenset({"age", "content-length", "cache-status"})
_NONCE_LENGTH = 32

MakePrivate = Callable[[list[Header]], list[Header]]
"""Returns the headers of a page with a nonce so that no cache downstream may store it."""


@dataclass(slots=True)
class StoredResponse:
    """One response.

    Attributes:
        code, status: ``200`` and ``200 OK``.
        headers: the application's, without ``Age``, ``Content-Length`` and the fields of one
            connection.
        body: the whole body; empty when there are ``pieces``.
        verdict: how long the response may be used, and its validators.
        date: Unix time of its ``Date``, or of its arrival.
        received_at: Unix time at which its age was ``verdict.age_s``.
        pieces: the parts of the body between the nonces; ``None`` for a body without nonces.
        nonce: the nonce that stood between the pieces; headers may contain it, too.
        sent_headers: the headers of an answer, where they differ from ``headers``.
        names: the inputs that select it; see :mod:`.variants`.
        cookies: it answers no request that brings one of these; ``("",)`` for any cookie.
        looks: what the code of its request looked at; ``None`` where that was not observed.
        any_query: it answers a request with any query.
        fetch_s: how many seconds the application took.
        tags: what the response can be purged by.
        marks: what the environ of a request that gets this response must contain.
        size: of the body, in bytes.
        prepared: what :mod:`.fast_path` worked out for hits of this response.
    """

    code: int
    status: str
    headers: list[Header]
    body: bytes
    verdict: CacheVerdict
    date: float
    received_at: float
    pieces: list[bytes] | None = None
    nonce: str = ""
    sent_headers: list[Header] = field(default_factory=list)
    names: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    looks: Looks | None = None
    any_query: bool = False
    fetch_s: float = 0.0
    tags: tuple[str, ...] = ()
    marks: dict[str, Any] = field(default_factory=dict)
    size: int = field(init=False)
    prepared: Any = field(init=False, default=None, repr=False, compare=False)
    _fixed: list[Header] = field(init=False)
    _nonced: list[tuple[int, list[str]]] = field(init=False)

    def __post_init__(self) -> None:
        if self.pieces is None:
            self.size = len(self.body)
        else:
            self.size = sum(map(len, self.pieces)) + _NONCE_LENGTH * (len(self.pieces) - 1)
        self.sent_headers = self.sent_headers or self.headers
        self._nonced = [
            (index, value.split(self.nonce))
            for index, (_, value) in enumerate(self.sent_headers)
            if self.nonce and self.nonce in value
        ]
        self._fixed = self.sent_headers
        if self.code not in _NO_BODY:
            self._fixed = [*self.sent_headers, ("Content-Length", str(self.size))]

    @property
    def language(self) -> str:
        """Its ``Content-Language`` in lower case; "" when it names none or several."""
        found = [v.strip().lower() for n, v in self.headers if n.lower() == "content-language"]
        return found[0] if len(found) == 1 and "," not in found[0] else ""

    def header_template(self) -> tuple[list[Header], list[tuple[int, str, tuple[str, ...]]]]:
        """Return the headers, and index, name and pieces of those that contain a nonce."""
        return self._fixed, [
            (index, self._fixed[index][0], tuple(pieces)) for index, pieces in self._nonced
        ]

    def render(self, nonce: str) -> tuple[list[Header], bytes]:
        """Return the headers, in a new list, and the body of one answer.

        Args:
            nonce: of this answer; used only when there are ``pieces``.
        """
        headers = list(self._fixed)
        if self.pieces is None:
            return headers, self.body
        for index, pieces in self._nonced:
            headers[index] = (headers[index][0], nonce.join(pieces))
        return headers, nonce.encode("ascii").join(self.pieces)

    def answer(
        self, environ: Mapping[str, Any], new_nonce: Callable[[], str]
    ) -> tuple[str, list[Header], list[bytes]]:
        """Answer a request with the whole response, a part of it, or 304.

        Args:
            environ: the request: its method, conditions and ranges.
            new_nonce: returns the nonce of this answer; called only when one is needed.

        Returns:
            Status, headers in a new list, and body.
        """
        verdict = self.verdict
        if self.code == 200 and matches(environ, verdict.etag, verdict.modified, self.date):
            headers = [(n, v) for n, v in self.sent_headers if n.lower() in _IN_304]
            return "304 Not Modified", headers, []
        headers, body = self.render("" if self.pieces is None else new_nonce())
        ranged = "HTTP_RANGE" in environ and environ["REQUEST_METHOD"] == "GET"
        if ranged and self.code == 200 and self.pieces is None:
            part = self._select_range(environ)
            if part is not None:
                status, changed, body = part
                kept = [(n, v) for n, v in headers if n.lower() not in _NOT_IN_206]
                return status, kept + changed, [body]
        return self.status, headers, [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _select_range(self, environ: Mapping[str, Any]) -> tuple[str, list[Header], bytes] | None:
        """Select the range that a request asks for (RFC 9110 section 14).

        Returns:
            Status, fields to add, and body; ``None`` when the whole response is to be sent.
        """
        if_range = environ.get("HTTP_IF_RANGE")
        if if_range is not None:
            if if_range.startswith(('"', "W/")):
                if not same_tag(if_range.strip(), self.verdict.etag, strong=True):
                    return None
            elif http_date(if_range, self.date) != self.verdict.modified:
                return None
        found = ranges(environ["HTTP_RANGE"], self.size)
        if found is None:
            return None
        if not found:
            changed = [("Content-Range", f"bytes */{self.size}"), ("Content-Length", "0")]
            return "416 Range Not Satisfiable", changed, b""
        first, end = found[0]
        changed = [
            ("Content-Range", f"bytes {first}-{end - 1}/{self.size}"),
            ("Content-Length", str(end - first)),
        ]
        return "206 Partial Content", changed, self.body[first:end]


# --- building -----------------------------------------------------------------------------------


def build_response(
    status: str,
    facts: ResponseFacts,
    verdict: CacheVerdict,
    body: bytes,
    *,
    previous: StoredResponse | None = None,
    make_private: MakePrivate = list,
    declare: Callable[[list[Header]], list[Header]] | None = None,
) -> StoredResponse:
    """Build the stored form of a response.

    Args:
        status: such as ``200 OK``.
        facts, verdict: about the response.
        body: its whole body.
        previous: the stored response that a 304 freshened. Its body, tags and marks are kept.
        make_private: see :data:`MakePrivate`.
        declare: returns the headers of its answers, which tell caches further out more.
    """
    left_out = verdict.left_out | _NOT_STORED
    headers = [
        h for h in add_date(facts.headers, facts.received_at) if h[0].lower() not in left_out
    ]
    date = http_date(facts.one("date"), facts.received_at)
    built = StoredResponse(
        facts.status,
        status,
        headers,
        body,
        verdict,
        facts.received_at if date is None else date,
        facts.received_at,
        sent_headers=[] if declare is None else declare(headers),
    )
    if previous is None:
        return built
    built.fetch_s, built.tags, built.marks = previous.fetch_s, previous.tags, previous.marks
    if previous.pieces is None:
        return built
    return replace_pieces(built, previous.pieces, previous.nonce, make_private)


def add_date(headers: Headers, at: float) -> list[Header]:
    """Return the headers with a ``Date``; without one, that of the arrival (RFC 9110 6.6.1)."""
    if any(name.lower() == "date" for name, _ in headers):
        return list(headers)
    return [*headers, ("Date", format_http_date(at))]


def split_at_nonce(
    stored: StoredResponse, nonce: str, make_private: MakePrivate
) -> StoredResponse | None:
    """Split the body of a response at its nonce, so that each answer can get a new one.

    Returns:
        The response in pieces. ``None`` when a new nonce cannot be put in: the body is encoded, the
        nonce has an unknown form, or the body does not contain it (a tag that keeps an old nonce
        would never run again).
    """
    encoded = any(name.lower() == "content-encoding" for name, _ in stored.headers)
    mark = nonce.encode("latin-1", "replace")
    if encoded or len(mark) != _NONCE_LENGTH or mark not in stored.body:
        return None
    return replace_pieces(stored, stored.body.split(mark), nonce, make_private)


def replace_pieces(
    stored: StoredResponse, pieces: list[bytes], nonce: str, make_private: MakePrivate
) -> StoredResponse:
    """Return the response with these pieces as its body."""
    sent = weaken_etag(make_private(stored.sent_headers))
    found = replace(stored, body=b"", pieces=pieces, nonce=nonce, sent_headers=sent)
    found.verdict.etag = _weaken(found.verdict.etag)
    return found


def weaken_etag(headers: list[Header]) -> list[Header]:
    """Return the headers with a weak ``ETag``, as a page with a nonce needs it."""
    return [(name, _weaken(value) if name.lower() == "etag" else value) for name, value in headers]


def _weaken(etag: str) -> str:
    return "W/" + etag if etag.startswith('"') else etag


# --- in memory ----------------------------------------------------------------------------------

_HEADER_BYTES = 150
"""What a header field costs in memory, about."""


class MemoryEntry(CacheEntry):
    """A response in memory; ``stored`` is the monotonic time at which its age was 0.

    Attributes:
        content: the response, or the index of an address's variants.
        count_hit: counts one hit; a C counter, exact without a lock.
    """

    __slots__ = ("_read", "content", "count_hit")

    def __init__(
        self,
        key: str,
        content: StoredResponse | VariantIndex,
        *,
        tags: tuple[str, ...],
        began: float,
        born: float,
        lifetime_s: float,
        keep_s: float,
        valid_until: float = math.inf,
    ) -> None:
        super().__init__(
            key,
            content.body if isinstance(content, StoredResponse) else b"",
            tags=tags,
            began=began,
            stored=born,
            stale_time=lifetime_s,
            cache_time=keep_s,
            valid_until=valid_until,
        )
        self.content = content
        self.count_hit: Callable[[], int] = itertools.count().__next__
        self._read = 0
        if isinstance(content, StoredResponse):
            headers = _HEADER_BYTES * (len(content.headers) + 2)
            self.weight += content.size - len(content.body) + headers

    @property
    def expires(self) -> float:
        """The monotonic time until which it is fresh, however long memory may answer alone."""
        content = self.content
        if self.base == -math.inf or not isinstance(content, StoredResponse):
            return -math.inf
        return self.stored + content.verdict.lifetime_s

    def take_hits(self) -> int:
        """Return how many hits were counted. A counter can only be read by counting."""
        found = self.count_hit() - self._read
        self._read += 1
        return found


class ResponseTable(MemoryTable):
    """The entries in memory.

    It evicts by SIEVE within a bound of bytes, as the table of the data cache does. Each entry
    counts its own hits, without a lock; the table adds up the counts of the entries that left.
    """

    __slots__ = ("bytes_saved", "fetch_s_saved", "hits")

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.hits = 0
        self.bytes_saved = 0
        self.fetch_s_saved = 0.0

    def remove(self, entry: CacheEntry) -> None:
        super().remove(entry)
        if isinstance(entry, MemoryEntry) and isinstance(entry.content, StoredResponse):
            hits = entry.take_hits()
            self.hits += hits
            self.bytes_saved += hits * entry.content.size
            self.fetch_s_saved += hits * entry.content.fetch_s

    def responses(self) -> Iterator[tuple[MemoryEntry, StoredResponse]]:
        """Yield every response with its entry; the indexes of variants are left out."""
        for entry in self:
            if isinstance(entry, MemoryEntry) and isinstance(entry.content, StoredResponse):
                yield entry, entry.content

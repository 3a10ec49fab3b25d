"""Copies of the host app's last good responses, for use when the app fails.

A response is copied under the inputs that it depends on, see :mod:`.copy_inputs`, and answers only
requests that agree in them. A response that sets a cookie, or is ``private`` or ``no-store``, is
not copied. The body is copied while it is sent, and stored in the background.

An address has an index of the sets of inputs that its responses had, newest first. A look-up tries
them in turn.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from ..builtin.http.forwarding import join_headers
from ..cache.responses.decisions import CacheDecision, find_report
from ..core.body import convert
from ..core.inputs import EnvironReader, InputReader, InputRules
from ..core.observed import ObservedInputs, leave_out_renewal
from ..core.request_state import RequestState, state_of
from ..protocols import Cache, Clock, Scheduler
from .copy_inputs import (
    PUBLIC,
    CopyInputs,
    Key,
    select_observed,
    select_unobserved,
)
from .copy_schedule import CopyClaim, CopySchedule, merge_sets
from .options import FallbackOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("om_plugins")

Headers = list[tuple[str, str]]

TAG = "fallback"
_VERSION = "2"
_FORBIDDEN = re.compile(r"(?:^|[\s,])(?:private|no-store)(?:$|[\s,=;])", re.IGNORECASE)
_PERMITTED = re.compile(r"(?:^|[\s,])(?:public|s-maxage)(?:$|[\s,=;])", re.IGNORECASE)
_BY_HEADERS = "its headers forbid it: Set-Cookie, private, no-store, or a part of a page"
_OF_ONE_VISITOR = (
    "it depends on what no copy can have: a cookie that this request brings and code looked at, "
    "the client's address, the environ, a changed session, or something that cannot be compared"
)
_NEVER_COPIED = frozenset({"set-cookie", "content-range", "transfer-encoding", "trailer"})
_NOT_STORED = frozenset(
    {"age", "cache-control", "connection", "content-length", "date", "etag", "expires"}
    | {"keep-alive", "last-modified", "pragma", "server", "server-timing", "accept-ranges"}
)


class _StoredCopy(msgspec.Struct):
    """A copy as it is in the cache.

    Attributes:
        nonce: the nonce in the body; "" for none.
        at: the Unix time of the response.
    """

    headers: Headers
    body: bytes
    nonce: str
    at: float


@dataclass(slots=True, eq=False, repr=False)
class LastGoodCopies:
    """The copies of responses below one path.

    Args:
        options: how large, how old and how many copies may be.
        cache: stores the copies; when it has a store, all workers share them.
        scheduler: stores them in the background.
        clock: time.
        rules: how the inputs of requests are compared.
        observes: all that a response depends on can be observed, where the state of its request
            has ``inputs``.
    """

    options: FallbackOptions
    cache: Cache
    scheduler: Scheduler
    clock: Clock
    rules: InputRules
    observes: bool = True
    _schedule: CopySchedule = field(init=False)

    def __post_init__(self) -> None:
        self._schedule = CopySchedule(self.options, self.rules, self.clock)

    # --- copying --------------------------------------------------------------------------------

    def is_due(self, key: Key, environ: WSGIEnvironment) -> bool:
        """Whether a copy of the response to this request is due, should it be a good one."""
        return (
            self._schedule.is_due(key, environ)
            and environ["REQUEST_METHOD"] == "GET"
            and "HTTP_RANGE" not in environ
        )

    def begin(
        self, key: Key, saw: WSGIEnvironment, environ: WSGIEnvironment, headers: Headers
    ) -> ResponseCopy | None:
        """Begin to copy a 200 response, if a copy is due and the response may be copied.

        Args:
            key: of the request.
            saw: a copy of the environ from before the application was called.
            environ: the environ that the application got.
            headers: of the response.
        """
        state = state_of(environ)
        if state.take_report_turn is not None or not self.is_due(key, saw):
            return None  # of the first, the copy would have nonces where other responses have none
        claim, dropped = self._schedule.claim(key, saw)
        self._remove(dropped)
        if claim is None:
            return None
        kept = headers
        seen = self._inputs_of(state)
        if seen is not None:
            kept = [*leave_out_renewal(headers, seen)]
        renews = len(kept) < len(headers)
        copy = ResponseCopy(self, claim, saw, environ, state, kept, renews)
        fields = copy.fields
        if (
            not fields.keys().isdisjoint(_NEVER_COPIED)
            or _FORBIDDEN.search(fields.get("cache-control", ""))
            or fields.get("content-type", "").startswith("text/event-stream")
        ):
            self._select(copy)  # it may tell of a cookie; else the next try is after copy_every
            _report(saw, reason="headers", detail=_BY_HEADERS)
            return None
        if seen is None and self._select(copy) is None:
            self.give_up(claim)
            return None
        return copy

    def _select(self, copy: ResponseCopy) -> CopyInputs | None:
        """Return the inputs under which a copy may be kept; ``None`` when it may not."""
        vary = copy.fields.get("vary", "")
        inputs = self._inputs_of(copy.state)
        if inputs is None:
            said = copy.fields.get("cache-control", "")
            ours = getattr(copy.state.cache_intent, "control", "")
            public = said != ours and _PERMITTED.search(said) is not None
            found = select_unobserved(copy.saw, copy.environ, vary, public, self.rules)
            seen = copy.state.inputs
            if found is not None and seen is not None:  # what a part of the application looked at
                also = select_observed(seen, copy.saw, vary, self.rules, renews=copy.renews)
                found = also and CopyInputs(
                    found.audience,
                    found.cookies or also.cookies,
                    tuple(sorted({*found.names, *also.names})),
                )
        else:
            found = select_observed(inputs, copy.saw, vary, self.rules, renews=copy.renews)
        if found is not None and self._identify(found, copy.saw) is None:
            self._schedule.refuse(copy.claim, found)
            return None
        return found

    def _inputs_of(self, state: RequestState) -> ObservedInputs | None:
        return state.inputs if self.observes else None

    def _identify(self, inputs: CopyInputs, saw: WSGIEnvironment) -> str | None:
        return inputs.identify(saw, EnvironReader(saw), self.rules)

    def give_up(self, claim: CopyClaim) -> None:
        """Allow the next response to be copied, because this one was not."""
        self._schedule.release(claim)

    def store(self, copy: ResponseCopy, stored: Mapping[str, object]) -> None:
        """Store a complete copy in the background, if it may be kept."""
        inputs = self._select(copy)
        ident = None if inputs is None else self._identify(inputs, copy.saw)
        if inputs is None or ident is None:
            _report(copy.saw, reason="input", detail=_OF_ONE_VISITOR)
            return
        _report(copy.saw, inputs)
        key = copy.claim.key
        claim, dropped = self._schedule.settle(copy.claim, inputs, ident)
        self._remove(dropped)

        def store() -> None:
            sets = merge_sets([inputs], self._read_sets(key))
            self._schedule.learn(key, sets)
            keep_s = self.options.keep
            for name, value in (
                (_name_copy(key, ident), stored),
                (_name_index(key), [[one.audience, one.cookies, one.names] for one in sets]),
            ):
                self.cache.set(name, value, stale_time=keep_s, cache_time=keep_s, tags=(TAG,))

        if not self.scheduler.submit(store, name="fallback-copy"):
            self.give_up(claim)

    def _remove(self, dropped: Iterable[tuple[Key, str]]) -> None:
        """Remove copies in the background."""
        names = [_name_copy(key, ident) for key, ident in dropped]
        names += [_name_index(key) for key, _ in dropped if not self._schedule.is_in_use(key)]

        def remove() -> None:
            for name in names:
                self.cache.remove(name)

        if names:
            self.scheduler.submit(remove, name="fallback-copy")

    # --- using ----------------------------------------------------------------------------------

    def find(self, key: Key, environ: WSGIEnvironment) -> tuple[Headers, bytes] | None:
        """Return headers and body of the copy for a request; ``None`` when there is none.

        Args:
            key: of the request, read before the application was called.
            environ: the environ that the application got.
        """
        state = state_of(environ)
        rules, reader = self.rules, self._read_inputs(key, environ, state)
        if reader is None:
            return None
        for one in self._read_sets(key):
            found = self._read_copy(key, one.identify(environ, reader, rules))
            if found is not None:
                return self._render(found, environ, state)
        if key[-1]:
            everybody = (*key[:-1], "")
            for one in self._read_sets(everybody):
                if one.audience == PUBLIC:
                    found = self._read_copy(everybody, one.identify(environ, reader, rules))
                    if found is not None:
                        return self._render(found, environ, state)
        return None

    def withdraw(self, key: Key, environ: WSGIEnvironment) -> None:
        """Remove the copies that would answer a request, because access to the page was withdrawn.

        Args:
            key: of the request, read before the application was called.
            environ: the environ that the application got.
        """
        reader = self._read_inputs(key, environ, state_of(environ))
        if reader is None:
            return
        idents = {one.identify(environ, reader, self.rules) for one in self._read_sets(key)}
        names = [_name_copy(key, ident) for ident in idents if ident is not None]

        def remove() -> None:
            for name in names:
                self.cache.remove(name)

        if names:
            self.scheduler.submit(remove, name="fallback-copy")

    def _read_inputs(
        self, key: Key, environ: WSGIEnvironment, state: RequestState
    ) -> InputReader | None:
        """Return what reads the inputs of a request as the application did.

        Returns:
            ``None`` when middleware further in changed who asks: nobody can tell then which copy
            is for this request.
        """
        if self.rules.digest_identities(environ) != key[-1]:
            return None
        inputs = state.inputs
        if inputs is None:
            return EnvironReader(environ)
        if inputs.address != self.rules.read_address(environ):
            return None
        return _SeenReader(environ, inputs)

    def _read_sets(self, key: Key) -> list[CopyInputs]:
        found = self.cache.get(_name_index(key))
        try:
            sets = convert(found or [], list[tuple[str, tuple[str, ...], tuple[str, ...]]])
        except ValueError:
            logger.debug("an index of copies cannot be read", exc_info=True)
            return []
        return [CopyInputs(*one) for one in sets]

    def _read_copy(self, key: Key, ident: str | None) -> _StoredCopy | None:
        found = None if ident is None else self.cache.get(_name_copy(key, ident))
        if found is None:
            return None
        try:
            return convert(found, _StoredCopy)
        except ValueError:
            logger.debug("a copy of a good answer cannot be read", exc_info=True)
            return None

    def _render(
        self, copy: _StoredCopy, environ: WSGIEnvironment, state: RequestState
    ) -> tuple[Headers, bytes] | None:
        encoding = join_headers(copy.headers).get("content-encoding")
        if encoding and encoding.lower() not in environ.get("HTTP_ACCEPT_ENCODING", "").lower():
            return None
        body = copy.body
        if copy.nonce:
            body = body.replace(copy.nonce.encode(), state.nonce_for_page().encode())
        elif state.plain is not None:
            state.plain = True  # the tags of the copy may have no nonces
        age = max(0, int(self.clock.time() - copy.at))
        return [*copy.headers, ("Age", str(age)), ("Cache-Control", "no-store")], body


class _SeenReader(EnvironReader):
    """Reads the inputs of a request that is over, those first that the application looked at."""

    def __init__(self, environ: WSGIEnvironment, inputs: ObservedInputs) -> None:
        super().__init__(environ)
        self._counted = inputs.counted

    def read(self, name: str) -> bytes:
        found = self._counted.get(name)
        return super().read(name) if found is None else found


@dataclass(slots=True, eq=False, repr=False)
class ResponseCopy:
    """A copy of one response that is being sent.

    Attributes:
        copies: where it is stored.
        claim: the right to make it.
        saw: a copy of the environ from before the application was called.
        environ: the environ that the application got.
        state: of the request.
        headers: of the response, without the cookie of a session that is only renewed.
        renews: the response has such a cookie.
    """

    copies: LastGoodCopies
    claim: CopyClaim
    saw: WSGIEnvironment
    environ: WSGIEnvironment
    state: RequestState
    headers: Headers
    renews: bool
    fields: Mapping[str, str] = field(init=False)
    _parts: list[bytes] = field(init=False, default_factory=list)
    _size: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.fields = join_headers(self.headers)

    def add(self, chunk: bytes) -> None:
        """Add a chunk of the body."""
        self._size += len(chunk)
        if self._size <= self.copies.options.max_copy:
            self._parts.append(chunk)
        else:
            self._parts.clear()

    def give_up(self) -> None:
        """Drop the copy: the body did not end."""
        self._parts.clear()
        self.copies.give_up(self.claim)

    def end(self) -> None:
        """Store the copy: the body is complete."""
        if self._size > self.copies.options.max_copy:
            _report(self.saw, reason="size", detail="its body is over max_copy")
            return
        length = self.fields.get("content-length", "")
        if length and length != str(self._size):
            return
        body = b"".join(self._parts)
        used = self.state.page_nonce or ""
        if used and ("content-encoding" in self.fields or used.encode() not in body):
            return  # the nonce must be replaced in the copy, and it cannot be found
        self.copies.store(
            self,
            {
                "headers": [[n, v] for n, v in self.headers if n.lower() not in _NOT_STORED],
                "body": body,
                "nonce": used,
                "at": self.copies.clock.time(),
            },
        )


def _report(
    saw: WSGIEnvironment, inputs: CopyInputs | None = None, reason: str = "", detail: str = ""
) -> None:
    """Tell what became of a copy to who asked for it with the request."""
    report = find_report(saw)
    if report is not None:
        names, cookies = ((), ()) if inputs is None else (inputs.names, inputs.cookies)
        decision = CacheDecision(
            cache="fallback",
            kept=not reason,
            names=names,
            cookies=cookies,
            reason=reason,
            detail=detail,
        )
        report.decisions.append(decision)


def _name_index(key: Key) -> Any:
    return "fallback", _VERSION, *key  # the cache takes tuples, too


def _name_copy(key: Key, ident: str) -> Any:
    return "fallback", _VERSION, *key, ident

"""One trip to the application: what is done with the response that it brings.

``start_response`` is held back until the application has returned, for only then is it known what
becomes of the response: a 304 freshens what is stored, an error may be covered by it, a response
that may be stored is recorded while it passes, and everything else passes as it is, the
application's own iterable untouched, so that ``wsgi.file_wrapper`` stays what it is. One that uses
``write()`` is never stored.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .body_tee import BodyTee, ResumedBody, close_body, is_file
from .collapsing import CollapsedRequest, CollapseOutcome
from .rfc9111 import (
    CacheVerdict,
    ForwardReason,
    Headers,
    ResponseFacts,
    judge,
    matches,
    same_response,
    updated,
)
from .store import MemoryEntry
from .stored_response import StoredResponse, nonced_headers, split

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from .layer import HttpCacheLayer

__all__ = ["CACHE_INTENT", "CacheIntent", "OriginFetch"]

logger = logging.getLogger("om_plugins")

CACHE_INTENT = "om_plugins.http_cache"
"""Where the environ keeps the :class:`CacheIntent` of a request that may be stored."""

_ERRORS = frozenset({500, 502, 503, 504})
_UNSET = object()


class CacheIntent:
    """What the application and its framework say about a response before it starts.

    Attributes:
        allowed: it is meant for everybody (``@om.cached(shared=True)``).
        refused: why it is not to be stored; "" when nobody objects.
        tags: what it can be purged by.
        query: whether the query is part of its key.
    """

    __slots__ = ("_trip", "allowed", "query", "refused", "tags")

    def __init__(self, trip: OriginFetch) -> None:
        self._trip = trip
        self.allowed = False
        self.refused = ""
        self.tags: tuple[str, ...] = ()
        self.query = True

    def allow(self, tags: tuple[str, ...] = (), *, query: bool = True) -> None:
        """Say that the response is meant for everybody."""
        self.allowed = True
        self.tags = tags
        self.query = query

    def refuse(self, reason: str) -> None:
        """Say that the response is for this caller only."""
        self.refused = self.refused or reason

    def join(self) -> bool:
        """Whether another request is making this very response: what this one returns is then
        dropped, and the other's is sent."""
        return self._trip.join()


class OriginFetch:
    """One request on its way to the application and back.

    Args:
        layer: the layer that it belongs to.
        environ, start_response: the request.
        ident: the key of its address.
        held: what is stored and may not be used without asking, if there is something.
        forward: why the application is asked.
        background: nobody waits; the answer is only stored.

    Attributes:
        outcome: ``stored``, ``validated``, ``refused`` or ``failed``, once it is over.
    """

    def __init__(
        self,
        layer: HttpCacheLayer,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        ident: str,
        held: MemoryEntry | None,
        forward: ForwardReason,
        *,
        background: bool = False,
    ) -> None:
        self.layer = layer
        self.environ = environ
        self.ident = self._boarded = ident
        self.held = held
        self.forward = forward
        self.outcome = ""
        self.flight: CollapsedRequest | None = None
        self.mark = (0, 0.0)
        self.requested = 0.0
        self.began = 0.0
        self.ticket = CacheIntent(self)
        self._start_response = start_response
        self._background = background
        self._status = ""
        self._headers: Headers = []
        self._marks: dict[str, Any] = {}
        self._sent = False
        self._following: CollapsedRequest | None = None
        self._validating = False
        self._alone = False
        self._get = environ["REQUEST_METHOD"] == "GET"

    # --- the way there ----------------------------------------------------------------------------

    def go(self) -> Iterable[bytes]:
        """Ask the application, or wait for one who does."""
        if self._get and (self.layer.everything or self.held is not None) and self._is_plain():
            flight, leads = self.layer.board.board(self.ident)
            if not leads and flight is not None:
                answer = self._follow(flight)
                if answer is not None:
                    return answer
                flight = None
            self.flight = flight
        return self._ask()

    def join(self) -> bool:
        """See :meth:`CacheIntent.join`."""
        if self.flight is not None or self._alone or not self._get or self._background:
            return False
        if not self._is_plain():
            return False
        flight, leads = self.layer.board.board(self.ident)
        if leads or flight is None:
            self.flight = flight
            return False
        self._following = flight
        return True

    def _is_plain(self) -> bool:
        """Whether others may wait for this response."""
        return "HTTP_RANGE" not in self.environ and "HTTP_AUTHORIZATION" not in self.environ

    def _ask(self) -> Iterable[bytes]:
        layer, environ = self.layer, self.environ
        self.mark = layer.store.mark()
        self.requested = layer.clock.time()
        self.began = layer.clock.monotonic()
        environ[CACHE_INTENT] = self.ticket
        before = self._set_validators()
        try:
            body = layer.app(environ, self._start)
            if not self._status and not self._sent:
                body = self._until_started(body)
        except BaseException as error:
            self._unset_validators(before)
            self.outcome = "failed"
            if isinstance(error, Exception):
                answer = self._covered(0)
                if answer is not None:
                    self._covers(error)
                    return answer
            self.over(failed=True)
            raise
        self._unset_validators(before)
        try:
            return self._arrived(body)
        except BaseException:
            self.over(failed=True)  # nobody must wait for what never comes
            raise

    def _covers(self, error: Exception) -> None:
        path = self.ident.partition("\n")[0]
        logger.warning(
            "%s failed, a stale response covers it: %s: %s",
            path,
            type(error).__name__,
            error,
            exc_info=error,
        )

    def _set_validators(self) -> dict[str, Any]:
        """Make the request a conditional one; returns what was there before."""
        held = self.held
        before: dict[str, Any] = {}
        if held is None or not self._get or "HTTP_RANGE" in self.environ:
            return before
        kept = held.kept
        assert isinstance(kept, StoredResponse)  # noqa: S101 - for mypy: an index is never validated
        verdict = kept.verdict
        modified = next((v for n, v in kept.headers if n.lower() == "last-modified"), "")
        new = {
            "HTTP_IF_NONE_MATCH": verdict.etag,
            "HTTP_IF_MODIFIED_SINCE": modified if verdict.modified is not None else "",
        }
        if not any(new.values()):
            return before
        self._validating = True
        for name, value in new.items():
            before[name] = self.environ.get(name, _UNSET)
            if value:
                self.environ[name] = value
            else:
                self.environ.pop(name, None)
        return before

    def _unset_validators(self, before: dict[str, Any]) -> None:
        for name, value in before.items():
            if value is _UNSET:
                self.environ.pop(name, None)
            else:
                self.environ[name] = value

    def _until_started(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """A generator may call ``start_response`` only when its first piece is asked for."""
        iterator = iter(body)
        first: list[bytes] = []
        while not self._status and not self._sent:
            try:
                first.append(next(iterator))
            except StopIteration:
                break
            except BaseException:
                close_body(body)
                raise
        return ResumedBody(body, first, iterator)

    # --- start_response ---------------------------------------------------------------------------

    def _start(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
    ) -> Callable[[bytes], object]:
        if self._sent:
            return self._call(status, headers, exc_info)
        # a second call needs no exc_info: nobody was told of the first
        self._status, self._headers = status, headers
        if self._is_none_of_ours():
            self._sent = True
            return self._call(status, headers, None)
        self._marks = self.layer.hooks.marks(self.environ)
        for name, value in self._marks.items():  # what some are read from is gone by then
            self.environ.setdefault(name, value)
        return self._write

    def _is_none_of_ours(self) -> bool:
        """Whether nobody said that this page is for everybody: it passes as it is."""
        if self.layer.everything or self.flight is not None or self.held is not None:
            return False
        return not self.ticket.allowed and self._following is None

    def _write(self, data: bytes) -> object:
        """The old imperative way of sending: never stored."""
        if not self._sent:
            self._sent = True
            self._real_write = self._call(self._status, list(self._headers), None)
            self.layer.store.refuse("write")
            self.over(private=True)
        return self._real_write(data)

    def _call(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def _send(self, extra: list[tuple[str, str]]) -> None:
        self._sent = True
        self._call(self._status, [*self._headers, *extra], None)

    # --- the way back -----------------------------------------------------------------------------

    def _arrived(self, body: Iterable[bytes]) -> Iterable[bytes]:
        if self._following is not None and not self._sent:
            return self._sent_along(body)
        if self._sent or not self._status:
            self.over(private=True)
            return body
        code = _number(self._status)
        facts = self._facts(code)
        if self._validating and code == 304 and self.held is not None:
            return self._validated(body, facts)
        if code in _ERRORS:
            answer = self._covered(code)
            if answer is not None:
                close_body(body)
                return answer
        if not self._get:
            return self._head(body, facts)
        verdict = judge(facts, self.layer.judging(self.ident))
        reason = self._objection(body, facts) or verdict.refused
        if reason:
            return self._passed(body, facts, reason)
        return self._recorded(body, facts, verdict)

    def _facts(self, code: int) -> ResponseFacts:
        return ResponseFacts(
            code,
            self._headers,
            authorized="HTTP_AUTHORIZATION" in self.environ,
            no_store="no-store" in self.layer.request_directives(self.environ),
            requested_at=self.requested,
            received_at=self.layer.clock.time(),
        )

    def _objection(self, body: object, facts: ResponseFacts) -> str:
        """Why the response is not stored, beyond what its headers say."""
        layer, ticket = self.layer, self.ticket
        if ticket.refused:
            return ticket.refused
        if not (layer.everything or ticket.allowed):
            return "not-shared"
        if not layer.may_store(self.ident):
            return "route"
        if self.forward is ForwardReason.BYPASS or "HTTP_RANGE" in self.environ:
            return "request"
        if is_file(self.environ.get("wsgi.file_wrapper"), body):
            return "file"  # the server sends it faster than anything here could
        length = facts.one("content-length")
        if length is not None and length.isdigit() and int(length) > layer.max_body:
            return "size"
        encoded = "content-encoding" in facts.fields
        if encoded and layer.hooks.used_nonce(self.environ) is not None:
            layer.say_compressed(self.ident)
            return "nonce"  # it cannot be found in there
        return ""

    def _validated(self, body: Iterable[bytes], facts: ResponseFacts) -> Iterable[bytes]:
        """The application says that what is stored still holds."""
        close_body(body)
        held = self.held
        assert held is not None and isinstance(held.kept, StoredResponse)  # noqa: S101 - for mypy
        kept = held.kept
        if not same_response(kept.verdict.etag, kept.verdict.modified, facts):
            self.held, self._validating, self._status = None, False, ""
            return self._ask()  # a 304 about something else: ask for the whole
        nonce = self.layer.hooks.used_nonce(self.environ)
        news = self.layer.dated(self._headers, facts.received_at)
        if nonce is not None and kept.nonce:  # the stored body knows it under another name
            news = [(name, value.replace(nonce, kept.nonce)) for name, value in news]
        fresh = ResponseFacts(
            kept.code,
            updated(kept.headers, news),
            authorized=facts.authorized and not kept.verdict.public,
            requested_at=self.requested,
            received_at=facts.received_at,
        )
        verdict = judge(fresh, self.layer.judging(self.ident))
        made = self.layer.made(kept.status, fresh, verdict, kept.body, kept)
        reason = verdict.refused or self.ticket.refused
        self.layer.store.count("validated")
        if reason:
            self.layer.store.refuse(reason)
            self.layer.forget(self.ident, held)
            self.over(private=True)
        else:
            self.layer.keep(self.ident, made, self.environ, self.mark)
            self.over(made)
            self.outcome = "validated"
        details = [("fwd", ForwardReason.STALE), ("fwd-status", 304)]
        return self.layer.answer(self.environ, self._start_response, made, details)

    def _covered(self, code: int) -> Iterable[bytes] | None:
        """A stale response in place of an error, where that is allowed (RFC 5861 section 4)."""
        held = self.held
        if self._sent or held is None or not isinstance(held.kept, StoredResponse):
            return None
        now = self.layer.clock.monotonic()
        age, verdict = now - held.stored, held.kept.verdict
        self.layer.store.count("failures")
        if verdict.validate or age - verdict.lifetime_s > verdict.if_error_s:
            return None
        if "HTTP_RANGE" in self.environ or now >= held.gone_at:
            return None
        self.outcome = "failed"
        self.over(held.kept)
        self.layer.store.count("stale")
        left = math.floor(verdict.lifetime_s - age)
        details: list[tuple[str, object]] = [
            ("hit", True),
            ("ttl", left),
            ("fwd", ForwardReason.STALE),
        ]
        if code:
            details.append(("fwd-status", code))
        return self.layer.answer(self.environ, self._start_response, held.kept, details)

    def _head(self, body: Iterable[bytes], facts: ResponseFacts) -> Iterable[bytes]:
        """A HEAD may bring news of the stored GET (RFC 9111 section 4.3.5)."""
        held = self.held
        if (
            held is not None
            and isinstance(held.kept, StoredResponse)
            and facts.status == held.kept.code
        ):
            kept = held.kept
            length = facts.one("content-length")
            same = same_response(kept.verdict.etag, kept.verdict.modified, facts)
            if same and (length is None or length == str(kept.size)):
                fresh = ResponseFacts(
                    kept.code,
                    updated(kept.headers, self.layer.dated(self._headers, facts.received_at)),
                    requested_at=self.requested,
                    received_at=facts.received_at,
                )
                verdict = judge(fresh, self.layer.judging(self.ident))
                if not verdict.refused:
                    made = self.layer.made(kept.status, fresh, verdict, kept.body, kept)
                    self.layer.keep(self.ident, made, self.environ, self.mark)
            else:
                self.layer.forget(self.ident, held)
        self.over(private=True)
        self._send(self._told(facts.status))
        return body

    def _passed(self, body: Iterable[bytes], facts: ResponseFacts, reason: str) -> Iterable[bytes]:
        """The response is not stored, and leaves as it came."""
        layer = self.layer
        self.outcome = "failed" if facts.status >= 500 else "refused"
        if reason != "request":
            layer.store.refuse(reason)
        if self.held is not None and facts.status < 500 and "HTTP_RANGE" not in self.environ:
            layer.forget(self.ident, self.held)  # what replaced it is not for everybody
        self.over(private=facts.status < 500)
        self._send(self._told(facts.status))
        if facts.status == 304 and self.held is None and layer.everything:
            self._fill(facts)
        return body

    def _fill(self, facts: ResponseFacts) -> None:
        """A browser has the page and this cache has not: fetch it for the next one."""
        whole = ResponseFacts(200, facts.headers, received_at=facts.received_at)
        if not judge(whole, self.layer.judging(self.ident)).refused and not self.ticket.refused:
            self.layer.refresh_later(self.ident, self.environ, None)

    def _told(self, status: int, stored: bool = False) -> list[tuple[str, str]]:
        if not (self.layer.everything or self.ticket.allowed or self.held is not None):
            return []
        details: list[tuple[str, object]] = [("fwd", self.forward)]
        if self._validating:
            details.append(("fwd-status", status))
        if stored:
            details.append(("stored", True))
        return self.layer.status(details)

    # --- storing ----------------------------------------------------------------------------------

    def _recorded(
        self, body: Iterable[bytes], facts: ResponseFacts, verdict: CacheVerdict
    ) -> Iterable[bytes]:
        layer = self.layer
        if not self.ticket.query:
            self.ident = layer.without_query(self.environ) or self.ident
        head = layer.made(self._status, facts, verdict, b"", None)
        if self.flight is not None and self._may_be_sent_along(facts):
            self.flight.open(head, layer.variant_of(verdict.vary, self.environ))
        recorder = BodyTee(self, body, facts, verdict)
        conditional = (
            "HTTP_IF_NONE_MATCH" in self.environ or "HTTP_IF_MODIFIED_SINCE" in self.environ
        )
        if (
            conditional
            and facts.status == 200
            and matches(self.environ, verdict.etag, verdict.modified, head.made)
        ):
            return self._known(recorder, head)
        hooks = layer.hooks
        if hooks.used_nonce(self.environ) is not None:
            hooks.fresh_nonce(self.environ)  # says that this page is one of ours
            self._headers = nonced_headers(list(self._headers), hooks.outgoing)
        self._send(self._told(facts.status, stored=True))
        return recorder

    def _known(self, recorder: BodyTee, head: StoredResponse) -> Iterable[bytes]:
        """The client has this very response: it gets a 304, and the cache the body."""
        try:
            for _ in recorder:
                pass
        finally:
            recorder.close()
        details: list[tuple[str, object]] = [("fwd", self.forward), ("stored", True)]
        return self.layer.answer(self.environ, self._start_response, head, details)

    def _may_be_sent_along(self, facts: ResponseFacts) -> bool:
        """Whether others may begin to send before the end: not what may still use a nonce."""
        content_type = (facts.one("content-type") or "").lower()
        return "html" not in content_type and not self.layer.hooks.used_nonce(self.environ)

    def finish(self, body: bytes, facts: ResponseFacts, verdict: CacheVerdict) -> None:
        """The whole body is there: store the response."""
        layer = self.layer
        made: StoredResponse | None = layer.made(self._status, facts, verdict, body, None)
        assert made is not None  # noqa: S101 - for mypy
        made.tags = self.ticket.tags
        made.fetch_s = layer.clock.monotonic() - self.began
        made.marks = self._marks | layer.hooks.marks(self.environ)
        reason = self.ticket.refused
        nonce = layer.hooks.used_nonce(self.environ)
        if nonce is not None:
            made = split(made, nonce, layer.hooks.outgoing)
            reason = reason or ("" if made is not None else "nonce")
        if reason or made is None:
            layer.store.refuse(reason)
            self.outcome = "refused"
            self.over(private=True)
            return
        kept = layer.keep(self.ident, made, self.environ, self.mark)
        self.outcome = "stored" if kept else "refused"
        self.over(made)

    def broke_off(self, reason: str) -> None:
        """The body did not end well, or grew too large."""
        if reason:
            self.layer.store.refuse(reason)
        self.outcome = "failed"
        self.over(failed=True)

    def too_large(self) -> None:
        """The body grew over the limit: it goes on to those who have begun to send it."""
        self.layer.store.refuse("size")
        if self.flight is not None:
            self.flight.forget_chunks()
            self.layer.board.leave(self._boarded, self.flight, private=True)

    def over(
        self, kept: StoredResponse | None = None, *, private: bool = False, failed: bool = False
    ) -> None:
        flight, self.flight = self.flight, None
        if flight is not None:
            if kept is not None:
                flight.variant = self.layer.variant_of(kept.verdict.vary, self.environ)
            self.layer.board.leave(self._boarded, flight, private=private)
            flight.end(kept, failed=failed)

    # --- with another's trip ----------------------------------------------------------------------

    def _sent_along(self, own: Iterable[bytes]) -> Iterable[bytes]:
        """The view has left this request to another's trip: its own response is dropped."""
        close_body(own)
        flight, self._following = self._following, None
        assert flight is not None  # noqa: S101 - for mypy
        answer = self._follow(flight)
        if answer is not None:
            return answer
        self._alone, self._status = True, ""
        self.ticket = CacheIntent(self)
        return self._ask()

    def _follow(self, flight: CollapsedRequest) -> Iterable[bytes] | None:
        """What the other trip brings; ``None`` when it is not for this request."""
        layer, environ = self.layer, self.environ
        landing = flight.wait(layer.wait_s)
        head = flight.head
        if landing is CollapseOutcome.OPEN and head is not None and not self._background:
            wanted = layer.variant_of(head.verdict.vary, environ)
            conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
            if wanted == flight.variant and not conditional:
                along = flight.follow()
                if along is not None:
                    layer.store.count("coalesced")
                    details = [("fwd", self.forward), ("collapsed", True)]
                    headers = [*head.headers, ("Age", "0"), *layer.status(details)]
                    self._start_response(head.status, headers)
                    return along
        if landing is CollapseOutcome.OPEN:
            landing = flight.wait(layer.wait_s, whole=True)
        if landing is CollapseOutcome.UNDER_WAY:
            layer.board.pass_by(self.ident)  # it takes too long to wait for
        kept = flight.kept
        if landing is not CollapseOutcome.WHOLE or kept is None:
            return None
        if layer.variant_of(kept.verdict.vary, environ) != flight.variant:
            return None
        layer.store.count("coalesced")
        details = [("fwd", self.forward), ("collapsed", True)]
        return layer.answer(environ, self._start_response, kept, details)


def _number(status: str) -> int:
    code = status[:3]
    return int(code) if code.isascii() and code.isdigit() else 0

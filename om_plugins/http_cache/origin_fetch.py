"""One request that goes to the application, and what becomes of its response.

``start_response`` is held back until the application has returned, because only then is it known
what becomes of the response. A 304 freshens the stored response. A stale response may cover an
error. A response that may be stored is copied while it passes. Everything else passes unchanged:
the application's own iterable goes to the server, so that ``wsgi.file_wrapper`` keeps working. A
response of an application that uses ``write()`` is never stored.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..core.body import close_body, is_file_body
from ..core.request_state import state_of
from .body_tee import AppCall, BodyTee
from .cache import CacheContext, CacheIntent
from .collapsing import CollapsedRequest, CollapsePart
from .fields import Directives, directives
from .keys import selecting_digest
from .rfc9111 import (
    CacheVerdict,
    ForwardReason,
    Headers,
    ResponseFacts,
    judge,
    matches,
    same_response,
    update_headers,
)
from .stored_response import (
    MemoryEntry,
    StoredResponse,
    add_date,
    build_response,
    split_at_nonce,
    weaken_etag,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger("om_plugins")

Details = Iterable[tuple[str, object]]

_ERRORS = frozenset({500, 502, 503, 504})
_NO_DIRECTIVES: Directives = {}


class OriginFetch:
    """One request on its way to the application and back.

    Args:
        context: of the cache.
        environ, start_response: the request.
        key: of its address.
        entry: a stored response that must not be used without asking, if there is one.
        reason: why the application is asked.
        background: no client waits; the response is only stored.

    Attributes:
        result: ``stored``, ``validated``, ``refused`` or ``failed``, once the fetch is over.
    """

    def __init__(
        self,
        context: CacheContext,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        key: str,
        entry: MemoryEntry | None,
        reason: ForwardReason,
        *,
        background: bool = False,
    ) -> None:
        self.result = ""
        self._context = context
        self._environ = environ
        self._state = state_of(environ)
        self._key = key
        self._entry = entry
        self._reason = reason
        self._intent = CacheIntent(self.collapse)
        self._start_response = start_response
        self._background = background
        self._get = environ["REQUEST_METHOD"] == "GET"
        self._part = CollapsePart(context.collapser, key)
        self._joined: CollapsedRequest | None = None
        self._alone = False
        self._mark = (0, 0.0)
        self._requested_at = 0.0
        self._began = 0.0
        self._marks: dict[str, Any] = {}
        self._call: AppCall
        self._facts: ResponseFacts
        self._verdict: CacheVerdict

    @property
    def _previous(self) -> StoredResponse | None:
        """The stored response that must not be used without asking."""
        content = None if self._entry is None else self._entry.content
        return content if isinstance(content, StoredResponse) else None

    # --- the request ------------------------------------------------------------------------------

    def run(self) -> Iterable[bytes]:
        """Ask the application, or wait for another request that does."""
        known = self._context.rules.everything or self._entry is not None
        if self._get and known and self._may_collapse():
            request = self._part.enter()
            answer = None if request is None else self._follow(request)
            if answer is not None:
                return answer
        return self._call_app()

    def collapse(self) -> bool:
        """Join another request that is fetching this response; see :class:`.CacheIntent`."""
        if self._part.led or self._alone or not self._get or self._background:
            return False
        if not self._may_collapse():
            return False
        self._joined = self._part.enter()
        return self._joined is not None

    def _may_collapse(self) -> bool:
        """Whether this request may wait for another, and others for this one."""
        return "HTTP_RANGE" not in self._environ and "HTTP_AUTHORIZATION" not in self._environ

    def _call_app(self) -> Iterable[bytes]:
        context, environ = self._context, self._environ
        self._mark = context.store.purge_mark()
        self._requested_at = context.clock.time()
        self._began = context.clock.monotonic()
        self._state.cache_intent = self._intent
        self._call = call = AppCall(
            context.app, environ, self._start_response, self._hold_marks, self._note_write
        )
        try:
            body = call.run(self._validators())
        except BaseException as error:
            self.result = "failed"
            if isinstance(error, Exception):
                answer = self._cover_error(0)
                if answer is not None:
                    self._log_covered(error)
                    return answer
            self._end(failed=True)
            raise
        try:
            return self._handle_response(body)
        except BaseException:
            self._end(failed=True)  # no request may wait for a response that never comes
            raise

    def _validators(self) -> dict[str, str]:
        """Return the conditions by which the application can validate the stored response."""
        previous = self._previous
        if previous is None or not self._get or "HTTP_RANGE" in self._environ:
            return {}
        verdict = previous.verdict
        modified = next((v for n, v in previous.headers if n.lower() == "last-modified"), "")
        return {
            "HTTP_IF_NONE_MATCH": verdict.etag,
            "HTTP_IF_MODIFIED_SINCE": modified if verdict.modified is not None else "",
        }

    def _log_covered(self, error: Exception) -> None:
        logger.warning(
            "%s failed, a stale response covers it: %s: %s",
            self._key.partition("\n")[0],
            type(error).__name__,
            error,
            exc_info=error,
        )

    def _hold_marks(self) -> bool:
        """Decide whether the response passes unchanged, because no view marked it as shared.

        If not, keep its marks.
        """
        known = self._context.rules.everything or self._part.led or self._entry is not None
        if not (known or self._intent.allowed or self._joined is not None):
            return True
        # the framework's request is gone when the outer layers ask for the route
        rule = getattr(self._environ.get("werkzeug.request"), "url_rule", None)
        if rule is not None:
            self._state.route = rule.rule
        self._marks = self._state.marks()
        return False

    def _note_write(self) -> None:
        """Note that the application sends by ``write()``; such a response is never stored."""
        self._context.store.count_refusal("write")
        self._end(private=True)

    def _send(self, response: StoredResponse, details: Details) -> Iterable[bytes]:
        """Send a stored response; see :meth:`.CacheContext.send`."""
        context = self._context
        status_header = context.status_header(details)
        return context.send(self._environ, self._start_response, response, status_header)

    def _status_header(self, *, stored: bool = False) -> list[tuple[str, str]]:
        context = self._context
        if not (context.rules.everything or self._intent.allowed or self._entry is not None):
            return []
        details: list[tuple[str, object]] = [("fwd", self._reason)]
        if self._call.conditional:
            details.append(("fwd-status", self._facts.status))
        if stored:
            details.append(("stored", True))
        return context.status_header(details)

    # --- the response -----------------------------------------------------------------------------

    def _handle_response(self, body: Iterable[bytes]) -> Iterable[bytes]:
        if self._joined is not None and not self._call.sent:
            return self._follow_joined(body)
        call = self._call
        if call.sent or not call.status:
            self._end(private=True)
            return body
        code = _parse_code(call.status)
        self._facts = facts = ResponseFacts(
            code,
            call.headers,
            authorized="HTTP_AUTHORIZATION" in self._environ,
            no_store="no-store" in request_directives(self._environ),
            requested_at=self._requested_at,
            received_at=self._context.clock.time(),
        )
        if call.conditional and code == 304 and self._entry is not None:
            return self._handle_not_modified(body)
        if code in _ERRORS:
            answer = self._cover_error(code)
            if answer is not None:
                close_body(body)
                return answer
        if not self._get:
            return self._handle_head(body)
        self._verdict = judge(facts, self._context.rules.options_for(self._key))
        reason = self._find_objection(body) or self._verdict.refused
        if reason:
            return self._pass_through(body, reason)
        return self._store_while_sending(body)

    def _find_objection(self, body: object) -> str:
        """Return why the response is not stored, beyond what its headers say; "" for no reason."""
        context = self._context
        if self._intent.refused:
            return self._intent.refused
        if not (context.rules.everything or self._intent.allowed):
            return "not-shared"
        if not context.rules.may_store(self._key):
            return "route"
        if self._reason is ForwardReason.BYPASS or "HTTP_RANGE" in self._environ:
            return "request"
        wrapper = self._environ.get("wsgi.file_wrapper")
        if wrapper is not None and is_file_body(wrapper, body):
            return "file"  # the server sends it faster than this cache could
        length = _declared_length(self._facts)
        if length is not None and length > context.rules.max_body:
            return "size"
        encoded = "content-encoding" in self._facts.fields
        if encoded and self._state.page_nonce is not None:
            context.warn_compressed(self._key)
            return "nonce"  # it cannot be found in an encoded body
        return ""

    def _handle_not_modified(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Freshen the stored response, which the application says is still valid."""
        close_body(body)
        context, previous, facts = self._context, self._previous, self._facts
        assert previous is not None  # noqa: S101 - for mypy: only a response is validated
        if not same_response(previous.verdict.etag, previous.verdict.modified, facts):
            self._entry = None
            return self._call_app()  # the 304 is about another response: ask for the whole
        nonce = self._state.page_nonce
        news = add_date(facts.headers, facts.received_at)
        if nonce is not None and previous.nonce:  # the stored pieces were split at another nonce
            news = [(name, value.replace(nonce, previous.nonce)) for name, value in news]
        authorized = facts.authorized and not previous.verdict.public
        response = self._freshen(previous, news, authorized=authorized)
        reason = response.verdict.refused or self._intent.refused
        context.store.count("validated")
        if reason:
            context.store.count_refusal(reason)
            self._delete_entry()
            self._end(private=True)
        else:
            context.save(self._key, response, self._environ, self._mark)
            self._end(response)
            self.result = "validated"
        details = [("fwd", ForwardReason.STALE), ("fwd-status", 304)]
        return self._send(response, details)

    def _freshen(
        self, previous: StoredResponse, news: Headers, *, authorized: bool
    ) -> StoredResponse:
        """Return a stored response with the headers of a newer one (RFC 9111 section 3.2)."""
        facts = ResponseFacts(
            previous.code,
            update_headers(previous.headers, news),
            authorized=authorized,
            requested_at=self._requested_at,
            received_at=self._facts.received_at,
        )
        return build_response(
            previous.status,
            facts,
            judge(facts, self._context.rules.options_for(self._key)),
            previous.body,
            previous=previous,
            make_private=self._context.hooks.make_private,
        )

    def _cover_error(self, code: int) -> Iterable[bytes] | None:
        """Answer with a stale response in place of an error (RFC 5861 section 4).

        Args:
            code: of the error; 0 for an exception.

        Returns:
            The body, or ``None`` where that is not allowed.
        """
        context, entry, previous = self._context, self._entry, self._previous
        if self._call.sent or entry is None or previous is None:
            return None
        now = context.clock.monotonic()
        age, verdict = now - entry.stored, previous.verdict
        context.store.count("failures")
        if verdict.validate or age - verdict.lifetime_s > verdict.if_error_s:
            return None
        if "HTTP_RANGE" in self._environ or now >= entry.gone_at:
            return None
        self.result = "failed"
        self._end(previous)
        context.store.count("stale")
        left = math.floor(verdict.lifetime_s - age)
        details: list[tuple[str, object]] = [
            ("hit", True),
            ("ttl", left),
            ("fwd", ForwardReason.STALE),
        ]
        if code:
            details.append(("fwd-status", code))
        return self._send(previous, details)

    def _handle_head(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Freshen the stored GET by the response to a HEAD (RFC 9111 section 4.3.5)."""
        previous, facts = self._previous, self._facts
        if previous is not None and facts.status == previous.code:
            length = facts.one("content-length")
            same = same_response(previous.verdict.etag, previous.verdict.modified, facts)
            if same and (length is None or length == str(previous.size)):
                news = add_date(facts.headers, facts.received_at)
                response = self._freshen(previous, news, authorized=False)
                if not response.verdict.refused:
                    self._context.save(self._key, response, self._environ, self._mark)
            else:
                self._delete_entry()
        self._end(private=True)
        self._call.send(self._status_header())
        return body

    def _pass_through(self, body: Iterable[bytes], reason: str) -> Iterable[bytes]:
        """Send a response that is not stored as it came."""
        context, status = self._context, self._facts.status
        self.result = "failed" if status >= 500 else "refused"
        if reason != "request":
            context.store.count_refusal(reason)
        if self._entry is not None and status < 500 and "HTTP_RANGE" not in self._environ:
            self._delete_entry()  # the application's new response is not for everybody
        self._end(private=status < 500)
        self._call.send(self._status_header())
        if status == 304 and self._entry is None and context.rules.everything:
            self._fetch_whole_later()
        return body

    def _delete_entry(self) -> None:
        assert self._entry is not None  # noqa: S101 - for mypy
        self._context.store.delete(str(self._entry.ident))

    def _fetch_whole_later(self) -> None:
        """Fetch a page that a client has and this cache has not, for the next client."""
        whole = ResponseFacts(200, self._facts.headers, received_at=self._facts.received_at)
        verdict = judge(whole, self._context.rules.options_for(self._key))
        if not verdict.refused and not self._intent.refused:
            self._context.refresh(self._key, self._environ, None)

    # --- storing ----------------------------------------------------------------------------------

    def _store_while_sending(self, body: Iterable[bytes]) -> Iterable[bytes]:
        context, environ, facts, verdict = self._context, self._environ, self._facts, self._verdict
        if not self._intent.query:
            self._key = context.keys.build_without_query(environ) or self._key
        head = build_response(self._call.status, facts, verdict, b"")
        led = self._part.led
        if led is not None and self._may_stream():
            led.start_streaming(head, selecting_digest(verdict.vary, environ))
        length = 0 if facts.status in (204, 205) else _declared_length(facts)
        tee = BodyTee(body, self, length, context.rules.max_body)
        conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
        if (
            conditional
            and facts.status == 200
            and matches(environ, verdict.etag, verdict.modified, head.date)
        ):
            return self._answer_known(tee, head)
        hooks = context.hooks
        if self._state.page_nonce is not None:
            self._state.stitched = True  # tells the layer of headers that this cache renews it
            self._call.headers = weaken_etag(hooks.make_private(list(self._call.headers)))
        self._call.send(self._status_header(stored=True))
        return tee

    def _answer_known(self, tee: BodyTee, head: StoredResponse) -> Iterable[bytes]:
        """Send 304 to a client that has this very response; the cache gets the body."""
        try:
            for _ in tee:
                pass
        finally:
            tee.close()
        details: list[tuple[str, object]] = [("fwd", self._reason), ("stored", True)]
        return self._send(head, details)

    def _may_stream(self) -> bool:
        """Whether followers may stream the body: not one that may still use a nonce."""
        content_type = (self._facts.one("content-type") or "").lower()
        return "html" not in content_type and not self._state.page_nonce

    @property
    def followed(self) -> bool:
        """See :class:`.TeeTarget`."""
        led = self._part.led
        return led is not None and led.followed

    def receive(self, chunk: bytes) -> None:
        """See :class:`.TeeTarget`."""
        led = self._part.led
        if led is not None:
            led.add(chunk)

    def complete(self, body: bytes) -> None:
        """Store the response: its whole body is there."""
        context = self._context
        response: StoredResponse | None
        response = build_response(self._call.status, self._facts, self._verdict, body)
        response.tags = self._intent.tags
        response.fetch_s = context.clock.monotonic() - self._began
        response.marks = self._marks | self._state.marks()
        reason = self._intent.refused
        nonce = self._state.page_nonce
        if nonce is not None:
            response = split_at_nonce(response, nonce, context.hooks.make_private)
            reason = reason or ("" if response is not None else "nonce")
        if reason or response is None:
            context.store.count_refusal(reason)
            self.result = "refused"
            self._end(private=True)
            return
        saved = context.save(self._key, response, self._environ, self._mark)
        self.result = "stored" if saved else "refused"
        self._end(response)

    def abort(self, reason: str) -> None:
        """See :class:`.TeeTarget`."""
        self._context.store.count_refusal(reason)
        self.result = "failed"
        self._end(failed=True)

    def overflow(self) -> None:
        """Stop collapsing; followers that stream the body already get it to its end."""
        self._context.store.count_refusal("size")
        self._part.stop_storing()

    def end_unstored(self) -> None:
        """See :class:`.TeeTarget`."""
        self._end(private=True)

    def _end(
        self,
        stored: StoredResponse | None = None,
        *,
        private: bool = False,
        failed: bool = False,
    ) -> None:
        """Release the requests that wait for this one."""
        selects = "" if stored is None else selecting_digest(stored.verdict.vary, self._environ)
        self._part.end(stored, selects, private=private, failed=failed)

    # --- following another request ----------------------------------------------------------------

    def _follow_joined(self, own: Iterable[bytes]) -> Iterable[bytes]:
        """Drop this request's own response and send that of the request that it joined."""
        close_body(own)
        request, self._joined = self._joined, None
        assert request is not None  # noqa: S101 - for mypy
        answer = self._follow(request)
        if answer is not None:
            return answer
        self._alone = True
        self._intent = CacheIntent(self.collapse)
        return self._call_app()

    def _follow(self, request: CollapsedRequest) -> Iterable[bytes] | None:
        """Answer with another request's response; ``None`` when it is not for this client."""
        context, environ = self._context, self._environ
        conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
        may_stream = not (conditional or self._background)
        found = self._part.follow(request, environ, context.rules.wait_s, may_stream=may_stream)
        if found is None:
            return None
        response, body = found
        context.store.count("coalesced")
        details = [("fwd", self._reason), ("collapsed", True)]
        if body is None:
            return self._send(response, details)
        headers = [*response.headers, ("Age", "0"), *context.status_header(details)]
        self._start_response(response.status, headers)
        return body


def request_directives(environ: WSGIEnvironment) -> Directives:
    """Parse the request's own ``Cache-Control``."""
    value = environ.get("HTTP_CACHE_CONTROL")
    return directives(value) if value else _NO_DIRECTIVES


def _parse_code(status: str) -> int:
    code = status[:3]
    return int(code) if code.isascii() and code.isdigit() else 0


def _declared_length(facts: ResponseFacts) -> int | None:
    length = facts.one("content-length")
    return int(length) if length is not None and length.isdigit() else None

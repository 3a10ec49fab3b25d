"""One request that goes to the application, and what becomes of its response.

``start_response`` is held back until the application has returned, because only then is it known
what becomes of the response. A 304 freshens the stored response. A stale response may cover an
error. A response that may be stored is copied while it passes. Everything else passes unchanged:
the application's own iterable goes to the server, so that ``wsgi.file_wrapper`` keeps working. A
response of an application that uses ``write()`` is never stored.

Which inputs the response depends on is known at its last byte, so that is when it is stored.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...cache.responses.decisions import quote_detail
from ...core.body import close_body
from ...core.request_state import state_of
from ..cache import CacheContext, CacheIntent
from ..keys import remove_query
from ..rfc9111 import (
    ForwardReason,
    Headers,
    ResponseFacts,
    matches,
    same_response,
    update_headers,
)
from ..store import Selection
from ..stored_response import StoredResponse, add_date, split_at_nonce, weaken_etag
from .body_tee import AppCall, BodyTee
from .collapsing import CollapsePart
from .crowd import Crowd
from .front_request import FrontRequest
from .response_judge import ResponseJudge, declared_length

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger("om_plugins")

Details = Iterable[tuple[str, object]]

_ERRORS = frozenset({500, 502, 503, 504})
_FOR_A_WHILE = frozenset({408, 425, 429})
"""Errors that say nothing about the page: the stored one stays, as it does after a 5xx."""


class OriginFetch:
    """One request on its way to the application and back.

    Args:
        context: of the cache.
        environ, start_response: the request.
        key: of its address.
        selected: what is stored for it: a response that must not be used without asking, or none,
            and why the application is asked.
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
        selected: Selection,
        *,
        background: bool = False,
    ) -> None:
        self.result = ""
        self._context = context
        self._environ = environ
        self._state = state_of(environ)
        self._key = key
        self._entry = selected.entry
        self._reason = selected.reason
        self._selected = selected
        self._background = background
        self._front = FrontRequest(environ, context.inputs)
        self._intent = CacheIntent(self._collapse)
        self._joined: Crowd | None = None
        self._start_response = start_response
        self._get = environ["REQUEST_METHOD"] == "GET"
        self._streamed: tuple[object, ...] | None = None
        self._mark = (0, 0.0)
        self._requested_at = 0.0
        self._began = 0.0
        self._marks: dict[str, Any] = {}
        self._call: AppCall
        self._judge: ResponseJudge

    # A response that no view marked as shared passes, and pays neither for a crowd nor for a judge.

    @property
    def _crowd(self) -> Crowd:
        found = self._joined
        if found is None:
            found = self._joined = Crowd(
                self._context,
                self._environ,
                self._front,
                self._key,
                self._selected,
                background=self._background,
            )
        return found

    @property
    def _part(self) -> CollapsePart:
        return self._crowd.part

    def _collapse(self) -> bool:
        """See :class:`.CacheIntent`."""
        return self._crowd.collapse()

    @property
    def _found(self) -> bool:
        """Whether another request's response is for this client, too."""
        return self._joined is not None and self._joined.found is not None

    @property
    def _previous(self) -> StoredResponse | None:
        """The stored response that must not be used without asking."""
        content = None if self._entry is None else self._entry.content
        return content if isinstance(content, StoredResponse) else None

    # --- the request ------------------------------------------------------------------------------

    def run(self) -> Iterable[bytes]:
        """Ask the application, or wait for another request that does."""
        known = self._context.rules.everything or self._entry is not None
        if known and self._crowd.wait():
            return self._crowd.send(self._start_response)
        return self._call_app()

    def _call_app(self) -> Iterable[bytes]:
        context, environ = self._context, self._environ
        self._mark = context.store.purge_mark()
        self._requested_at = context.clock.time()
        self._began = context.clock.monotonic()
        self._state.cache_intent = self._intent
        if not context.observes and context.ignores_query(environ):
            environ = remove_query(environ)  # what the host looks at cannot be observed
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
        known = self._context.rules.everything or self._entry is not None
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
        self._read_head()
        self._declare()
        self._end(private=True)

    def _send(self, response: StoredResponse, details: Details) -> Iterable[bytes]:
        """Send a stored response; see :meth:`.CacheContext.send`."""
        context = self._context
        status_header = context.status_header(details)
        return context.send(self._environ, self._start_response, response, status_header)

    def _status_header(self, *, stored: bool = False, detail: str = "") -> list[tuple[str, str]]:
        context, intent = self._context, self._intent
        marked = intent.allowed or bool(intent.refused)
        if not (context.rules.everything or marked or self._entry is not None):
            return []
        details: list[tuple[str, object]] = [("fwd", self._reason)]
        if self._call.conditional:
            details.append(("fwd-status", self._judge.facts.status))
        if stored:
            details.append(("stored", True))
        if detail and context.rules.detail:
            details.append(("detail", quote_detail(detail)))
        return context.status_header(details)

    # --- the response -----------------------------------------------------------------------------

    def _handle_response(self, body: Iterable[bytes]) -> Iterable[bytes]:
        call = self._call
        if self._found:
            if not call.sent and call.status.startswith("200"):
                close_body(body)
                return self._crowd.send(self._start_response, call.headers)
            self._crowd.leave()  # a hook answered in place of the view
        if call.sent or not call.status:
            self._end(private=True)
            return body
        self._read_head()
        judge = self._judge
        code = judge.facts.status
        if call.conditional and code == 304 and self._entry is not None:
            return self._handle_not_modified(body)
        if code in _ERRORS:
            answer = self._cover_error(code)
            if answer is not None:
                close_body(body)
                return answer
        objection = judge.find_objection(body, self._reason)
        if not self._get:
            return self._handle_head(body)
        if objection:
            return self._pass_through(body, objection)
        return self._store_while_sending(body)

    def _read_head(self) -> None:
        self._judge = ResponseJudge(
            self._context, self._environ, self._front, self._intent, self._key
        )
        self._judge.read(_parse_code(self._call.status), self._call.headers, self._requested_at)

    def _declare(self) -> None:
        """Tell caches further out, in the headers that are held back, what code looked at."""
        if self._context.rules.everything or self._intent.allowed:
            self._call.headers = self._judge.declare(list(self._call.headers), sent=True)

    def _handle_not_modified(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Freshen the stored response, which the application says is still valid."""
        close_body(body)
        context, previous, facts = self._context, self._previous, self._judge.facts
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
        reason = response.verdict.refused or self._intent.refused or self._judge.terms.refused
        context.store.count("validated")
        if reason:
            context.store.count_refusal(reason)
            self._delete_entry()
            self._end(private=True)
        else:
            self._save(response)
            self._end(response)
            self.result = "validated"
        self._judge.explain(reason)
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
            knows_cookies=self._judge.facts.knows_cookies or previous.looks is not None,
            requested_at=self._requested_at,
            received_at=self._judge.facts.received_at,
        )
        return self._judge.build(previous.status, facts, previous.body, previous)

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
        previous, facts = self._previous, self._judge.facts
        if previous is not None and facts.status == previous.code:
            length = facts.one("content-length")
            same = same_response(previous.verdict.etag, previous.verdict.modified, facts)
            if same and (length is None or length == str(previous.size)):
                news = add_date(facts.headers, facts.received_at)
                response = self._freshen(previous, news, authorized=False)
                if not (response.verdict.refused or self._judge.terms.refused):
                    self._save(response)
            else:
                self._delete_entry()
        self._end(private=True)
        self._declare()
        self._call.send(self._status_header())
        return body

    def _pass_through(self, body: Iterable[bytes], reason: str) -> Iterable[bytes]:
        """Send a response that is not stored as it came."""
        context, status = self._context, self._judge.facts.status
        passing = status >= 500 or status in _FOR_A_WHILE
        self.result = "failed" if passing else "refused"
        if reason != "request":
            context.store.count_refusal(reason)
        if self._entry is not None and not passing and "HTTP_RANGE" not in self._environ:
            self._delete_entry()  # the application's new response is not for everybody
        self._learn(kept=False)
        self._end(private=status < 500 and reason != "cookie-read")
        self._judge.explain(reason)
        self._declare()
        self._call.send(self._status_header(detail=self._judge.describe(reason)))
        if status == 304 and self._entry is None and context.rules.everything:
            self._fetch_whole_later()
        return body

    def _learn(self, *, kept: bool) -> None:
        """Let requests wait only for those that agree with them in what this one looked at.

        Args:
            kept: the response can be kept. Of another one it may be unknown what it depends on.
        """
        terms = self._judge.terms
        if kept or terms.names or terms.cookies:
            self._crowd.learn(terms.names, terms.cookies)

    def _delete_entry(self) -> None:
        assert self._entry is not None  # noqa: S101 - for mypy
        self._context.store.delete(str(self._entry.ident))

    def _fetch_whole_later(self) -> None:
        """Fetch a page that a client has and this cache has not, for the next client."""
        verdict = self._judge.judge_whole()
        terms = self._judge.find_terms(verdict)
        # the request to an unknown host brings no cookie and no credentials
        personal = bool(terms.refused) and terms.looks is not None
        if not (verdict.refused or self._intent.refused or personal):
            self._context.refresh(self._key, self._front.environ, None, terms.looks)

    # --- storing ----------------------------------------------------------------------------------

    def _store_while_sending(self, body: Iterable[bytes]) -> Iterable[bytes]:
        context, environ, judge = self._context, self._environ, self._judge
        facts, verdict = judge.facts, judge.verdict
        if not self._intent.query:
            self._key = context.keys.build_without_query(self._front.environ) or self._key
        head = judge.build(self._call.status, facts, b"")
        led = self._part.led
        length = 0 if facts.status in (204, 205) else declared_length(facts)
        if led is not None and self._may_stream(length):
            led.start_streaming(head, self._front.digest(head.names) or "")
            self._streamed = judge.count_looks()
        tee = BodyTee(body, self, length, context.rules.max_body)
        conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
        if (
            conditional
            and facts.status == 200
            and matches(environ, verdict.etag, verdict.modified, head.date)
        ):
            return self._answer_known(tee, head)
        self._declare()
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

    def _may_stream(self, length: int | None) -> bool:
        """Whether followers may stream the body.

        Not one that may still use a nonce, and not one of unknown length that code makes while it
        is sent: it may look at this request's inputs until its end. Who already got a part could
        only be cut off.
        """
        if length is None and self._context.observes:
            return False
        content_type = (self._judge.facts.one("content-type") or "").lower()
        return "html" not in content_type and not self._state.page_nonce

    @property
    def followed(self) -> bool:
        """See :class:`.TeeTarget`."""
        led = self._part.led
        return led is not None and led.followed

    def receive(self, chunk: bytes) -> None:
        """See :class:`.TeeTarget`."""
        led = self._part.led
        if led is None:
            return
        if self._streamed is not None and self._judge.count_looks() != self._streamed:
            led.stop_streaming()  # from here on, the body may depend on this request alone
            self._streamed = None
        led.add(chunk)

    def complete(self, body: bytes) -> None:
        """Store the response: its whole body is there."""
        context = self._context
        response: StoredResponse | None
        response = self._judge.build(self._call.status, self._judge.facts, body)
        response.tags = self._intent.tags
        response.fetch_s = context.clock.monotonic() - self._began
        response.marks = self._marks | self._state.marks()
        reason = self._intent.refused or self._judge.terms.refused
        nonce = self._state.page_nonce
        if nonce is not None:
            response = split_at_nonce(response, nonce, context.hooks.make_private)
            reason = reason or ("" if response is not None else "nonce")
        self._learn(kept=not reason)
        if reason or response is None:
            context.store.count_refusal(reason)
            self.result = "refused"
            if self._entry is not None:
                self._delete_entry()
            self._end(private=reason != "cookie-read")
        else:
            self.result = "stored" if self._save(response) else "refused"
            self._end(response)
        self._judge.explain(reason)

    def _save(self, response: StoredResponse) -> bool:
        """Save a response under what its own request looked at."""
        context = self._context
        self._part.allow()
        saved = context.store.save_selected(
            self._key, response, self._front.environ, self._mark, context.rules.variants
        )
        entry = self._entry
        if entry is not None and response.looks is not None and saved != str(entry.ident):
            self._delete_entry()  # the page depends on other inputs, or has other values, now
        return bool(saved)

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
        if self._joined is None:
            return  # nobody can wait for it
        selects = "" if stored is None else self._front.digest(stored.names) or ""
        self._part.end(stored, selects, private=private, failed=failed)


def _parse_code(status: str) -> int:
    code = status[:3]
    return int(code) if code.isascii() and code.isdigit() else 0

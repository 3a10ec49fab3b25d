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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..protocols import Clock
from .body_tee import BodyTee, ResumedBody, close_body, is_file
from .collapsing import CollapsedRequest, CollapseOutcome, RequestCollapser
from .fields import Directives, directives
from .keys import AddressKeys, selecting_digest
from .memory import MemoryEntry
from .rfc9111 import (
    CacheVerdict,
    ForwardReason,
    Headers,
    ResponseFacts,
    cache_status,
    judge,
    matches,
    same_response,
    updated,
)
from .rules import CacheRules, PageHooks
from .store import ResponseStore
from .stored_response import (
    StoredResponse,
    add_date,
    build_response,
    split_at_nonce,
    weaken_etag,
)

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["CACHE_INTENT", "CacheContext", "CacheIntent", "OriginFetch", "request_directives"]

logger = logging.getLogger("om_plugins")

CACHE_INTENT = "om_plugins.http_cache"
"""Where the environ keeps the :class:`CacheIntent` of a request whose response may be stored."""

Details = Iterable[tuple[str, object]]

_ERRORS = frozenset({500, 502, 503, 504})
_UNSET = object()
_NO_DIRECTIVES: Directives = {}


@dataclass(slots=True)
class CacheContext:
    """What the requests of one cache share.

    Attributes:
        app: the application.
        store: of the responses.
        rules: of the settings.
        hooks: of the features that change pages.
        clock: time.
        keys: builds the keys of addresses.
        collapser: the requests that others may wait for.
        refresh: fetches an address in the background; given its key, a request and its entry.
    """

    app: WSGIApplication
    store: ResponseStore
    rules: CacheRules
    hooks: PageHooks
    clock: Clock
    keys: AddressKeys
    collapser: RequestCollapser
    refresh: Callable[[str, WSGIEnvironment, MemoryEntry | None], None]
    _warned: list[str] = field(default_factory=list)

    def send(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        response: StoredResponse,
        details: Details,
    ) -> Iterable[bytes]:
        """Send a stored response: whole, a part of it, or 304.

        Args:
            environ, start_response: the request.
            response: what to send.
            details: for ``Cache-Status``.
        """
        if response.marks:
            environ.update(response.marks)
        age = response.verdict.age_s + max(0.0, self.clock.time() - response.received_at)
        status, headers, body = response.answer(environ, lambda: self.hooks.fresh_nonce(environ))
        start_response(status, [*headers, ("Age", str(int(age))), *self.status_header(details)])
        return body

    def status_header(self, details: Details) -> list[tuple[str, str]]:
        """Return the ``Cache-Status`` header; an empty list when the settings want none."""
        if not self.rules.name:
            return []
        return [("Cache-Status", cache_status(self.rules.name, details))]

    def save(
        self, key: str, response: StoredResponse, environ: WSGIEnvironment, mark: tuple[int, float]
    ) -> bool:
        """Save a response; see :meth:`.ResponseStore.save_selected`."""
        self.collapser.allow(key)
        return self.store.save_selected(key, response, environ, mark, self.rules.variants)

    def warn_compressed(self, key: str) -> None:
        """Warn once that the application compresses pages that contain nonces."""
        if not self._warned:
            path = key.partition("\n")[0]
            self._warned.append(path)
            logger.warning(
                "%s is not kept by the shared HTTP cache: it has a CSP nonce and the application "
                "compressed it, so hits could not get a new one; compress HTML in the server in "
                "front instead (with Flask-Compress: leave text/html out of COMPRESS_MIMETYPES)",
                path,
            )


class CacheIntent:
    """What the application's framework says about a response before it starts.

    Attributes:
        allowed: the response is meant for everybody (``@om.cached(shared=True)``).
        refused: why it is not to be stored; "" when nobody objects.
        tags: what it can be purged by.
        query: whether the query is part of its key.
    """

    __slots__ = ("_fetch", "allowed", "query", "refused", "tags")

    def __init__(self, fetch: OriginFetch) -> None:
        self._fetch = fetch
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
        """Say that the response is meant for this client only. The first reason counts."""
        self.refused = self.refused or reason

    def collapse(self) -> bool:
        """Join a request that is fetching this very response, if there is one.

        Returns:
            Whether one was joined. The caller's own response is then dropped, and the other
            request's response is sent.
        """
        return self._fetch.collapse()


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
        self._key = self._entered_key = key
        self._entry = entry
        self._reason = reason
        self._intent = CacheIntent(self)
        self._start_response = start_response
        self._background = background
        self._get = environ["REQUEST_METHOD"] == "GET"
        self._led: CollapsedRequest | None = None
        self._joined: CollapsedRequest | None = None
        self._alone = False
        self._mark = (0, 0.0)
        self._requested_at = 0.0
        self._began = 0.0
        self._validating = False
        self._status = ""
        self._headers: Headers = []
        self._marks: dict[str, Any] = {}
        self._sent = False
        self._facts = ResponseFacts(0, ())
        self._verdict = CacheVerdict()

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
            request, leads = self._context.collapser.enter(self._key)
            if not leads and request is not None:
                answer = self._follow(request)
                if answer is not None:
                    return answer
                request = None
            self._led = request
        return self._call_app()

    def collapse(self) -> bool:
        """See :meth:`CacheIntent.collapse`."""
        if self._led is not None or self._alone or not self._get or self._background:
            return False
        if not self._may_collapse():
            return False
        request, leads = self._context.collapser.enter(self._key)
        if leads or request is None:
            self._led = request
            return False
        self._joined = request
        return True

    def _may_collapse(self) -> bool:
        """Whether this request may wait for another, and others for this one."""
        return "HTTP_RANGE" not in self._environ and "HTTP_AUTHORIZATION" not in self._environ

    def _call_app(self) -> Iterable[bytes]:
        context, environ = self._context, self._environ
        self._mark = context.store.purge_mark()
        self._requested_at = context.clock.time()
        self._began = context.clock.monotonic()
        environ[CACHE_INTENT] = self._intent
        before = self._add_validators()
        try:
            body = context.app(environ, self._hold_start)
            if not self._status and not self._sent:
                body = self._read_until_started(body)
        except BaseException as error:
            self._restore(before)
            self.result = "failed"
            if isinstance(error, Exception):
                answer = self._cover_error(0)
                if answer is not None:
                    self._log_covered(error)
                    return answer
            self._end(failed=True)
            raise
        self._restore(before)
        try:
            return self._handle_response(body)
        except BaseException:
            self._end(failed=True)  # no request may wait for a response that never comes
            raise

    def _log_covered(self, error: Exception) -> None:
        logger.warning(
            "%s failed, a stale response covers it: %s: %s",
            self._key.partition("\n")[0],
            type(error).__name__,
            error,
            exc_info=error,
        )

    def _add_validators(self) -> dict[str, Any]:
        """Make the request a conditional one; return the fields that it replaced."""
        previous = self._previous
        before: dict[str, Any] = {}
        if previous is None or not self._get or "HTTP_RANGE" in self._environ:
            return before
        verdict = previous.verdict
        modified = next((v for n, v in previous.headers if n.lower() == "last-modified"), "")
        validators = {
            "HTTP_IF_NONE_MATCH": verdict.etag,
            "HTTP_IF_MODIFIED_SINCE": modified if verdict.modified is not None else "",
        }
        if not any(validators.values()):
            return before
        self._validating = True
        for name, value in validators.items():
            before[name] = self._environ.get(name, _UNSET)
            if value:
                self._environ[name] = value
            else:
                self._environ.pop(name, None)
        return before

    def _restore(self, before: dict[str, Any]) -> None:
        for name, value in before.items():
            if value is _UNSET:
                self._environ.pop(name, None)
            else:
                self._environ[name] = value

    def _read_until_started(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Read until ``start_response`` was called: a generator may do it with its first chunk."""
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

    def _hold_start(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Hold back what the application passes to ``start_response``."""
        if self._sent:
            return self._call_start_response(status, headers, exc_info)
        # a second call needs no exc_info, because nothing of the first was sent
        self._status, self._headers = status, headers
        if self._is_not_cached():
            self._sent = True
            return self._call_start_response(status, headers, None)
        self._marks = self._context.hooks.read_marks(self._environ)
        for name, value in self._marks.items():  # some are read from objects that are gone later
            self._environ.setdefault(name, value)
        return self._write

    def _is_not_cached(self) -> bool:
        """Whether the response passes unchanged, because no view marked it as shared."""
        if self._context.rules.everything or self._led is not None or self._entry is not None:
            return False
        return not self._intent.allowed and self._joined is None

    def _write(self, data: bytes) -> object:
        """Send by the imperative way of WSGI; such a response is never stored."""
        if not self._sent:
            self._sent = True
            self._real_write = self._call_start_response(self._status, list(self._headers), None)
            self._context.store.count_refusal("write")
            self._end(private=True)
        return self._real_write(data)

    def _call_start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def _send_head(self, *, stored: bool = False) -> None:
        self._sent = True
        extra = self._status_header(stored=stored)
        self._call_start_response(self._status, [*self._headers, *extra], None)

    def _status_header(self, *, stored: bool) -> list[tuple[str, str]]:
        context = self._context
        if not (context.rules.everything or self._intent.allowed or self._entry is not None):
            return []
        details: list[tuple[str, object]] = [("fwd", self._reason)]
        if self._validating:
            details.append(("fwd-status", self._facts.status))
        if stored:
            details.append(("stored", True))
        return context.status_header(details)

    # --- the response -----------------------------------------------------------------------------

    def _handle_response(self, body: Iterable[bytes]) -> Iterable[bytes]:
        if self._joined is not None and not self._sent:
            return self._follow_joined(body)
        if self._sent or not self._status:
            self._end(private=True)
            return body
        code = _parse_code(self._status)
        self._facts = facts = ResponseFacts(
            code,
            self._headers,
            authorized="HTTP_AUTHORIZATION" in self._environ,
            no_store="no-store" in request_directives(self._environ),
            requested_at=self._requested_at,
            received_at=self._context.clock.time(),
        )
        if self._validating and code == 304 and self._entry is not None:
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
        if is_file(self._environ.get("wsgi.file_wrapper"), body):
            return "file"  # the server sends it faster than this cache could
        length = _declared_length(self._facts)
        if length is not None and length > context.rules.max_body:
            return "size"
        encoded = "content-encoding" in self._facts.fields
        if encoded and context.hooks.used_nonce(self._environ) is not None:
            context.warn_compressed(self._key)
            return "nonce"  # it cannot be found in an encoded body
        return ""

    def _handle_not_modified(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Freshen the stored response, which the application says is still valid."""
        close_body(body)
        context, previous, facts = self._context, self._previous, self._facts
        assert previous is not None  # noqa: S101 - for mypy: only a response is validated
        if not same_response(previous.verdict.etag, previous.verdict.modified, facts):
            self._entry, self._validating, self._status = None, False, ""
            return self._call_app()  # the 304 is about another response: ask for the whole
        nonce = context.hooks.used_nonce(self._environ)
        news = add_date(self._headers, facts.received_at)
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
        return context.send(self._environ, self._start_response, response, details)

    def _freshen(
        self, previous: StoredResponse, news: Headers, *, authorized: bool
    ) -> StoredResponse:
        """Return a stored response with the headers of a newer one (RFC 9111 section 3.2)."""
        facts = ResponseFacts(
            previous.code,
            updated(previous.headers, news),
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
        if self._sent or entry is None or previous is None:
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
        return context.send(self._environ, self._start_response, previous, details)

    def _handle_head(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Freshen the stored GET by the response to a HEAD (RFC 9111 section 4.3.5)."""
        previous, facts = self._previous, self._facts
        if previous is not None and facts.status == previous.code:
            length = facts.one("content-length")
            same = same_response(previous.verdict.etag, previous.verdict.modified, facts)
            if same and (length is None or length == str(previous.size)):
                news = add_date(self._headers, facts.received_at)
                response = self._freshen(previous, news, authorized=False)
                if not response.verdict.refused:
                    self._context.save(self._key, response, self._environ, self._mark)
            else:
                self._delete_entry()
        self._end(private=True)
        self._send_head()
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
        self._send_head()
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
        head = build_response(self._status, facts, verdict, b"")
        if self._led is not None and self._may_stream():
            self._led.start_streaming(head, selecting_digest(verdict.vary, environ))
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
        if hooks.used_nonce(environ) is not None:
            hooks.fresh_nonce(environ)  # tells the layer of headers that this cache renews it
            self._headers = weaken_etag(hooks.make_private(list(self._headers)))
        self._send_head(stored=True)
        return tee

    def _answer_known(self, tee: BodyTee, head: StoredResponse) -> Iterable[bytes]:
        """Send 304 to a client that has this very response; the cache gets the body."""
        try:
            for _ in tee:
                pass
        finally:
            tee.close()
        details: list[tuple[str, object]] = [("fwd", self._reason), ("stored", True)]
        return self._context.send(self._environ, self._start_response, head, details)

    def _may_stream(self) -> bool:
        """Whether followers may stream the body: not one that may still use a nonce."""
        content_type = (self._facts.one("content-type") or "").lower()
        return "html" not in content_type and not self._context.hooks.used_nonce(self._environ)

    @property
    def followed(self) -> bool:
        """See :class:`.TeeTarget`."""
        return self._led is not None and self._led.followed

    def receive(self, chunk: bytes) -> None:
        """See :class:`.TeeTarget`."""
        if self._led is not None:
            self._led.add(chunk)

    def complete(self, body: bytes) -> None:
        """Store the response: its whole body is there."""
        context = self._context
        response: StoredResponse | None
        response = build_response(self._status, self._facts, self._verdict, body)
        response.tags = self._intent.tags
        response.fetch_s = context.clock.monotonic() - self._began
        response.marks = self._marks | context.hooks.read_marks(self._environ)
        reason = self._intent.refused
        nonce = context.hooks.used_nonce(self._environ)
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
        if self._led is not None:
            self._led.stop_storing()
            self._context.collapser.finish(self._entered_key, self._led, private=True)

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
        led, self._led = self._led, None
        if led is not None:
            if stored is not None:
                led.selects = selecting_digest(stored.verdict.vary, self._environ)
            self._context.collapser.finish(self._entered_key, led, private=private)
            led.end(stored, failed=failed)

    # --- following another request ----------------------------------------------------------------

    def _follow_joined(self, own: Iterable[bytes]) -> Iterable[bytes]:
        """Drop this request's own response and send that of the request that it joined."""
        close_body(own)
        request, self._joined = self._joined, None
        assert request is not None  # noqa: S101 - for mypy
        answer = self._follow(request)
        if answer is not None:
            return answer
        self._alone, self._status = True, ""
        self._intent = CacheIntent(self)
        return self._call_app()

    def _follow(self, request: CollapsedRequest) -> Iterable[bytes] | None:
        """Answer with another request's response; ``None`` when it is not for this client."""
        context, environ = self._context, self._environ
        wait_s = context.rules.wait_s
        outcome = request.wait(wait_s)
        head = request.head
        details = [("fwd", self._reason), ("collapsed", True)]
        if outcome is CollapseOutcome.STREAMING and head is not None and not self._background:
            same = selecting_digest(head.verdict.vary, environ) == request.selects
            conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
            body = request.stream() if same and not conditional else None
            if body is not None:
                context.store.count("coalesced")
                headers = [*head.headers, ("Age", "0"), *context.status_header(details)]
                self._start_response(head.status, headers)
                return body
        if outcome is CollapseOutcome.STREAMING:
            outcome = request.wait(wait_s, complete=True)
        if outcome is CollapseOutcome.PENDING:
            context.collapser.bypass(self._key)  # it takes too long to wait for
        stored = request.stored
        if outcome is not CollapseOutcome.STORED or stored is None:
            return None
        if selecting_digest(stored.verdict.vary, environ) != request.selects:
            return None
        context.store.count("coalesced")
        return context.send(environ, self._start_response, stored, details)


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

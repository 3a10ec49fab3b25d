"""Judges the response of one request: is it stored, under which terms, and what others are told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...cache.responses.decisions import CacheDecision, find_report
from ...core.body import is_file_body
from ...core.inputs import is_session
from ...core.observed import ObservedInputs, leave_out_renewal
from ...core.request_state import state_of
from ..cache import CacheContext, CacheIntent
from ..fields import Directives, directives
from ..rfc9111 import CacheVerdict, ForwardReason, Headers, ResponseFacts, judge
from ..stored_response import StoredResponse, build_response
from .downstream import declare_inputs
from .front_request import FrontRequest, KeepingTerms, join_terms

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_NOT_FOR_CACHES = frozenset({"status", "no-store", "private", "no-freshness"})
"""Why a response is not stored in caches further out either."""
_NO_DIRECTIVES: Directives = {}


class ResponseJudge:
    """Judges the response of one request.

    Args:
        context: of the cache.
        environ: the request.
        front: the request as this layer saw it.
        intent: what the application's framework says about the response.
        key: of its address.

    Attributes:
        facts, verdict: of the head of the response, once it was read.
        terms: under which terms the response may be kept, by what is known until now.
    """

    def __init__(
        self,
        context: CacheContext,
        environ: WSGIEnvironment,
        front: FrontRequest,
        intent: CacheIntent,
        key: str,
    ) -> None:
        self._context = context
        self._environ = environ
        self._state = state_of(environ)
        self._front = front
        self._intent = intent
        self._key = key
        self._ignores_query = context.ignores_query(front.environ)
        self.facts: ResponseFacts
        self.verdict: CacheVerdict
        self.terms = KeepingTerms()
        self._renews = False

    @property
    def _inputs(self) -> ObservedInputs | None:
        """What the application looked at until now; ``None`` where that is not observed."""
        inputs = self._state.inputs if self._context.observes else None
        if inputs is not None:
            inputs.settle()
        return inputs

    @property
    def _query_left_out(self) -> bool:
        """Whether the query is no part of the key."""
        return self._ignores_query or not self._intent.query

    def read(self, code: int, headers: Headers, requested_at: float) -> None:
        """Read the head of the response.

        Args:
            code, headers: of the response.
            requested_at: Unix time of the request.
        """
        inputs = self._inputs
        looked = () if inputs is None else (*inputs.counted, *inputs.known)
        kept = headers if inputs is None else leave_out_renewal(headers, inputs)
        self._renews = len(kept) != len(headers)
        self.facts = ResponseFacts(
            code,
            kept,
            authorized="HTTP_AUTHORIZATION" in self._environ,
            no_store="no-store" in request_directives(self._environ),
            # Flask names Cookie in Vary when code looks at the session, whichever keys it reads
            knows_cookies=any(map(is_session, looked)),
            requested_at=requested_at,
            received_at=self._context.clock.time(),
        )
        self.verdict = self._judge(self.facts)

    def _judge(self, facts: ResponseFacts) -> CacheVerdict:
        verdict = judge(facts, self._context.rules.options_for(self._key))
        if self._is_ours and not self._context.observes:
            # this package wrote it, which does not know what middleware further in looks at
            verdict = replace(verdict, public=False, shared=False)
        return verdict

    @property
    def _is_ours(self) -> bool:
        """Whether this package wrote the ``Cache-Control`` of the response."""
        return bool(self._intent.control)

    def judge_whole(self) -> CacheVerdict:
        """Judge the response as if it was whole, although it is a 304."""
        facts = self.facts
        return self._judge(ResponseFacts(200, facts.headers, received_at=facts.received_at))

    def find_objection(self, body: object, reason: ForwardReason) -> str:
        """Return why the response is not stored; "" for no reason.

        Args:
            body: of the response.
            reason: why the application was asked.
        """
        context, intent = self._context, self._intent
        if not (context.rules.everything or intent.allowed):
            return intent.refused or "not-shared"
        terms = self.terms = self.find_terms(self.verdict)
        wrapper = self._environ.get("wsgi.file_wrapper")
        length = declared_length(self.facts)
        encoded = "content-encoding" in self.facts.fields and self._state.page_nonce is not None
        if encoded:
            context.warn_compressed(self._key)
        table = (
            (bool(intent.refused), intent.refused),
            (not context.rules.may_store(self._key), "route"),
            (reason is ForwardReason.BYPASS and not terms.refused, "request"),
            ("HTTP_RANGE" in self._environ, "request"),
            # the server sends it faster than this cache could
            (wrapper is not None and is_file_body(wrapper, body), "file"),
            (length is not None and length > context.rules.max_body, "size"),
            (encoded, "nonce"),  # it cannot be found in an encoded body
            (bool(self.verdict.refused), self.verdict.refused),
            (self._is_error_of_one(), "error"),
            (bool(terms.refused), terms.refused),
        )
        return next((word for refused, word in table if refused), "")

    def _is_error_of_one(self) -> bool:
        """Whether the response is an error that its view did not mean for all."""
        failed = self.facts.status >= 400 and self._inputs is not None
        return failed and not self._state.view_freshness

    def find_terms(self, verdict: CacheVerdict) -> KeepingTerms:
        """Find under which terms a response may be kept, by what is known until now."""
        terms = self._find_terms(self._inputs, verdict)
        seen = self._state.inputs
        if terms.refused or self._context.observes or seen is None:
            return terms
        seen.settle()  # what a part of the application looked at counts as well
        also = self._find_terms(seen, verdict)
        return KeepingTerms(
            tuple(sorted({*terms.names, *also.names})),
            terms.cookies or also.cookies,
            refused=also.refused,
            detail=also.detail,
        )

    def _find_terms(self, inputs: ObservedInputs | None, verdict: CacheVerdict) -> KeepingTerms:
        return self._front.find_terms(
            inputs,
            verdict,
            cookie_variants=self._context.rules.cookies,
            query_left_out=self._query_left_out,
        )

    def count_looks(self) -> tuple[object, ...]:
        """Return what changes with every look at another input."""
        inputs = self._inputs
        if inputs is None:
            return ()
        return (
            len(inputs.counted), len(inputs.parameters), inputs.refused, inputs.session_changed,
        )  # fmt: skip

    def build(
        self,
        status: str,
        facts: ResponseFacts,
        body: bytes,
        previous: StoredResponse | None = None,
    ) -> StoredResponse:
        """Build the stored form of a response, under the terms that are known now.

        Args:
            status: such as ``200 OK``.
            facts: about it.
            body: its whole body.
            previous: the stored response that a 304 freshened.
        """
        verdict = self.verdict if facts is self.facts else self._judge(facts)
        terms = self.find_terms(verdict)
        self.terms = terms = terms if previous is None else join_terms(terms, previous)
        response = build_response(
            status,
            facts,
            verdict,
            body,
            previous=previous,
            make_private=self._context.hooks.make_private,
            declare=self.declare,
        )
        response.names, response.cookies, response.looks = terms.names, terms.cookies, terms.looks
        response.any_query = self._query_left_out
        return response

    def declare(
        self, headers: list[tuple[str, str]], *, sent: bool = False
    ) -> list[tuple[str, str]]:
        """Return headers that tell caches further out which inputs code looked at.

        Args:
            headers: of the response.
            sent: they are this client's own, which may have a cookie that is not stored. They leave
                before a streamed body has looked at anything.
        """
        inputs = self._inputs
        if inputs is None:
            if not self._is_ours:
                return headers
            return declare_inputs(headers, (), personal=True, ours=self._intent.control)
        verdict = self.judge_whole() if self.facts.status == 304 else self.verdict
        if verdict.refused in _NOT_FOR_CACHES:
            return headers
        looks = self.terms.looks
        return declare_inputs(
            headers,
            inputs.counted if looks is None else looks.counted,
            personal=bool(inputs.refused)
            or inputs.session_changed
            or inputs.identified
            or (sent and (self._renews or self._intent.streamed)),
            ours=self._intent.control,
            fields=inputs.list_vary(),
        )

    def describe(self, reason: str) -> str:
        """Return the sentence that explains a reason; "" when the word says it all."""
        return self.terms.detail if reason and reason == self.terms.refused else ""

    def explain(self, reason: str) -> None:
        """Tell what became of the response to who asked for it with the request.

        Args:
            reason: why it was not stored, in one word; "" when it was.
        """
        report = find_report(self._environ)
        if report is not None and reason != "not-shared":
            decision = CacheDecision(
                cache="http",
                kept=not reason,
                names=self.terms.names,
                cookies=self.terms.cookies,
                reason=reason,
                detail=self.describe(reason),
            )
            report.decisions.append(decision)


def request_directives(environ: WSGIEnvironment) -> Directives:
    """Parse the request's own ``Cache-Control``."""
    value = environ.get("HTTP_CACHE_CONTROL")
    return directives(value) if value else _NO_DIRECTIVES


def declared_length(facts: ResponseFacts) -> int | None:
    """Return the ``Content-Length`` of a response; ``None`` when it has none."""
    length = facts.one("content-length")
    return int(length) if length is not None and length.isdigit() else None

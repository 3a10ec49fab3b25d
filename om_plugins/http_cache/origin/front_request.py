"""A request as this layer sees it, and under which of its inputs a response can be kept here.

This layer can compare request headers and cookies only. What the application looked at is known
when the last byte of the body has come (:mod:`om_plugins.core.observed`). A response of a host that
cannot be observed may depend on any cookie, and on who the client is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...cache.responses.decisions import describe_place
from ...core.inputs import EnvironReader, InputRules, brings_cookie, is_identity, list_cookies
from ...core.observed import ObservedInputs, name_in_front
from ..rfc9111 import CacheVerdict
from ..stored_response import StoredResponse
from ..variants import Looks, digest_selecting

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_ANY_COOKIE = ("",)


@dataclass(frozen=True, slots=True)
class KeepingTerms:
    """Under which terms a response may be kept here.

    Attributes:
        names: the inputs that select it.
        cookies: it answers no request that brings one of these; ``("",)`` for any cookie.
        looks: what the code of its request looked at; ``None`` where that was not observed.
        refused: why it cannot be kept, in one word; "" when it can.
        detail: the same as a sentence that names the input, the function and the line.
    """

    names: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    looks: Looks | None = None
    refused: str = ""
    detail: str = ""


class FrontRequest:
    """What this layer saw of a request, before the application got it.

    Args:
        environ: the request; inner middleware may change it later.
        rules: how inputs are compared.

    Attributes:
        environ: a copy of it.
    """

    def __init__(self, environ: WSGIEnvironment, rules: InputRules) -> None:
        self.environ = dict(environ)
        self._rules = rules
        self._reader = EnvironReader(self.environ)

    def digest(self, names: tuple[str, ...]) -> str | None:
        """Digest the values that this request brings; see :func:`.digest_selecting`."""
        return digest_selecting(names, self._reader, self._rules)

    def brings(self, cookies: tuple[str, ...]) -> bool:
        """Whether this request brings one of these cookies."""
        return brings_cookie(self.environ, cookies)

    def find_terms(
        self,
        inputs: ObservedInputs | None,
        verdict: CacheVerdict,
        *,
        cookie_variants: bool,
        query_left_out: bool,
    ) -> KeepingTerms:
        """Find under which terms the response to this request may be kept.

        Args:
            inputs: what the application looked at until now; ``None`` where that is not observed.
            verdict: what the headers of the response say.
            cookie_variants: a response that depends on cookies is kept for each of their values;
                else it is kept only without them.
            query_left_out: the query is no part of the key.
        """
        if inputs is None:
            return self._find_unobserved(verdict)
        looks = Looks(inputs.names(), (*inputs.counted, *inputs.known), inputs.session_cookie)
        front = name_in_front(inputs, self._reader, self._rules.read_address(self.environ))
        if front.refused:
            word = "session" if inputs.session_changed and not inputs.refused else "input"
            detail = _describe(front.refused, inputs.where.get(front.cause))
            return KeepingTerms(looks=looks, refused=word, detail=detail)
        if query_left_out and inputs.parameters:
            named = ", ".join(sorted(repr(one) for one in inputs.parameters if one)) or "all of it"
            detail = f"the query is no part of the key, and code looked at it: {named}"
            return KeepingTerms(looks=looks, refused="query", detail=detail)
        names = set(front.names)
        cookies: tuple[str, ...] = ()
        if not cookie_variants:
            cookies = list_cookies(names, "")
            names = {name for name in names if not is_identity(name)}
        names |= {f"vary:{name}" for name in verdict.vary if f"header:{name}" not in names}
        selecting = tuple(sorted(names))
        if not self.brings(cookies):
            return KeepingTerms(selecting, cookies, looks)
        cause = next(
            (
                name
                for name in looks.counted
                if self.brings(list_cookies((name,), looks.session_cookie))
            ),
            "",
        )
        detail = _describe(f"the request brings {cause}", inputs.where.get(cause))
        return KeepingTerms(selecting, cookies, looks, "cookie-read", detail)

    def _find_unobserved(self, verdict: CacheVerdict) -> KeepingTerms:
        names = tuple(f"vary:{name}" for name in verdict.vary)
        cookies = () if verdict.shared or "cookie" in verdict.vary else _ANY_COOKIE
        if self.brings(cookies):
            detail = "the request brings a cookie, and what the host looks at cannot be observed"
            return KeepingTerms(names, cookies, refused="cookie-read", detail=detail)
        allowed = verdict.shared or (verdict.public and "HTTP_AUTHORIZATION" in self.environ)
        if not allowed and self._rules.brings_identity(self.environ):
            detail = "the request says who its client is, and what the host looks at is unknown"
            return KeepingTerms(names, cookies, refused="identity", detail=detail)
        return KeepingTerms(names, cookies)


def _describe(sentence: str, place: tuple[str, str, int] | None) -> str:
    """Return a sentence with the function and line that it is about."""
    found = describe_place(place)
    return f"{sentence}: {found}" if found else sentence


def join_terms(terms: KeepingTerms, previous: StoredResponse) -> KeepingTerms:
    """Return the terms of a response that was made in parts by two requests.

    Args:
        terms: of the newer request, which says that the stored response is still right.
        previous: the stored response.
    """
    looks, before = terms.looks, previous.looks
    if looks is not None and before is not None:
        looks = Looks(
            tuple(sorted({*looks.counted, *before.counted})),
            tuple(dict.fromkeys((*looks.every, *before.every))),
            looks.session_cookie,
        )
    cookies = {*terms.cookies, *previous.cookies}
    return KeepingTerms(
        tuple(sorted({*terms.names, *previous.names})),
        _ANY_COOKIE if "" in cookies else tuple(sorted(cookies)),
        looks,
        terms.refused,
        terms.detail,
    )

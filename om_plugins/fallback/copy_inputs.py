"""Under which inputs a copy of a good response is kept, and which requests it may answer.

A response of an application that is observed depends on what its code looked at, see
:mod:`om_plugins.core.inputs`. A copy is kept under the request headers among that, and answers
requests that bring the same values. Where a cookie was looked at, a copy is kept only from a
request without this cookie, and answers only such requests.

Where nobody observes the application, a request that says who the client is gets no copy, and none
is made of its response, unless the response says that it is ``public`` or has ``s-maxage``
(RFC 9111 section 3.5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.inputs import (
    EnvironReader,
    IncomparableInput,
    InputReader,
    InputRules,
    brings_cookie,
    brings_override,
    encode_value,
    has_body,
    is_session,
    list_cookies,
    read_location,
)
from ..core.observed import ObservedInputs, name_in_front
from ..workers.signed_cookie import BROWSER_COOKIE

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Key = tuple[str, ...]
"""The address of a request, and last a digest of its identities; "" for none."""

OBSERVED, ANONYMOUS, PUBLIC = "observed", "anonymous", "public"
SHARED = OBSERVED
"""Stands for the copy of a response that depends on its address alone."""

_OURS = frozenset({BROWSER_COOKIE})
_NAMES_COOKIE = ("cookie:", "cookies")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MAX_VARY = 8


class CopyInputs(msgspec.Struct, frozen=True):
    """The inputs under which a copy is kept.

    Attributes:
        audience: whom the copy may answer. ``observed``: who has the identities of its key.
            ``anonymous``: who has neither an identity nor a cookie. ``public``: everybody.
        cookies: a request with one of these gets no such copy; see
            :func:`~om_plugins.core.inputs.list_cookies`.
        names: the other inputs, whose values are compared.
    """

    audience: str
    cookies: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def identify(
        self, environ: Mapping[str, Any], reader: InputReader, rules: InputRules
    ) -> str | None:
        """Return what tells the copy for a request from others of its address.

        Args:
            environ: the request.
            reader: reads the request's inputs.
            rules: how they are compared.

        Returns:
            The audience and the cookies, and a keyed digest of the other inputs' names and values,
            if any; :data:`SHARED` when there are no inputs at all. ``None`` when no copy with these
            inputs is for this request.
        """
        if brings_cookie(environ, self.cookies):
            return None
        if self.audience == ANONYMOUS and not rules.is_anonymous(environ, _OURS):
            return None
        whom = " ".join((self.audience, *self.cookies))
        if not self.names:
            return whom
        try:
            values = [encode_value(self.names), *map(reader.read, self.names)]
        except IncomparableInput:
            return None
        return f"{whom} {rules.digest(values)}"


def read_key(environ: Mapping[str, Any], rules: InputRules) -> Key | None:
    """Return the key of a request; ``None`` for one that gets no copy, and of which none is kept.

    The response to a request with a body depends on the body.
    """
    if has_body(environ) or environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
        return None
    return (*read_location(environ), rules.digest_identities(environ))


def select_observed(
    inputs: ObservedInputs,
    saw: WSGIEnvironment,
    vary: str,
    rules: InputRules,
    *,
    renews: bool = False,
) -> CopyInputs | None:
    """Return the inputs under which a copy of an observed response is kept.

    Args:
        inputs: what the application looked at.
        saw: the request as the layer saw it, before middleware further in could change it.
        vary: the response's ``Vary``.
        rules: how inputs are compared.
        renews: the response renewed the cookie of the session.

    Returns:
        The inputs; ``None`` when no copy may be kept in front of the application.
    """
    inputs.settle()
    fields = _parse_vary(vary)
    front = name_in_front(inputs, EnvironReader(saw), rules.read_address(saw))
    if front.refused or fields is None:
        return None
    if "cookie" in fields and (renews or any(map(_is_of_cookies, inputs.counted))):
        # Flask says it of every look at the session and of every renewal; which cookies count is
        # known better
        fields.remove("cookie")
    return _build(OBSERVED, front.names, fields)


def select_unobserved(
    saw: WSGIEnvironment, now: WSGIEnvironment, vary: str, public: bool, rules: InputRules
) -> CopyInputs | None:
    """Return the inputs under which a copy of a response is kept that nobody observed.

    Args:
        saw: the request as the layer saw it.
        now: the same environ after middleware further in has had it.
        vary: the response's ``Vary``.
        public: the response says that it is for everybody.
        rules: how inputs are compared.

    Returns:
        The inputs; ``None`` when the response may depend on what cannot be compared.
    """
    fields = _parse_vary(vary)
    if fields is None or brings_override(saw):
        return None
    if not public and not all(rules.is_anonymous(one, _OURS) for one in (saw, now)):
        return None
    found = _build(PUBLIC if public else ANONYMOUS, (), fields)
    before, after = EnvironReader(saw), EnvironReader(now)
    if any(before.read(name) != after.read(name) for name in found.names):
        return None
    return found


def _build(audience: str, names: tuple[str, ...], fields: set[str]) -> CopyInputs:
    every = set(names)
    for name in fields:
        if name == "cookie":
            every.add("cookies")
        elif f"header:{name}" not in every:
            every.add(f"vary:{name}")
    compared = (name for name in every if not name.startswith(_NAMES_COOKIE))
    return CopyInputs(audience, list_cookies(every, ""), tuple(sorted(compared)))


def _is_of_cookies(name: str) -> bool:
    return name.startswith(_NAMES_COOKIE) or is_session(name)


def _parse_vary(value: str) -> set[str] | None:
    """Parse ``Vary`` (RFC 9110 section 12.5.5); ``None`` for ``*``, too many names, or no names."""
    names = {part.strip(" \t").lower() for part in value.split(",")} - {""}
    if "*" in names or len(names) > _MAX_VARY or not all(map(_TOKEN.fullmatch, names)):
        return None
    return names

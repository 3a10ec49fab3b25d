"""The nonce of a response: 128 random bits, made when they are first needed.

A nonce belongs to one response, whose :class:`~om_plugins.core.request_state.RequestState` keeps
it. The state tells two things apart: the *page* asked for the nonce (a cache must then renew it),
or only the *header* was sent with it. Whoever asks second gets the same value, so a template that
streams after the headers were sent still agrees with them.

A response whose policy is only observed, and not even reported on, needs no nonce. Its page leaves
byte for byte as the application made it (it stays *plain*), so that ETags, page caches and the
application's own tests see no difference.

What another cache inside the application may store is left alone as well, in a response that chance
has chosen to ask for reports: the other responses get it, too. Browsers then report its tags. That
is true: mode ``enforce`` would stop them when they come from that cache.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..core.request_state import KEY, RequestState, state_of
from .hashes import OWN, WatchedNotes, note_hash

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed.wsgi import WSGIEnvironment

_CACHES = frozenset(
    {"aiocache", "beaker", "cachetools", "cashews", "diskcache", "dogpile", "flask_cache"}
    | {"flask_caching", "joblib", "theine"}
)
"""Packages whose functions call others and keep what these return."""
_OWN_CACHE = "om_plugins.cache."


def nonce(environ: WSGIEnvironment) -> str:
    """Return this response's nonce, for use in the page.

    Args:
        environ: the WSGI environ of the request, or a copy of it.

    Returns:
        32 hexadecimal digits (128 bits), the same on every call for one request. They fit the
        grammar ``base64-value`` (CSP Level 3, section 2.3.1) and need no escaping in HTML.
    """
    state = environ.get(KEY) or state_of(environ)
    return state.page_nonce or state.nonce_for_page()


def stays_plain(state: RequestState) -> bool:
    """Return whether no tag needs this response's nonce.

    That is so only while nothing else has asked for the nonce, and when this response has no policy
    at all, or may stay plain and its view asks for no policy that is always sent.
    """
    if state.page_nonce is not None:
        return False
    overrides = state.overrides
    if overrides and any(one.exempt for one in overrides):
        return True
    return not (
        state.plain is None
        or state.header_nonce is not None
        or (overrides and any(one.always_sent for one in overrides))
    )


def tag_nonce(state: RequestState) -> str | None:
    """Return this response's nonce for a tag whose author wrote none.

    Returns:
        The nonce, or ``None``: leave the tag as it is, because the response :func:`stays_plain`, or
        because another response that stays plain may get the tag from a cache.
    """
    if (
        state.take_report_turn is not None
        and not any(one.always_sent for one in state.overrides)
        and _renders_for_cache()
    ):
        return None
    value = state.page_nonce
    if value is not None:
        return value
    if not stays_plain(state):
        return state.nonce_for_page()
    if state.plain is not None:
        state.plain = True
    return None


def _renders_for_cache() -> bool:
    """Return whether a function of a cache waits for what is rendered.

    Only the calls in progress tell: a cache may be around a view, a function or a part of a
    template. It takes some microseconds, so only responses that chance has chosen are asked.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if name.partition(".")[0] in _CACHES or name.startswith(_OWN_CACHE):
            return True
        frame = frame.f_back
    return False


def note_question(state: RequestState, what: str) -> None:
    """Note the hash of an event handler that only asks, whatever the policy lists.

    A response that :func:`stays_plain` needs none.

    Args:
        state: of the request.
        what: what :func:`~.hashes.hash_text` returned.
    """
    if stays_plain(state):
        return
    if state.hashes is None:
        state.hashes = {}
    note_hash(state, what)


def renew_notes(state: RequestState, notes: Iterable[str]) -> None:
    """Note again what a stored page noted when it was made."""
    for one in notes:
        if "-attr " in one:
            note_question(state, one)
        else:
            note_hash(state, one)


class NonceWatch:
    """A context manager that finds out whether what is rendered inside of it fits each response.

    Args:
        state: of the request; ``None`` outside of one.
        lasting: the state is kept in the environ, so that what is rendered gets the same one.

    Attributes:
        state: the same.
        asked: after the end: something asked for the nonce, noted a hash, or was left without a
            nonce in this response. ``True``, too, where that cannot be known: the state is not
            kept, or a view changes the policy.
    """

    __slots__ = ("_hashes", "_lasting", "_page_nonce", "_plain", "_reserved_nonce", "asked",
                 "state")  # fmt: skip

    def __init__(self, state: RequestState | None, *, lasting: bool = True) -> None:
        self.state = state
        self.asked = False
        self._lasting = lasting

    def __enter__(self) -> None:
        state = self.state
        if state is None:
            return
        self._page_nonce, self._reserved_nonce = state.page_nonce, state.reserved_nonce
        self._plain, self._hashes = state.plain, state.hashes
        if state.page_nonce is not None:  # who asks gets the same one again
            state.reserved_nonce = state.page_nonce
            state.page_nonce = state.plain = None
        elif state.plain is not None:
            state.plain = False
        if isinstance(state.hashes, dict):
            state.hashes = WatchedNotes()

    def __exit__(self, *raised: object) -> None:
        state = self.state
        if state is None:
            return
        noted = state.hashes is not self._hashes and bool(state.hashes)
        left_plain = state.plain is True
        self.asked = not self._lasting or bool(
            state.page_nonce
            or noted
            or left_plain
            or state.overrides
            or state.take_report_turn is not None  # a tag may be alone for a cache's sake
        )
        state.page_nonce = state.page_nonce or self._page_nonce
        state.reserved_nonce = self._reserved_nonce
        state.plain = self._plain or left_plain if self._plain is not None else None
        if isinstance(self._hashes, dict):
            self._hashes.update((one, None) for one in state.hashes or () if one != OWN)
            state.hashes = self._hashes

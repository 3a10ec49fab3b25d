"""The nonce of a response: 128 random bits, made when they are first needed.

A nonce belongs to one response and lives in its WSGI environ. What is kept there tells two things
apart: that the *page* asked for it (:data:`NONCE`; a cache must then renew it), and that the
*header* was sent with it (:data:`SENT`). Whoever comes second gets the same value, so a template
that streams after the headers were sent still agrees with them.

A response whose policy is only observed, and not even reported on, needs no nonce: its page then
leaves byte for byte as the application made it (:data:`PLAIN`), so that ETags, page caches and
the application's own tests see no difference.

A cache that keeps whole pages and sends them again speaks to this module through
:func:`used_nonce`, :func:`stitched_nonce`, :func:`stays_plain` and :func:`sent_plain`.

One call of ``os.urandom`` for each nonce would cost more than all else that the headers do, and it
gives other threads the interpreter: what is over in less time than it takes to get it back, such as
a hit of the page cache, would wait for them. :class:`Nonces` makes many at once.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..core.fork import renew_after_fork
from .override import OVERRIDE

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_NONCE = re.compile(r"[0-9a-f]{32}")

NONCE = "om_plugins.nonce"
"""Where the environ keeps a nonce that the page asked for."""

SENT = "om_plugins.nonce_sent"
"""Where the environ keeps a nonce that was sent in a header before the page asked."""

NONCES = "om_plugins.nonces"
ASKS = "om_plugins.asks_for_reports"
"""Chance has chosen already that this response asks for reports."""
"""Where the environ keeps the :class:`Nonces` that this response's own is taken from."""

PLAIN = "om_plugins.plain"
"""There when this response's tags may stay as they are; true once one was left without a nonce."""

STITCHED = "om_plugins.stitched"
"""There when a cache of ours puts a fresh nonce into this page each time that it sends it."""


def nonce(environ: WSGIEnvironment) -> str:
    """This response's nonce, for use in the page.

    Args:
        environ: the WSGI environ of the request.

    Returns:
        32 hexadecimal digits (128 bits), the same on every call for one environ. They fit the
        grammar ``base64-value`` (CSP Level 3, section 2.3.1) and need no escaping in HTML.
    """
    value: str | None = environ.get(NONCE)
    if value is None:
        value = environ[NONCE] = environ.get(SENT) or _new(environ)
    return value


def tag_nonce(environ: WSGIEnvironment) -> str | None:
    """This response's nonce for a tag whose author wrote none.

    Returns:
        The nonce, or ``None``: leave the tag as it is. It is ``None`` only while nothing else asked
        for the nonce, and when this response may stay plain and nothing changed its policy, or
        has no policy at all.
    """
    if (
        OVERRIDE in environ
        and NONCE not in environ
        and any(one.exempt for one in environ[OVERRIDE])
    ):
        return None
    if PLAIN not in environ or NONCE in environ or SENT in environ or OVERRIDE in environ:
        return nonce(environ)
    environ[PLAIN] = True
    return None


def header_nonce(environ: WSGIEnvironment) -> str:
    """This response's nonce, for use in a header: does not count as used by the page."""
    value: str | None = environ.get(NONCE) or environ.get(SENT)
    if value is None:
        value = environ[SENT] = _new(environ)
    return value


def _new(environ: WSGIEnvironment) -> str:
    nonces: Nonces | None = environ.get(NONCES)
    return os.urandom(16).hex() if nonces is None else nonces.take()


# --- for a cache of pages -------------------------------------------------------------------------


def used_nonce(environ: WSGIEnvironment) -> str | None:
    """The nonce that stands in this response's page.

    Ask when the body has ended: a page that is streamed may use its nonce late.

    Returns:
        The nonce, or ``None`` when the page has none so far. A nonce that only the header carries
        does not count: nothing of the body depends on it.
    """
    value: str | None = environ.get(NONCE)
    return value


def stitched_nonce(environ: WSGIEnvironment, value: str | None = None) -> str:
    """The nonce to join a stored page with; the headers of this response will carry the same.

    Call it before the response starts, for a stored page and for a page that is being stored
    alike: the ``Cache-Control`` of a response that uses a nonce is made ``private`` unless it was
    said here that it is stitched.

    Args:
        environ: the WSGI environ of the request that is answered now. It must be the very
            dictionary that the headers' layer handed in, not a copy.
        value: the nonce, when it was made already; 32 hexadecimal digits.

    Returns:
        The nonce of this response.

    Raises:
        ValueError: ``value`` is no nonce, or this response has another one already.
    """
    if value is not None:
        known = environ.get(NONCE) or environ.get(SENT)
        if not _NONCE.fullmatch(value) or known not in (None, value):
            raise ValueError("a nonce is 32 hexadecimal digits, and a response has one only")
        environ[NONCE] = value
    environ[STITCHED] = True
    return nonce(environ)


class Nonces:
    """Nonces that are made before they are needed; each leaves once, in one process only."""

    _AT_ONCE = 64

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child: what lies ready here is the parent's to send."""
        self._ready: list[str] = []

    def take(self) -> str:
        """The next one, for one response. Any thread may ask."""
        try:
            return self._ready.pop()
        except IndexError:
            made = os.urandom(16 * self._AT_ONCE).hex()
            self._ready += [made[at : at + 32] for at in range(32, len(made), 32)]
            return made[:32]

    def stitched(self, environ: WSGIEnvironment) -> str:
        """:func:`stitched_nonce` with one of these."""
        environ[STITCHED] = True
        value: str | None = environ.get(NONCE)
        if value is None:
            value = environ[NONCE] = environ.get(SENT) or self.take()
        return value


def stays_plain(environ: WSGIEnvironment) -> bool:
    """Whether the page may leave without nonces, so that two such responses are the same bytes.

    A stored page that was made while this was true must not be sent where it is false, or the
    browser would blame its tags: keep the two apart, as by a part of the key.
    """
    return PLAIN in environ


def sent_plain(environ: WSGIEnvironment) -> None:
    """Say that the page that is sent has tags without nonces, as a stored one may: no report-only
    policy goes with it. Without effect where :func:`stays_plain` is false."""
    if PLAIN in environ:
        environ[PLAIN] = True

"""The nonce of a response: 128 random bits, made when they are first needed.

A nonce belongs to one response and lives in its WSGI environ. What is kept there tells two things
apart: that the *page* asked for it (:data:`NONCE`; a cache must then renew it), and that the
*header* was sent with it (:data:`SENT`). Whoever comes second gets the same value, so a template
that streams after the headers were sent still agrees with them.

A response whose policy is only observed, and not even reported on, needs no nonce: its page then
leaves byte for byte as the application made it (:data:`PLAIN`), so that ETags, page caches and
the application's own tests see no difference.

Each nonce comes straight from ``os.urandom``: a pool would save a quarter of a microsecond and
would have to be guarded against forks.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .override import OVERRIDE

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

NONCE = "om_plugins.nonce"
"""Where the environ keeps a nonce that the page asked for."""

SENT = "om_plugins.nonce_sent"
"""Where the environ keeps a nonce that was sent in a header before the page asked."""

PLAIN = "om_plugins.plain"
"""There when this response's tags may stay as they are; true once one was left without a nonce."""


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
        value = environ[NONCE] = environ.get(SENT) or os.urandom(16).hex()
    return value


def tag_nonce(environ: WSGIEnvironment) -> str | None:
    """This response's nonce for a tag whose author wrote none.

    Returns:
        The nonce, or ``None``: leave the tag as it is. It is ``None`` only while nothing else asked
        for the nonce and nothing changed the policy of this response.
    """
    if PLAIN not in environ or NONCE in environ or SENT in environ or OVERRIDE in environ:
        return nonce(environ)
    environ[PLAIN] = True
    return None


def header_nonce(environ: WSGIEnvironment) -> str:
    """This response's nonce, for use in a header: does not count as used by the page."""
    value: str | None = environ.get(NONCE) or environ.get(SENT)
    if value is None:
        value = environ[SENT] = os.urandom(16).hex()
    return value

"""Addresses: whom a notification is for, and the cookie by which a browser is known.

An address is ``sid:<id>`` (one browser), ``user:<id>``, ``role:<name>``, ``operators`` or
``everyone``. A browser's id is 128 random bits in the cookie ``om_sid``, signed with the
application's secret: an id that was read in a log or guessed is of no use to anybody.
"""

from __future__ import annotations

import base64
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from werkzeug.http import dump_cookie, parse_cookie
from werkzeug.wrappers import Request

from ..protocols import HostContext

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("om_plugins")

COOKIE = "om_sid"
EVERYONE = "everyone"
OPERATORS = "operators"
UNKNOWN_BROWSER = "sid:"
"""A browser that has no id yet: matches none, so only notifiers get what is sent there."""

Audience = Callable[[Request], Iterable[str]]
"""``OM_NOTIFY_AUDIENCE``: the user and roles of a request, as addresses."""

_ADDRESS = re.compile(r"everyone|operators|sid:[A-Za-z0-9_-]{22}|(user|role):[^\s\x00-\x1f]{1,200}")
_COOKIE = re.compile(r"([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{22})")
_MAX_COOKIES = 8_192
_MAX_AUDIENCE = 100


def check_address(to: str) -> str:
    """``to``, if it is an address.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(to, str) or not _ADDRESS.fullmatch(to):
        raise ValueError(
            f"to={to!r}: must be 'everyone', 'operators', 'user:<id>', 'role:<name>' or "
            "'sid:<id>'; leave it out for the browser that asked"
        )
    return to


class Browsers:
    """Gives browsers their ids and knows them again.

    Args:
        secret: what ids are signed with; asked on first use.
    """

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._secret = secret

    def address(self, cookies: str) -> str:
        """The address of the browser that sent this ``Cookie`` header, "" for none.

        A cookie that was not signed with our secret counts for nothing.
        """
        if COOKIE not in cookies or len(cookies) > _MAX_COOKIES:
            return ""
        for value in parse_cookie(cookies).getlist(COOKIE):
            found = _COOKIE.fullmatch(value)
            if found and hmac.compare_digest(self._signature(found[1]), found[2]):
                return f"sid:{found[1]}"
        return ""

    def welcome(self, environ: WSGIEnvironment, script_root: str) -> tuple[str, str]:
        """An address for a browser that has none, and the ``Set-Cookie`` value that keeps it.

        Args:
            script_root: where the application is mounted, "" for the root of the site.
        """
        sid = _text(secrets.token_bytes(16))
        cookie = dump_cookie(
            COOKIE,
            f"{sid}.{self._signature(sid)}",
            path=script_root + "/",
            secure=environ.get("wsgi.url_scheme") == "https",
            httponly=True,
            samesite="Lax",
        )
        return f"sid:{sid}", cookie

    def _signature(self, sid: str) -> str:
        return _text(hmac.digest(self._secret(), b"om_sid:" + sid.encode(), "sha256")[:16])


def audience_of(
    environ: WSGIEnvironment, audience: Audience | None, host_context: HostContext | None
) -> set[str]:
    """Ask the application which users and roles a request speaks for.

    A callback that raises, or says anything that is not ``operators``, ``user:…`` or ``role:…``,
    is logged; the request then speaks for nobody but its own browser.
    """
    if audience is None:
        return set()
    mine = {name: value for name, value in environ.items() if name != "werkzeug.request"}
    try:
        with nullcontext() if host_context is None else host_context(mine):
            request = mine.get("werkzeug.request")
            said = audience(request if isinstance(request, Request) else Request(mine))
            found = set(said or ())
        for one in found:
            if check_address(one) == EVERYONE or one.startswith("sid:"):
                raise ValueError(f"{one!r}: must be 'operators', 'user:<id>' or 'role:<name>'")
    except Exception:
        logger.exception("OM_NOTIFY_AUDIENCE failed; this browser gets its own notices only")
        return set()
    return set(sorted(found)[:_MAX_AUDIENCE])


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

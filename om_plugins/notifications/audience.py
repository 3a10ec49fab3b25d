"""Who gets a notification: addresses, and the cookie that identifies a browser.

An address is ``sid:<id>`` (one browser), ``user:<id>``, ``role:<name>``, ``operators`` or
``everyone``. The id of a browser is 128 random bits in the signed cookie ``om_sid``. Nobody can
use an id that they read in a log or guessed, because they cannot sign it.
"""

from __future__ import annotations

import base64
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request

from ..protocols import HostContext
from ..settings.callbacks import explain_unfinished, name_type
from ..workers.signed_cookie import BROWSER_COOKIE, SignedCookie

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("om_plugins")

EVERYONE = "everyone"
OPERATORS = "operators"
UNKNOWN_BROWSER = "sid:"
"""The address of a browser without an id. No browser has it, so only notifiers get what is sent
there."""

Audience = Callable[[Request], Iterable[str]]
"""``OM_NOTIFY_AUDIENCE``: returns the addresses of a request's user and roles."""

_ADDRESS = re.compile(r"everyone|operators|sid:[A-Za-z0-9_-]{22}|(user|role):[^\s\x00-\x1f]{1,200}")
_BROWSER_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_MAX_AUDIENCE = 100


def check_address(to: str) -> str:
    """Return ``to`` if it is an address.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(to, str) or not _ADDRESS.fullmatch(to):
        raise ValueError(
            f"to={to!r}: must be 'everyone', 'operators', 'user:<id>', 'role:<name>' or "
            "'sid:<id>'; leave it out for the browser that asked"
        )
    return to


class Browsers:
    """Gives browsers their ids and recognizes them by their cookies.

    Args:
        secret: gives the secret that ids are signed with; called on first use.
    """

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._cookie = SignedCookie(BROWSER_COOKIE, secret, same_site="Lax")

    def find_address(self, cookies: str) -> str:
        """Return the address of the browser that sent this ``Cookie`` header, "" for none."""
        for browser_id in self._cookie.read(cookies):
            if _BROWSER_ID.fullmatch(browser_id):
                return f"sid:{browser_id}"
        return ""

    def assign_address(self, environ: WSGIEnvironment, script_root: str) -> tuple[str, str]:
        """Make an address for a browser that has none.

        Args:
            environ: the browser's request.
            script_root: where the application is mounted, "" for the root of the site.

        Returns:
            The address, and the ``Set-Cookie`` value by which the browser keeps it.
        """
        browser_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
        cookie = self._cookie.write(browser_id, environ, path=script_root + "/")
        return f"sid:{browser_id}", cookie


def find_audience(
    environ: WSGIEnvironment, audience: Audience | None, host_context: HostContext | None
) -> set[str]:
    """Ask the application for the user and the roles of a request.

    When the callback raises, or returns anything but ``operators``, ``user:…`` and ``role:…``, the
    error is logged and the request has no user and no role.

    Args:
        environ: the request.
        audience: ``OM_NOTIFY_AUDIENCE``.
        host_context: opens the host framework's request context around the callback.

    Returns:
        At most 100 addresses.
    """
    if audience is None:
        return set()
    # werkzeug's request is the outer one's: the host's context must make its own
    own_environ = {name: value for name, value in environ.items() if name != "werkzeug.request"}
    try:
        with nullcontext() if host_context is None else host_context(own_environ):
            request = own_environ.get("werkzeug.request")
            returned = audience(request if isinstance(request, Request) else Request(own_environ))
            addresses = _read_addresses(returned)
        for address in addresses:
            if check_address(address) == EVERYONE or address.startswith("sid:"):
                raise ValueError(f"{address!r}: must be 'operators', 'user:<id>' or 'role:<name>'")
    except Exception:
        logger.exception("OM_NOTIFY_AUDIENCE failed; this browser gets its own notices only")
        return set()
    return set(sorted(addresses)[:_MAX_AUDIENCE])


def _read_addresses(returned: object) -> set[str]:
    """Return the addresses that the callback returned.

    Raises:
        TypeError: it returned no list of texts. The keys of a dict are refused as well: of
            ``{"operators": False}`` they would say the opposite.
    """
    if not returned:
        return set()
    if isinstance(returned, str | bytes | Mapping) or not isinstance(returned, Iterable):
        unfinished = explain_unfinished(returned)
        raise TypeError(
            f"OM_NOTIFY_AUDIENCE {unfinished or f'returned {name_type(returned)}'}; return a list "
            "of addresses, [] for none"
        )
    return set(returned)

"""Who may open the console: nobody by default, else who has the token or is let in by a callback.

There are no default credentials. In debug mode a browser on the same machine may look without a
setting: the request must come from a loopback address, name a loopback host (so that another
site's name that resolves to this machine is not let in) and have passed no proxy.

Who signs in gets a session: a signed cookie that holds its end. A session that nobody signed in
with opens nothing: the form token is bound to it where a callback or the loopback rule opens the
console.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import math
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from werkzeug.wrappers import Response
from werkzeug.wsgi import get_host

from ..core.problem import Refusal
from ..policies.access import ask_auth, check_site
from ..protocols import Clock, HostContext, Hub
from ..workers.signed_cookie import SignedCookie

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

TRIES = 10
TRIES_S = 300
"""So many wrong tokens may come from one address in so many seconds."""

COOKIE = "om_console"
LASTS_S = 12 * 3600
"""How long a session lasts, whatever the browser does with the cookie."""

_PAYLOAD = re.compile(r"([A-Za-z0-9_-]{22})\.([0-9]{1,12})")
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_PROXIED = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_REAL_IP",
    "HTTP_FORWARDED",
    "HTTP_VIA",
    "werkzeug.proxy_fix.orig",
)


class Off(Refusal):
    """The console is switched off."""

    def __init__(self) -> None:
        super().__init__(
            404,
            "The console is off. To open it, set OM_CONSOLE_AUTH to a token of at least 16 "
            "characters, or to a function that says who may look.",
        )


class Denied(Refusal):
    """Nobody has signed in yet."""

    def __init__(self) -> None:
        super().__init__(
            401,
            "Sign in on the console's page, or send 'Authorization: Bearer <token>'.",
            [("WWW-Authenticate", "Bearer")],
        )


@dataclass(frozen=True, slots=True)
class Session:
    """The session of a browser.

    Attributes:
        id: 128 random bits.
        signed_in: somebody gave the right token for it.
    """

    id: str
    signed_in: bool = False


class Sessions:
    """Creates sessions and finds them by their cookies.

    Args:
        secret: gives the secret that cookies are signed with; called on first use.
        clock: the time, which ends sessions.
        token: ``OM_CONSOLE_AUTH`` when it is a token. It goes into the signature, so that another
            token ends the sessions of everybody who signed in.
    """

    def __init__(self, secret: Callable[[], bytes], clock: Clock, token: str = "") -> None:
        self._secret = secret
        self._clock = clock
        signed_in_salt = b"signed-in:" + hashlib.sha256(token.encode()).digest()
        self._signed_in = SignedCookie(COOKIE, secret, same_site="Strict", salt=signed_in_salt)
        self._guest = SignedCookie(COOKIE, secret, same_site="Strict", salt=b"guest")

    def find(self, environ: WSGIEnvironment) -> Session | None:
        """Return the session of a request; ``None`` when it has none that counts."""
        cookies = environ.get("HTTP_COOKIE", "")
        for cookie, signed_in in ((self._signed_in, True), (self._guest, False)):
            for payload in cookie.read(cookies):
                match = _PAYLOAD.fullmatch(payload)
                if match is not None and self._clock.time() < int(match[2]):
                    return Session(match[1], signed_in)
        return None

    def create(self, environ: WSGIEnvironment, *, signed_in: bool) -> tuple[Session, str]:
        """Create a session.

        Returns:
            The session, and the ``Set-Cookie`` value by which the browser keeps it for 12 hours.
        """
        session = Session(_to_text(secrets.token_bytes(16)), signed_in)
        payload = f"{session.id}.{int(self._clock.time()) + LASTS_S}"
        cookie = self._signed_in if signed_in else self._guest
        path = _cookie_path(environ)
        return session, cookie.write(payload, environ, path=path, max_age_s=LASTS_S)

    def end(self, environ: WSGIEnvironment) -> str:
        """Return the ``Set-Cookie`` value that removes the session's cookie."""
        return self._guest.delete(environ, path=_cookie_path(environ))

    def form_token(self, session: Session) -> str:
        """Return what every action of this session must send (against cross-site forgery)."""
        text = b"om_console:form:" + session.id.encode()
        return _to_text(hmac.digest(self._secret(), text, "sha256"))

    def is_form_token(self, session: Session, token: str) -> bool:
        """Return whether ``token`` is this session's form token."""
        return hmac.compare_digest(self.form_token(session).encode(), token.encode())


@dataclass(frozen=True, slots=True)
class Access:
    """Somebody may look.

    Attributes:
        session: what their form token is bound to; ``None`` while they have no cookie.
        by: how they came in.
    """

    session: Session | None
    by: str


class ConsoleAuth:
    """Decides on each request.

    Args:
        access: ``OM_CONSOLE_AUTH``.
        debug: the application is in debug mode.
        sessions: knows the cookie.
        hub: counts wrong tokens over all workers.
        secret: hides addresses in the hub.
        clock: time.
        host_context: opens the host framework's request context for a callback.
    """

    def __init__(
        self,
        access: Callable[..., Any] | str | None,
        *,
        debug: bool,
        sessions: Sessions,
        hub: Hub,
        secret: Callable[[], bytes],
        clock: Clock,
        host_context: HostContext | None = None,
    ) -> None:
        self.uses_token = isinstance(access, str)
        self._token = access.encode() if isinstance(access, str) else b""
        self._callback = None if access is None or isinstance(access, str) else access
        self._debug = debug
        self._sessions = sessions
        self._hub = hub
        self._secret = secret
        self._clock = clock
        self._host_context = host_context

    def check(self, environ: WSGIEnvironment, body: bytes = b"") -> Access | Response:
        """Let a request in.

        Returns:
            How it came in; a response when the callback wants that sent instead.

        Raises:
            Off: the console is switched off for this request.
            Denied: nobody signed in.
            Refusal: 401 by the callback, 429 after too many wrong tokens.
        """
        session = self._sessions.find(environ)
        if self._callback is not None:
            answer = ask_auth(
                environ, body, self._callback, self._host_context, key="OM_CONSOLE_AUTH"
            )
            return answer if isinstance(answer, Response) else Access(session, "callback")
        if self.uses_token:
            said = environ.get("HTTP_AUTHORIZATION", "")
            if said[:7].lower() == "bearer ":
                self.check_token(environ, said[7:].strip())
                return Access(session, "bearer")
            if session is None or not session.signed_in:
                raise Denied
            return Access(session, "cookie")
        if self._debug and _from_this_machine(environ):
            return Access(session, "loopback")
        raise Off

    def check_token(self, environ: WSGIEnvironment, said: str) -> None:
        """Compare a token with the right one, in constant time.

        Raises:
            Off: there is no token to compare with.
            Denied: it is wrong.
            Refusal: 429, too many were wrong; also the right one is refused then.
        """
        if not self.uses_token:
            raise Off
        now = self._clock.time()
        window = int(now // TRIES_S)
        left_s = max(1, math.ceil((window + 1) * TRIES_S - now))
        key = f"console:tries:{window}:{self._client(environ)}"
        if self._hub.increment(key, 0, ttl=left_s + 1.0) >= TRIES:
            raise Refusal(
                429,
                f"Too many wrong tokens. Please try again in {math.ceil(left_s / 60)} min.",
                [("Retry-After", str(left_s))],
            )
        if not hmac.compare_digest(said.encode("utf-8", "replace"), self._token):
            self._hub.increment(key, 1, ttl=left_s + 1.0)
            raise Denied

    def check_action(self, environ: WSGIEnvironment, access: Access, said: str) -> None:
        """Refuse an action that another site's page may have sent.

        Args:
            said: the form token that came along.

        Raises:
            Refusal: 403.
        """
        check_site(environ, get_host(environ))
        if access.by == "bearer":
            return  # no browser sends that header by itself
        if access.session is None or not self._sessions.is_form_token(access.session, said):
            raise Refusal(403, "This page is too old for that. Load it again, then repeat.")

    def _client(self, environ: WSGIEnvironment) -> str:
        """The address, of IPv6 the customer's network, hidden from who reads the hub."""
        address = environ.get("REMOTE_ADDR") or ""
        found = _address(address)
        if isinstance(found, ipaddress.IPv6Address):
            address = str(ipaddress.IPv6Network((found, 64), strict=False))
        text = b"om_console:tries:" + address.encode("utf-8", "surrogateescape")
        return hmac.digest(self._secret(), text, "sha256")[:16].hex()


def _cookie_path(environ: WSGIEnvironment) -> str:
    """The path of ``OM_PREFIX``: the browser does not send the cookie to the host application."""
    return environ.get("SCRIPT_NAME") or "/"


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_this_machine(environ: WSGIEnvironment) -> bool:
    address = _address(environ.get("REMOTE_ADDR") or "")
    if address is None or not address.is_loopback or any(name in environ for name in _PROXIED):
        return False
    try:
        return urlsplit(f"//{get_host(environ)}").hostname in _OWN_NAMES
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found

"""The console's session cookie and the token against cross-site request forgery.

The cookie is signed, and says until when it counts and whether somebody signed in with it. One
that nobody signed in with grants nothing: it is what the form token is bound to where a callback
or the machine itself opens the console.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from werkzeug.http import dump_cookie, parse_cookie

from ..protocols import Clock

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["COOKIE", "LASTS_S", "Session", "Sessions"]

COOKIE = "om_console"
LASTS_S = 12 * 3600

_MAX_COOKIES = 8_192
_VALUE = re.compile(r"([A-Za-z0-9_-]{22})\.([0-9]{1,12})\.([01])\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie said.

    Attributes:
        id: 128 random bits.
        signed_in: the right token was given for it.
    """

    id: str
    signed_in: bool = False


class Sessions:
    """Makes cookies and knows them again.

    Args:
        secret: what they are signed with; asked on first use.
        clock: says when they run out.
        token: who signed in with another token than this is signed out.
    """

    def __init__(self, secret: Callable[[], bytes], clock: Clock, token: str = "") -> None:
        self._secret = secret
        self._clock = clock
        self._token = hashlib.sha256(token.encode()).digest()

    def found(self, environ: WSGIEnvironment) -> Session | None:
        """The session of a request; ``None`` for none, a forged one or one that ran out."""
        cookies = environ.get("HTTP_COOKIE", "")
        if COOKIE not in cookies or len(cookies) > _MAX_COOKIES:
            return None
        for value in parse_cookie(cookies).getlist(COOKIE):
            match = _VALUE.fullmatch(value)
            if match is None:
                continue
            sid, until, signed_in, signature = match.groups()
            right = self._signature(sid, until, signed_in)
            if hmac.compare_digest(right, signature) and self._clock.time() < int(until):
                return Session(sid, signed_in == "1")
        return None

    def made(self, environ: WSGIEnvironment, *, signed_in: bool) -> tuple[Session, str]:
        """A new session, and the ``Set-Cookie`` value that keeps it for 12 hours."""
        session = Session(_text(secrets.token_bytes(16)), signed_in)
        until = str(int(self._clock.time()) + LASTS_S)
        flag = "1" if signed_in else "0"
        value = ".".join((session.id, until, flag, self._signature(session.id, until, flag)))
        return session, _cookie(environ, value, LASTS_S)

    def ended(self, environ: WSGIEnvironment) -> str:
        """The ``Set-Cookie`` value that takes the cookie away."""
        return _cookie(environ, "", 0)

    def form_token(self, session: Session) -> str:
        """What every action of this session must bring along."""
        return _text(self._digest(b"form:" + session.id.encode()))

    def is_form_token(self, session: Session, said: str) -> bool:
        """Whether ``said`` is this session's form token."""
        return hmac.compare_digest(self.form_token(session).encode(), said.encode())

    def _signature(self, sid: str, until: str, signed_in: str) -> str:
        token = self._token if signed_in == "1" else b""
        return _text(self._digest(f"session:{sid}.{until}.{signed_in}:".encode() + token))

    def _digest(self, data: bytes) -> bytes:
        return hmac.digest(self._secret(), b"om_console:" + data, "sha256")


def _cookie(environ: WSGIEnvironment, value: str, max_age: int) -> str:
    return dump_cookie(
        COOKIE,
        value,
        max_age=max_age,
        path=environ.get("SCRIPT_NAME") or "/",  # the prefix: the host app never sees the cookie
        secure=environ.get("wsgi.url_scheme") == "https",
        httponly=True,
        samesite="Strict",
    )


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

"""A signed cookie: its value comes back unchanged, or it is ignored.

The value is ``<version>.<payload>.<signature>``, where the signature is HMAC-SHA256 under a key
that itsdangerous derives from the application's secret and the cookie's name. A cookie of an
earlier version, of another application or of an attacker is ignored without an error, so that the
browser gets a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal

from itsdangerous import BadSignature, Signer
from werkzeug.http import dump_cookie, parse_cookie

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.datastructures import MultiDict

BROWSER_COOKIE = "om_sid"
"""The name of the cookie with the id of a browser. It does not say who the person is."""

VERSION = "2"

MAX_HEADER = 8_192
"""A longer ``Cookie`` header is not read: parsing and checking it would cost too much time."""
MAX_VALUE = 256
"""A longer value is ignored: no payload of this package is that long."""


def parse_cookies(header: str) -> MultiDict[str, str]:
    """Return the cookies in a ``Cookie`` header; characters that are not ASCII become ``?``.

    The cookies of this package are ASCII. Werkzeug raises for bytes that are not UTF-8, which any
    client may send.
    """
    return parse_cookie(header.encode("ascii", "replace").decode())


@dataclass(slots=True, eq=False, repr=False)
class SignedCookie:
    """Reads and writes one cookie.

    Args:
        name: the cookie's name.
        secret: gives the application's secret; called each time a cookie is read or written, never
            before.
        same_site: which requests of other sites carry the cookie (RFC 6265bis section 4.1.2.7).
        salt: changes all signatures: a cookie that was written with another salt is ignored.
    """

    name: str
    secret: Callable[[], bytes]
    _: KW_ONLY
    same_site: Literal["Lax", "Strict"]
    salt: bytes = b""

    def read(self, cookies: str) -> Iterator[str]:
        """Yield the payload of each cookie of this name with a valid signature.

        A browser may send several: those of two applications whose paths overlap.

        Args:
            cookies: the request's ``Cookie`` header.
        """
        if self.name not in cookies or len(cookies) > MAX_HEADER:
            return
        for value in parse_cookies(cookies).getlist(self.name):
            if len(value) > MAX_VALUE or not value.startswith(VERSION + "."):
                continue
            try:
                signed = self._signer().unsign(value)
            except BadSignature:
                continue
            yield signed.decode().removeprefix(VERSION + ".")

    def write(
        self, payload: str, environ: WSGIEnvironment, *, path: str, max_age_s: int | None = None
    ) -> str:
        """Make the ``Set-Cookie`` value for a payload.

        Scripts cannot read the cookie (``HttpOnly``), and browsers send it over HTTPS alone
        (``Secure``) when this request came over HTTPS.

        Args:
            payload: ASCII text.
            environ: the request that is answered.
            path: the cookie's ``Path``.
            max_age_s: the cookie's lifetime in seconds; until the browser closes when not given.
        """
        value = self._signer().sign(f"{VERSION}.{payload}").decode()
        return self._dump(value, environ, path, max_age_s)

    def delete(self, environ: WSGIEnvironment, *, path: str) -> str:
        """Make the ``Set-Cookie`` value that removes the cookie from the browser."""
        return self._dump("", environ, path, 0)

    def _dump(self, value: str, environ: WSGIEnvironment, path: str, max_age_s: int | None) -> str:
        return dump_cookie(
            self.name,
            value,
            max_age=max_age_s,
            path=path,
            secure=environ.get("wsgi.url_scheme") == "https",
            httponly=True,
            samesite=self.same_site,
        )

    def _signer(self) -> Signer:
        salt = b"om_plugins.cookie:" + self.name.encode() + b":" + self.salt
        return Signer(self.secret(), salt, key_derivation="hmac", digest_method=hashlib.sha256)

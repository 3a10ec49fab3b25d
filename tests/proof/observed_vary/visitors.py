"""Fifty visitors, each with a browser, an address, and what browsers bring along."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from .apps import SECRET

COUNT = 50
SESSION_COOKIE = "session"
_SIGNER: Any = SecureCookieSessionInterface().get_signing_serializer(
    type("App", (), {"secret_key": SECRET, "config": Flask.default_config})()
)


@dataclass(slots=True)
class Visitor:
    """One browser.

    Attributes:
        environ: what all its requests bring.
        cookies: what it has now.
        kept: the answers that it has, with their ETags, by URL.
    """

    environ: dict[str, Any]
    cookies: dict[str, str]
    kept: dict[str, tuple[str, str]] = field(default_factory=dict)


@cache
def sign(number: int, items: tuple[tuple[str, Any], ...]) -> str:
    """Return the session cookie of a visitor."""
    return str(_SIGNER.dumps(dict(items)))


@cache
def _read(cookie: str) -> tuple[tuple[str, Any], ...]:
    return tuple(_SIGNER.loads(cookie).items())


def read_session(cookie: str) -> dict[str, Any]:
    """Return what a session cookie says."""
    return dict(_read(cookie)) if cookie else {}


LANGUAGES = ("de", "en-US,en;q=0.9", "fr;q=0.5, de;q=0.4", "*")


def make_visitor(number: int, plain: bool = False) -> Visitor:
    """Make a visitor of a number, who is always the same.

    Args:
        number: below :data:`COUNT`.
        plain: without a login at the server.
    """
    environ, cookies = _make(number)
    if plain:
        environ = {k: v for k, v in environ.items() if k not in _LOGINS}
    return Visitor(dict(environ), dict(cookies))


_LOGINS = frozenset({"HTTP_AUTHORIZATION", "REMOTE_USER", "AUTH_TYPE", "SSL_CLIENT_S_DN"})


@cache
def _make(number: int) -> tuple[dict[str, Any], dict[str, str]]:
    rng = Random(number)
    environ = {
        "REMOTE_ADDR": f"10.0.0.{number % 40}",
        "HTTP_USER_AGENT": f"Browser/{number % 7}",
        "HTTP_ACCEPT_ENCODING": "gzip, br",
    }
    for name, values, share in (
        ("HTTP_ACCEPT_LANGUAGE", LANGUAGES, 0.8),
        ("HTTP_ACCEPT", ("text/html,*/*;q=0.8", "application/json"), 0.6),
        ("HTTP_X_A", ("1", "2"), 0.5),
        ("HTTP_X_B", ("1", "2"), 0.4),
        ("HTTP_X_FORWARDED_FOR", ("10.1.1.1", "10.1.1.2, 10.1.1.3"), 0.2),
        ("geo.country", ("DE", "FR"), 0.4),
        ("HTTP_AUTHORIZATION", ("Basic dTE6eA==", "Basic dTI6eA==", "Bearer t1"), 0.15),
        ("REMOTE_USER", ("u1", "u2"), 0.15),
        ("SSL_CLIENT_S_DN", ("CN=u1", "CN=u2"), 0.06),
    ):
        if rng.random() < share:
            environ[name] = rng.choice(values)
    cookies = {}
    if rng.random() < 0.8:
        cookies["_ga"] = f"GA1.2.{rng.randrange(10**9)}"
    if rng.random() < 0.3:
        cookies["_gid"] = str(rng.randrange(10**9))
    for name in ("a", "b", "theme"):
        if rng.random() < 0.4:
            cookies[name] = rng.choice(("1", "2"))
    session: list[tuple[str, Any]] = []
    if rng.random() < 0.4:
        session.append(("user", f"u{rng.choice((1, 2, number))}"))
    if rng.random() < 0.2:
        session.append(("lang", rng.choice(("1", "2"))))
    if rng.random() < 0.1:
        session.append(("_permanent", True))
    if rng.random() < 0.05:
        session.append(("_flashes", (("message", f"saved {number}"),)))
    if session:
        cookies[SESSION_COOKIE] = sign(number, tuple(session))
    return environ, cookies

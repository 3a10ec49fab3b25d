"""The ways in which code of a Flask app looks at its request, each with what it must see.

A way is a pair of functions: the first one asks Flask's objects, the second one computes the same
from the WSGI environ and the session alone. The second is the judge: it shares no code with what
is under test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flask import get_flashed_messages, request, session
from werkzeug.datastructures import LanguageAccept, MIMEAccept
from werkzeug.http import parse_accept_header

ABSENT = "-"
LANGUAGES = ["de", "en", "fr"]
TYPES = ["text/html", "application/json"]
_USERS = {"Basic dTE6eA==": "u1", "Basic dTI6eA==": "u2", "Bearer t1": None}
_CONDITIONS = ("If-None-Match", "If-Modified-Since")


@dataclass(slots=True)
class Visit:
    """What one request brings, for the judge.

    Attributes:
        environ: as the server made it.
        cookies: by name.
        session: what the session cookie says.
        body: of the request.
        args: the parameters of the query.
        flashed: the messages that were taken out of the session; Flask remembers them.
    """

    environ: Mapping[str, Any]
    cookies: Mapping[str, str]
    session: dict[str, Any]
    body: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    flashed: list[str] | None = None

    def header(self, name: str) -> str:
        return str(self.environ.get("HTTP_" + name.upper().replace("-", "_"), ABSENT))


class Way(NamedTuple):
    """One way to look: what the app does, what it must see, and the kind of the name it takes."""

    app: Callable[[str], object]
    judge: Callable[[Visit, str], object]
    takes: str = "none"


def _visible(headers: Any) -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in headers if name not in _CONDITIONS)


def _item(mapping: Any, name: str) -> object:
    try:
        return mapping[name]
    except KeyError:
        return ABSENT


def _all_headers(visit: Visit) -> list[tuple[str, str]]:
    found = []
    for name, value in visit.environ.items():
        if name.startswith("HTTP_"):
            found.append((name[5:].replace("_", "-").title(), value))
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            found.append((name.replace("_", "-").title(), value))
    return _visible(found)


def _languages(visit: Visit) -> LanguageAccept:
    return parse_accept_header(visit.environ.get("HTTP_ACCEPT_LANGUAGE"), LanguageAccept)


def _types(visit: Visit) -> MIMEAccept:
    return parse_accept_header(visit.environ.get("HTTP_ACCEPT"), MIMEAccept)


def _authorization(visit: Visit) -> str:
    return visit.header("Authorization")


def _route(visit: Visit) -> list[str]:
    forwarded = visit.environ.get("HTTP_X_FORWARDED_FOR")
    if forwarded:
        return [one.strip() for one in forwarded.split(",")]
    return [visit.environ["REMOTE_ADDR"]]


def _query(visit: Visit) -> str:
    return str(visit.environ["QUERY_STRING"])


def _flashed(visit: Visit) -> list[str]:
    if visit.flashed is None:
        visit.flashed = [text for _, text in visit.session.pop("_flashes", [])]
    return visit.flashed


def _user(visit: Visit) -> dict[str, Any]:
    return {k: v for k, v in visit.session.items() if not k.startswith("_")}


COOKIE = {
    "cookie.get": Way(
        lambda n: request.cookies.get(n, ABSENT), lambda v, n: v.cookies.get(n, ABSENT)
    ),
    "cookie[]": Way(lambda n: _item(request.cookies, n), lambda v, n: v.cookies.get(n, ABSENT)),
    "cookie in": Way(lambda n: n in request.cookies, lambda v, n: n in v.cookies),
    "cookie.getlist": Way(
        lambda n: request.cookies.getlist(n), lambda v, n: [v.cookies[n]] if n in v.cookies else []
    ),
    "cookie.get(type=)": Way(
        lambda n: request.cookies.get(n, 0, type=int),
        lambda v, n: int(v.cookies[n]) if v.cookies.get(n, "x").isdigit() else 0,
    ),
    "cookie of all": Way(
        lambda n: next((value for name, value in request.cookies.items() if name == n), ABSENT),
        lambda v, n: v.cookies.get(n, ABSENT),
    ),
    "cookie of dict": Way(
        lambda n: dict(request.cookies).get(n, ABSENT), lambda v, n: v.cookies.get(n, ABSENT)
    ),
    "cookie of copy": Way(
        lambda n: request.cookies.copy().get(n, ABSENT), lambda v, n: v.cookies.get(n, ABSENT)
    ),
    "cookie of **": Way(
        lambda n: {**request.cookies}.get(n, ABSENT), lambda v, n: v.cookies.get(n, ABSENT)
    ),
}
COOKIES = {
    "cookies": Way(
        lambda n: sorted(request.cookies.items()), lambda v, n: sorted(v.cookies.items())
    ),
    "cookie names": Way(lambda n: sorted(request.cookies), lambda v, n: sorted(v.cookies)),
    "len(cookies)": Way(lambda n: len(request.cookies), lambda v, n: len(v.cookies)),
    "bool(cookies)": Way(lambda n: bool(request.cookies), lambda v, n: bool(v.cookies)),
    "header Cookie": Way(
        lambda n: request.headers.get("Cookie", ABSENT), lambda v, n: v.header("Cookie")
    ),
    "environ Cookie": Way(
        lambda n: request.environ.get("HTTP_COOKIE", ABSENT), lambda v, n: v.header("Cookie")
    ),
}
SESSION = {
    "session.get": Way(lambda n: session.get(n, ABSENT), lambda v, n: v.session.get(n, ABSENT)),
    "session[]": Way(lambda n: _item(session, n), lambda v, n: v.session.get(n, ABSENT)),
    "session in": Way(lambda n: n in session, lambda v, n: n in v.session),
    "session of dict": Way(
        lambda n: dict(session).get(n, ABSENT), lambda v, n: v.session.get(n, ABSENT)
    ),
    "session of all": Way(
        lambda n: next((value for name, value in session.items() if name == n), ABSENT),
        lambda v, n: v.session.get(n, ABSENT),
    ),
}
CHANGES = {
    "session.pop": Way(lambda n: session.pop(n, ABSENT), lambda v, n: v.session.pop(n, ABSENT)),
    "session.setdefault": Way(
        lambda n: session.setdefault(n, "first"), lambda v, n: v.session.setdefault(n, "first")
    ),
}
SESSIONS = {
    "session": Way(
        lambda n: sorted((k, str(w)) for k, w in session.items() if k[0] != "_"),
        lambda v, n: sorted((k, str(w)) for k, w in _user(v).items()),
    ),
    "bool(session)": Way(lambda n: bool(session), lambda v, n: bool(v.session)),
    "len(session)": Way(lambda n: len(session), lambda v, n: len(v.session)),
    "session permanent": Way(
        lambda n: session.permanent, lambda v, n: v.session.get("_permanent", False)
    ),
    "flashed": Way(lambda n: get_flashed_messages(), lambda v, n: _flashed(v)),
}
HEADER = {
    "header.get": Way(lambda n: request.headers.get(n, ABSENT), lambda v, n: v.header(n)),
    "header[]": Way(lambda n: _item(request.headers, n), lambda v, n: v.header(n)),
    "header in": Way(lambda n: n in request.headers, lambda v, n: v.header(n) != ABSENT),
    "header.getlist": Way(
        lambda n: request.headers.getlist(n),
        lambda v, n: [] if v.header(n) == ABSENT else [v.header(n)],
    ),
    "header of environ": Way(
        lambda n: request.environ.get("HTTP_" + n.upper().replace("-", "_"), ABSENT),
        lambda v, n: v.header(n),
    ),
}
OTHER = {
    "headers": Way(lambda n: _visible(request.headers.items()), lambda v, n: _all_headers(v)),
    "user agent": Way(
        lambda n: request.user_agent.string or ABSENT, lambda v, n: v.header("User-Agent")
    ),
    "best language": Way(
        lambda n: request.accept_languages.best_match(LANGUAGES),
        lambda v, n: _languages(v).best_match(LANGUAGES),
    ),
    "language in": Way(
        lambda n: "fr" in request.accept_languages, lambda v, n: "fr" in _languages(v)
    ),
    "languages": Way(lambda n: list(request.accept_languages), lambda v, n: list(_languages(v))),
    "first language": Way(lambda n: request.accept_languages.best, lambda v, n: _languages(v).best),
    "best type": Way(
        lambda n: request.accept_mimetypes.best_match(TYPES),
        lambda v, n: _types(v).best_match(TYPES),
    ),
    "accepts json": Way(
        lambda n: request.accept_mimetypes.accept_json, lambda v, n: _types(v).accept_json
    ),
    "address": Way(lambda n: request.remote_addr, lambda v, n: v.environ["REMOTE_ADDR"]),
    "address of environ": Way(
        lambda n: request.environ["REMOTE_ADDR"], lambda v, n: v.environ["REMOTE_ADDR"]
    ),
    "route": Way(lambda n: list(request.access_route), lambda v, n: _route(v)),
    "environ.get": Way(
        lambda n: request.environ.get("geo.country", ABSENT),
        lambda v, n: v.environ.get("geo.country", ABSENT),
    ),
    "environ in": Way(
        lambda n: "geo.country" in request.environ, lambda v, n: "geo.country" in v.environ
    ),
    "environ of all": Way(
        lambda n: dict(request.environ).get("geo.country", ABSENT),
        lambda v, n: v.environ.get("geo.country", ABSENT),
    ),
}
IDENTITY = {
    "remote user": Way(
        lambda n: request.remote_user or ABSENT, lambda v, n: v.environ.get("REMOTE_USER", ABSENT)
    ),
    "authorization": Way(
        lambda n: request.headers.get("Authorization", ABSENT), lambda v, n: _authorization(v)
    ),
    "basic user": Way(
        lambda n: request.authorization.username if request.authorization else ABSENT,
        lambda v, n: _USERS.get(_authorization(v), ABSENT),
    ),
    "certificate": Way(
        lambda n: request.environ.get("SSL_CLIENT_S_DN", ABSENT),
        lambda v, n: v.environ.get("SSL_CLIENT_S_DN", ABSENT),
    ),
}
BODY = {
    "body": Way(lambda n: request.get_data(as_text=True), lambda v, n: v.body),
    "length": Way(lambda n: request.content_length or 0, lambda v, n: len(v.body)),
}
URL = {
    "host": Way(lambda n: request.host, lambda v, n: v.environ["HTTP_HOST"]),
    "scheme": Way(lambda n: request.scheme, lambda v, n: v.environ["wsgi.url_scheme"]),
    "path": Way(lambda n: request.path, lambda v, n: v.environ["PATH_INFO"]),
}
QUERY = {
    "args.get": Way(lambda n: request.args.get(n, ABSENT), lambda v, n: v.args.get(n, ABSENT)),
    "args in": Way(lambda n: n in request.args, lambda v, n: n in v.args),
}
QUERIES = {
    "args": Way(lambda n: sorted(request.args.items()), lambda v, n: sorted(v.args.items())),
    "query string": Way(lambda n: request.query_string.decode(), lambda v, n: _query(v)),
}

NAMES: Mapping[str, tuple[str, ...]] = {
    "cookie": ("a", "b", "theme"),
    "session": ("user", "lang", "cart"),
    "header": ("X-A", "X-B", "Accept-Language", "User-Agent", "X-Forwarded-For"),
    "query": ("q", "page"),
    "none": ("",),
}
_GROUPS = (
    (COOKIE, "cookie", 6),
    (COOKIES, "none", 1),
    (SESSION, "session", 6),
    (CHANGES, "session", 1),
    (SESSIONS, "none", 2),
    (HEADER, "header", 4),
    (OTHER, "none", 6),
    (IDENTITY, "none", 2),
    (BODY, "none", 1),
    (QUERY, "query", 2),
    (QUERIES, "none", 1),
    (URL, "none", 1),
)
WAYS: dict[str, Way] = {}
"""Every way, by its name."""
DRAWN: list[str] = []
"""The names of the ways, each as often as it is drawn."""
for _ways, _takes, _weight in _GROUPS:
    for _name, _way in _ways.items():
        WAYS[_name] = _way._replace(takes=_takes)
    DRAWN.extend(name for name in _ways for _ in range(max(1, _weight * 6 // len(_ways))))

ANONYMOUS = frozenset({*URL, *QUERY, *QUERIES})
"""Ways that look at nothing but the address of a page."""

# --- in templates -------------------------------------------------------------------------------

TEMPLATE = """
{%- for way, name in looks -%}
{%- if way == "cookie.get" %}{{ request.cookies.get(name, "-") }}
{%- elif way == "cookie[]" %}{{ request.cookies[name] or "-" }}
{%- elif way == "cookie in" %}{{ name in request.cookies }}
{%- elif way == "session.get" %}{{ session.get(name, "-") }}
{%- elif way == "session[]" %}{{ session[name] or "-" }}
{%- elif way == "session in" %}{{ name in session }}
{%- elif way == "header.get" %}{{ request.headers.get(name, "-") }}
{%- elif way == "address" %}{{ request.remote_addr }}
{%- elif way == "flashed" %}{{ get_flashed_messages() }}
{%- elif way == "args.get" %}{{ request.args.get(name, "-") }}
{%- endif %};
{%- endfor -%}
{{ extra }}"""
IN_TEMPLATES = (
    "cookie.get", "cookie[]", "cookie in", "session.get", "session[]", "session in", "header.get",
    "address", "flashed", "args.get",
)  # fmt: skip

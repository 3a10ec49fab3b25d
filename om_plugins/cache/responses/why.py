"""Says of one request which caches keep its response, under which inputs, and who looked at them.

The request is made in this process, of an application that shares nothing with other processes
meanwhile: its pages are made, not found, so every look is seen, and no entry or count is left where
a running server would see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wsgi import ClosingIterator

from ...core.body import TimeIsUp, limit_time
from ...core.inputs import InputRules, Reader, is_session
from ...core.observed import ObservedInputs
from ...plugins.kit import Kit
from ...protocols import Clock
from .decisions import REPORT, CacheDecision, ResponseReport, describe_error, describe_place

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_CACHES = {
    "view": "@om.cached",
    "http": "The shared HTTP cache in front",
    "fallback": "The fallback's copies of good responses",
}
_SILENT = {
    "view": "the view has none, or something answered in its place",
    "http": "OM_HTTP_CACHE is off, and no view with shared=True made the response",
    "fallback": "no fallback with copies is there for the path, or the response is no 200",
}
"""Why a cache says nothing of a response."""
_PASSED = "the request went past it: its host is not trusted, or it is no plain GET"
_REASONS = {
    "status": "a response with its status is not stored",
    "no-store": "the request or the response says no-store",
    "private": "it is private",
    "cookie": "it sets a cookie",
    "vary": "it says Vary: *",
    "vary-cookie": "it says Vary: Cookie",
    "authorization": "the request had Authorization, and the response does not say public",
    "no-freshness": "it does not say how long it is fresh",
    "size": "it is too large",
    "nonce": "its CSP nonce is not found in its body",
    "write": "the application sent it by write()",
    "file": "it is a file, which the server sends itself",
    "route": "OM_HTTP_CACHE['routes'] says so for this path",
    "request": "the request asks for a part of it, or goes past the cache",
    "error": "an error is kept only with freshness that the view itself set on it",
}
_KINDS = {
    "cookies": "cookies",
    "session": "the session",
    "header": "request headers",
    "address": "the client's address",
    "environ": "variables of the environ",
}
_OF_COOKIES = frozenset({"cookies", "session"})
_IN_KEY = "scheme, host, path, query, and the client's credentials (REMOTE_USER, Authorization, …)"
_NOT_SEEN = "code that cannot be seen"
_LONGEST_S = 10.0
_MOST_BYTES = 64 * 2**20
"""A body that is longer, or takes longer, may have no end."""
_SHARED_KEPT = "its view is shared, so the cache in front keeps it"
_NONE = CacheDecision(cache="view", kept=False)


def build_request(
    path: str, *, headers: Iterable[str] = (), cookies: Iterable[str] = (), host: str = ""
) -> WSGIEnvironment:
    """Build the environ of a GET.

    Args:
        path: with its query, as ``/search?q=tea``.
        headers: as ``Accept-Language: de``.
        cookies: as ``name=value``.
        host: as ``example.com``, ``localhost:8000`` or ``https://example.com``.

    Raises:
        ValueError: one of them has another form.
    """
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{path!r} is no path: it must begin with one '/', as /report?year=2026")
    given = Headers()
    for one in headers:
        name, colon, value = one.partition(":")
        if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{one!r} is no header: write it as 'Accept-Language: de'")
        if not value.isprintable():
            raise ValueError(f"{one!r} is no header: a value is one line")
        given.add(name, value.strip())
    for one in cookies:
        if not one.partition("=")[1] or not one.isprintable() or ";" in one:
            raise ValueError(f"{one!r} is no cookie: write it as 'name=value'")
    sent = [*given.getlist("Cookie"), *cookies]
    if sent:
        given.set("Cookie", "; ".join(sent))
    scheme, _, name = host.rpartition("://")
    if scheme not in ("", "http", "https") or "/" in name:
        raise ValueError(f"{host!r} is no host: write it as example.com or https://example.com")
    base = f"{scheme or 'http'}://{name or 'localhost'}/"
    address = {"REMOTE_ADDR": "127.0.0.1"}
    with closing(EnvironBuilder(path, base, headers=given, environ_base=address)) as builder:
        return builder.get_environ()


@dataclass(frozen=True, slots=True)
class AskedResponse:
    """What became of the request.

    Attributes:
        path: of the request, with its query.
        status: of the response, as ``200 OK``; "" when an exception came before it.
        location: where a redirect leads.
        allow: the methods that the path takes, where GET is none of them.
        error: the exception, as its type and the module, function and line that raised it.
        left: the exception left the application, which did not answer it with a 500.
        stopped: why the body was not read to its end, in a clause; "" for one that was.
        report: what the application and the caches told.
        silent: what it means when a cache that this application uses told nothing.
    """

    path: str
    status: str
    location: str
    allow: str
    error: str
    left: bool
    stopped: str
    report: ResponseReport
    silent: Mapping[str, str]

    def describe(self) -> dict[str, Any]:
        """Return all that is known, as data for JSON. No value of the request is in it."""
        inputs = self.report.inputs or ObservedInputs(None, InputRules())
        caches = [{"cache": name, **self._describe_cache(name)} for name in _CACHES]
        view, front = caches[0], caches[1]
        if view["reason"] == "shared" and front["kept"]:
            view["detail"] = _SHARED_KEPT
        compared = {name for one in caches for name in one["names"]}
        if any(one["cookies"] for one in caches):  # in front, a session is its cookie
            compared.update(name for name in inputs.counted if _find_kind(name) in _OF_COOKIES)
        return {
            "path": self.path,
            "status": self.status,
            "location": self.location,
            "allow": self.allow,
            "error": self.error,
            "left": self.left,
            "stopped": self.stopped,
            "observed": self.report.inputs is not None,
            "caches": caches,
            "inputs": [
                {
                    "name": name,
                    "where": describe_place(inputs.where.get(name)),
                    "compared": name in compared,
                }
                for name in inputs.names()
            ],
            "refused": inputs.refused,
            "refused_where": describe_place(inputs.where.get(inputs.refused)),
            "session_changed": inputs.session_changed,
            "known": _describe_known(inputs),
            "not_looked_at": list(_list_unseen([*inputs.counted, *inputs.known])),
        }

    def _describe_cache(self, name: str) -> dict[str, Any]:
        found = [one for one in self.report.decisions if one.cache == name]
        decided = next(
            (one for one in found if one.kept or one.detail), found[0] if found else _NONE
        )
        return {
            "on": bool(found) or name in self.silent,
            "kept": decided.kept,
            "reason": decided.reason,
            "detail": decided.detail
            or _REASONS.get(decided.reason, decided.reason)
            or ("" if found else self.silent.get(name, "")),
            "names": list(decided.names),
            "scoped": decided.scoped,
            "cookies": list(decided.cookies),
        }


def ask(kit: Kit, environ: WSGIEnvironment) -> AskedResponse:
    """Make a request of the whole application, and return what became of it.

    Args:
        kit: of the application. It is closed: the application is built again, with a cache and a
            hub of its own in memory.
        environ: the request.

    Raises:
        ValueError: the code of the application cannot be observed.
    """
    if kit.host.isolate is None:
        raise ValueError(
            "what the code of this application looks at cannot be observed, because it is not a "
            "Flask app: its caches keep only what says that it is for everybody, see OM_HTTP_CACHE"
        )
    if not kit.keys.enabled:
        raise ValueError("OM_ENABLED is off, so no response is kept")
    declared, layers = kit.host.declared, kit.layers
    everything = kit.part_of("http_cache").rules.everything
    used = {
        "view": bool(declared.get("cache")),
        "http": "http_cache" in layers or bool(declared.get("http_cache")),
        "fallback": "fallback" in layers or bool(declared.get("fallback")),
    }
    silent = {name: _SILENT[name] for name, on in used.items() if on}
    if everything:
        silent["http"] = _PASSED
    application = kit.host.isolate()
    report = ResponseReport()
    path = str(environ["PATH_INFO"]).encode("latin-1").decode("utf-8", "replace")
    query = str(environ["QUERY_STRING"]).encode("latin-1").decode("utf-8", "replace")
    status = location = allow = error = stopped = ""
    try:
        body, status, headers = run_wsgi_app(application, {**environ, REPORT: report})
        location = headers.get("Location", "")
        allow = headers.get("Allow", "") if status.startswith("405") else ""
        stopped = _read_body(body, headers, kit.clock)
    except Exception as raised:  # noqa: BLE001 - the application may raise anything
        error = describe_error(raised)
    whole = f"{path}?{query}" if query else path
    return AskedResponse(
        whole, status, location, allow, error or report.error, bool(error), stopped, report, silent
    )


def _read_body(body: Iterable[bytes], headers: Headers, clock: Clock) -> str:
    """Read a body, close it, and return what was not waited for; "" for a body that ended."""
    whole = ClosingIterator(body, [])
    with closing(whole):
        if headers.get("Content-Type", "").startswith("text/event-stream"):
            return "a stream of events, closed at once"
        size, end = 0, clock.monotonic() + _LONGEST_S
        too_late = f"a stream, closed after {_LONGEST_S:g} s before its end"
        try:
            with limit_time(_LONGEST_S):
                for chunk in whole:
                    size += len(chunk)
                    if size > _MOST_BYTES:
                        return f"a stream, closed after {_MOST_BYTES >> 20} MiB before its end"
                    if clock.monotonic() > end:
                        return too_late
        except TimeIsUp:
            return too_late
    return ""


def _describe_known(inputs: ObservedInputs) -> list[dict[str, Any]]:
    found: dict[Reader, list[str]] = {}
    for name, reader in sorted(inputs.known.items()):
        if name not in inputs.counted:
            found.setdefault(reader, []).append(name)
    return [
        {
            "names": names,
            "reader": ".".join(reader),
            "reason": inputs.rules.readers[reader].reason,
        }
        for reader, names in found.items()
    ]


def _list_unseen(names: Sequence[str]) -> Iterator[str]:
    kinds = {_find_kind(name) for name in names}
    for kind, words in _KINDS.items():
        if kind not in kinds:
            yield words


def _find_kind(name: str) -> str:
    if is_session(name):
        return "session"
    kind = name.partition(":")[0]
    return {"cookie": "cookies", "vary": "header", "accept": "header"}.get(kind, kind)


# --- in plain words -----------------------------------------------------------------------------


def write_lines(said: Mapping[str, Any]) -> Iterator[str]:
    """Yield what :meth:`AskedResponse.describe` returned, as lines of text for people."""
    if said["left"]:
        yield f"GET {said['path']}: {said['error']}. Nothing is kept."
    else:
        to = f", to {said['location']}" if said["location"] else ""
        takes = f". The path takes {said['allow']}" if said["allow"] else ""
        after = f", after {said['error']}" if said["error"] else ""
        stopped = f", {said['stopped']}" if said["stopped"] else ""
        yield f"GET {said['path']}: {said['status']}{to}{after}{stopped}{takes}"
    yield ""
    for one in () if said["left"] else said["caches"]:
        yield from _write_cache(one)
    if not said["observed"]:
        yield "No view of the Flask app got the request, so nothing was observed."
        return
    yield f"Always in the key: {_IN_KEY}."
    yield from _write_looks(said)


def _write_cache(one: Mapping[str, Any]) -> Iterator[str]:
    subject = _CACHES[one["cache"]]
    keeps = "keep" if subject.endswith("responses") else "keeps"
    if not one["on"]:
        yield f"{subject}: not used in this app."
    elif one["kept"]:
        each = ["scope (scope=)"] if one["scoped"] else []
        if one["names"]:
            each.append(f"value of {', '.join(one['names'])}")
        under = f"one entry for each {' and each '.join(each)}" if each else "one for everybody"
        if one["cookies"]:
            named = "any cookie" if "" in one["cookies"] else " or ".join(one["cookies"])
            under += f", for requests without {named}"
        yield f"{subject} {keeps} it, {under}."
    else:
        negated = "do not keep" if keeps == "keep" else "does not keep"
        yield f"{subject} {negated} it: {one['detail']}."


def _write_looks(said: Mapping[str, Any]) -> Iterator[str]:
    if said["refused"]:
        place = said["refused_where"] or _NOT_SEEN
        yield f"Not comparable with another request: {said['refused']} ({place})."
    if said["session_changed"]:
        yield "The request changed the session."
    if said["inputs"]:
        yield ""
        yield "Looked at, and first by:"
        width = max(len(one["name"]) for one in said["inputs"])
        kept = any(one["kept"] for one in said["caches"])
        for one in said["inputs"]:
            place = one["where"] or _name_unseen(one["name"])
            mark = "" if one["compared"] or not kept else "  (not compared)"
            yield f"  {one['name']:<{width}}  {place}{mark}"
        if kept and not all(one["compared"] for one in said["inputs"]):
            yield (
                "What is not compared was looked at after the view, by code that runs on each hit, "
                "or scope= stands for it."
            )
    else:
        yield "Nobody looked at anything else."
    if said["known"]:
        yield ""
        yield "Looked at by known readers alone, which does not count:"
        for one in said["known"]:
            yield f"  {', '.join(one['names'])}: {one['reader']} ({one['reason']})"
    if said["inputs"] and said["not_looked_at"]:
        yield ""
        yield f"Not looked at: {', '.join(said['not_looked_at'])}."


def _name_unseen(name: str) -> str:
    return "the response's Vary" if name.startswith("vary:") else _NOT_SEEN

"""Runs a program, and compares each answer with the one that it must be."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from http.cookies import SimpleCookie
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl

from .apps import FOREGROUND, FRESH_S, KEPT_S, World, build
from .looks import Visit
from .programs import (
    HARMLESS,
    Ask,
    Break,
    Case,
    JudgeSide,
    Page,
    Pass,
    Refresh,
    View,
    is_anonymous,
    judge,
    show,
    simplify,
)
from .visitors import SESSION_COOKIE, Visitor, make_visitor, read_session

HOSTS = ("shop.test", "other.test")
_VERSION = re.compile(r"\|v(\d+)$")


class WrongAnswer(AssertionError):
    """An answer is not the one that its request must get."""


@dataclass(slots=True)
class Reply:
    """The answer to one request."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    def get(self, name: str, default: str = "") -> str:
        return next((v for n, v in self.headers if n.lower() == name.lower()), default)

    def all(self, name: str) -> list[str]:
        return [v for n, v in self.headers if n.lower() == name.lower()]


@dataclass(slots=True)
class Tally:
    """How often what happened, by name. It shows what the programs reach."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, name: str) -> None:
        self.counts[name] += 1

    def share(self, part: str, whole: str) -> float:
        """Return how large a part of what happened is."""
        return self.counts[part] / max(1, self.counts[whole])


class _ErrorHandler(logging.Handler):
    """Collects errors that are not the views' own."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if str(error) != "broken":
            self._errors.append(f"{record.getMessage()}: {type(error).__name__}: {error}")


class Drive:
    """One run of a program.

    Args:
        case: the program.
        tally: counts what happens.
    """

    def __init__(self, case: Case, tally: Tally) -> None:
        self.case = case
        self.tally = tally
        self.world: World = build(case)
        self.errors: list[str] = []
        self._handler = _ErrorHandler(self.errors)
        self._logger = logging.getLogger("om_plugins")
        self.visitors: dict[int, Visitor] = {}
        self.fresh: dict[str, int] = {}
        self.made: dict[Any, float] = {}
        self.downstream: dict[str, list[tuple[dict[str, Any], str, str]]] = {}
        self.anonymous = [self._is_anonymous(number) for number in range(len(case.views))]

    def run(self) -> None:
        """Let everything happen.

        Raises:
            WrongAnswer: an answer is wrong.
        """
        propagates, self._logger.propagate = self._logger.propagate, False
        self._logger.addHandler(self._handler)
        try:
            for event in self.case.events:
                match event:
                    case Ask():
                        self._ask(event)
                    case Pass(seconds):
                        self.world.clock.advance(seconds)
                        self.world.change_data()
                    case Refresh():
                        self._refresh()
                    case Break(broken):
                        self.world.broken = broken
                        self.made.clear()  # an outage may end what is kept
            if self.errors:
                raise WrongAnswer(f"logged: {self.errors[0]}")
        finally:
            self._logger.removeHandler(self._handler)
            self._logger.propagate = propagates
            self.tally.counts["refreshes"] += self.world.refreshed
            self.world.close()

    def _refresh(self) -> None:
        self.world.om.runtime.scheduler.run_pending()

    def _ask(self, ask: Ask) -> None:
        world, tally = self.world, self.tally
        number = ask.view % len(self.case.views)
        view = self.case.views[number]
        visitor = self.visitors.setdefault(ask.visitor, make_visitor(ask.visitor))
        url = f"{HOSTS[ask.host]}/{number}?{ask.query}"
        environ = _build_environ(ask, number, visitor)
        held = visitor.kept.get(url) if ask.again else None
        if held:
            environ["HTTP_IF_NONE_MATCH"] = held[0]
        visit = Visit(
            dict(environ), visitor.cookies, read_session(visitor.cookies.get(SESSION_COOKIE, "")),
            ask.body, dict(parse_qsl(ask.query, keep_blank_values=True)),
        )  # fmt: skip
        world.ran.clear()
        world.fresh.clear()
        world.limited = False
        reply = call(world.app, environ)
        tally.add("requests")
        given = read_cookies(reply)
        before, again = dict(visit.session), replace(visit, session=dict(visit.session))
        after = read_session(given[SESSION_COOKIE]) if SESSION_COOKIE in given else None
        shown = held[1] if held and reply.status == 304 else reply.body
        page = judge(self.case, number, JudgeSide(visit, world.fresh, self._read_version(shown)))
        fails = world.broken or (self.case.fallback and page.status >= 500)
        permitted = (fails and reply.status >= 500) or (world.limited and reply.status == 429)
        if not permitted:
            self._compare(ask, reply, page, held, given, before, after)
            self._count(ask, number, view.kind, reply)
            self._ask_downstream(ask, url, again, reply, view)
        for name, value in given.items():
            visitor.cookies[name] = value
            if not value:
                del visitor.cookies[name]
        if reply.get("ETag") and reply.status == 200 and ask.method == "GET" and not permitted:
            visitor.kept[url] = reply.get("ETag"), reply.body

    def _read_version(self, body: str) -> int:
        """Return the version of the data that a page shows; the present one if it shows none."""
        found = _VERSION.search(body)
        return int(found[1]) if found else self.world.version

    def _compare(
        self, ask: Ask, reply: Reply, page: Page, held: Any, given: dict[str, str],
        before: dict[str, Any], after: dict[str, Any] | None,
    ) -> None:  # fmt: skip
        problems = []
        if reply.status == 304 and held:
            self.tally.add("304")
            body = _mask(held[1])
        else:
            body = _mask(reply.body)
            if reply.status != page.status:
                problems.append(f"status {reply.status}, must be {page.status}")
        if body != page.body and (ask.method != "HEAD" or body):
            problems.append(f"body    {body!r}\n   must be {page.body!r}")
        if reply.status != 304:
            for name in ("X-Above", "X-After"):
                if reply.get(name) != page.headers.get(name, ""):
                    problems.append(f"{name} {reply.get(name)!r}, not {page.headers.get(name)!r}")
        cookies = {n: v for n, v in given.items() if n != SESSION_COOKIE}
        if cookies != page.cookies:
            problems.append(f"cookies {cookies}, must be {page.cookies}")
        if _plain(page.session) != _plain(before if after is None else after):
            problems.append(f"session {after}, must be {page.session}")
        for name, value in (after or {}).items():
            if str(value).startswith("fresh ") and before.get(name) != value:
                first = self.fresh.setdefault(value, ask.visitor)
                if first != ask.visitor:
                    problems.append(f"{value} was given to visitor {first} already")
        if problems:
            problems += [f"of cache: {reply.get('Cache-Status') or 'data'}; ran {self.world.ran}"]
            raise WrongAnswer("\n".join([f"{ask}", *problems]))

    def _is_observed(self, kind: str) -> bool:
        """Whether the headers of a view are ours to write."""
        return bool(self.case.http_cache) or not kind.startswith("http")

    # --- what is shared -------------------------------------------------------------------------

    def _is_anonymous(self, number: int) -> bool:
        """Whether a page looks at nobody, so that all visitors may share it."""
        view = self.case.views[number]
        hooks = [one for one in self.case.hooks if view.blueprint or not one.blueprint]
        steps = [one.steps for one in hooks if one.at not in HARMLESS]
        steps += [view.steps, view.above, view.below, view.template or (), view.part or ()]
        return (
            all(map(is_anonymous, steps))
            and view.query is True
            and view.kind not in ("none", "scope")
            and not (view.streamed is not None and view.kind in ("cached", "public"))
            and view.part is None
            and self._is_observed(view.kind)
        )

    def _count(self, ask: Ask, number: int, kind: str, reply: Reply) -> None:
        hit = not self.world.ran and reply.status in (200, 304)
        for whole in ("", f"{kind}: "):
            self.tally.add(f"{whole}asked")
            if hit:
                self.tally.add(f"{whole}hit")
        if reply.get("OM-Stale"):
            self.tally.add("last good answer")
        if not self.anonymous[number] or ask.method != "GET" or ask.body or self.world.broken:
            return
        visitor = self.visitors[ask.visitor].environ
        if kind == "http" and "HTTP_AUTHORIZATION" in visitor:
            return  # RFC 9111 section 3.5: only a response that says it may be shared
        names = ("HTTP_AUTHORIZATION", "REMOTE_USER", "SSL_CLIENT_S_DN")
        key = (number, ask.query, ask.host, *(visitor.get(name) for name in names))
        now = self.world.clock.monotonic()
        made = self.made.get(key)
        if made is not None and now - made < KEPT_S - FRESH_S:
            self.tally.add(f"anonymous {kind}: asked")
            self.tally.add(f"anonymous {kind}: hit" if hit else f"anonymous {kind}: missed")
        if not hit and reply.status == 200 and not reply.get("Set-Cookie"):
            self.made[key] = now

    def _ask_downstream(self, ask: Ask, url: str, visit: Visit, reply: Reply, view: View) -> None:
        """Compare with what a cache further out, which obeys RFC 9111, would answer."""
        environ = visit.environ
        if ask.method != "GET" or ask.body:
            return
        for selecting, body, control in self.downstream.get(url, ()):
            if all(environ.get(name, "") == value for name, value in selecting.items()):
                self.tally.add("downstream hits")
                side = JudgeSide(
                    replace(visit, session=dict(visit.session)), {}, self._read_version(body)
                )
                page = judge(self.case, ask.view % len(self.case.views), side)
                if _mask(body) != page.body:
                    raise WrongAnswer(
                        f"{ask}\na cache further out has, by Cache-Control: {control} and "
                        f"Vary {[*selecting]}\n        {body!r}\nmust be {page.body!r}"
                    )
        control = reply.get("Cache-Control")
        vary = {one.strip() for field in reply.all("Vary") for one in field.split(",")} - {""}
        keeps = reply.status == 200 and self._is_told_downstream(view) and "*" not in vary
        if keeps and re.search(r"public|s-maxage=[1-9]|max-age=[1-9]", control):
            shared = "public" in control or "s-maxage" in control
            if re.search(r"private|no-store", control) or reply.get("Set-Cookie"):
                return
            if shared or "HTTP_AUTHORIZATION" not in environ:
                names = ["HTTP_" + one.upper().replace("-", "_") for one in vary]
                selecting = {name: environ.get(name, "") for name in names}
                self.downstream.setdefault(url, []).append((selecting, reply.body, control))

    def _is_told_downstream(self, view: View) -> bool:
        """Whether the headers of a view can tell caches further out what it looked at.

        What an app says of itself stands, and they are out before a stream looks at anything.
        """
        if not self._is_observed(view.kind) or view.kind == "http public":
            return False
        return not (view.kind == "http" and view.streamed is not None)


def _plain(session: dict[str, Any]) -> dict[str, str]:
    return {k: str(list(v) if isinstance(v, tuple) else v) for k, v in session.items()}


def _mask(body: str) -> str:
    return _VERSION.sub("", body)


def _build_environ(ask: Ask, number: int, visitor: Visitor) -> dict[str, Any]:
    environ = {
        "REQUEST_METHOD": ask.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": f"/{number}",
        "QUERY_STRING": ask.query,
        "SERVER_NAME": HOSTS[0],
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": HOSTS[ask.host],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(ask.body.encode()),
        "wsgi.errors": None,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        FOREGROUND: True,
        **visitor.environ,
    }
    if visitor.cookies:
        environ["HTTP_COOKIE"] = "; ".join(f"{n}={v}" for n, v in visitor.cookies.items())
    if ask.body:
        environ["CONTENT_LENGTH"] = str(len(ask.body))
        environ["CONTENT_TYPE"] = "text/plain"
    return environ


def call(app: Any, environ: dict[str, Any]) -> Reply:
    """Send a request to a WSGI app."""
    started: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        started[:] = [int(status[:3]), list(headers)]
        return lambda data: None

    body = app(environ, start_response)
    try:
        data = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return Reply(started[0], started[1], data.decode())


def read_cookies(reply: Reply) -> dict[str, str]:
    """Return the cookies that an answer sets."""
    found = {}
    for one in reply.all("Set-Cookie"):
        for name, morsel in SimpleCookie(one).items():
            found[name] = morsel.value
    return found


# --- one case -----------------------------------------------------------------------------------


def find_fault(case: Case, tally: Tally | None = None) -> str:
    """Run a program; return what is wrong with it, or ""."""
    try:
        Drive(case, tally or Tally()).run()
    except WrongAnswer as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def shrink(case: Case, most: int = 600) -> Case:
    """Drop whatever a failing program can do without."""
    tries, found = 0, True
    while found:
        found = False
        for smaller in simplify(case):
            tries += 1
            if tries > most:
                return case
            if smaller.views and find_fault(smaller):
                case, found = smaller, True
                break
    return case


def check(case: Case, tally: Tally) -> None:
    """Run a program.

    Raises:
        AssertionError: it goes wrong; the error shows a small program that does.
    """
    if find_fault(case, tally):
        small = shrink(case)
        raise AssertionError(f"seed {case.seed}: {find_fault(small)}\n\n{show(small)}")

"""Builds the Flask app of a program, with an ``OpenManager``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import flask
from flask import Blueprint, Flask, Response, after_this_request, g, make_response, request, session
from flask import signals as flask_signals
from jinja2 import BytecodeCache, DictLoader
from werkzeug.exceptions import HTTPException

from om_plugins import OpenManager
from om_plugins.builtin import BUILTINS
from om_plugins.testing.fakes import FakeClock

from .looks import TEMPLATE, WAYS
from .programs import Answered, Case, Hook, Look, Steps, View, run

SECRET = "of the test, and long enough for it"
HUB = "hub-memory"
OTHER_PLUGINS = [name for name in BUILTINS if name != HUB]
"""No test needs them, and loading them takes most of the time of building an app."""
MOST_OF_AN_ADDRESS = 8
FRESH_S, KEPT_S = 10, 100
FOREGROUND = "test.foreground"
"""A variable of the requests of visitors. Requests of the background do not have it."""
_fresh = itertools.count(1)


@dataclass(slots=True)
class World:
    """An app that runs, its clock, and what it did.

    Attributes:
        broken: the views fail.
        ran: the numbers of the views that ran for the last request itself.
        refreshed: how many views ran in the background.
        limited: the limit refused a request since then.
    """

    app: Flask
    om: OpenManager
    clock: FakeClock
    broken: bool = False
    ran: list[int] = field(default_factory=list)
    refreshed: int = 0
    limited: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    receivers: list[Any] = field(default_factory=list)

    @property
    def version(self) -> int:
        """The version of the data that all pages show."""
        found: int = self.app.config["VERSION"]
        return found

    @property
    def fresh(self) -> dict[str, list[str]]:
        """The new values that the last request itself got for keys of the session, in order."""
        found: dict[str, list[str]] = self.app.config["FRESH"]
        return found

    def change_data(self) -> None:
        """Change the data of all pages."""
        self.app.config["VERSION"] += 1

    def close(self) -> None:
        self.om.runtime.close()


class _AppSide:
    """Runs steps in a request."""

    def look(self, look: Look) -> object:
        return WAYS[look.way].app(look.name)

    def version(self) -> int:
        found: int = flask.current_app.config["VERSION"]
        return found

    def keep(self, name: str, value: str) -> None:
        if value == "fresh":
            value = f"fresh {next(_fresh)}"
            if FOREGROUND in request.__dict__["environ"]:
                flask.current_app.config["FRESH"].setdefault(name, []).append(value)
        session[name] = value

    def forget(self, name: str) -> None:
        session.pop(name, None)

    def give_cookie(self, name: str, value: str) -> None:
        if "answer" in g:
            g.answer.set_cookie(name, value)
            return

        @after_this_request
        def give(response: Response) -> Response:
            response.set_cookie(name, value)
            return response

    def abort(self, status: int) -> None:
        flask.abort(status)


SIDE = _AppSide()


class _Bytecode(BytecodeCache):
    """All apps have the same template."""

    kept = b""

    def load_bytecode(self, bucket: Any) -> None:
        if self.kept:
            bucket.bytecode_from_string(self.kept)

    def dump_bytecode(self, bucket: Any) -> None:
        _Bytecode.kept = bucket.bytecode_to_string()


def build(case: Case) -> World:
    """Build the app of a program."""
    app = Flask("observed", static_folder=None)
    app.jinja_options = {"bytecode_cache": _Bytecode(), "loader": DictLoader({"page": TEMPLATE})}
    app.secret_key = SECRET
    app.logger.disabled = True
    app.config.update(
        TESTING=True,
        PROPAGATE_EXCEPTIONS=False,
        VERSION=1,
        FRESH={},
        OM_HUB_URL="memory://",
        OM_PLUGINS=[HUB],
        OM_PLUGINS_DISABLED=OTHER_PLUGINS,
        OM_CACHE_READERS=[f"{__name__}:limit_by_address", f"{__name__}:write_log"],
    )
    if case.http_cache:
        options = {"cookies": True} if case.http_cache == "cookies" else {}
        app.config["OM_HTTP_CACHE"] = options or True
    if case.fallback:
        app.config["OM_FALLBACK"] = {"/": {"answers": ["stale"], "copy_every": 0}}
    clock = FakeClock()
    with patch("om_plugins.runtime.UnsleepingClock", lambda: clock):
        world = World(app, OpenManager(app), clock)
    blueprint = Blueprint("blueprint", __name__)
    for hook in case.hooks:
        _add_hook(world, blueprint, hook)
    for number, view in enumerate(case.views):
        _add_view(world, blueprint if view.blueprint else app, case, number, view)
    app.register_blueprint(blueprint)

    @app.errorhandler(HTTPException)
    def handle(error: HTTPException) -> tuple[str, int]:
        run(case.errors, SIDE, seen := [f"error {error.code}"])
        return "|".join(seen), error.code or 500

    return world


def _seen() -> list[str]:
    found: list[str] = g.setdefault("seen", [])
    return found


# --- hooks --------------------------------------------------------------------------------------


def limit_by_address(world: World) -> None:
    """Refuse an address that asked too often: a harmless hook that every site has."""
    address = request.remote_addr or ""
    world.counts[address] = world.counts.get(address, 0) + 1
    if world.counts[address] > MOST_OF_AN_ADDRESS:
        world.limited = True
        flask.abort(429)


def write_log(response: Response) -> Response:
    """Write an access log: a harmless hook that every site has."""
    line = (
        request.environ["REMOTE_ADDR"], request.headers.get("User-Agent"), session.get("user"),
        dict(request.cookies), dict(request.headers), request.cookies.get("a"), dict(session),
    )  # fmt: skip
    assert line
    return response


def give_request_id(response: Response) -> Response:
    """Number the answers."""
    response.headers["X-Request-Id"] = str(next(_fresh))
    return response


def _add_hook(world: World, blueprint: Blueprint, hook: Hook) -> None:
    app: Any = blueprint if hook.blueprint else world.app

    def before(*args: Any) -> str | None:
        seen = _seen()
        try:
            run(hook.steps, SIDE, seen)
        except Answered:
            return "early|" + "|".join(seen)
        return None

    match hook.at:
        case "signal":

            def receive(sender: Flask, **extra: Any) -> None:
                before()

            world.receivers.append(receive)
            flask_signals.request_started.connect(receive, sender=world.app)
        case "values":
            app.url_value_preprocessor(before)
        case "before":
            app.before_request(before)
        case "after":

            def after(response: Response) -> Response:
                g.answer = response
                seen = [one for one in [response.headers.get("X-After")] if one]
                run(hook.steps, SIDE, seen)
                response.headers["X-After"] = "|".join(seen)
                return response

            app.after_request(after)
        case "context":

            def add() -> dict[str, str]:
                seen: list[str] = g.setdefault("extra", [])
                run(hook.steps, SIDE, seen)
                return {"extra": "|".join(seen)}

            app.context_processor(add)
        case "teardown":
            app.teardown_request(lambda error: run(hook.steps, SIDE, []))
        case "limit":
            app.before_request(lambda: limit_by_address(world))
        case "request id":
            app.after_request(give_request_id)
        case "log":
            app.after_request(write_log)


# --- views --------------------------------------------------------------------------------------


def _add_view(world: World, app: Any, case: Case, number: int, view: View) -> None:
    om = world.om
    part = None if view.part is None else _make_part(om, view.part)

    def body() -> Any:
        if FOREGROUND in request.__dict__["environ"]:
            world.ran.append(number)
        else:
            world.refreshed += 1
        if world.broken and not case.fails_late:
            raise RuntimeError("broken")
        seen = g.get("below") or [*_seen()]
        seen.append(f"page {number}")
        try:
            run(view.steps, SIDE, seen)
        except Answered:
            return "|".join(seen) + f"|v{world.version}"
        if part is not None:
            seen.append(make_response(part()).get_data(as_text=True))
        if view.template is not None:
            looks = [(one.way, one.name) for one in view.template]
            seen.append(flask.render_template("page", looks=looks))
        if world.broken:
            raise RuntimeError("broken")
        end = f"|v{world.version}"
        if view.streamed is None:
            return "|".join(seen) + end
        return flask.stream_with_context(_stream(seen, view.streamed, end))

    def below() -> Any:
        g.below = [*_seen()]
        run(view.below, SIDE, g.below)
        return body()

    def respond() -> Any:
        response = make_response(below() if view.below else body())
        if view.kind.startswith("http"):
            public = "public, " if view.kind.endswith("public") else ""
            times = f"max-age={FRESH_S}, stale-while-revalidate={KEPT_S - FRESH_S}"
            response.headers["Cache-Control"] = public + times
        return response

    options: dict[str, Any] = {"stale_time": FRESH_S, "cache_time": KEPT_S, "query": view.query}
    kept: Callable[[], Any] = respond
    match view.kind:
        case "cached":
            kept = om.cached(**options)(respond)
        case "shared" | "public":
            kept = om.cached(**options, **{view.kind: True})(respond)
        case "scope":
            kept = om.cached(**options, scope=lambda: session.get("user", "nobody"))(respond)

    def above() -> Any:
        run(view.above, SIDE, seen := [])
        response = make_response(kept())
        response.headers["X-Above"] = "|".join(seen)
        return response

    app.add_url_rule(f"/{number}", f"view{number}", above if view.above else kept)


def _make_part(om: OpenManager, steps: Steps) -> Callable[[], Any]:
    @om.cached(stale_time=FRESH_S, cache_time=KEPT_S)
    def part() -> str:
        run(steps, SIDE, seen := ["part"])
        return "|".join(seen)

    return part


def _stream(seen: list[str], steps: Steps, end: str) -> Iterator[str]:
    yield "|".join(seen)
    for step in steps:
        run((step,), SIDE, more := [])
        yield "".join(f"|{one}" for one in more)
    yield end

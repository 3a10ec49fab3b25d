"""One app with or without the line, behind a server of its own, and what a browser meets there."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask import Flask
from werkzeug.serving import make_server

from om_plugins import OpenManager
from om_plugins.csp.violations import groups

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

# Tells the test of each violation, also of those in a page that was left since. Chromium reports
# violations that are alike in all parts once a page.
WATCH = """const told = new Set();
addEventListener("securitypolicyviolation", (event) => {
  const said = [event.disposition, event.effectiveDirective, event.blockedURI, event.sample];
  const key = [...said, event.sourceFile, event.lineNumber, event.columnNumber].join(" ");
  if (!told.has(key)) violated(said.join(" "));
  told.add(key);
});"""
PATIENCE_MS = 20_000


@dataclass(frozen=True, slots=True)
class Line:
    """How ``OpenManager(app)`` is written, or that it is not written at all."""

    mode: str = ""
    first: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        order = "before" if self.first else "after"
        return f"{self.mode}, {order} the extension" if self.mode else "without the line"


def build(module: ModuleType, line: Line) -> Flask:
    """The app of a module."""
    app = Flask("real_app")
    app.secret_key = "k" * 32
    if line.mode:
        app.config.update(OM_CSP_MODE=line.mode, OM_HUB_URL="memory://", **line.settings)

    def add_line() -> object:
        return OpenManager(app) if line.mode else None

    app.add_url_rule("/favicon.ico", "favicon", lambda: ("", 204))
    module.build(app, add_line, line_first=line.first)
    return app


@dataclass(slots=True)
class Visit:
    """What one visit showed, and what the browser said about it."""

    seen: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answers: set[tuple[str, str, int]] = field(default_factory=set)
    suggested: dict[str, Any] = field(default_factory=dict)

    def add_answer(self, response: Any, url: str) -> None:
        """Note a response; whether pictures of style sheets come before the tab leaves varies."""
        address = response.url.removeprefix(url).partition("?")[0]
        request = response.request
        if not address.startswith("/_om/") and request.resource_type not in ("image", "font"):
            self.answers.add((request.method, address, response.status))


def visit(module: ModuleType, line: Line, browser: Any, risk: str = "") -> Visit:
    """Serve the app and do in a fresh browser profile what its module's ``visit`` does.

    With a risk, it takes down what ``flask om csp suggest`` prints then.
    """
    done = Visit()
    app = build(module, line)
    with serve(app) as url:
        context = browser.new_context(locale="en-US")
        context.set_default_timeout(PATIENCE_MS)
        context.expose_binding("violated", lambda _, said: done.violations.append(said))
        context.add_init_script(WATCH)
        tab = context.new_page()
        tab.on("console", lambda said: done.console.append(f"{said.type}: {said.text}"))
        tab.on("pageerror", lambda error: done.failures.append(str(error)))
        tab.on(
            "response",
            lambda answer: done.add_answer(answer, url),
        )
        done.seen = module.visit(tab, url)
        if risk:
            done.suggested = ask_adviser(app, len(done.violations), risk)
        context.close()
    done.console = [text.replace(url, "") for text in done.console]
    done.violations = [text.replace(url, "") for text in done.violations]
    return done


def ask_adviser(app: Flask, violations: int, risk: str) -> dict[str, Any]:
    """Return the settings that ``flask om csp suggest`` prints, once all reports are there."""
    hub = app.extensions["om_plugins"].kit.hub
    end = time.monotonic() + PATIENCE_MS / 1000
    while sum(group.count for group in groups(hub)) < violations:
        assert time.monotonic() < end, "not all that was violated was reported"
        time.sleep(0.05)
    words = ["om", "csp", "suggest", "--settings", "--risk", risk]
    printed = app.test_cli_runner().invoke(args=words, catch_exceptions=False).output
    found: dict[str, Any] = {}
    exec(printed, {}, found)
    return found


@contextmanager
def serve(app: Flask) -> Iterator[str]:
    """The app on a port of its own; gives its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()

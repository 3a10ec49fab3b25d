"""Measures what the line costs an application that is made: a test suite makes hundreds of them."""

from __future__ import annotations

from flask import Flask
from measure import alternate

from om_plugins import OpenManager


def make_app(*, line: bool, ask: bool, testing_after: bool = False) -> None:
    """Make an app, and send it its first request if ``ask``."""
    app = Flask("demo")
    app.testing = not testing_after
    if line:
        OpenManager(app)
    app.testing = True
    if ask:
        app.add_url_rule("/", view_func=lambda: "ok")
        app.test_client().get("/")


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure one more app in a process that has made some."""
    return alternate(
        {
            "bare app": lambda: make_app(line=False, ask=False),
            "with the line": lambda: make_app(line=True, ask=False),
            "bare app and its first request": lambda: make_app(line=False, ask=True),
            "with the line, and the first request": lambda: make_app(line=True, ask=True),
            "the same, TESTING set after the line": lambda: make_app(
                line=True, ask=True, testing_after=True
            ),
        },
        repeats=repeats,
        number=10,
    )

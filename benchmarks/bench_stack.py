"""Compares the whole default stack on a Flask hello with other middleware."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask
from measure import alternate
from werkzeug.test import EnvironBuilder

from om_plugins import OpenManager


def make_hello(**config: object) -> Flask:
    app = Flask(__name__)
    app.config.update(config)

    @app.get("/")
    def index() -> str:
        return "<p>Hello</p>"

    return app


def make_request(app: Flask) -> Callable[[], None]:
    """Return a function that sends one request to ``app.wsgi_app`` and reads the body."""
    template = EnvironBuilder("/").get_environ()

    def start_response(status, headers, exc_info=None):  # type: ignore[no-untyped-def]
        return lambda data: None

    def run() -> None:
        body = app.wsgi_app(dict(template), start_response)
        for _ in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()

    return run


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure microseconds per request: the minimum of ``repeats`` rounds."""
    cases = {"bare Flask": make_request(make_hello())}
    for mode in ("adopt", "enforce", "off"):
        app = make_hello(OM_CSP_MODE=mode, OM_HUB_URL="memory://")
        OpenManager(app)
        cases[f"om_plugins, {mode}"] = make_request(app)
    try:
        from flask_talisman import Talisman

        app = make_hello()
        Talisman(app, force_https=False)
        cases["flask-talisman"] = make_request(app)
    except ImportError:
        pass
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_flask_exporter import PrometheusMetrics

        app = make_hello()
        PrometheusMetrics(app, registry=CollectorRegistry())
        cases["prometheus-flask-exporter"] = make_request(app)
    except ImportError:
        pass
    return alternate(cases, repeats, number=200)

"""The whole default stack on a Flask hello, beside the middleware that people use today."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask
from measure import alternate
from werkzeug.test import EnvironBuilder

from om_plugins import OpenManager


def hello(**config: object) -> Flask:
    app = Flask(__name__)
    app.config.update(config)

    @app.get("/")
    def index() -> str:
        return "<p>Hello</p>"

    return app


def request_of(app: Flask) -> Callable[[], None]:
    """One request through ``app.wsgi_app``, body read and closed."""
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
    """Microseconds per request, the minimum of ``repeats`` alternating rounds."""
    cases = {"bare Flask": request_of(hello())}
    for mode in ("adopt", "enforce", "off"):
        app = hello(OM_CSP_MODE=mode, OM_HUB_URL="memory://")
        OpenManager(app)
        cases[f"om_plugins, {mode}"] = request_of(app)
    try:
        from flask_talisman import Talisman

        app = hello()
        Talisman(app, force_https=False)
        cases["flask-talisman"] = request_of(app)
    except ImportError:
        pass
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_flask_exporter import PrometheusMetrics

        app = hello()
        PrometheusMetrics(app, registry=CollectorRegistry())
        cases["prometheus-flask-exporter"] = request_of(app)
    except ImportError:
        pass
    return alternate(cases, repeats, number=200)

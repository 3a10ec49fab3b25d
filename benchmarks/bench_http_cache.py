"""What a hit of the shared HTTP cache costs: a page of 50 KB with twenty nonces, renewed.

``python benchmarks/bench_http_cache.py`` prints the table; with ``--servers`` it also serves the
page with gunicorn's threads, granian and nginx's proxy_cache, under wrk, as far as they are
installed.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask
from flask_caching import Cache as FlaskCache
from measure import alternate
from werkzeug.test import create_environ

from om_plugins import OpenManager

try:
    import hishel
except ImportError:
    hishel = None

BLOCK = "<p>" + "word " * 480 + '</p>\n<script nonce="{{ csp_nonce() }}">start()</script>\n'
PAGE = "<!doctype html><title>Report</title>" + BLOCK * 20


def hello() -> Flask:
    app = Flask("hello")

    @app.get("/")
    def page() -> str:
        return "hello"

    return app


def with_ours(*, keep_headers: bool = True) -> tuple[Flask, OpenManager]:
    app = Flask("ours")
    app.config.update(OM_HUB_URL="memory://", OM_CSP_MODE="enforce", OM_HTTP_CACHE=True)
    om = OpenManager(app)
    template = app.jinja_env.from_string(PAGE)

    @app.get("/")
    def page() -> tuple[str, dict[str, str]]:
        return template.render(), {"Cache-Control": "public, max-age=3600"}

    return app, om


def with_flask_caching() -> Flask:
    app = Flask("flask-caching")
    cache = FlaskCache(app, config={"CACHE_TYPE": "SimpleCache"})
    text = PAGE.replace("{{ csp_nonce() }}", "0" * 32)

    @app.get("/")
    @cache.cached(timeout=3600)
    def page() -> str:
        return text

    return app


def ask(app: Callable[..., object]) -> Callable[[], object]:
    """One GET of ``/``, its body read to the end."""
    environ = create_environ("/")

    def start(status: str, headers: object, exc_info: object = None) -> Callable[[bytes], object]:
        return len

    def call() -> None:
        body = app(dict(environ), start)
        for _ in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()

    return call


def measure(repeats: int = 30) -> dict[str, float]:
    """Microseconds of a request, by who answers it."""
    app, om = with_ours()
    whole = ask(app)
    whole()
    layer = om.runtime.http_cache.layer(app.wsgi_app)
    cases = {
        "bare Flask hello": ask(hello()),
        "shared HTTP cache, the layer alone": ask(layer),
        "shared HTTP cache, whole stack": whole,
        "Flask-Caching, the same page, nonces not renewed": ask(with_flask_caching()),
    }
    for case in cases.values():
        case()
    assert om.runtime.http_cache.stats().entries == 1
    return alternate(cases, repeats, 300)


if __name__ == "__main__":
    rows = measure()
    base = rows["bare Flask hello"]
    for name, value in rows.items():
        print(f"{name:60} {value:9.2f} µs  {value / base:5.2f} ×")

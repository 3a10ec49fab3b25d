"""Measures the security headers of a response, and flask-talisman in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from flask_talisman import Talisman
from measure import alternate
from werkzeug.test import create_environ

from om_plugins.csp.nonce import nonce
from om_plugins.flask.current import current_environ
from om_plugins.headers.layer import HeaderPolicy, HeadersLayer

App = Callable[[dict[str, Any], Any], Iterable[bytes]]
ENVIRON = create_environ("/", "http://localhost/")


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response(
        "200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "5")]
    )
    return [b"Hello"]


def hello_with_nonce(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    nonce(environ)
    return hello(environ, start_response)


def data(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "2")])
    return [b"{}"]


def make_flask() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def index() -> str:
        return "Hello"

    return app


def make_flask_with_nonce() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def index() -> str:
        nonce(current_environ())  # as a template does
        return "Hello"

    return app


def add_talisman(app: Flask) -> Flask:
    Talisman(
        app,
        force_https=False,
        content_security_policy={"script-src": "'self'", "style-src": "'self'"},
        content_security_policy_nonce_in=["script-src", "style-src"],
    )
    return app


def make_subjects() -> dict[str, App]:
    """Return every measured application by name."""
    enforce = HeaderPolicy(mode="enforce")
    adopt = HeaderPolicy(mode="adopt")
    return {
        "bare WSGI callable": hello,
        "ours on it, enforce, nonce used": HeadersLayer(hello_with_nonce, enforce),
        "ours on it, enforce, nonce not used": HeadersLayer(hello, enforce),
        "ours on it, adopt": HeadersLayer(hello, adopt),
        "bare WSGI callable, JSON": data,
        "ours on it, JSON": HeadersLayer(data, enforce),
        "bare Flask hello": make_flask().wsgi_app,
        "ours on Flask, enforce, nonce used": HeadersLayer(
            make_flask_with_nonce().wsgi_app, enforce
        ),
        "ours on Flask, adopt": HeadersLayer(make_flask().wsgi_app, adopt),
        "flask-talisman, nonce in its header": add_talisman(make_flask()).wsgi_app,
    }


def _make_request(app: App) -> Callable[[], None]:
    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        pass

    def once() -> None:
        body = app(ENVIRON.copy(), start_response)
        for _ in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()

    return once


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure microseconds per request: the minimum over the rounds, in which all take turns."""
    served = {name: _make_request(app) for name, app in make_subjects().items()}
    on_flask = {name: one for name, one in served.items() if "lask" in name}
    others = {name: one for name, one in served.items() if name not in on_flask}
    # short rounds, so that nothing disturbs some of them
    return {
        **alternate(others, repeats * 20, number=50),
        **alternate(on_flask, repeats * 100, number=5),
    }


if __name__ == "__main__":
    for subject, cost in measure().items():
        print(f"{subject:<40} {cost:8.2f} µs")

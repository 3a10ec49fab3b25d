"""What the security headers cost a response, beside flask-talisman in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, request
from flask_talisman import Talisman
from jinja2 import Environment, Template
from measure import alternate
from werkzeug.test import create_environ

from om_plugins.security.hashes import HASHES
from om_plugins.security.headers import HeaderPolicy, HeadersLayer
from om_plugins.security.jinja_nonce import install
from om_plugins.security.nonce import NONCE, nonce

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


def flask_hello() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def index() -> str:
        return "Hello"

    return app


def flask_hello_with_nonce() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def index() -> str:
        nonce(request.environ)
        return "Hello"

    return app


def with_talisman(app: Flask) -> Flask:
    Talisman(
        app,
        force_https=False,
        content_security_policy={"script-src": "'self'", "style-src": "'self'"},
        content_security_policy_nonce_in=["script-src", "style-src"],
    )
    return app


def subjects() -> dict[str, App]:
    """Every measured application by name."""
    enforce = HeaderPolicy(mode="enforce")
    adopt = HeaderPolicy(mode="adopt")
    return {
        "bare WSGI callable": hello,
        "ours on it, enforce, nonce used": HeadersLayer(hello_with_nonce, enforce),
        "ours on it, enforce, nonce not used": HeadersLayer(hello, enforce),
        "ours on it, adopt": HeadersLayer(hello, adopt),
        "bare WSGI callable, JSON": data,
        "ours on it, JSON": HeadersLayer(data, enforce),
        "bare Flask hello": flask_hello().wsgi_app,
        "ours on Flask, enforce, nonce used": HeadersLayer(
            flask_hello_with_nonce().wsgi_app, enforce
        ),
        "ours on Flask, adopt": HeadersLayer(flask_hello().wsgi_app, adopt),
        "flask-talisman, nonce in its header": with_talisman(flask_hello()).wsgi_app,
    }


def _serve(app: App) -> Callable[[], None]:
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
    """Microseconds per request: the minimum over the rounds, in which the subjects take turns."""
    return alternate({name: _serve(app) for name, app in subjects().items()}, repeats)


PAGE = "".join(
    [
        "<!doctype html><html><head><title>{{ title }}</title>",
        '<link rel="stylesheet" href="/static/a.css"><style>p { color: teal }</style>',
        '<script src="/static/a.js"></script></head><body>',
        *(
            f'<p class="a{number}" title="{{{{ title }}}}">{{{{ rows[{number}] }}}}</p>'
            "{% if title %}<b>1</b>{% endif %}\n"
            for number in range(100)
        ),
        "<script>start()</script></body></html>",
    ]
)
VALUES = {"title": "A & B", "rows": [f"row {number}" for number in range(100)]}


def measure_templates(repeats: int = 30) -> dict[str, float]:
    """Microseconds to compile and to render a page of a hundred rows, with and without nonces."""
    plain, ours, by_hash = (Environment(autoescape=True) for _ in range(3))
    # the nonce itself is part of what the headers cost
    environ: dict[str, Any] = {NONCE: "0" * 32, HASHES: {}}
    install(ours, environ=lambda: environ)
    install(by_hash, environ=lambda: environ, hashes=True, attributes=True)
    environments = {"": plain, ", nonces": ours, ", hashes": by_hash}
    templates = {name: env.from_string(PAGE) for name, env in environments.items()}

    def compiling(env: Environment) -> Callable[[], object]:
        return lambda: env.compile(PAGE)

    def rendering(template: Template) -> Callable[[], object]:
        return lambda: template.render(VALUES)

    return {
        **alternate(
            {_row("compile", name): compiling(env) for name, env in environments.items()},
            repeats,
            number=3,
        ),
        **alternate(
            {_row("render", name): rendering(one) for name, one in templates.items()},
            repeats,
            number=200,
        ),
    }


def _row(what: str, name: str) -> str:
    return f"{what}{name}" if name else f"bare {what}"


if __name__ == "__main__":
    for subject, cost in {**measure(), **measure_templates()}.items():
        print(f"{subject:<40} {cost:8.2f} µs")

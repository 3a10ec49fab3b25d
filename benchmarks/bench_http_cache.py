"""Measures a hit of the shared HTTP cache: a page of 50 KB with twenty renewed nonces.

:func:`measure` is part of ``make bench``. ``python benchmarks/bench_http_cache.py --servers``
measures real servers with wrk: gunicorn's threads with the cache and with a bare WSGI callable,
granian, and nginx's proxy_cache, if they are installed. The upper limit is a callable that returns
the same bytes: status, header fields and body of the cache's answer with a constant nonce. Another
callable returns the same body with three header fields.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flask import Flask
from flask_caching import Cache as FlaskCache
from measure import alternate
from werkzeug.test import create_environ

from om_plugins import OpenManager
from om_plugins.http_cache.layer import HttpCacheLayer

BLOCK = "<p>" + "word " * 480 + '</p>\n<script nonce="{{ csp_nonce() }}">start()</script>\n'
PAGE = "<!doctype html><title>Report</title>" + BLOCK * 20
PLAIN = PAGE.replace("{{ csp_nonce() }}", "0" * 32).rstrip("\n").encode()  # as Jinja leaves it
HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "public, max-age=3600"),
    ("Content-Length", str(len(PLAIN))),
]
NONCE = re.compile("nonce-[0-9a-f]{32}")
OWN_HEADERS = [tuple(one) for one in json.loads(os.environ.get("BENCH_HEADERS", "[]"))]


def make_hello() -> Flask:
    app = Flask("hello")

    @app.get("/")
    def page() -> str:
        return "hello"

    return app


def make_ours(*, nonces: bool = True) -> tuple[Flask, OpenManager]:
    """Make a Flask app with the page, with nonces or a constant, behind the whole stack."""
    app = Flask("ours")
    app.config.update(OM_HUB_URL="memory://", OM_CSP_MODE="enforce", OM_HTTP_CACHE=True)
    om = OpenManager(app)
    template = app.jinja_env.from_string(PAGE)

    @app.get("/")
    def page() -> tuple[str, dict[str, str]]:
        text = template.render() if nonces else PLAIN.decode()
        return text, {"Cache-Control": "public, max-age=3600"}

    return app, om


def make_flask_caching() -> Flask:
    app = Flask("flask-caching")
    cache = FlaskCache(app, config={"CACHE_TYPE": "SimpleCache"})

    @app.get("/")
    @cache.cached(timeout=3600)
    def page() -> str:
        return PLAIN.decode()

    return app


def bare(environ: object, start_response: Callable[..., object]) -> list[bytes]:
    """WSGI callable that only returns the same body."""
    start_response("200 OK", list(HEADERS))
    return [PLAIN]


def same(environ: object, start_response: Callable[..., object]) -> list[bytes]:
    """WSGI callable that returns the same bytes: the limit. A variable gives the header fields."""
    start_response("200 OK", list(OWN_HEADERS))
    return [PLAIN]


def read_hit_headers() -> list[tuple[str, str]]:
    """Return the header fields of the cache's answer, with the nonce of :data:`PLAIN`."""
    app, _ = make_ours()
    client = app.test_client()
    for _ in range(2):
        answer = client.get("/")
    assert "hit" in answer.headers["Cache-Status"]
    assert len(answer.data) == len(PLAIN)
    return [(name, NONCE.sub("nonce-" + "0" * 32, value)) for name, value in answer.headers]


def make_request(app: Callable[..., object]) -> Callable[[], object]:
    """Return a function that sends one GET of ``/`` and reads the body to the end."""
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


def make_hishel_request() -> Callable[[], object] | None:
    """Return a request to hishel's ASGI middleware on SQLite in memory, if it is installed."""
    try:
        import anysqlite
        from hishel import AsyncSqliteStorage
        from hishel.asgi import ASGICacheMiddleware
    except ImportError:
        return None

    async def page(scope: object, receive: object, send: Callable[..., object]) -> None:
        headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PLAIN})

    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(anysqlite.connect(":memory:"))
    app = ASGICacheMiddleware(page, AsyncSqliteStorage(connection=connection))
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b""}
    scope |= {"headers": [(b"host", b"localhost")], "scheme": "http", "root_path": ""}
    scope |= {"server": ("localhost", 80), "http_version": "1.1", "asgi": {"version": "3.0"}}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        return None

    return lambda: loop.run_until_complete(app(dict(scope), receive, send))


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure microseconds per request of each cache."""
    app, om = make_ours()
    whole = make_request(app)
    whole()
    with app.app_context():  # another benchmark may have pushed an application context
        pages = om.runtime.part_of("http_cache")
    layer = HttpCacheLayer(app.wsgi_app, pages)
    cases = {
        "bare Flask hello": make_request(make_hello()),
        "shared HTTP cache, the layer alone": make_request(layer),
        "shared HTTP cache, whole stack": whole,
        "Flask-Caching, nonces not renewed": make_request(make_flask_caching()),
    }
    for case in cases.values():
        case()
    stats = pages.cache.stats()
    assert (stats.entries, stats.stored) == (1, 1)
    assert stats.hits >= 1
    hishel = make_hishel_request()
    rows = alternate(cases, repeats, 300)
    if hishel is not None:
        rows |= alternate({"hishel on SQLite in memory, nonces not renewed": hishel}, repeats, 20)
    return rows


# --- under real servers -------------------------------------------------------------------------

HERE = Path(__file__).resolve().parent
application = None  # for servers: python -m gunicorn bench_http_cache:cached, :same or :bare


def cached(environ: object, start_response: object) -> object:
    """WSGI callable: the page from the cache. The first request of a process makes the app."""
    global application
    if application is None:
        application = make_ours()[0]
    return application(environ, start_response)


def constant(environ: object, start_response: object) -> object:
    """WSGI callable: a page without nonces from the cache."""
    global application
    if application is None:
        application = make_ours(nonces=False)[0]
    return application(environ, start_response)


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(command: list[str], port: int, headers: str) -> Iterator[None]:
    """Run a server during the block, after a warm-up."""
    process = subprocess.Popen(
        command,
        cwd=HERE,
        env={**os.environ, "BENCH_HEADERS": headers},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except OSError:
                time.sleep(0.1)
        run_wrk(port, 1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def run_wrk(port: int, seconds: int) -> float:
    """Run wrk and return the requests per second."""
    command = ["wrk", "-t1", "-c8", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"Requests/sec:\s*([0-9.]+)", output)
    if match is None or "Non-2xx" in output:
        raise RuntimeError(output)
    return float(match[1])


NGINX = """
{user} daemon off; worker_processes 1; error_log /dev/null; pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_cache_path {folder}/cache keys_zone=pages:10m;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{origin}; proxy_cache pages; }}
  }}
}}
"""


def gunicorn_command(app: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "gunicorn", f"bench_http_cache:{app}", "-k", "gthread"]
    return [*command, "--threads", "8", "-b", f"127.0.0.1:{port}", "--log-level", "error"]


def measure_servers(rounds: int, seconds: int) -> dict[str, list[float]]:
    """Measure the requests per second of each server in each round.

    Every second round has the reverse order.
    """
    ports = {
        name: find_free_port()
        for name in ("same", "bare", "constant", "cached", "granian", "nginx")
    }
    headers = json.dumps(read_hit_headers())
    granian = shutil.which("granian", path=str(Path(sys.executable).parent))
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    with tempfile.TemporaryDirectory() as folder:
        user = "user root;" if os.geteuid() == 0 else ""  # its workers must reach the folder
        text = NGINX.format(user=user, folder=folder, port=ports["nginx"], origin=ports["bare"])
        Path(folder, "nginx.conf").write_text(text, encoding="utf-8")
        commands = {
            f"gunicorn gthread, {text}": (name, gunicorn_command(name, ports[name]))
            for name, text in (
                ("same", "bare callable, same bytes"),
                ("bare", "bare callable, same body"),
                ("constant", "shared HTTP cache, no nonces"),
                ("cached", "shared HTTP cache"),
            )
        }
        if granian:
            line = [granian, "--interface", "wsgi", "--host", "127.0.0.1", "--no-ws"]
            line += ["--port", str(ports["granian"]), "bench_http_cache:cached"]
            commands["granian, shared HTTP cache"] = ("granian", line)
        if nginx:
            line = [nginx, "-c", f"{folder}/nginx.conf", "-p", folder]
            commands["nginx proxy_cache, nonces not renewed"] = ("nginx", line)
        found: dict[str, list[float]] = {name: [] for name in commands}
        with ExitStack() as running:
            for which, command in commands.values():
                running.enter_context(run_server(command, ports[which], headers))
            for number in range(rounds):
                for name in list(commands)[:: -1 if number % 2 else 1]:
                    found[name].append(run_wrk(ports[commands[name][0]], seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", action="store_true", help="under wrk, by server")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.servers:
        rounds = measure_servers(arguments.rounds, arguments.seconds)
        rows = {name: statistics.median(rates) for name, rates in rounds.items()}
    else:
        rounds, rows = {}, measure()
    unit = "requests/s" if arguments.servers else "µs"
    base = next(iter(rows.values()))
    for name, value in rows.items():
        each = " ".join(f"{rate:.0f}" for rate in rounds.get(name, ()))
        print(f"{name:50} {value:10.1f} {unit}  {value / base:5.2f} ×  {each}")


if __name__ == "__main__":
    main()

"""What a hit of the shared HTTP cache costs: a page of 50 KB with twenty nonces, renewed.

:func:`measure` is part of ``make bench``. ``python benchmarks/bench_http_cache.py --servers``
serves the page under wrk: gunicorn's threads with the cache and with a bare WSGI callable, granian
and nginx's proxy_cache, as far as they are installed. The limit is the callable that returns the
same bytes: status, header fields and body of the cache's own answer, its nonce a constant. One
that returns the same body with three header fields is printed beside it.
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


def hello() -> Flask:
    app = Flask("hello")

    @app.get("/")
    def page() -> str:
        return "hello"

    return app


def with_ours(*, nonces: bool = True) -> tuple[Flask, OpenManager]:
    """The page in a Flask app, rendered with nonces or a constant, behind the whole stack."""
    app = Flask("ours")
    app.config.update(OM_HUB_URL="memory://", OM_CSP_MODE="enforce", OM_HTTP_CACHE=True)
    om = OpenManager(app)
    template = app.jinja_env.from_string(PAGE)

    @app.get("/")
    def page() -> tuple[str, dict[str, str]]:
        text = template.render() if nonces else PLAIN.decode()
        return text, {"Cache-Control": "public, max-age=3600"}

    return app, om


def with_flask_caching() -> Flask:
    app = Flask("flask-caching")
    cache = FlaskCache(app, config={"CACHE_TYPE": "SimpleCache"})

    @app.get("/")
    @cache.cached(timeout=3600)
    def page() -> str:
        return PLAIN.decode()

    return app


def bare(environ: object, start_response: Callable[..., object]) -> list[bytes]:
    """The same body from a WSGI callable that does nothing else."""
    start_response("200 OK", list(HEADERS))
    return [PLAIN]


def same(environ: object, start_response: Callable[..., object]) -> list[bytes]:
    """The same bytes, header fields included: the limit. For a server, which is told the fields."""
    start_response("200 OK", list(OWN_HEADERS))
    return [PLAIN]


def headers_of_a_hit() -> list[tuple[str, str]]:
    """The header fields of the cache's own answer, with the nonce of :data:`PLAIN`."""
    app, _ = with_ours()
    client = app.test_client()
    for _ in range(2):
        answer = client.get("/")
    assert "hit" in answer.headers["Cache-Status"]
    assert len(answer.data) == len(PLAIN)
    return [(name, NONCE.sub("nonce-" + "0" * 32, value)) for name, value in answer.headers]


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


def with_hishel() -> Callable[[], object] | None:
    """hishel's ASGI middleware on SQLite in memory; ``None`` when it is not installed."""
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
    """Microseconds of a request, by who answers it."""
    app, om = with_ours()
    whole = ask(app)
    whole()
    with app.app_context():  # another benchmark may have left one of its own
        pages = om.runtime.part_of("http_cache")
    layer = pages.layer(app.wsgi_app)
    cases = {
        "bare Flask hello": ask(hello()),
        "shared HTTP cache, the layer alone": ask(layer),
        "shared HTTP cache, whole stack": whole,
        "Flask-Caching, nonces not renewed": ask(with_flask_caching()),
    }
    for case in cases.values():
        case()
    stats = pages.cache.stats()
    assert (stats.entries, stats.stored) == (1, 1)
    assert stats.hits >= 1
    hishel = with_hishel()
    rows = alternate(cases, repeats, 300)
    if hishel is not None:
        rows |= alternate({"hishel on SQLite in memory, nonces not renewed": hishel}, repeats, 20)
    return rows


# --- under real servers -------------------------------------------------------------------------

HERE = Path(__file__).resolve().parent
application = None  # for servers: python -m gunicorn bench_http_cache:cached, :same or :bare


def cached(environ: object, start_response: object) -> object:
    """The page from the cache, for a server; made on the first request of each process."""
    global application
    if application is None:
        application = with_ours()[0]
    return application(environ, start_response)


def constant(environ: object, start_response: object) -> object:
    """A page without nonces from the cache."""
    global application
    if application is None:
        application = with_ours(nonces=False)[0]
    return application(environ, start_response)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(command: list[str], port: int, headers: str) -> Iterator[None]:
    """The server while it runs; it is warm when the block begins."""
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
        wrk(port, 1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def wrk(port: int, seconds: int) -> float:
    """Requests a second."""
    command = ["wrk", "-t1", "-c8", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"Requests/sec:\s*([0-9.]+)", said)
    if match is None or "Non-2xx" in said:
        raise RuntimeError(said)
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


def gunicorn(app: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "gunicorn", f"bench_http_cache:{app}", "-k", "gthread"]
    return [*command, "--threads", "8", "-b", f"127.0.0.1:{port}", "--log-level", "error"]


def servers(rounds: int, seconds: int) -> dict[str, list[float]]:
    """Requests a second of each server in each round; every other round in reverse."""
    ports = {
        name: free_port() for name in ("same", "bare", "constant", "cached", "granian", "nginx")
    }
    headers = json.dumps(headers_of_a_hit())
    granian = shutil.which("granian", path=str(Path(sys.executable).parent))
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    with tempfile.TemporaryDirectory() as folder:
        user = "user root;" if os.geteuid() == 0 else ""  # its workers must reach the folder
        text = NGINX.format(user=user, folder=folder, port=ports["nginx"], origin=ports["bare"])
        Path(folder, "nginx.conf").write_text(text, encoding="utf-8")
        commands = {
            f"gunicorn gthread, {text}": (name, gunicorn(name, ports[name]))
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
                running.enter_context(served(command, ports[which], headers))
            for number in range(rounds):
                for name in list(commands)[:: -1 if number % 2 else 1]:
                    found[name].append(wrk(ports[commands[name][0]], seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", action="store_true", help="under wrk, by server")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.servers:
        rounds = servers(arguments.rounds, arguments.seconds)
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

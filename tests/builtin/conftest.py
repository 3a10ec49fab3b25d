"""What the tests of shipped parts share: upstreams, well-behaved and hostile; two processes."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.conftest import lacking


class Upstream:
    """A keep-alive HTTP server that answers what ``reply`` says and remembers what it was asked.

    ``reply(request)`` returns ``(status, headers, body)``; ``request`` has ``method, path,
    headers, body``.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self.reply: Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]] = self.echo
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet
            disable_nagle_algorithm = True

            def setup(self) -> None:
                upstream.connections += 1
                super().setup()

            def log_message(self, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = {
                    "method": self.command,
                    "path": self.path,
                    "headers": {k.lower(): v for k, v in self.headers.items()},
                    "body": self.rfile.read(length),
                }
                upstream.requests.append(request)
                status, headers, body = upstream.reply(request)
                self.send_response(status)
                headers = {"Content-Type": "application/json", **headers}
                headers.setdefault("Connection", "keep-alive")
                if status != 204:
                    headers.setdefault("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            do_GET = do_PUT = do_DELETE = do_PATCH = do_POST

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @staticmethod
    def echo(request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, request["body"] or b"{}"

    def answers(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.reply = lambda request: (status, given, body)

    def json(self) -> Any:
        return json.loads(self.requests[-1]["body"])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RawUpstream:
    """A TCP server: ``script(connection, number)`` plays each connection, then it is closed."""

    def __init__(self, script: Callable[[socket.socket, int], None]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.over = threading.Event()
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            thread = threading.Thread(target=self._play, args=(connection, number))
            thread.start()
            self._threads.append(thread)
            number += 1

    def _play(self, connection: socket.socket, number: int) -> None:
        try:
            self._script(connection, number)
        except OSError:
            pass  # the engine left: that is what many tests are about
        finally:
            connection.close()

    def close(self) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        for thread in self._threads:
            thread.join()


def over_tls(certificate, script):
    """A script of :class:`RawUpstream` over TLS."""
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def play(connection, number):
        with context.wrap_socket(connection, server_side=True) as secure:
            script(secure, number)

    return play


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1."""
    if shutil.which("openssl") is None:
        lacking("openssl (apt-get install openssl)")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def raw_upstream() -> Iterator[Callable[[Callable[[socket.socket, int], None]], RawUpstream]]:
    servers: list[RawUpstream] = []

    def make(script: Callable[[socket.socket, int], None]) -> RawUpstream:
        servers.append(RawUpstream(script))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def refused_url() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


FORKING = """
import os, sys
from importlib import import_module
module, name, url = sys.argv[1:]
store = getattr(import_module(module), name)(url)
store.set("k", b"parent", 60)
pid = os.fork()
for _ in range(200):
    me = b"%d" % os.getpid()
    store.set(me.decode(), me, 60)
    assert store.get(me.decode()) == me
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.fixture
def used_by_parent_and_child():
    """Have a store used by a process and its fork at once; each must read what it wrote."""

    def use(kind, url):
        done = subprocess.run(
            [sys.executable, "-c", FORKING, kind.__module__, kind.__name__, url],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return use

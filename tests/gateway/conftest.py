"""A client of engine routes, and a chain that answers as it is told."""

from __future__ import annotations

import io
import json
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.gateway.layer import EngineRoutes
from om_plugins.gateway.options import RouteOptions
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Answer

SECRET = b"a secret for tests"


class Chunks:
    """Chunks of a streamed answer that know whether they were closed."""

    def __init__(self, *chunks):
        self._chunks = iter(chunks)
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self._chunks)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def close(self):
        self.closed = True


class AChain:
    """A chain that answers or raises what it is told, and remembers its calls."""

    name = "assistant"

    def __init__(self, answer=None, *, idempotent=False):
        self.answer = answer
        self.idempotent = idempotent
        self.calls = []

    def call(self, payload=None, **options):
        self.calls.append((payload, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, Answer):
            return self.answer
        return Answer({"you said": payload}, engine="echo")


class Reply:
    def __init__(self, status, headers, body):
        self.status = int(status.split()[0])
        self.line = status
        self.header_list = headers
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def events(self):
        blocks = self.body.decode().removesuffix("\n\n").split("\n\n")
        pairs = [block.split("\n", 1) for block in blocks]
        return [(n.removeprefix("event: "), json.loads(d.removeprefix("data: "))) for n, d in pairs]


class Client:
    """Asks a WSGI app through ``wsgiref.validate``, with the validator below it as well."""

    def __init__(self, chain, *, clock=None, hub=None, secret=SECRET, options=None, **arguments):
        self.chain = chain
        self.clock = clock or FakeClock()
        self.hub = hub or MemoryHub("memory://", self.clock)
        options = RouteOptions(chain="assistant", **(options or {}))
        self.wsgi = validator(
            EngineRoutes(
                validator(self.host_app),
                {"/api/ask": options, "/질문": options},
                lambda name: self.chain,
                hub=self.hub,
                secret=lambda: secret,
                clock=self.clock,
                **arguments,
            )
        )

    @staticmethod
    def host_app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Host", "yes")])
        return [b"the host app, " + environ["PATH_INFO"].encode("latin-1")]

    def environ(self, method="POST", path="/api/ask", body=None, headers=None, **more):
        if not isinstance(body, bytes):
            body = json.dumps({"q": 1} if body is None else body).encode()
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": path.encode().decode("latin-1"),
            "SCRIPT_NAME": "", "QUERY_STRING": "", "REMOTE_ADDR": "198.51.100.7",
            "HTTP_HOST": "app.example",
        }  # fmt: skip
        if method == "POST":
            environ |= {
                "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": io.BytesIO(body),
            }  # fmt: skip
        for name, value in (headers or {}).items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        environ |= more
        setup_testing_defaults(environ)
        return {name: value for name, value in environ.items() if value is not None}

    def open(self, **request):
        """The iterable and the list that will hold status and headers."""
        started = []

        def start_response(status, headers, exc_info=None):
            started[:] = [status, headers]
            return lambda data: None

        return self.wsgi(self.environ(**request), start_response), started

    def ask(self, **request):
        iterable, started = self.open(**request)
        try:
            body = b"".join(iterable)
        finally:
            iterable.close()
        return Reply(*started, body)


EVENTS = {"Accept": "text/event-stream"}

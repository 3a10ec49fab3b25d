"""A host app that does what it is told, behind a fallback, checked by ``wsgiref.validate``."""

from __future__ import annotations

import json
import sys
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.core.inputs import InputRules
from om_plugins.errors import Transient
from om_plugins.fallback.layer import FallbackLayer
from om_plugins.fallback.options import FallbackOptions
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Answer
from om_plugins.workers.scheduler import BackgroundScheduler

RULES = InputRules(lambda: b"a secret for tests")


class AChain:
    """Answers or raises what it is told, and remembers its calls."""

    name = "reports"
    idempotent = True

    def __init__(self, answer=None):
        self.answer = answer
        self.calls = []

    def call(self, payload=None, **options):
        self.calls.append((payload, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return Answer(self.answer, engine="archive", tier=2)


class Reply:
    def __init__(self, status, headers, body, restarted):
        self.status = int(status.split()[0])
        self.header_list = headers
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body
        self.restarted = restarted

    @property
    def json(self):
        return json.loads(self.body)


class House:
    """The fallback layer of ``/reports/`` and what is around it."""

    def __init__(self, app, *, chain=None, paths=("/reports/",), clock=None, **options):
        self.clock = clock or FakeClock()
        self.scheduler = BackgroundScheduler(
            4, 100, self.clock, MemoryHub("memory://", self.clock), synchronous=True
        )
        self.cache = SmartCache(CacheOptions(
            stale_time=60, cache_time=60, l1_bytes=2**20, max_value=2**20, clock=self.clock,
            scheduler=self.scheduler,
        ))  # fmt: skip
        self.chain = chain or AChain(Transient("nobody home"))
        self.noted = []
        layer = {
            name: options.pop(name)
            for name in ("views", "show_errors", "emit", "rules")
            if name in options
        }
        self.app = app
        self.layer = FallbackLayer(
            lambda environ, start: self.app(environ, start),
            {path: FallbackOptions(**options) for path in paths},
            lambda name: self.chain,
            cache=self.cache,
            scheduler=self.scheduler,
            clock=self.clock,
            note=lambda environ, path, error: self.noted.append((path, error)),
            **{"rules": RULES, **layer},
        )

    def environ(self, path="/reports/day", method="GET", query="", **headers):
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": query,
            "HTTP_HOST": "app.example",
        }  # fmt: skip
        for name, value in headers.items():
            environ["HTTP_" + name.upper()] = value
        setup_testing_defaults(environ)
        environ.pop("wsgi.file_wrapper", None)
        return environ

    def ask(self, path="/reports/day", checked=True, **request):
        """Ask as a server does: the head is sent with the first byte of the body."""
        environ = request.pop("environ", None) or self.environ(path, **request)
        started, sent = [], []

        def start_response(status, headers, exc_info=None):
            if started:
                assert exc_info is not None, "started twice"
                if any(sent):
                    raise exc_info[1].with_traceback(exc_info[2])
            started.append((status, headers))
            return sent.append

        app = validator(self.layer) if checked else self.layer
        body = app(environ, start_response)
        try:
            for chunk in body:
                sent.append(chunk)
        finally:
            if hasattr(body, "close"):
                body.close()
        self.scheduler.run_pending()
        status, headers = started[-1]
        return Reply(status, headers, b"".join(sent), len(started) > 1)


class Body:
    """A body that knows whether it was closed."""

    def __init__(self, *chunks):
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self.chunks)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def close(self):
        self.closed += 1


def answers(status="200 OK", body=b"the report", headers=(), kind="text/html"):
    """An app with one answer."""
    given = [("Content-Type", kind), *headers]

    def app(environ, start_response):
        start_response(status, list(given))
        return body if isinstance(body, Body | list) else [body]

    return app


def raises(error=None):
    """An app that raises."""

    def app(environ, start_response):
        raise error or KeyError("a bug")

    return app


def told(error):
    """``exc_info`` of an error."""
    try:
        raise error
    except type(error):
        return sys.exc_info()


@pytest.fixture
def house():
    return House

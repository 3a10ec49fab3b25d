"""One worker with a shared HTTP cache in front of a WSGI app that answers what a test sets."""

from __future__ import annotations

from werkzeug.test import Client

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.core.inputs import IDENTITIES, EnvironReader, InputRules
from om_plugins.core.observed import ObservedInputs
from om_plugins.core.request_state import state_of
from om_plugins.http_cache.cache import CacheRules, HttpCachePart
from om_plugins.http_cache.layer import HttpCacheLayer
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.invalidation_bus import InvalidationBus
from om_plugins.workers.scheduler import BackgroundScheduler


class Store:
    """Bytes in a dict, as a store that workers share."""

    def __init__(self):
        self.data = {}
        self.away = False

    def get(self, key):
        if self.away:
            raise ConnectionError("away")
        return self.data.get(key)

    def set(self, key, value, ttl):
        if self.away:
            raise ConnectionError("away")
        self.data[key] = value

    def delete(self, key):
        self.data.pop(key, None)


class Origin:
    """A WSGI app that answers with what is set, and remembers what it was asked.

    Attributes:
        asked: the environs of all requests, in order.
    """

    def __init__(self):
        self.asked = []
        self.status = "200 OK"
        self.headers = [("Cache-Control", "max-age=60")]
        self.body = [b"hello"]
        self.error = None
        self.answer = None

    def __call__(self, environ, start_response):
        self.asked.append(dict(environ))
        if self.error is not None:
            raise self.error
        if self.answer is not None:
            return self.answer(environ, start_response)
        headers = [*self.headers, ("X-Number", str(len(self.asked)))]
        start_response(self.status, headers)
        return list(self.body) if isinstance(self.body, list) else self.body


class SessionReader(EnvironReader):
    """Reads inputs; the session is the cookie of its name."""

    def read(self, name):
        return super().read("cookie:session" if name.startswith("session") else name)


class ObservedOrigin(Origin):
    """An origin that says what its code looks at.

    Attributes:
        looks: the names of the inputs, or a function that returns them for an environ.
        change: called with the inputs of each request, once it has looked.
        body: may be a function that gets the environ and the inputs.
        fresh_errors: errors have freshness of their own.
    """

    def __init__(self, rules):
        super().__init__()
        self.rules = rules
        self.looks = ()
        self.change = lambda inputs: None
        self.fresh_errors = False

    def __call__(self, environ, start_response):
        state = state_of(environ)
        inputs = state.inputs = ObservedInputs(SessionReader(environ), self.rules)
        inputs.address = self.rules.read_address(environ)
        inputs.cookies = environ.get("HTTP_COOKIE", "")
        inputs.session_cookie, inputs.session_in_cookie = "session", True
        for name in self.looks(environ) if callable(self.looks) else self.looks:
            inputs.note(name)
        self.change(inputs)
        state.view_freshness = self.fresh_errors
        if not callable(self.body):
            return super().__call__(environ, start_response)
        self.asked.append(dict(environ))
        start_response(self.status, [*self.headers, ("X-Number", str(len(self.asked)))])
        return self.body(environ, inputs)


class World:
    """One worker: the cache, its layer, and a client."""

    def __init__(
        self, *, clock=None, hub=None, store=None, hooks=None, trusted=None, observes=False,
        identities=(), middleware=None, **rules
    ):  # fmt: skip
        rules.setdefault("everything", True)
        inputs = InputRules(lambda: b"secret", IDENTITIES.union(identities))
        self.clock = clock or FakeClock()
        self.hub = hub or MemoryHub("memory://", self.clock)
        self.scheduler = BackgroundScheduler(1, 100, self.clock, self.hub, synchronous=True)
        self.origin = ObservedOrigin(inputs) if observes else Origin()
        self.bus = InvalidationBus(self.hub, self.scheduler)
        self.part = HttpCachePart(
            CacheRules(**rules),
            l1_bytes=10_000_000,
            clock=self.clock,
            scheduler=self.scheduler,
            bus=self.bus,
            store=store,
            hooks=hooks,
            trusted_hosts=trusted,
            inputs=inputs,
            observes=observes,
        )
        self.cache = self.part.cache
        app = self.origin if middleware is None else middleware(self.origin)
        self.layer = HttpCacheLayer(app, self.part)
        self.client = Client(self.layer, use_cookies=False)

    def get(self, path="/", method="GET", host="localhost", environ=None, **headers):
        """The response; ``X-Number`` says which of the origin's answers it is."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(
            path,
            method=method,
            headers=fields,
            base_url=f"http://{host}",
            buffered=True,
            environ_overrides=environ,
        )

    def number(self, *arguments, **headers):
        """Which of the origin's answers is sent."""
        return int(self.get(*arguments, **headers).headers["X-Number"])

    def later(self, seconds):
        self.clock.advance(seconds)

    def run(self):
        """Run the jobs of the background."""
        return self.scheduler.run_pending()


def status_of(response):
    return response.headers["Cache-Status"].partition("; ")[2]


def refusals_of(world):
    return dict(world.cache.refusals())


def vary(world, value="Accept-Language"):
    world.origin.headers = [("Cache-Control", "max-age=60"), ("Vary", value)]

"""One worker with a shared HTTP cache in front of a WSGI app that answers what a test sets."""

from __future__ import annotations

from werkzeug.test import Client

from om_plugins.builtin.hubs.memory import MemoryHub
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


class World:
    """One worker: the cache, its layer, and a client."""

    def __init__(self, *, clock=None, hub=None, store=None, hooks=None, trusted=None, **rules):
        rules.setdefault("everything", True)
        self.clock = clock or FakeClock()
        self.hub = hub or MemoryHub("memory://", self.clock)
        self.scheduler = BackgroundScheduler(1, 100, self.clock, self.hub, synchronous=True)
        self.origin = Origin()
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
        )
        self.cache = self.part.cache
        self.layer = HttpCacheLayer(self.origin, self.part)
        self.client = Client(self.layer)

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


def vary(world, value="Accept-Language"):
    world.origin.headers = [("Cache-Control", "max-age=60"), ("Vary", value)]

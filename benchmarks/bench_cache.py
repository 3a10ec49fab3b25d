"""Measures a look-up of a fresh value in memory, and four other caches in the same run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import cashews
import redis
from cachelib import RedisCache, SimpleCache
from dogpile.cache import make_region
from flask import Flask
from flask_caching import Cache as FlaskCache
from measure import alternate
from redis_server import redis_server

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.builtin.stores.redis import RedisStore
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.cache.memoize.memoized import memoize
from om_plugins.cache.values import decode, encode
from om_plugins.core.clock import SystemClock
from om_plugins.protocols import CacheStore
from om_plugins.workers.scheduler import BackgroundScheduler

VALUES: dict[str, object] = {
    "5 bytes": "hello",
    "60 bytes": "x" * 60,
    "1 KB": {"servers": [{"name": f"server-{n:02}", "load": n / 7, "up": True} for n in range(23)]},
}
KEY = "servers"


def fetch() -> object:
    raise AssertionError("the value is fresh: nothing is fetched")


def make_cache(store: CacheStore | None = None) -> SmartCache:
    clock = SystemClock()
    hub = MemoryHub("memory://", clock)
    return SmartCache(
        CacheOptions(
            stale_time=3600,
            cache_time=7200,
            l1_bytes=64 << 20,
            max_value=1 << 20,
            clock=clock,
            scheduler=BackgroundScheduler(1, 10, clock, hub, synchronous=True),
            store=store,
            hub=hub if store is not None else None,
        )
    )


def make_redis_cases(url: str) -> dict[str, Callable[[], object]]:
    """Return cases over a shared store: our memory in front of it, and the store itself."""
    cases: dict[str, Callable[[], object]] = {}
    client = redis.Redis.from_url(url)
    simple = RedisCache(host=client)
    for size, value in VALUES.items():
        cache = make_cache(RedisStore(url))
        cache.set(KEY, value)
        cases[f"om.cache.query, {size}, over Redis"] = lambda cache=cache: cache.query(KEY, fetch)
        simple.set(KEY + size, value, timeout=3600)
        cases[f"cachelib RedisCache.get, {size}"] = lambda size=size: simple.get(KEY + size)
    return cases


def make_cases() -> dict[str, Callable[[], object]]:
    """Return the cases: each looks up one fresh value."""
    cases: dict[str, Callable[[], object]] = {}
    for size, value in VALUES.items():
        cache = make_cache()
        cache.set(KEY, value)
        cache.set(("servers", 7), value)
        cases[f"om.cache.query, {size}"] = lambda cache=cache: cache.query(KEY, fetch)
        cases[f"om.cache.query, {size}, tuple key"] = lambda cache=cache: cache.query(
            ("servers", 7), fetch
        )
        data = encode(value)
        cases[f"its decoding alone, {size}"] = lambda data=data: decode(data)

        simple = SimpleCache()
        simple.set(KEY, value, timeout=3600)
        cases[f"cachelib SimpleCache.get, {size}"] = lambda simple=simple: simple.get(KEY)

        region = make_region().configure("dogpile.cache.memory", expiration_time=3600)
        region.set(KEY, value)
        cases[f"dogpile.cache get_or_create, {size}"] = lambda region=region: region.get_or_create(
            KEY, fetch
        )

        app = Flask("bench")
        flask_cache = FlaskCache(app, config={"CACHE_TYPE": "SimpleCache"})
        with app.app_context():
            backend = flask_cache.cache
            backend.set(KEY, value, timeout=3600)
        cases[f"Flask-Caching backend.get, {size}"] = lambda backend=backend: backend.get(KEY)
    return cases


def make_memoized_cases() -> dict[str, Callable[[], object]]:
    """Return the cases of the decorators: a repeated call of a function of one number."""
    cache = make_cache()

    @memoize(lambda: cache)
    def mine(number: int) -> str:
        return "hello"

    region = make_region().configure("dogpile.cache.memory", expiration_time=3600)

    @region.cache_on_arguments()
    def dogpiles(number: int) -> str:
        return "hello"

    app = Flask("bench")
    flask_cache = FlaskCache(app, config={"CACHE_TYPE": "SimpleCache"})

    @flask_cache.memoize(timeout=3600)
    def flasks(number: int) -> str:
        return "hello"

    app.app_context().push()
    return {
        "om.memoize, one argument": lambda: mine(7),
        "dogpile.cache cache_on_arguments, one argument": lambda: dogpiles(7),
        "Flask-Caching memoize, one argument": lambda: flasks(7),
    }


def measure_cashews(rounds: int, number: int = 200) -> float:
    """Measure a hit of the decorator of cashews, which is asynchronous, in a running loop."""

    async def run() -> float:
        cache = cashews.Cache()
        cache.setup("mem://")

        @cache(ttl="1h", key="servers")
        async def load() -> str:
            return "hello"

        await load()
        best = float("inf")
        for _ in range(rounds):
            started_at = time.perf_counter()
            for _ in range(number):
                await load()
            best = min(best, (time.perf_counter() - started_at) / number * 1e6)
        await cache.close()
        return best

    return asyncio.run(run())


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure microseconds per look-up: the minimum over the rounds, in which all take turns."""
    with redis_server() as url:
        shared = make_redis_cases(url) if url is not None else {}
        found = alternate(make_cases() | shared | make_memoized_cases(), repeats)
    found["cashews decorator, 5 bytes"] = measure_cashews(repeats)
    return found


if __name__ == "__main__":
    for subject, cost in measure().items():
        print(f"{subject:<50} {cost:8.2f} µs")

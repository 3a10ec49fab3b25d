"""Measures the methods of the hub in memory, in a file, and in Redis on a local socket."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

from measure import alternate
from redis_server import redis_server

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.builtin.hubs.redis import RedisHub
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.core.clock import SystemClock
from om_plugins.protocols import Hub

MESSAGE = {"text": "x" * 40}


def make_cases(name: str, hub: Hub) -> dict[str, Callable[[], object]]:
    """Return a case for each method."""
    last = hub.publish("read", MESSAGE)

    def lease() -> None:
        held = hub.lease("job", 60)
        assert held is not None
        held.release()

    return {
        f"publish, {name}": lambda: hub.publish("news", MESSAGE),
        f"put, {name}": lambda: hub.put("key", MESSAGE, 60),
        f"get, {name}": lambda: hub.get("key"),
        f"increment, {name}": lambda: hub.increment("count"),
        f"read, nothing new, {name}": lambda: hub.read("read", last),
        f"lease and release, {name}": lease,
    }


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure microseconds per call: the minimum over the rounds, in which the hubs take turns."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder, redis_server() as url:
        hubs: dict[str, Hub] = {
            "memory": MemoryHub("memory://", clock),
            "SQLite": SqliteHub(f"sqlite:///{folder}/hub.sqlite3", clock),
        }
        if url is not None:
            hubs["Redis"] = RedisHub(url, clock)
        found: dict[str, Callable[[], object]] = {}
        for name, hub in hubs.items():
            found |= make_cases(name, hub)
        costs = alternate(found, repeats, number=100)
        for hub in hubs.values():
            hub.close()
    return costs


if __name__ == "__main__":
    for subject, cost in measure().items():
        print(f"{subject:<40} {cost:8.2f} µs")

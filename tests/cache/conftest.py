"""A cache on a clock that moves when told to, with jobs that run when told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from om_plugins import signals
from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.scheduler import BackgroundScheduler


class DictStore:
    """A store that several caches share; it can be taken away."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.down = False
        self.reads = 0

    def _check(self) -> None:
        if self.down:
            raise OSError("no route to the store")

    def get(self, key: str) -> bytes | None:
        self._check()
        self.reads += 1
        return self.data.get(key)

    def set(self, key: str, value: bytes, ttl: float) -> None:
        self._check()
        self.data[key] = value

    def delete(self, key: str) -> None:
        self._check()
        self.data.pop(key, None)


class World(SimpleNamespace):
    """One process's cache and what stands around it."""

    cache: SmartCache
    clock: FakeClock
    scheduler: BackgroundScheduler
    signals: list[tuple[str, dict[str, Any]]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> DictStore:
    return DictStore()


@pytest.fixture
def hub(clock):
    hub = MemoryHub("memory://", clock)
    yield hub
    hub.close()


@pytest.fixture
def make_world(clock, hub) -> Iterator[Callable[..., World]]:
    def make(**options: Any) -> World:
        sender = object()
        scheduler = BackgroundScheduler(
            4, options.pop("queue_size", 100), clock, hub, synchronous=True
        )
        sent: list[tuple[str, dict[str, Any]]] = []
        for signal in signals.SIGNALS.values():
            if signal.name.startswith("cache_"):

                def receive(sender: object, signal: Any = signal, **details: Any) -> None:
                    sent.append((signal.name, details))

                signal.connect(receive, sender=sender, weak=False)
                connected.append((signal, receive))
        senders.append(sender)
        options = {
            "stale_time": 10.0,
            "cache_time": 100.0,
            "l1_bytes": 1 << 20,
            "max_value": 10_000,
            "hub": hub,
            "emit": signals.emitter(sender),
        } | options
        cache = SmartCache(CacheOptions(clock=clock, scheduler=scheduler, **options))
        return World(
            cache=cache, clock=clock, scheduler=scheduler, signals=sent, run=scheduler.run_pending
        )

    connected: list[tuple[Any, Any]] = []
    senders: list[object] = []
    yield make
    for signal, receive in connected:
        signal.disconnect(receive)


@pytest.fixture
def world(make_world) -> World:
    return make_world()


class Fetcher:
    """Counts its calls, and answers what it is told to: a value, or an error to raise."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls = 0

    def __call__(self) -> object:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def fetcher() -> type[Fetcher]:
    return Fetcher

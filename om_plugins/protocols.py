"""What a plugin implements, and what the rooms of the house ask of each other.

All are structural: a class keeps a contract by having the methods. The contract tests in
:mod:`om_plugins.testing` prove that it does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .types import (
        Answer,
        CacheChange,
        CacheStats,
        Call,
        EngineTraits,
        HubMessage,
        Notification,
        Sample,
    )

__all__ = [
    "Cache",
    "CacheStore",
    "CacheStoreFactory",
    "Chain",
    "Clock",
    "Engine",
    "FencedStore",
    "HostContext",
    "Hub",
    "HubFactory",
    "Lease",
    "Monitor",
    "Notifier",
    "Notify",
    "PluginContext",
    "Prober",
    "RecoveryStep",
    "Scheduler",
]


class Clock(Protocol):
    """Time, handed in so that tests need not wait."""

    def monotonic(self) -> float:
        """Seconds that only grow."""

    def time(self) -> float:
        """Seconds since the Unix epoch."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


@runtime_checkable
class Engine(Protocol):
    """Anything that can answer a call.

    These methods are optional; a chain uses what is there:

    ``probe(call) -> None``
        Raises when the engine is not well; should cost nothing.
    ``close() -> None``
        Gives connections back.
    ``attach(context: PluginContext) -> Engine | None``
        Called once in each application that gives the engine a place, before its first call.
        ``context`` has the clock, hub, cache and scheduler, which may be kept but not called yet.
        One engine object may stand in several applications: an engine that keeps the context
        returns a copy of itself, which then takes the place; one that keeps nothing returns
        ``None``.
    ``learn(call: Call, answer: Answer) -> None``
        Called by the chain, in the caller's thread, after *another* engine of it answered whole
        (not streamed, not stale). Must cost next to nothing and never raise; ``answer`` belongs
        to the caller, who may change it afterwards.
    """

    name: str
    traits: EngineTraits

    def call(self, call: Call) -> Answer | object:
        """Answer, or raise an :class:`~om_plugins.errors.EngineError`.

        Returns:
            A payload, an iterator of chunks (when ``call.stream`` and ``traits.streaming``), or
            an :class:`~om_plugins.types.Answer`. An engine that can stream may still answer a
            streaming call at once.
        """


class Chain(Protocol):
    """What the engine routes need of a chain."""

    name: str

    def call(
        self,
        payload: object = None,
        *,
        stream: bool = False,
        timeout: float | None = None,
        idempotent: bool | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Answer:
        """Ask the engines in order.

        Raises:
            ChainExhausted: no engine answered.
            InvalidRequest: the call itself is wrong.
            CallerDeadline, Cancelled: the caller's time was over, or it gave up.
        """

    @property
    def idempotent(self) -> bool:
        """True when every engine of every tier is idempotent."""


class CacheStore(Protocol):
    """Bytes under keys, shared or not. Asked for these three verbs and nothing else.

    A store never raises for a missing or damaged entry, and may raise anything when it is out of
    reach: the cache then goes on without it. A ``close()`` is optional: it gives connections back.
    So is what a :class:`FencedStore` has.
    """

    def get(self, key: str) -> bytes | None:
        """The bytes last set, or ``None``."""

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep ``value`` for ``ttl`` seconds."""

    def delete(self, key: str) -> None:
        """Forget it; a missing key is fine."""


class FencedStore(CacheStore, Protocol):
    """A store that can refuse a write that comes too late, in one step with it.

    Without it the cache looks before it writes, and a process that is paused between the two puts
    an old value over a newer one.
    """

    def compare_and_set(self, key: str, before: bytes | None, value: bytes, ttl: float) -> bool:
        """Keep ``value`` if what is there begins with ``before``, or for ``None`` is not there.

        Args:
            before: the first bytes of what :meth:`CacheStore.get` gave; entries differ in them.

        Returns:
            False when something else is there: nothing was written.
        """


class Lease(Protocol):
    """The right to be the only one at work on something, for a while."""

    name: str
    token: int
    """The fencing token: larger for each later holder, so that a paused one can be refused."""

    def renew(self, ttl: float) -> bool:
        """Hold it for ``ttl`` more seconds; False when it was lost."""

    def release(self) -> None:
        """Give it back early. A lost lease is left alone."""


class Hub(Protocol):
    """The one thing that workers share: a stream, a table with expiry, counters and leases.

    Data is JSON-like (``None``, bool, int, float, str, bytes, list, dict with str keys).
    """

    def publish(self, topic: str, data: object) -> str:
        """Append to a topic; returns the message's id. Old ones are dropped by age and count."""

    def read(
        self, topic: str, after: str = "", wait: float = 0.0, limit: int = 100
    ) -> list[HubMessage]:
        """Messages after id ``after`` ("" for the oldest kept), oldest first.

        Args:
            wait: seconds to wait for the first one when there is none yet.
        """

    def last_id(self, topic: str) -> str:
        """The id of the newest message, to read only what comes later; "" for none."""

    def put(self, key: str, value: object, ttl: float) -> None:
        """Keep ``value`` under ``key`` for ``ttl`` seconds. ``None`` removes it."""

    def get(self, key: str) -> object:
        """The value under ``key``, or ``None``."""

    def scan(self, prefix: str) -> dict[str, object]:
        """All unexpired values whose key begins with ``prefix``."""

    def increment(self, key: str, amount: int = 1, ttl: float = 60.0) -> int:
        """Add to a counter atomically and return its value; ``ttl`` counts from its first use."""

    def lease(self, name: str, ttl: float) -> Lease | None:
        """Become the only holder of ``name``, or ``None`` when another holds it."""

    def close(self) -> None:
        """Give connections back; the hub may be used again afterwards."""


class Monitor(Protocol):
    """Gets measurements. Called from a background thread, in batches, under guard."""

    def record(self, samples: Iterable[Sample]) -> None:
        """Take the samples since the last call."""


class Notifier(Protocol):
    """Carries notifications to people: a log, a webhook, a chat."""

    name: str

    def send(self, notification: Notification, timeout: float) -> None:
        """Deliver, or raise. Called from a background thread, bounded by ``timeout`` seconds."""


class Notify(Protocol):
    """How every room tells people something."""

    def __call__(self, notification: Notification) -> None:
        """Queue it; never blocks, never raises."""


class RecoveryStep(Protocol):
    """One thing that recovery tries.

    Attributes:
        name: plain words for the progress toast.
        percent: how far recovery is once this step is done, 0 to 100.
    """

    name: str
    percent: int

    def run(self, subject: str, timeout: float) -> str:
        """Do it; returns what was done, in one line. Raises when recovery should stop: an
        :class:`~om_plugins.errors.OpenManagerError` says that the trouble is still there,
        anything else is the step's own fault and counts against its plugin."""


class Prober(Protocol):
    """Looks at the engines of a place when nobody asks them, for the steps of recovery."""

    def reach(self, subject: str, timeout: float) -> str:
        """Have the engines of ``chain:<name>`` say that they are there.

        Raises:
            EngineUnavailable: no engine of the first tier is.
        """

    def probe(self, subject: str, timeout: float) -> str:
        """Ask the engines of ``chain:<name>``; a breaker closes only when its engine answers.

        Raises:
            EngineUnavailable: no engine of the first tier answered.
        """


class Scheduler(Protocol):
    """The one background worker pool of a process."""

    def submit(self, function: Callable[[], object], *, name: str = "") -> bool:
        """Run soon, in the background; False when the queue is full."""

    def every(
        self, seconds: float, function: Callable[[], object], *, name: str, elected: bool = False
    ) -> Callable[[], None]:
        """Run again and again; with ``elected`` in one process of all. Returns a way to stop."""


class Cache(Protocol):
    """What other rooms and plugins may ask of the cache (see :mod:`om_plugins.cache.cache`)."""

    def query(
        self,
        key: str,
        fetcher: Callable[[], object],
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        tags: Iterable[str] = (),
        scope: str = "",
    ) -> object:
        """The value, fetched when missing, refreshed in the background when stale."""

    def get(self, key: str, default: object = None, *, scope: str = "") -> object:
        """The value if there is one, fresh or stale."""

    def set(
        self,
        key: str,
        value: object,
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        tags: Iterable[str] = (),
        scope: str = "",
    ) -> None:
        """Put a value."""

    def invalidate(
        self,
        prefix: str | tuple[object, ...] | None = None,
        *,
        tags: Iterable[str] = (),
        scope: str = "",
    ) -> int:
        """Mark entries stale; the last good value stays. Returns how many in this process."""

    def shrink(self) -> int:
        """Memory is short: keep about half in this process. Returns how many entries went."""

    def purge(
        self,
        prefix: str | tuple[object, ...] | None = None,
        *,
        tags: Iterable[str] = (),
        scope: str = "",
    ) -> int:
        """Forget entries at once, in all workers. Returns how many in this process."""

    def remove(self, key: str, *, scope: str = "") -> None:
        """Forget one entry."""

    def subscribe(
        self, key: str, callback: Callable[[CacheChange], object], *, scope: str = ""
    ) -> Callable[[], None]:
        """Have every change of one key told in a background job; returns a way to end it."""

    def stats(self) -> CacheStats:
        """The counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginContext:
    """What every hook gets: the house, and this plugin's own settings.

    Attributes:
        name: this plugin's name.
        config: made by the plugin's ``config_class`` from ``OM_PLUGIN_CONFIG``; ``None`` when it
            has none.
        logger: ``om_plugins.plugin.<name>``.
        hub, cache: resolved on first use, so a hook may keep them but should not call them.
        prober: looks at engines, for the steps of recovery; ``None`` outside an application.
        namespace: names the application in stores that several may share (``OM_NAMESPACE``).
    """

    name: str
    config: object
    clock: Clock
    hub: Hub
    cache: Cache
    scheduler: Scheduler
    notify: Notify
    logger: logging.Logger
    prober: Prober | None = None
    namespace: str = "app"


HubFactory = Callable[[str, Clock], Hub]
"""Makes a hub from its URL."""

CacheStoreFactory = Callable[[str], CacheStore]
"""Makes a cache store from its URL."""

HostContext = Callable[["WSGIEnvironment"], AbstractContextManager[object]]
"""Opens the host framework's request context for an environ."""

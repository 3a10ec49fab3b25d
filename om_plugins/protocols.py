"""The protocols: what plugins implement, and what features need from each other.

All of them are structural: a class fulfils a protocol when it has the methods. The contract tests
in :mod:`om_plugins.testing` check that it does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
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
    """The time. It is an argument everywhere, so that tests need not wait."""

    def monotonic(self) -> float:
        """Return seconds that never decrease; their zero has no meaning."""

    def time(self) -> float:
        """Return seconds since the Unix epoch."""

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""


@runtime_checkable
class Engine(Protocol):
    """Anything that can answer a call.

    These methods are optional. A chain uses those that an engine has:

    ``probe(call) -> None``
        Raises when the engine does not work. It should cost nothing. It returns ``None`` or
        ``True``; anything else counts as a failure (``NoAnswer``).
    ``close() -> None``
        Closes connections.
    ``attach(context: PluginContext) -> Engine | None``
        Called once in each application that has the engine in a chain, before its first call.
        ``context`` has the clock, hub, cache and scheduler. The engine may keep them, but must not
        call them yet. One engine object may be in several applications: an engine that keeps the
        context returns a copy of itself, which the chain then uses; an engine that keeps nothing
        returns ``None``.
    ``learn(call: Call, answer: Answer) -> None``
        Called by the chain, in the caller's thread, after *another* engine of the chain gave a
        whole answer (not streamed, not stale). It must cost almost nothing and must not raise.
        ``answer`` belongs to the caller, who may change it afterwards.
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
    """What features need from a chain of engines."""

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
            CallerDeadline: the total deadline passed.
            Cancelled: the caller gave up.
        """

    @property
    def idempotent(self) -> bool:
        """True when every engine of every tier is idempotent."""


class CacheStore(Protocol):
    """Bytes under keys, in one process or shared. The cache uses these three methods.

    A store must not raise for a missing or damaged entry. It may raise any error when it is out of
    reach; the cache then continues without it. Two more methods are optional: ``close()``, which
    closes connections, and the one of :class:`FencedStore`.
    """

    def get(self, key: str) -> bytes | None:
        """Return the bytes that were set last, or ``None``."""

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Store ``value`` for ``ttl`` seconds."""

    def delete(self, key: str) -> None:
        """Delete the entry; a missing key is no error."""


class FencedStore(CacheStore, Protocol):
    """A store that compares and writes in one step, and so can refuse a write that is too late.

    With any other store, the cache reads before it writes, and a process that is paused in between
    writes an old value over a newer one.
    """

    def compare_and_set(self, key: str, before: bytes | None, value: bytes, ttl: float) -> bool:
        """Store ``value`` if the present entry begins with ``before``.

        Args:
            before: the first bytes of the entry that :meth:`CacheStore.get` returned, in which all
                entries differ; ``None``: write only if there is no entry.

        Returns:
            ``True`` when it was written; ``False`` when there is another entry, and nothing was.
        """


class Lease(Protocol):
    """A right that one holder has for a limited time."""

    name: str
    token: int
    """The fencing token. It is larger for each later holder, so that an earlier one that was paused
    can be refused."""

    def renew(self, ttl: float) -> bool:
        """Hold the lease for ``ttl`` more seconds.

        Returns:
            ``True`` when it is still held. Anything else means that it was lost.
        """

    def release(self) -> None:
        """End the lease early. This does nothing to a lease that was lost."""


class Hub(Protocol):
    """What workers share: topics of messages, values that expire, counters and leases.

    Data is JSON-like (``None``, bool, int, float, str, bytes, list, dict with str keys).
    """

    def publish(self, topic: str, data: object) -> str:
        """Append a message to a topic and return its id. Old ones are dropped by age and count."""

    def read(
        self, topic: str, after: str = "", wait: float = 0.0, limit: int = 100
    ) -> list[HubMessage]:
        """Return the messages after the id ``after``, the oldest first.

        Args:
            topic: the topic.
            after: an id; "" for the oldest message that is kept.
            wait: seconds to wait for the first message when there is none yet.
            limit: how many messages to return at most.
        """

    def last_id(self, topic: str) -> str:
        """Return the id of the newest message, to read only later ones; "" for none."""

    def put(self, key: str, value: object, ttl: float) -> None:
        """Store ``value`` under ``key`` for ``ttl`` seconds. ``None`` removes it."""

    def get(self, key: str) -> object:
        """Return the value under ``key``, or ``None``."""

    def scan(self, prefix: str) -> dict[str, object]:
        """Return all values that have not expired and whose key begins with ``prefix``."""

    def increment(self, key: str, amount: int = 1, ttl: float = 60.0) -> int:
        """Add to a counter in one step and return its value; ``ttl`` begins at its first use."""

    def lease(self, name: str, ttl: float) -> Lease | None:
        """Return the lease ``name``, or ``None`` when another holder has it.

        What is neither counts as ``None``, and is logged.
        """

    def close(self) -> None:
        """Close connections. The hub may be used again afterwards."""


class Monitor(Protocol):
    """Gets samples of requests, in batches and from a background thread. Its errors are logged."""

    def record(self, samples: Iterable[Sample]) -> None:
        """Handle the samples since the last call."""


class Notifier(Protocol):
    """Delivers notifications to people: in a log, by a webhook, in a chat.

    Two members are optional:

    ``accepts(notification) -> bool``
        Whether it wants a notification. Others take no place in its queue. Only ``True`` is yes.
        It is asked again before the notification is sent.
    ``durable: bool``
        ``False`` when the queue need not outlive the process, as nothing is sent out of it.
    """

    name: str

    def send(self, notification: Notification, timeout: float) -> None:
        """Deliver the notification within ``timeout`` seconds, or raise; ``False`` is a failure.

        It is called from a background thread, in one worker at a time. When the service cannot be
        reached, raise what the network raised: the notification waits until the service is back.
        The attribute ``retry_after`` of the exception, or the header ``Retry-After`` of its
        ``response``, says for how long at least, as with
        :class:`~om_plugins.errors.RateLimited`. What the service refuses
        (:class:`~om_plugins.errors.InvalidRequest`, HTTP 400) is tried a few times and dropped.
        """


class Notify(Protocol):
    """Sends a notification to people."""

    def __call__(self, notification: Notification) -> None:
        """Queue the notification. This neither blocks nor raises."""


class RecoveryStep(Protocol):
    """One action of recovery.

    Attributes:
        name: plain words for the progress toast.
        percent: the progress of the recovery after this step, 0 to 100.
    """

    name: str
    percent: int

    def run(self, subject: str, timeout: float) -> str:
        """Run the step and return what was done, in one line.

        Raises:
            OpenManagerError: the problem still exists; the recovery ends.
            Exception: the step itself is broken; the recovery ends, and the failure counts against
                the plugin.
        """


class Prober(Protocol):
    """Tests the engines of a chain, for the steps of recovery."""

    def reach(self, subject: str, timeout: float) -> str:
        """Test whether the engines of ``chain:<name>`` can be reached.

        Raises:
            EngineUnavailable: no engine of the first tier can.
        """

    def probe(self, subject: str, timeout: float) -> str:
        """Call the engines of ``chain:<name>``. A breaker closes only when its engine answers.

        Raises:
            EngineUnavailable: no engine of the first tier answered.
        """


class Scheduler(Protocol):
    """The background threads of a process. There is one pool for all jobs."""

    def submit(self, function: Callable[[], object], *, name: str = "") -> bool:
        """Run a job soon, in the background; returns False when the queue is full."""

    def every(
        self, seconds: float, function: Callable[[], object], *, name: str, elected: bool = False
    ) -> Callable[[], None]:
        """Run a job every ``seconds``, with ``elected`` in one process of all.

        Returns:
            A function that ends it.
        """


class Cache(Protocol):
    """What features and plugins may use of the cache (see :mod:`om_plugins.cache.cache`)."""

    def query(
        self,
        key: str,
        fetcher: Callable[[], object],
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        tags: Iterable[str] = (),
        scope: object = "",
    ) -> object:
        """Return the value. A missing one is fetched, a stale one refreshed in the background."""

    def get(self, key: str, default: object = None, *, scope: object = "") -> object:
        """Return the value if there is one, fresh or stale."""

    def set(
        self,
        key: str,
        value: object,
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        tags: Iterable[str] = (),
        scope: object = "",
    ) -> None:
        """Store a value."""

    def invalidate(
        self,
        prefix: str | tuple[object, ...] | None = None,
        *,
        tags: Iterable[str] = (),
        scope: object = ...,
    ) -> int:
        """Mark entries as stale; the last good value stays. Returns how many in this process."""

    def shrink(self) -> int:
        """Drop about half of the entries of this process, because memory is short.

        Returns:
            How many entries were dropped.
        """

    def purge(
        self,
        prefix: str | tuple[object, ...] | None = None,
        *,
        tags: Iterable[str] = (),
        scope: object = ...,
    ) -> int:
        """Remove entries at once, in all workers. Returns how many in this process."""

    def remove(self, key: str, *, scope: object = "") -> None:
        """Remove one entry."""

    def subscribe(
        self, key: str, callback: Callable[[CacheChange], object], *, scope: object = ""
    ) -> Callable[[], None]:
        """Call ``callback`` in a background job after every change of a key.

        Returns:
            A function that ends the subscription.
        """

    def stats(self) -> CacheStats:
        """Return the counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginContext:
    """What every hook gets: the parts of the application, and the plugin's own settings.

    Attributes:
        name: this plugin's name.
        config: made by the plugin's ``config_class`` from ``OM_PLUGIN_CONFIG``; ``None`` when it
            has none.
        logger: ``om_plugins.plugin.<name>``.
        hub, cache: opened on first use, so a hook may keep them but should not call them.
        prober: tests engines, for the steps of recovery; ``None`` outside an application.
        namespace: names the application in stores that several may share (``OM_NAMESPACE``).
        outbound_proxy: the forward proxy for what a plugin sends (``OM_OUTBOUND_PROXY``): a URL,
            ``environment``, or ``None`` for none. It may hold a password.
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
    outbound_proxy: str | None = field(default=None, repr=False)


HubFactory = Callable[[str, Clock], Hub]
"""Makes a hub from its URL."""

CacheStoreFactory = Callable[[str], CacheStore]
"""Makes a cache store from its URL."""

HostContext = Callable[["WSGIEnvironment"], AbstractContextManager[object]]
"""Opens the host framework's request context for an environ."""

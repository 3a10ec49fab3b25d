"""The invalidation bus: workers tell each other which cached data and pages are out of date.

There is one topic in the hub, one format of its messages, and one reader in each process. The data
cache and the HTTP cache both publish on the bus and receive from it, so that pages follow the
invalidation of the data that they show. The name of the topic has the version of the format:
workers of another version use another topic, and both ignore each other. A process treats a
message that does not fit the format as any other untrusted input, and ignores it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from typing import Annotated, Protocol, TypeAlias

import msgspec
from msgspec import Meta

from ..core.fork import renew_after_fork
from ..protocols import Hub, Scheduler
from ..types import ChangeKind

logger = logging.getLogger("om_plugins")

TOPIC = "invalidations/2"
READ_INTERVAL_S = 1.0
L1_TTL_S = 5.0
"""How long memory answers without asking a shared store, while this process hears of changes."""
DEAF_TTL_S = 0.05
"""How long memory answers without asking a shared store, while this process hears of none."""
MOST_IDENTS = 500
LONGEST_BYTES = 64 * 1024

_Ident: TypeAlias = Annotated[bytes, Meta(max_length=LONGEST_BYTES + 1)]
_Text: TypeAlias = Annotated[str, Meta(max_length=8_192)]
_Tags: TypeAlias = Annotated[list[str], Meta(max_length=1_000)]


class _Message(msgspec.Struct, tag_field="type", kw_only=True):
    """A message; ``at`` is the Unix time of the change in the process where it happened.

    Idents of the data cache are written as bytes, see :func:`om_plugins.cache.entry.write_ident`.
    """

    at: float


class EntriesInvalidated(_Message, tag="invalidated"):
    """Entries of the data cache became stale, or were removed.

    Attributes:
        prefix: the encoded beginning of their keys; ``b""`` for every key, ``None`` for none.
        tags: entries with any of these tags.
        scope: only entries of this scope; "" for all scopes.
        hard: the entries were removed.
        found: idents that the sender found by tags which other workers may not know.
    """

    prefix: Annotated[bytes, Meta(max_length=LONGEST_BYTES)] | None = None
    tags: _Tags = []
    scope: str = ""
    hard: bool = False
    found: Annotated[list[_Ident], Meta(max_length=10_000)] = []


class EntryRemoved(_Message, tag="removed"):
    """One entry of the data cache was removed."""

    ident: _Ident


class EntriesCleared(_Message, tag="cleared"):
    """All entries of the data cache were removed."""


class EntryChanged(_Message, tag="changed"):
    """An entry that somebody watches got a value.

    Attributes:
        same: the value equals the one before.
    """

    ident: _Ident
    kind: ChangeKind
    tags: _Tags = []
    same: bool = False


class EntriesReplaced(_Message, tag="replaced"):
    """The shared store has new values of these entries."""

    idents: Annotated[list[_Ident], Meta(max_length=MOST_IDENTS)]


class DependentsOutdated(_Message, tag="outdated"):
    """The values that were computed from an entry are out of date."""

    ident: _Ident


class PagesPurged(_Message, tag="purged"):
    """Responses of the HTTP cache were purged; the attributes are those of its ``Purge``."""

    url: _Text = ""
    prefix: _Text | None = None
    tags: _Tags = []
    idents: Annotated[list[_Text], Meta(max_length=1_000)] = []
    soft: bool = False


Message: TypeAlias = (
    EntriesInvalidated
    | EntryRemoved
    | EntriesCleared
    | EntryChanged
    | EntriesReplaced
    | DependentsOutdated
    | PagesPurged
)


class Receiver(Protocol):
    """A cache that applies the messages of the bus."""

    def receive(self, message: Message, published_at: float | None) -> None:
        """Apply a message.

        Args:
            published_at: the Unix time at which the hub got it; ``None`` when another cache of
                this process sent it.
        """

    def set_deaf(self, deaf: bool) -> None:
        """Record whether this process cannot hear of changes in other workers at present."""


class InvalidationBus:
    """Carries messages between the caches of all workers. No method raises.

    The bus reads only after :meth:`start`. A child of a fork keeps the receivers, and reads all
    that the hub still has, since it does not inherit what its parent remembers of invalidations.

    Args:
        hub: carries the messages; ``None`` for a process without others.
        scheduler: runs the reader.
        namespace: keeps the caches of two applications on one hub apart.

    Attributes:
        origin: names this process in its messages.
        topic: the topic in the hub, and the name of the reader's job.
    """

    def __init__(self, hub: Hub | None, scheduler: Scheduler, namespace: str = "") -> None:
        self._hub = hub
        self._scheduler = scheduler
        self.topic = f"{TOPIC}:{namespace}" if namespace else TOPIC
        self._receivers: list[Receiver] = []
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Give the child a name of its own, and let it read from the beginning."""
        self.origin = os.urandom(8)
        self._stop_job: Callable[[], None] | None = None
        self._started = False
        self._last_id = ""
        self._deaf = False
        self._hub_down = False

    def subscribe(self, receiver: Receiver) -> None:
        """Deliver messages to ``receiver``."""
        self._receivers.append(receiver)

    def start(self) -> None:
        """Read all that the hub still has, and what comes later each second; on first use."""
        if self._started or self._hub is None:
            return
        self._started = True
        self.read()
        try:
            every = self._scheduler.every
            self._stop_job = every(READ_INTERVAL_S, self.read, name=self.topic)
        except ValueError:
            pass  # another thread was faster

    def close(self) -> None:
        """Stop the reader; the next :meth:`start` reads from the beginning."""
        if self._stop_job is not None:
            self._stop_job()
            self._stop_job = None
        self._started = False
        self._last_id = ""

    def publish(self, message: Message, sender: Receiver) -> None:
        """Deliver a message to the other caches of this process at once, and publish it.

        Args:
            sender: the cache that sends; it has applied the change itself.
        """
        for receiver in self._receivers:
            if receiver is not sender:
                _deliver(receiver, message, None)
        if self._hub is None:
            return
        data = msgspec.to_builtins(message, builtin_types=(bytes,))
        try:
            self._hub.publish(self.topic, {"from": self.origin, **data})
            self._hub_down = False
        except Exception as error:  # noqa: BLE001 - a hub that is away must not fail a request
            self._warn(error)

    def read(self) -> None:
        """Read what other processes published, and deliver it. The reader calls it each second."""
        if self._hub is None:
            return
        try:
            while found := self._hub.read(self.topic, after=self._last_id, limit=500):
                for one in found:
                    self._last_id = one.id
                    message = self._decode(one.data)
                    if message is not None:
                        for receiver in self._receivers:
                            _deliver(receiver, message, one.at)
            self._hub_down = False
            # a hub that works on its own while its backend is away says so
            deaf = getattr(self._hub, "alone", False) is True
        except Exception as error:  # noqa: BLE001 - a hub that is away must not end the job
            self._warn(error)
            deaf = True
        if deaf != self._deaf:
            self._deaf = deaf
            for receiver in self._receivers:
                receiver.set_deaf(deaf)

    def _decode(self, data: object) -> Message | None:
        """Return a message of another process; ``None`` for anything else."""
        if not isinstance(data, dict) or data.get("from") == self.origin:
            return None
        try:
            message: Message = msgspec.convert(data, Message, builtin_types=(bytes,))
        except (msgspec.MsgspecError, RecursionError):
            return None
        return message if math.isfinite(message.at) else None

    def _warn(self, error: Exception) -> None:
        if not self._hub_down:
            self._hub_down = True
            logger.warning(
                "the hub cannot be reached (%s: %s); other workers hear of cache invalidations "
                "and purged pages only when their own copies end, after at most %g s in memory",
                type(error).__name__,
                error,
                L1_TTL_S,
            )


def _deliver(receiver: Receiver, message: Message, published_at: float | None) -> None:
    try:
        receiver.receive(message, published_at)
    except Exception:
        logger.exception("a cache could not apply %s", type(message).__name__)

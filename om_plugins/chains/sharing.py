"""Sharing between workers: the events of engines, and the breakers that follow them.

The bus is one topic of the hub that all workers read. Each worker publishes in the background and
in the order in which things happened, so no call waits for the hub. Anybody may have written what a
worker reads: each listener checks it.

With ``OM_BREAKER_SHARED``, a breaker that opens in one worker opens in all within a second, and one
that a probe closed in one worker closes in all. Of several workers whose breaker opened, the one
that opened first probes first; the others give it two seconds to publish what it found.

A forced state is always shared, and the hub retains it: workers that start later begin with it.
When an engine answers in a recovery, a breaker of it that is open in another worker lets the next
call through.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import msgspec

from ..core.body import convert
from ..core.fork import renew_after_fork
from ..policies.breaker import Breaker, Change
from ..policies.registry import BreakerKey, BreakerRegistry
from ..protocols import Clock, Hub, Scheduler

logger = logging.getLogger("om_plugins")

READ_INTERVAL_S = 0.8
"""How often events are read; with the scheduler's jitter, each arrives within a second."""
_MAX_UNPUBLISHED = 1000
_READ_LIMIT = 500

HEAD_START_S = 2.0
FORCED_TTL_S = 365 * 86_400.0
_MAX_FORCED = 1000


# --- the bus ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetainedKey:
    """Where the hub retains an event for workers that start later.

    Attributes:
        key: under the application's own prefix.
        ttl: for how long, in seconds; 0.0 removes the event that is retained there.
    """

    key: str
    ttl: float


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One event.

    Attributes:
        data: its content, unchecked.
        origin: the worker that published it.
        own: this process published it.
        at: when it was published, on this process's monotonic clock.
        age_s: how long ago that was.
    """

    data: Mapping[str, object]
    origin: str
    own: bool
    at: float
    age_s: float


Listener = Callable[[EngineEvent], None]


@dataclass(kw_only=True, eq=False, repr=False)
class EngineBus:
    """This process's side of the topic.

    Args:
        hub: the hub that the workers share. Only background jobs use it.
        scheduler: runs the background jobs.
        clock: the clock.
        namespace: separates two applications in one hub.
        has_engines: returns False while there is nothing that an event could be about; the bus then
            leaves the hub alone.
    """

    hub: Hub
    scheduler: Scheduler
    clock: Clock
    namespace: str
    has_engines: Callable[[], bool]

    def __post_init__(self) -> None:
        self._prefix = f"engines/{self.namespace}/"
        self._topic = f"engines:{self.namespace}"
        self._listeners: dict[str, Listener] = {}
        self._before_first_read: list[Callable[[], None]] = []
        self._after_each_read: list[Callable[[], None]] = []
        self._pid = 0
        self._reset()
        renew_after_fork(self)

    def _reset(self) -> None:
        self.origin = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._lock = threading.Lock()
        self._unpublished: deque[tuple[dict[str, object], RetainedKey | None]] = deque(
            maxlen=_MAX_UNPUBLISHED
        )
        self._last_id: str | None = None
        self._stop: Callable[[], None] | None = None

    def subscribe(self, kind: str, listener: Listener) -> None:
        """Call ``listener`` with each event of that kind in order, also with those of its own
        process. It raises ``ValueError`` for an event whose content is not valid."""
        self._listeners[kind] = listener

    def before_first_read(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` in the background before a process reads its first events, so that it
        can read what is retained."""
        self._before_first_read.append(callback)

    def after_each_read(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` each time when events were read, also when there were none."""
        self._after_each_read.append(callback)

    def start(self) -> None:
        """Start to read in this process. A forked child has to start again."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._stop = self.scheduler.every(READ_INTERVAL_S, self.read, name="engine-news")

    def close(self) -> None:
        """Stop reading."""
        if self._stop is not None and self._pid == os.getpid():
            self._stop()
            self._stop = None

    def publish(
        self, kind: str, data: Mapping[str, object], retained: RetainedKey | None = None
    ) -> None:
        """Publish an event to all workers, soon and in the background.

        Args:
            kind: the kind of event.
            data: its content, JSON-like.
            retained: where the hub retains it for workers that start later.
        """
        message: dict[str, object] = {"kind": kind, "origin": self.origin, "data": dict(data)}
        self._unpublished.append((message, retained))
        self.scheduler.submit(self._publish_all, name="engine-news")

    def retained(self, prefix: str) -> list[EngineEvent]:
        """Return the events that are retained under keys that begin with ``prefix``."""
        found = []
        for value in self.hub.scan(self._prefix + prefix).values():
            if isinstance(value, Mapping):
                event = self._event(value, value.get("at"))
                if event is not None:
                    found.append(event)
        return found

    def replay(self, prefix: str, listener: Listener) -> None:
        """Call ``listener`` with each event that is retained under ``prefix``."""
        for event in self.retained(prefix):
            _deliver(prefix, listener, event)

    def read(self) -> None:
        """Read the new events and call their listeners."""
        if not self.has_engines():
            return
        with self._lock:
            self._flush()
            if self._last_id is None:
                self._last_id = self.hub.last_id(self._topic)
                for callback in self._before_first_read:
                    callback()
            while messages := self.hub.read(self._topic, self._last_id, limit=_READ_LIMIT):
                for message in messages:
                    self._last_id = message.id
                    self._dispatch(message.data, message.at)
            for callback in self._after_each_read:
                callback()

    def after_fork(self) -> None:
        self._reset()

    def _publish_all(self) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        while self._unpublished:
            message, retained = self._unpublished.popleft()
            self.hub.publish(self._topic, message)
            if retained is not None:
                value = {**message, "at": self.clock.time()} if retained.ttl > 0.0 else None
                self.hub.put(self._prefix + retained.key, value, retained.ttl or 1.0)

    def _dispatch(self, message: object, at: float) -> None:
        kind = message.get("kind") if isinstance(message, Mapping) else None
        listener = self._listeners.get(kind) if isinstance(kind, str) else None
        event = self._event(message, at)
        if listener is not None and event is not None:
            _deliver(str(kind), listener, event)

    def _event(self, message: object, at: object) -> EngineEvent | None:
        if not isinstance(message, Mapping) or not isinstance(at, int | float):
            return None
        data, origin = message.get("data"), message.get("origin")
        if not isinstance(data, Mapping) or not isinstance(origin, str):
            return None
        age_s = max(self.clock.time() - at, 0.0)
        if age_s != age_s:
            return None
        now = self.clock.monotonic()
        return EngineEvent(data, origin, origin == self.origin, now - age_s, age_s)


def _deliver(what: str, listener: Listener, event: EngineEvent) -> None:
    try:
        listener(event)
    except ValueError as error:
        logger.debug("an event of engines, %s, is not valid: %s", what, error)


# --- breakers -----------------------------------------------------------------------------------

_Name = Annotated[str, msgspec.Meta(max_length=1000)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400 * 2)]


class _Opened(msgspec.Struct):
    chain: _Name
    engine: _Name
    for_s: _Seconds
    in_a_row: Annotated[int, msgspec.Meta(ge=0, le=1000)]


class _EngineName(msgspec.Struct):
    chain: _Name
    engine: _Name


class _Forced(msgspec.Struct):
    chain: _Name
    engine: _Name
    state: Literal["open", "closed"] | None


@dataclass(kw_only=True, eq=False, repr=False)
class BreakerSharing:
    """Publishes the changes of this process's breakers, and applies those of other workers.

    Args:
        breakers: the application's breakers.
        bus: carries the changes.
        clock: the clock.
        shared: share opening and closing too, not only forced states.
    """

    breakers: BreakerRegistry
    bus: EngineBus
    clock: Clock
    shared: bool

    def __post_init__(self) -> None:
        self._forced: dict[BreakerKey, Literal["open", "closed"]] = {}
        self.breakers.watch(self._watch)
        self.bus.subscribe("breaker forced", self._apply_forced)
        self.bus.subscribe("engine answered", self._apply_answer)
        if self.shared:
            self.bus.subscribe("breaker opened", self._apply_opened)
            self.bus.subscribe("breaker closed", self._apply_closed)
        self.bus.before_first_read(self.receive_retained)

    # --- changes here ---

    def publish_answer(self, breaker: Breaker) -> None:
        """Tell the other workers that an engine of this breaker answered in a recovery."""
        for (chain, engine), one in self.breakers.pairs():
            if one is breaker:
                self.bus.publish("engine answered", {"chain": chain, "engine": engine})

    def _watch(self, key: BreakerKey, breaker: Breaker) -> None:
        if key in self._forced:  # forced before this engine was added
            breaker.force(self._forced[key], remote=True)
        breaker.on_change = partial(self._publish_change, key, breaker)

    def _publish_change(self, key: BreakerKey, breaker: Breaker, change: Change) -> None:
        view = breaker.view(self.clock.monotonic())
        name: dict[str, object] = {"chain": key[0], "engine": key[1]}
        if change == "forced":
            retained = RetainedKey(f"forced/{_digest(key)}", FORCED_TTL_S if view.forced else 0.0)
            self.bus.publish("breaker forced", {**name, "state": view.forced}, retained)
        elif not self.shared:
            return
        elif change == "closed":
            retained = RetainedKey(f"opened/{_digest(key)}", 0.0)
            self.bus.publish("breaker closed", name, retained)
        elif view.state == "open":
            for_s = view.retry_after_s or 0.0
            retained = RetainedKey(f"opened/{_digest(key)}", max(for_s, 0.1))
            self.bus.publish(
                "breaker opened", {**name, "for_s": for_s, "in_a_row": view.in_a_row}, retained
            )

    # --- changes elsewhere ---

    def receive_retained(self) -> None:
        """Apply the states that the hub retains for workers that start later."""
        self.bus.replay("forced/", self._apply_forced)
        if self.shared:
            self.bus.replay("opened/", self._apply_opened)

    def _apply_forced(self, event: EngineEvent) -> None:
        # A worker applies its own events as all others, so that of two operators the same one is
        # the last in every worker.
        said = convert(event.data, _Forced)
        key = (said.chain, said.engine)
        breaker = self.breakers.find(key)
        if breaker is not None and breaker.force(said.state, remote=True):
            what = f"was forced {said.state}" if said.state else "decides by itself again"
            named = " / ".join(part[:200] for part in key if part)
            logger.warning(
                "the breaker of %s %s, as an operator asked in another worker", named, what
            )
        if said.state is None:
            self._forced.pop(key, None)
        elif breaker is not None or len(self._forced) < _MAX_FORCED:
            self._forced[key] = said.state

    def _apply_opened(self, event: EngineEvent) -> None:
        said = convert(event.data, _Opened)
        breaker = self.breakers.find((said.chain, said.engine))
        left_s = said.for_s - event.age_s
        if event.own or breaker is None or left_s <= 0.0:
            return
        if not breaker.permit and event.origin > self.bus.origin:
            return  # it opened in both workers: one of them probes first, and here it is this one
        now = self.clock.monotonic()
        breaker.apply_opened(now, left_s + HEAD_START_S, said.in_a_row, event.at)

    def _apply_closed(self, event: EngineEvent) -> None:
        said = convert(event.data, _EngineName)
        breaker = self.breakers.find((said.chain, said.engine))
        if breaker is not None and not event.own:
            breaker.apply_closed(self.clock.monotonic(), event.at)

    def _apply_answer(self, event: EngineEvent) -> None:
        said = convert(event.data, _EngineName)
        breaker = self.breakers.find((said.chain, said.engine))
        if breaker is not None and not event.own:
            breaker.note_answer(self.clock.monotonic(), event.at)


def _digest(key: BreakerKey) -> str:
    """Return a name for the hub's keys: engines may have any name."""
    text = "\0".join(key).encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()

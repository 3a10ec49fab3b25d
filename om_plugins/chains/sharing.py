"""What workers tell each other of their engines: one topic of the hub, read by all.

News are told in the background and in the order in which they happened, so no call waits for the
hub. What is heard was written by anybody: whoever takes it checks it.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..core.fork import renew_after_fork
from ..protocols import Clock, Hub, Scheduler

__all__ = ["HEAR_S", "EngineNews", "Kept", "News"]

logger = logging.getLogger("om_plugins")

HEAR_S = 0.8
"""How often news are read; with the scheduler's jitter, each is heard within a second."""
_MOST_UNTOLD = 1000
_READ = 500


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept in the hub beside the news, for workers that start later.

    Attributes:
        key: under the application's own prefix.
        ttl: for how long, in seconds; 0.0 removes what was kept.
    """

    key: str
    ttl: float


@dataclass(frozen=True, slots=True)
class News:
    """One thing that was told.

    Attributes:
        data: what was said, unchecked.
        origin: who said it.
        own: this process did.
        at: when it was said, on this process's monotonic clock.
        age_s: how long ago that was.
    """

    data: Mapping[str, object]
    origin: str
    own: bool
    at: float
    age_s: float


Listener = Callable[[News], None]


class EngineNews:
    """This process's side of the topic.

    Args:
        hub: what the workers share; asked in the background alone.
        scheduler: runs what is done in the background.
        clock: time.
        namespace: keeps two applications in one hub apart.
        wanted: false while there is nothing that news could be about; the hub is then left alone.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        scheduler: Scheduler,
        clock: Clock,
        namespace: str,
        wanted: Callable[[], bool],
    ) -> None:
        self._hub = hub
        self._scheduler = scheduler
        self._clock = clock
        self._wanted = wanted
        self._prefix = f"engines/{namespace}/"
        self._topic = f"engines:{namespace}"
        self._listeners: dict[str, Listener] = {}
        self._beginners: list[Callable[[], None]] = []
        self._always: list[Callable[[], None]] = []
        self._pid = 0
        self._anew()
        renew_after_fork(self)

    def _anew(self) -> None:
        self.origin = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._lock = threading.Lock()
        self._untold: deque[tuple[dict[str, object], Kept | None]] = deque(maxlen=_MOST_UNTOLD)
        self._after: str | None = None
        self._stop: Callable[[], None] | None = None

    def on(self, kind: str, listener: Listener) -> None:
        """Have ``listener`` told of news of that kind, of its own process's too, in order. What
        is not as it should be makes it raise ``ValueError``."""
        self._listeners[kind] = listener

    def at_start(self, begin: Callable[[], None]) -> None:
        """Have ``begin`` called in the background before the first news of a process are read,
        to learn what is kept."""
        self._beginners.append(begin)

    def always(self, after: Callable[[], None]) -> None:
        """Have ``after`` called each time when news were read, also when there were none."""
        self._always.append(after)

    def start(self) -> None:
        """Begin to hear in this process. A forked child begins anew."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._stop = self._scheduler.every(HEAR_S, self.hear, name="engine-news")

    def close(self) -> None:
        """Stop hearing."""
        if self._stop is not None and self._pid == os.getpid():
            self._stop()
            self._stop = None

    def tell(self, kind: str, data: Mapping[str, object], kept: Kept | None = None) -> None:
        """Tell all workers, soon and in the background.

        Args:
            data: JSON-like.
            kept: where the same is kept for those that start later.
        """
        self._untold.append(({"kind": kind, "origin": self.origin, "data": dict(data)}, kept))
        self._scheduler.submit(self._tell_all, name="engine-news")

    def kept(self, prefix: str) -> list[News]:
        """What is kept under keys that begin with ``prefix``."""
        found = []
        for value in self._hub.scan(self._prefix + prefix).values():
            if isinstance(value, Mapping):
                news = self._news(value, value.get("at"))
                if news is not None:
                    found.append(news)
        return found

    def learn(self, prefix: str, listener: Listener) -> None:
        """Have ``listener`` told what is kept, as of news."""
        for news in self.kept(prefix):
            _take(prefix, listener, news)

    def hear(self) -> None:
        """Read what is new."""
        if not self._wanted():
            return
        with self._lock:
            self._flush()
            if self._after is None:
                self._after = self._hub.last_id(self._topic)
                for begin in self._beginners:
                    begin()
            while messages := self._hub.read(self._topic, self._after, limit=_READ):
                for message in messages:
                    self._after = message.id
                    self._heard(message.data, message.at)
            for after in self._always:
                after()

    def after_fork(self) -> None:
        self._anew()

    def _tell_all(self) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        while self._untold:
            message, kept = self._untold.popleft()
            self._hub.publish(self._topic, message)
            if kept is not None:
                value = {**message, "at": self._clock.time()} if kept.ttl > 0.0 else None
                self._hub.put(self._prefix + kept.key, value, kept.ttl or 1.0)

    def _heard(self, message: object, at: float) -> None:
        kind = message.get("kind") if isinstance(message, Mapping) else None
        listener = self._listeners.get(kind) if isinstance(kind, str) else None
        news = self._news(message, at)
        if listener is not None and news is not None:
            _take(str(kind), listener, news)

    def _news(self, message: object, at: object) -> News | None:
        if not isinstance(message, Mapping) or not isinstance(at, int | float):
            return None
        data, origin = message.get("data"), message.get("origin")
        if not isinstance(data, Mapping) or not isinstance(origin, str):
            return None
        age_s = max(self._clock.time() - at, 0.0)
        if age_s != age_s:
            return None
        now = self._clock.monotonic()
        return News(data, origin, origin == self.origin, now - age_s, age_s)


def _take(what: str, listener: Listener, news: News) -> None:
    try:
        listener(news)
    except ValueError as error:
        logger.debug("news of engines, %s, are left out: %s", what, error)

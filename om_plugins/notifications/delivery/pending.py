"""The notifications that wait for one notifier: in the hub, so that they outlive the process.

A notification is stored before it is sent and removed after that, so a process that is killed loses
none. Workers that share the hub share the queue; the one that has its lease sends. While the hub is
out of reach, and for a notifier whose queue is not durable, the queue is that of this process
alone. What waits in it goes to the hub when that is back.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from urllib.parse import quote

import msgspec

from ...core.fork import PerProcess
from ...protocols import Clock
from ...types import Notification
from ...workers.hub import SharedHub

logger = logging.getLogger("om_plugins")

LEASE_S = 10.0
"""How long a worker that ended keeps the others from sending. It is longer than one attempt."""

_VERSION = "1"
_STATE_TTL_S = 7 * 86_400.0
_MOST_GONE = 10_000


@dataclass(slots=True)
class Pending:
    """A notification that waits.

    Attributes:
        key: the older ones sort first.
        at: when it came, as Unix time.
        size: about how many bytes it takes.
        attempts: how many attempts failed for which it is itself to blame.
    """

    key: str
    note: Notification
    at: float
    size: int
    attempts: int = 0


@dataclass(slots=True, eq=False, repr=False)
class _PendingProcess:
    """The part of a queue that belongs to one process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    last: int = 0
    held: dict[str, Pending] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    state: object = None


class PendingStore:
    """The queue of one notifier.

    Args:
        name: names the notifier; the same in all workers and after a restart.
        hub: where it is stored; ``None`` for a queue of this process alone.
        clock: the Unix time.
        ttl_s: after so many seconds the hub may forget a notification.
    """

    def __init__(self, name: str, hub: SharedHub | None, clock: Clock, ttl_s: float) -> None:
        place = f"delivery.{_VERSION}.{quote(name, safe='')}"
        self._prefix = f"{place}:"
        self._state_key = f"{place}.state"
        self._lease_name = place
        self._hub = hub
        self._clock = clock
        self._ttl_s = ttl_s
        # The parent sends what it had before the fork.
        self._processes: PerProcess[_PendingProcess] = PerProcess(_PendingProcess)

    def add(self, note: Notification) -> Pending:
        """Store a notification behind all others."""
        process = self._processes.get()
        now = self._clock.time()
        with process.lock:
            process.last = number = max(process.last + 1, int(now * 1e6))
        size = len(msgspec.msgpack.encode(asdict(note)))
        pending = Pending(f"{number:016d}-{secrets.token_hex(4)}", note, now, size)
        self.save(pending)
        return pending

    def save(self, pending: Pending) -> None:
        """Store a notification, or that an attempt of it failed."""
        held = self._processes.get().held
        if self._put(pending):
            held.pop(pending.key, None)
        else:
            held[pending.key] = pending

    def remove(self, pending: Pending) -> None:
        """Remove a notification that was sent or is given up."""
        process = self._processes.get()
        process.held.pop(pending.key, None)
        if self._hub is None or self._remove_from_hub(self._hub, pending.key):
            return
        if len(process.gone) < _MOST_GONE:  # what was held here may be in the hub as well
            process.gone.add(pending.key)

    def list(self) -> list[Pending]:
        """Return all that wait, the oldest first."""
        process = self._processes.get()
        found: dict[str, Pending] = {}
        if self._hub is not None and self._reach(self._hub):
            self._hand_over(self._hub, process)
            stored = self._hub.scan(self._prefix)
            if not self._hub.alone:  # else it is the local hub that answered
                for key, data in stored.items():
                    pending = _read(key.removeprefix(self._prefix), data)
                    if pending is None:
                        logger.warning("the hub's %s cannot be read; it is left out", key)
                        self._hub.put(key, None, 1.0)
                    elif pending.key not in process.gone:
                        found[pending.key] = pending
        found |= process.held
        return [found[key] for key in sorted(found)]

    def read_state(self) -> object:
        """Return what :meth:`write_state` stored last; ``None`` for nothing."""
        if self._hub is not None and self._reach(self._hub):
            state = self._hub.get(self._state_key)
            if not self._hub.alone:
                return state
        return self._processes.get().state

    def write_state(self, state: Mapping[str, object] | None) -> None:
        """Store the state of the notifier's breaker."""
        self._processes.get().state = state
        if self._hub is not None:
            self._hub.put(self._state_key, state, _STATE_TTL_S)

    @contextlib.contextmanager
    def claim(self) -> Iterator[Callable[[], bool] | None]:
        """Hold the right to send, of which there is one.

        Yields:
            A function that holds it for :data:`LEASE_S` more seconds and returns whether this
            worker still has it; ``None`` when another worker has it.
        """
        if self._hub is None or not self._reach(self._hub):
            yield lambda: True  # nobody else has this queue
            return
        lease = self._hub.lease(self._lease_name, LEASE_S)
        if lease is None:
            yield None
            return
        held, renewed_at = lease, self._clock.monotonic()

        def renew() -> bool:
            nonlocal renewed_at
            now = self._clock.monotonic()
            if now - renewed_at < LEASE_S / 4:
                return True
            renewed_at = now
            return held.renew(LEASE_S)

        try:
            yield renew
        finally:
            lease.release()

    # --- the hub ------------------------------------------------------------------------------

    def _reach(self, hub: SharedHub) -> bool:
        """Return whether the hub's backend answers; ask it again when that is due."""
        if hub.alone:
            hub.get(self._state_key)
        return not hub.alone

    def _put(self, pending: Pending) -> bool:
        if self._hub is None or not self._reach(self._hub):
            return False
        data = {
            "note": asdict(pending.note),
            "at": pending.at,
            "size": pending.size,
            "attempts": pending.attempts,
        }
        self._hub.put(self._prefix + pending.key, data, self._ttl_s)
        return not self._hub.alone

    def _remove_from_hub(self, hub: SharedHub, key: str) -> bool:
        if self._reach(hub):
            hub.put(self._prefix + key, None, 1.0)
        return not hub.alone

    def _hand_over(self, hub: SharedHub, process: _PendingProcess) -> None:
        """Give the hub what happened in this process while the hub was out of reach."""
        for key in list(process.gone):
            if not self._remove_from_hub(hub, key):
                return
            process.gone.discard(key)
        for pending in list(process.held.values()):
            if not self._put(pending):
                return
            process.held.pop(pending.key, None)


def _read(key: str, data: object) -> Pending | None:
    try:
        return msgspec.convert({"key": key, **data}, Pending)  # type: ignore[dict-item]
    except (TypeError, msgspec.MsgspecError):
        return None

"""The hub as an application sees it: found on first use, and never the reason for a failure.

:class:`SharedHub` stands before the real hub. While that is out of reach, calls are answered by a
hub in this process's memory; when it is back, what was published meanwhile is handed on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ..protocols import Clock, Hub, Lease
from ..types import HubMessage
from .outbox__outage import Outage

__all__ = ["SharedHub", "SharedLease"]

_T = TypeVar("_T")

_logger = logging.getLogger("om_plugins")
_CATCH_UP = 1_000
_LOCAL = "~"
"""Ends the ids of messages that only this process has."""


@dataclass(slots=True)
class _Caught:
    """A message that was published while the hub was away."""

    topic: str
    data: object
    local_id: str


@dataclass(slots=True)
class _State:
    """One process's side of a hub."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    hub: Hub | None = None
    alone: Hub | None = None
    outage: Outage = field(default_factory=Outage)
    caught: deque[_Caught] = field(default_factory=lambda: deque(maxlen=_CATCH_UP))
    handed_on: dict[str, str] = field(default_factory=dict)
    """Ids under which messages were handed on, and the local ids they had before."""
    cursors: dict[str, str] = field(default_factory=dict)
    """Per topic, the newest id that was read from the hub."""
    left_at: dict[str, str] = field(default_factory=dict)
    """The cursors when the hub went away."""


class SharedHub:
    """A :class:`~om_plugins.protocols.Hub` that may lose its backend and goes on.

    Nothing is opened before the first call, and each process opens its own. No call raises: a
    value that no hub can keep (too large, no encoding) is logged and left out.

    Messages published while the backend is away have ids of their own kind. A reader that saw
    them does not get them again when they are handed on, and goes on where the backend was left.

    Args:
        open_hub: makes the real hub; called on first use, and again after it failed.
        fallback: makes the hub of a process that is alone.
        clock: its monotonic time says when to try again (:class:`.policies.outage.Outage`).
        logger: gets one warning when the backend goes away and one line when it is back.
        name: how the log names the hub; without credentials.
    """

    def __init__(
        self,
        open_hub: Callable[[], Hub],
        fallback: Callable[[], Hub],
        clock: Clock,
        logger: logging.Logger = _logger,
        *,
        name: str = "",
    ) -> None:
        self._open = open_hub
        self._fallback = fallback
        self._clock = clock
        self._logger = logger
        self._name = f"{name} " if name else ""
        self._states: dict[int, _State] = {}

    @property
    def alone(self) -> bool:
        """True while the backend is out of reach and this process goes on by itself."""
        return self._state().outage.down

    def publish(self, topic: str, data: object) -> str:
        def by_itself(hub: Hub) -> str:
            local_id = hub.publish(topic, data) + _LOCAL
            self._state().caught.append(_Caught(topic, data, local_id))
            return local_id

        return self._call(lambda hub: hub.publish(topic, data), "", by_itself)

    def read(
        self, topic: str, after: str = "", wait: float = 0.0, limit: int = 100
    ) -> list[HubMessage]:
        state = self._state()

        def shared(hub: Hub) -> list[HubMessage]:
            local = after.endswith(_LOCAL)
            since = state.left_at.get(topic, after.removesuffix(_LOCAL)) if local else after
            while found := hub.read(topic, since, wait, limit):
                since = found[-1].id
                state.cursors[topic] = max(since, state.cursors.get(topic, ""))
                if local:  # it has seen what this process published while it was alone
                    found = [m for m in found if not "" < state.handed_on.get(m.id, "") <= after]
                if found:
                    break
            return found

        def by_itself(hub: Hub) -> list[HubMessage]:
            patience = min(wait, max(0.0, state.outage.retry_at - self._clock.monotonic()))
            found = hub.read(topic, after.removesuffix(_LOCAL), patience, limit)
            for message in found:
                message.id += _LOCAL
            return found

        return self._call(shared, [], by_itself)

    def last_id(self, topic: str) -> str:
        def by_itself(hub: Hub) -> str:
            newest = hub.last_id(topic)
            return newest + _LOCAL if newest else self._state().cursors.get(topic, "")

        return self._call(lambda hub: hub.last_id(topic), "", by_itself)

    def put(self, key: str, value: object, ttl: float) -> None:
        self._call(lambda hub: hub.put(key, value, ttl), None)

    def get(self, key: str) -> object:
        return self._call(lambda hub: hub.get(key), None)

    def scan(self, prefix: str) -> dict[str, object]:
        return self._call(lambda hub: hub.scan(prefix), {})

    def increment(self, key: str, amount: int = 1, ttl: float = 60.0) -> int:
        return self._call(lambda hub: hub.increment(key, amount, ttl), amount)

    def lease(self, name: str, ttl: float) -> Lease | None:
        def ask(hub: Hub) -> Lease | None:
            found = hub.lease(name, ttl)
            return None if found is None else SharedLease(self, hub, found)

        return self._call(ask, None)

    def close(self) -> None:
        state = self._states.pop(os.getpid(), None)
        if state is not None:
            _close_state(os.getpid(), state)

    # --- which hub answers ----------------------------------------------------------------------

    def _state(self) -> _State:
        pid = os.getpid()
        state = self._states.get(pid)
        if state is None:
            # setdefault is atomic. A parent's state stays in a child, where nothing may close it.
            state = self._states.setdefault(pid, mine := _State())
            if state is mine:  # an application that is dropped without a word leaves no file open
                weakref.finalize(self, _close_state, pid, mine).atexit = False
        return state

    def _call(
        self, ask: Callable[[Hub], _T], neutral: _T, by_itself: Callable[[Hub], _T] | None = None
    ) -> _T:
        """Ask the backend, else the process's own hub, else answer ``neutral``."""
        state = self._state()
        hub = self._backend(state)
        failure: Exception | None = None
        if hub is not None:
            try:
                return ask(hub)
            except ValueError as error:
                failure = error  # the data's fault, when the other hub says so too
            except Exception as error:  # noqa: BLE001 - a plugin's hub may raise anything
                self._lose(state, hub, error)
        try:
            answer = (by_itself or ask)(self._alone(state))
        except ValueError as error:
            self._logger.error("%s; it is left out", error)
            return neutral
        except Exception:
            self._logger.exception("the hub of this process alone failed")
            return neutral
        if failure is not None and hub is not None:
            self._lose(state, hub, failure)
        return answer

    def _alone(self, state: _State) -> Hub:
        if state.alone is None:
            with state.lock:
                state.alone = state.alone or self._fallback()
        return state.alone

    def _backend(self, state: _State) -> Hub | None:
        """The backend, opened or tried again where it is time; ``None`` when this process is alone.

        Nothing is logged while the lock is held: a log handler may use the hub.
        """
        if not state.outage.down and state.hub is not None:
            return state.hub
        if state.outage.down and self._clock.monotonic() < state.outage.retry_at:
            return None
        if not state.lock.acquire(blocking=not state.outage.down):
            return None  # another thread tries just now
        error: Exception | None = None
        was_down = state.outage.down
        handed_on = 0
        began = self._clock.monotonic()
        try:
            if state.hub is not None or (was_down and began < state.outage.retry_at):
                return state.hub
            hub = self._open()
            if was_down:
                hub.put("hub.probe", os.getpid(), 1.0)  # a proof that it can be written
                handed_on = self._hand_on(state, hub)
            state.hub = hub
            if was_down:
                state.outage.over(self._clock.monotonic())
        except Exception as caught:  # noqa: BLE001 - whatever is wrong, the process goes on
            error = caught
            now = self._clock.monotonic()
            state.outage.failed(now, now - began)
        finally:
            state.lock.release()
        if error is None:
            if was_down:
                self._logger.info("the hub %sis back; handed on %d messages", self._name, handed_on)
            return hub
        if not was_down:
            self._warn(error)
        return None

    def _hand_on(self, state: _State, hub: Hub) -> int:
        count = 0
        while state.caught:
            first = state.caught[0]
            new_id = hub.publish(first.topic, first.data)
            state.handed_on[new_id] = first.local_id
            state.caught.popleft()
            count += 1
        while len(state.handed_on) > _CATCH_UP:
            del state.handed_on[next(iter(state.handed_on))]
        return count

    def _lose(self, state: _State, hub: Hub, error: Exception) -> None:
        with state.lock:
            if state.hub is not hub:  # another thread has noticed
                return
            state.hub = None
            state.left_at = dict(state.cursors)
            state.outage.failed(self._clock.monotonic())
        _close(hub)
        self._warn(error)

    def _warn(self, error: Exception) -> None:
        self._logger.warning(
            "the hub %sis out of reach (%s: %s); this process goes on alone",
            self._name,
            type(error).__name__,
            error,
        )

    def _is_current(self, hub: Hub) -> bool:
        state = self._state()
        return hub is (state.alone if state.outage.down else state.hub)


@dataclass(slots=True)
class SharedLease:
    """A :class:`~om_plugins.protocols.Lease` that is lost when its hub is, or when that is back."""

    _shared: SharedHub
    _hub: Hub
    _lease: Lease
    name: str = field(init=False)
    token: int = field(init=False)

    def __post_init__(self) -> None:
        self.name = self._lease.name
        self.token = self._lease.token

    def renew(self, ttl: float) -> bool:
        if not self._shared._is_current(self._hub):
            return False
        try:
            return self._lease.renew(ttl)
        except Exception as error:  # noqa: BLE001 - a lease that cannot be renewed is lost
            self._shared._lose(self._shared._state(), self._hub, error)
            return False

    def release(self) -> None:
        if self._shared._is_current(self._hub):
            with contextlib.suppress(Exception):  # it runs out by itself
                self._lease.release()


def _close_state(pid: int, state: _State) -> None:
    if os.getpid() == pid:
        hubs, state.hub, state.alone = (state.hub, state.alone), None, None
        for hub in hubs:
            if hub is not None:
                _close(hub)


def _close(hub: Hub) -> None:
    with contextlib.suppress(Exception):  # it is given up; there is nothing to save
        hub.close()

"""The hub of an application: opened on first use, and never the reason for a failure.

:class:`SharedHub` wraps the real hub, its backend. While the backend is out of reach, a hub in this
process's memory answers. When the backend is back, it gets the messages that were published
meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeVar

from ..policies.outage import Outage
from ..protocols import Clock, Hub, Lease
from ..settings.callbacks import describe_result, is_permitted, refuse_unfinished
from ..types import HubMessage

_T = TypeVar("_T")

_logger = logging.getLogger("om_plugins")
_MOST_PENDING = 1_000
_LOCAL = "~"
"""The last character of the ids of messages that only this process has."""


@dataclass(slots=True)
class _PendingMessage:
    """A message that was published while the backend was out of reach."""

    topic: str
    data: object
    local_id: str


@dataclass(slots=True)
class _HubProcess:
    """The part of a hub that belongs to one process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    hub: Hub | None = None
    local: Hub | None = None
    outage: Outage = field(default_factory=Outage)
    pending: deque[_PendingMessage] = field(default_factory=lambda: deque(maxlen=_MOST_PENDING))
    local_ids: dict[str, str] = field(default_factory=dict)
    """The local ids that messages had, by the ids under which the backend got them."""
    cursors: dict[str, str] = field(default_factory=dict)
    """By topic, the newest id that was read from the backend."""
    lost_at: dict[str, str] = field(default_factory=dict)
    """The cursors at the time when the backend was lost."""


@dataclass(eq=False, repr=False)
class SharedHub:
    """A :class:`~om_plugins.protocols.Hub` that works also without its backend.

    Nothing is opened before the first call, and each process opens a hub of its own. No call
    raises: a value that no hub can store (too large, no encoding) is logged and dropped.

    A message that is published without the backend has a local id. A reader that got it does not
    get it again from the backend later, and continues where it was when the backend was lost.

    Args:
        open_hub: opens the backend; called on first use, and again after a failure.
        open_local: opens the hub that answers in this process while the backend is out of reach.
        clock: its monotonic time says when to try again (:class:`.policies.outage.Outage`).
        logger: gets one warning when the backend is lost and one line when it is back.
        name: how the log names the hub; without credentials.
    """

    open_hub: Callable[[], Hub]
    open_local: Callable[[], Hub]
    clock: Clock
    logger: logging.Logger = _logger
    _: KW_ONLY
    name: str = ""
    _processes: dict[int, _HubProcess] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.name:
            self.name += " "  # the log puts it before another word

    @property
    def alone(self) -> bool:
        """Whether the backend is out of reach, so that this process shares nothing."""
        return self._get_process().outage.down

    def publish(self, topic: str, data: object) -> str:
        def ask(hub: Hub) -> str:
            return _expect("publish", hub.publish(topic, data), str, "the id of the message")

        def ask_local(hub: Hub) -> str:
            local_id = hub.publish(topic, data) + _LOCAL
            self._get_process().pending.append(_PendingMessage(topic, data, local_id))
            return local_id

        return self._call(ask, "", ask_local)

    def read(
        self, topic: str, after: str = "", wait: float = 0.0, limit: int = 100
    ) -> list[HubMessage]:
        state = self._get_process()

        def ask_backend(hub: Hub) -> list[HubMessage]:
            local = after.endswith(_LOCAL)
            since = state.lost_at.get(topic, after.removesuffix(_LOCAL)) if local else after
            while found := _expect(
                "read", hub.read(topic, since, wait, limit), list, "a list of messages"
            ):
                since = found[-1].id
                state.cursors[topic] = max(since, state.cursors.get(topic, ""))
                if local:  # the reader got what this process published without the backend
                    found = [m for m in found if not "" < state.local_ids.get(m.id, "") <= after]
                if found:
                    break
            return found

        def ask_local(hub: Hub) -> list[HubMessage]:
            wait_s = min(wait, max(0.0, state.outage.retry_at - self.clock.monotonic()))
            found = hub.read(topic, after.removesuffix(_LOCAL), wait_s, limit)
            for message in found:
                message.id += _LOCAL
            return found

        return self._call(ask_backend, [], ask_local)

    def last_id(self, topic: str) -> str:
        def ask_local(hub: Hub) -> str:
            newest = hub.last_id(topic)
            return newest + _LOCAL if newest else self._get_process().cursors.get(topic, "")

        def ask(hub: Hub) -> str:
            return _expect("last_id", hub.last_id(topic), str, "an id, '' for none")

        return self._call(ask, "", ask_local)

    def put(self, key: str, value: object, ttl: float) -> None:
        def ask(hub: Any) -> None:
            refuse_unfinished(hub.put(key, value, ttl))

        self._call(ask, None)

    def get(self, key: str) -> object:
        return self._call(lambda hub: refuse_unfinished(hub.get(key)), None)

    def scan(self, prefix: str) -> dict[str, object]:
        def ask(hub: Hub) -> dict[str, object]:
            return _expect("scan", hub.scan(prefix), dict, "a dict, {} for nothing")

        return self._call(ask, {})

    def increment(self, key: str, amount: int = 1, ttl: float = 60.0) -> int:
        def ask(hub: Hub) -> int:
            count = hub.increment(key, amount, ttl)
            if type(count) is int:
                return count
            raise TypeError(_explain_wrong("increment", count, "the counter, a whole number"))

        return self._call(ask, amount)

    def lease(self, name: str, ttl: float) -> Lease | None:
        def ask(hub: Hub) -> Lease | None:
            found = hub.lease(name, ttl)
            if found is None:
                return None
            problem = explain_lease(found)
            if problem:
                self.logger.error("the hub %slease(%r) %s", self.name, name, problem)
                return None
            return SharedLease(self, hub, found)

        return self._call(ask, None)

    def close(self) -> None:
        state = self._processes.pop(os.getpid(), None)
        if state is not None:
            _close_process(os.getpid(), state)

    # --- which hub answers ----------------------------------------------------------------------

    def _get_process(self) -> _HubProcess:
        pid = os.getpid()
        state = self._processes.get(pid)
        if state is None:
            # setdefault is atomic. The parent's entry stays in a child, where nothing may close it.
            state = self._processes.setdefault(pid, mine := _HubProcess())
            if state is mine:  # an application that is not closed leaves no file open
                weakref.finalize(self, _close_process, pid, mine).atexit = False
        return state

    def _call(
        self, ask: Callable[[Hub], _T], neutral: _T, ask_local: Callable[[Hub], _T] | None = None
    ) -> _T:
        """Ask the backend, else the local hub; return ``neutral`` when both fail."""
        state = self._get_process()
        hub = self._get_backend(state)
        failure: Exception | None = None
        if hub is not None:
            try:
                return ask(hub)
            except ValueError as error:
                failure = error  # the data is at fault when the local hub refuses it, too
            except Exception as error:  # noqa: BLE001 - a plugin's hub may raise anything
                self._lose(state, hub, error)
        try:
            answer = (ask_local or ask)(self._get_local(state))
        except ValueError as error:
            self.logger.error("%s; it is left out", error)
            return neutral
        except Exception:
            self.logger.exception("the hub of this process alone failed")
            return neutral
        if failure is not None and hub is not None:
            self._lose(state, hub, failure)
        return answer

    def _get_local(self, state: _HubProcess) -> Hub:
        if state.local is None:
            with state.lock:
                state.local = state.local or self.open_local()
        return state.local

    def _get_backend(self, state: _HubProcess) -> Hub | None:
        """Return the backend, and open it when it is time; ``None`` while it is out of reach.

        Nothing is logged while the lock is held, because a log handler may use the hub.
        """
        if not state.outage.down and state.hub is not None:
            return state.hub
        if state.outage.down and self.clock.monotonic() < state.outage.retry_at:
            return None
        if not state.lock.acquire(blocking=not state.outage.down):
            return None  # another thread tries at this moment
        error: Exception | None = None
        was_down = state.outage.down
        count = 0
        began = self.clock.monotonic()
        try:
            if state.hub is not None or (was_down and began < state.outage.retry_at):
                return state.hub
            hub = self.open_hub()
            if was_down:
                hub.put("hub.probe", os.getpid(), 1.0)  # shows that the backend can be written
                count = self._publish_pending(state, hub)
            state.hub = hub
            if was_down:
                state.outage.record_success(self.clock.monotonic())
        except Exception as failure:  # noqa: BLE001 - no failure of the hub may stop the process
            error = failure
            now = self.clock.monotonic()
            state.outage.record_failure(now, now - began)
        finally:
            state.lock.release()
        if error is None:
            if was_down:
                self.logger.info("the hub %sis back; handed on %d messages", self.name, count)
            return hub
        if not was_down:
            self._warn(error)
        return None

    def _publish_pending(self, state: _HubProcess, hub: Hub) -> int:
        count = 0
        while state.pending:
            first = state.pending[0]
            new_id = hub.publish(first.topic, first.data)
            state.local_ids[new_id] = first.local_id
            state.pending.popleft()
            count += 1
        while len(state.local_ids) > _MOST_PENDING:
            del state.local_ids[next(iter(state.local_ids))]
        return count

    def _lose(self, state: _HubProcess, hub: Hub, error: Exception) -> None:
        with state.lock:
            if state.hub is not hub:  # another thread has noticed it
                return
            state.hub = None
            state.lost_at = dict(state.cursors)
            state.outage.record_failure(self.clock.monotonic())
        _close(hub)
        self._warn(error)

    def _warn(self, error: Exception) -> None:
        self.logger.warning(
            "the hub %sis out of reach (%s: %s); this process goes on alone",
            self.name,
            type(error).__name__,
            error,
        )

    def _is_current(self, hub: Hub) -> bool:
        state = self._get_process()
        return hub is (state.local if state.outage.down else state.hub)


@dataclass(slots=True)
class SharedLease:
    """A lease of the backend or the local hub; it is lost when the other hub takes over."""

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
            return is_permitted(self._lease.renew(ttl), "renew() of a lease of the hub")
        except Exception as error:  # noqa: BLE001 - a lease that cannot be renewed is lost
            self._shared._lose(self._shared._get_process(), self._hub, error)
            return False

    def release(self) -> None:
        if self._shared._is_current(self._hub):
            with contextlib.suppress(Exception):  # it expires by itself
                self._lease.release()


def _expect(method: str, found: Any, kind: type[_T], wanted: str) -> _T:
    """Return what a hub returned.

    Raises:
        TypeError: it is of another kind. The hub is then out of reach: nobody could tell an answer
            that is missing from one that says no.
    """
    if isinstance(found, kind):
        return found
    raise TypeError(_explain_wrong(method, found, wanted))


def _explain_wrong(method: str, found: object, wanted: str) -> str:
    said = describe_result(found)
    return f"{method} {said}; return {wanted}"


def explain_lease(found: object) -> str:
    """Explain why what a hub's ``lease`` returned is neither ``None`` nor a lease; "" when it is.

    Nobody holds such a lease: of two workers with one each, both would do the work.
    """
    sound = found is None or (
        not isinstance(found, type)
        and type(getattr(found, "token", None)) is int
        and isinstance(getattr(found, "name", None), str)
        and callable(getattr(found, "renew", None))
        and callable(getattr(found, "release", None))
    )
    if sound:
        return ""
    said = describe_result(found)
    return (
        f"{said}; return a Lease with name, token, renew(ttl) and release(), or None when another "
        "holds it. It counts as None"
    )


def _close_process(pid: int, state: _HubProcess) -> None:
    if os.getpid() == pid:
        hubs, state.hub, state.local = (state.hub, state.local), None, None
        for hub in hubs:
            if hub is not None:
                _close(hub)


def _close(hub: Hub) -> None:
    with contextlib.suppress(Exception):  # nobody uses it any more
        hub.close()

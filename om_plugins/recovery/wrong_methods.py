"""Wrong methods: how often clients send a method that a route does not allow.

A 405 is the client's mistake, so it begins no recovery and visitors get no notification. Many of
one kind are a pattern that operators want to know: a form or a script has the wrong address. Only
routes that exist answer 405, so the number of their names is bounded; a method is a known one or
``_OTHER``. A 405 that a view makes need not have an ``Allow`` header.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import InitVar, dataclass, field

from .. import signals
from ..core.fork import renew_after_fork
from ..protocols import Clock, Hub, Notify, Scheduler
from ..types import ErrorPattern, Notification
from . import messages
from .fingerprint import MAX_SUBJECT
from .messages import OPERATORS, Translate, translate_nothing
from .patterns import ErrorPatterns

logger = logging.getLogger("om_plugins")

LEVELS = (10, 100, 1_000)
"""The counts in five minutes at which operators are notified, each in place of the one before."""

_KNOWN = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_MOST = 200
_TOPIC = "wrong-methods"

_Kind = tuple[str, str, str]
"""Route, method and allowed methods."""


@dataclass(slots=True, weakref_slot=True, kw_only=True, eq=False, repr=False)
class WrongMethods:
    """Counts 405s by route and method, over all workers.

    Args:
        clock: time.
        hub: carries the counts between workers.
        scheduler: counts in the background.
        emit: sends ``error_pattern_found``.
        notify: notifies operators.
        translate: translates into their language.
    """

    clock: InitVar[Clock]
    hub: InitVar[Hub]
    scheduler: Scheduler
    emit: signals.Emit
    notify: Notify
    translate: Translate = translate_nothing
    _patterns: ErrorPatterns = field(init=False)
    _lock: threading.Lock = field(init=False)
    _pending: dict[_Kind, int] = field(init=False)

    def __post_init__(self, clock: Clock, hub: Hub) -> None:
        self._patterns = ErrorPatterns(
            clock=clock, hub=hub, most=_MOST, topic=_TOPIC, levels=LEVELS
        )
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._pending = {}

    def note(self, rule: str, method: str, allowed: Iterable[str]) -> None:
        """Note that a route answered 405. Never blocks, never raises.

        Args:
            rule: the route, never a raw path.
            method: what the client sent.
            allowed: what the route allows; empty when that is not known.
        """
        try:
            known = method if method in _KNOWN else "_OTHER"
            kind = rule[: MAX_SUBJECT - 6], known, ", ".join(_sort_methods(allowed))
            with self._lock:
                begin = not self._pending
                if kind not in self._pending and len(self._pending) >= _MOST:
                    return
                self._pending[kind] = self._pending.get(kind, 0) + 1
            if begin and not self.scheduler.submit(self._count_pending, name="wrong-methods"):
                self.after_fork()  # the next one tries again
        except Exception:
            logger.exception("a 405 of %s is not counted", rule)

    def current(self) -> list[ErrorPattern]:
        """Return the patterns of the last five minutes in all workers, the most frequent first."""
        return self._patterns.current()

    def _count_pending(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
        for kind, count in pending.items():
            try:
                self._count(kind, count)
            except Exception:  # the others must not be lost with it
                logger.exception("405s of %s are not counted", kind[0])

    def _count(self, kind: _Kind, count: int) -> None:
        rule, method, allowed = kind
        example = (
            f"clients send {method} to a {_describe_route(allowed)} route; it allows {allowed}"
            if allowed
            else f"clients send {method} to a route that refuses it"
        )
        pattern, reached = self._patterns.add(f"route:{rule}", f"405-{method}", example, count)
        if not reached:
            return
        self.emit(signals.error_pattern_found, pattern=pattern)
        self.notify(
            Notification(
                kind="warning",
                message=self.translate(
                    messages.WRONG_METHOD if allowed else messages.REFUSED_METHOD,
                    method=method,
                    name=rule,
                    allowed=allowed,
                    times=str(pattern.count),
                ),
                to=OPERATORS,
                key=f"405:{method}:{rule}",
                data={"subject": pattern.subject, "fingerprint": pattern.fingerprint},
            )
        )


def _sort_methods(allowed: Iterable[str]) -> list[str]:
    found = {one for one in allowed if one in _KNOWN}
    return [one for one in _KNOWN if one in found]


def _describe_route(allowed: str) -> str:
    """Return the kind of a route, by its methods other than HEAD and OPTIONS."""
    own = [one for one in allowed.split(", ") if one not in ("HEAD", "OPTIONS")]
    return f"{own[0]}-only" if len(own) == 1 else "/".join(own)

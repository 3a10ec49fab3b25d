"""Wrong methods: clients that POST to a route that can only be read, say.

A 405 is the client's mistake, so it begins no recovery and no visitor hears of it. Many of one kind
are a pattern that operators want to know: a form or a script has the wrong address. Only routes
that exist answer 405, so their names are bounded; methods are the known ones or ``_OTHER``. A 405
that a view made itself need not say what is allowed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from .. import signals
from ..core.fork import renew_after_fork
from ..protocols import Clock, Hub, Notify, Scheduler
from ..types import ErrorPattern, Notification
from . import messages as wording
from .fingerprint import MAX_SUBJECT
from .messages import Words
from .patterns import ErrorPatterns

__all__ = ["LEVELS", "WrongMethods"]

logger = logging.getLogger("om_plugins")

LEVELS = (10, 100, 1_000)
"""How many in five minutes are told to operators; a later word replaces the one before."""

_KNOWN = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_MOST = 200
_TOPIC = "wrong-methods"

_Kind = tuple[str, str, str]


class WrongMethods:
    """Counts 405 by route and method, over all workers.

    Args:
        clock: time.
        hub: carries the counts between workers.
        scheduler: counts in the background.
        emit: tells ``error_pattern_found``.
        notify: tells operators.
        words: in their language.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        hub: Hub,
        scheduler: Scheduler,
        emit: signals.Emit,
        notify: Notify,
        words: Words = wording.english,
    ) -> None:
        self._scheduler = scheduler
        self._emit = emit
        self._notify = notify
        self._words = words
        self._patterns = ErrorPatterns(
            clock=clock, hub=hub, most=_MOST, topic=_TOPIC, levels=LEVELS
        )
        self._lock = threading.Lock()
        self._waiting: dict[_Kind, int] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._waiting = {}

    def note(self, rule: str, method: str, allowed: Iterable[str]) -> None:
        """A route answered 405. Never blocks, never raises.

        Args:
            rule: the route, never a raw path.
            method: what the client sent.
            allowed: what the route answers; empty when it does not say.
        """
        try:
            known = method if method in _KNOWN else "_OTHER"
            kind = rule[: MAX_SUBJECT - 6], known, ", ".join(_in_order(allowed))
            with self._lock:
                begin = not self._waiting
                if kind not in self._waiting and len(self._waiting) >= _MOST:
                    return
                self._waiting[kind] = self._waiting.get(kind, 0) + 1
            if begin and not self._scheduler.submit(self._count, name="wrong-methods"):
                self.after_fork()  # the next one tries again
        except Exception:
            logger.exception("a 405 of %s is not counted", rule)

    def current(self) -> list[ErrorPattern]:
        """The kinds of the last five minutes in all workers, the most frequent first."""
        return self._patterns.current()

    def _count(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for kind, count in waiting.items():
            try:
                self._counted(kind, count)
            except Exception:  # the others must not be lost with it
                logger.exception("405s of %s are not counted", kind[0])

    def _counted(self, kind: _Kind, count: int) -> None:
        rule, method, allowed = kind
        words = self._words
        example = (
            f"clients send {method} to a {_nature(allowed)} route; it allows {allowed}"
            if allowed
            else f"clients send {method} to a route that refuses it"
        )
        pattern, reached = self._patterns.add(f"route:{rule}", f"405-{method}", example, count)
        if not reached:
            return
        self._emit(signals.error_pattern_found, pattern=pattern)
        self._notify(
            Notification(
                kind="warning",
                message=words(
                    wording.WRONG_METHOD if allowed else wording.REFUSED_METHOD,
                    method=method,
                    name=rule,
                    allowed=allowed,
                    times=str(pattern.count),
                ),
                to="operators",
                key=f"405:{method}:{rule}",
                data={"subject": pattern.subject, "fingerprint": pattern.fingerprint},
            )
        )


def _in_order(allowed: Iterable[str]) -> list[str]:
    found = {one for one in allowed if one in _KNOWN}
    return [one for one in _KNOWN if one in found]


def _nature(allowed: str) -> str:
    """What kind of route it is, by the methods that do something."""
    own = [one for one in allowed.split(", ") if one not in ("HEAD", "OPTIONS")]
    return f"{own[0]}-only" if len(own) == 1 else "/".join(own)

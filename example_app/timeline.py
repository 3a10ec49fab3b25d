"""What just happened, in all workers: signals become small events on a topic of the hub.

A receiver runs where the signal is sent, in a request's thread perhaps, so it only puts a few
fields into a bounded queue; they are published in the background. Every worker reads the topic on,
and remembers the newest events.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask

from om_plugins import OpenManager, signals

from .happenings import Event, sentence
from .questions.query import Language

__all__ = ["Timeline"]

TOPIC = "demo-timeline"
SHOWN = 40
_WAITING = 200
_READ = 200
_QUIET_S = 20.0


class Timeline:
    """Collects and tells.

    Args:
        om: brings the hub and the background workers.
    """

    def __init__(self, om: OpenManager) -> None:
        self._om = om
        self._lock = threading.Lock()
        self._waiting: deque[dict[str, object]] = deque(maxlen=_WAITING)
        self._publishing = False
        self._newest: deque[Event] = deque(maxlen=4 * SHOWN)
        self._cursor = ""
        self._quiet_until: dict[str, float] = {}
        self._receivers: list[Callable[..., None]] = []

    def listen(self, app: Flask) -> None:
        """Have the app's signals come here, for as long as this object lives."""
        for name, fields in _FIELDS.items():
            receiver = self._receiver(name, fields)
            self._receivers.append(receiver)  # signals keep their receivers weakly
            signals.SIGNALS[name].connect(receiver, sender=app)

    def recent(self, language: Language) -> list[dict[str, object]]:
        """The newest events of all workers, newest first, in plain words.

        Equal ones of a worker that follow each other are one with a ``count``.
        """
        self._read_on()
        with self._lock:
            events = list(self._newest)
        lines: list[dict[str, Any]] = []
        for event in reversed(events):
            level, text = sentence(event, language)
            if lines and (lines[-1]["text"], lines[-1]["worker"]) == (text, event.worker):
                lines[-1]["count"] += 1
                continue
            if len(lines) == SHOWN:
                break
            lines.append(
                {"at": event.at, "worker": event.worker, "level": level, "text": text, "count": 1}
            )
        return lines

    # --- collecting ---------------------------------------------------------------------------

    def _receiver(
        self, name: str, fields: Callable[..., Mapping[str, object] | None]
    ) -> Callable[..., None]:
        def receive(app: Flask, **details: Any) -> None:
            said = fields(**details)
            if said is not None and self._worth_telling(name, said):
                self._put({"what": name, "worker": os.getpid(), "at": time.time(), **said})

        return receive

    def _worth_telling(self, name: str, said: Mapping[str, object]) -> bool:
        """The panels are renewed every other second: once in a while is enough."""
        if name not in ("cache_refreshed", "cache_refresh_failed"):
            return True
        with self._lock:
            kind = f"{name} {said.get('key', '')}"
            now = time.monotonic()
            if now < self._quiet_until.get(kind, 0.0) or len(self._quiet_until) > _WAITING:
                return False
            self._quiet_until[kind] = now + _QUIET_S
            return True

    def _put(self, event: dict[str, object]) -> None:
        with self._lock:
            self._waiting.append(event)
            begin, self._publishing = not self._publishing, True
        if begin and not self._om.runtime.scheduler.submit(self._publish, name="timeline"):
            self._publishing = False  # the next event tries again

    def _publish(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._waiting:
                        self._publishing = False
                        return
                    event = self._waiting.popleft()
                self._om.hub.publish(TOPIC, event)
        except BaseException:
            self._publishing = False
            raise

    def _read_on(self) -> None:
        with self._lock:
            while messages := self._om.hub.read(TOPIC, self._cursor, limit=_READ):
                self._cursor = messages[-1].id
                self._newest.extend(
                    event for one in messages if (event := Event.read(one.data)) is not None
                )


# --- what is kept of each signal: never a message that was meant for one person -------------------


def _failed(*, engine: str, error: BaseException, **_: object) -> dict[str, object]:
    return {"engine": engine, "error": type(error).__name__}


def _retried(*, engine: str, delay_s: float, **_: object) -> dict[str, object]:
    return {"engine": engine, "number": round(delay_s * 1000)}


def _fell_back(*, engine: str, tier: int, **_: object) -> dict[str, object]:
    return {"engine": engine, "number": tier}


def _health(*, engine: str, before: str, after: str, **_: object) -> dict[str, object]:
    return {"engine": engine, "before": str(before), "after": str(after)}


def _recovering(*, subject: str, **_: object) -> dict[str, object]:
    return {"place": subject}


def _recovered(*, report: Any, **_: object) -> dict[str, object]:
    return {"place": report.subject, "ok": report.succeeded, "number": round(report.duration_s, 1)}


def _pattern(*, pattern: Any, **_: object) -> dict[str, object]:
    return {"place": pattern.subject, "number": pattern.count}


def _key(*, key: object, **_: object) -> dict[str, object]:
    return {"key": str(key)[:80]}


def _nothing(**_: object) -> dict[str, object]:
    return {}


def _alert(*, alert: Any, **_: object) -> dict[str, object]:
    return {"key": alert.name}


def _notified(*, notification: Any, **_: object) -> dict[str, object] | None:
    if notification.kind == "progress":
        return None  # recovery says the same
    to = notification.to.partition(":")[0]
    return {
        "kind": notification.kind,
        "to": to,
        "key": notification.message[:120] if to == "everyone" else "",
    }


def _not_notified(*, notifier: str, **_: object) -> dict[str, object]:
    return {"key": notifier}


def _violation(*, violation: Any, **_: object) -> dict[str, object]:
    return {
        "key": violation.directive[:80],
        "blocked": violation.blocked[:80],
        "ok": violation.disposition == "report",
    }


def _problem(*, report: Any, **_: object) -> dict[str, object]:
    return {"key": report.id}


_FIELDS: dict[str, Callable[..., Mapping[str, object] | None]] = {
    "engine_failed": _failed,
    "retry_scheduled": _retried,
    "engine_fell_back": _fell_back,
    "engine_health_changed": _health,
    "error_pattern_found": _pattern,
    "recovery_started": _recovering,
    "recovery_finished": _recovered,
    "cache_refreshed": _nothing,
    "cache_refresh_failed": _key,
    "alert_fired": _alert,
    "alert_resolved": _alert,
    "notification_sent": _notified,
    "notification_failed": _not_notified,
    "csp_violation_received": _violation,
    "problem_reported": _problem,
}

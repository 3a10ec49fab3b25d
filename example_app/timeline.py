"""The timeline: the signals of all workers become small events on a topic of the hub.

A receiver runs in the thread that sends the signal, which may serve a request. It therefore only
puts a few fields into a bounded queue, and a background job publishes them. Every worker reads the
topic and keeps the newest events.
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

from .events import Event, describe
from .questions.query import Language

__all__ = ["Timeline"]

TOPIC = "demo-timeline"
SHOWN = 40
_WAITING = 200
_READ = 200
_QUIET_S = 20.0


class Timeline:
    """Collects the events of all workers and lists them.

    Args:
        om: gives the hub and the background jobs.
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
        """Receive the app's signals for as long as this object lives."""
        for name, fields in _FIELDS.items():
            receiver = self._make_receiver(name, fields)
            self._receivers.append(receiver)  # signals hold their receivers by weak references
            signals.SIGNALS[name].connect(receiver, sender=app)

    def list_recent(self, language: Language) -> list[dict[str, object]]:
        """Return sentences about the newest events of all workers, the newest first.

        Consecutive equal events of one worker become one entry with a ``count``.
        """
        self._read_new()
        with self._lock:
            # workers publish in the background, so one may be late
            events = sorted(self._newest, key=lambda event: event.at)
        lines: list[dict[str, Any]] = []
        for event in reversed(events):
            level, text = describe(event, language)
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

    def _make_receiver(
        self, name: str, fields: Callable[..., Mapping[str, object] | None]
    ) -> Callable[..., None]:
        def receive(app: Flask, **details: Any) -> None:
            values = fields(**details)
            if values is not None and self._is_due(name, values):
                self._enqueue({"what": name, "worker": os.getpid(), "at": time.time(), **values})

        return receive

    def _is_due(self, name: str, values: Mapping[str, object]) -> bool:
        """Limit the events of the panels, whose values are read again every other second."""
        if name not in ("cache_refreshed", "cache_refresh_failed"):
            return True
        with self._lock:
            kind = f"{name} {values.get('key', '')}"
            now = time.monotonic()
            if now < self._quiet_until.get(kind, 0.0) or len(self._quiet_until) > _WAITING:
                return False
            self._quiet_until[kind] = now + _QUIET_S
            return True

    def _enqueue(self, event: dict[str, object]) -> None:
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

    def _read_new(self) -> None:
        with self._lock:
            while messages := self._om.hub.read(TOPIC, self._cursor, limit=_READ):
                self._cursor = messages[-1].id
                self._newest.extend(
                    event for one in messages if (event := Event.parse(one.data)) is not None
                )


# --- the fields of each signal: never a message to one person -------------------------------------


def _read_failure(*, engine: str, error: BaseException, **_: object) -> dict[str, object]:
    return {"engine": engine, "error": type(error).__name__}


def _read_retry(*, engine: str, delay_s: float, **_: object) -> dict[str, object]:
    return {"engine": engine, "number": round(delay_s * 1000)}


def _read_fallback(*, engine: str, tier: int, **_: object) -> dict[str, object]:
    return {"engine": engine, "number": tier}


def _read_health(*, engine: str, before: str, after: str, **_: object) -> dict[str, object]:
    return {"engine": engine, "before": str(before), "after": str(after)}


def _read_recovery_start(*, subject: str, **_: object) -> dict[str, object]:
    return {"place": subject}


def _read_recovery_end(*, report: Any, **_: object) -> dict[str, object]:
    return {"place": report.subject, "ok": report.succeeded, "number": round(report.duration_s, 1)}


def _read_pattern(*, pattern: Any, **_: object) -> dict[str, object]:
    return {"place": pattern.subject, "number": pattern.count}


def _read_key(*, key: object, **_: object) -> dict[str, object]:
    return {"key": str(key)[:80]}


def _read_nothing(**_: object) -> dict[str, object]:
    return {}


def _read_alert(*, alert: Any, **_: object) -> dict[str, object]:
    return {"key": alert.name}


def _read_notification(*, notification: Any, **_: object) -> dict[str, object] | None:
    if notification.kind == "progress":
        return None  # the signals of recovery give the same events
    to = notification.to.partition(":")[0]
    return {
        "kind": notification.kind,
        "to": to,
        "key": notification.message[:120] if to == "everyone" else "",
    }


def _read_failed_notifier(*, notifier: str, **_: object) -> dict[str, object]:
    return {"key": notifier}


def _read_violation(*, violation: Any, **_: object) -> dict[str, object]:
    return {
        "key": violation.directive[:80],
        "blocked": violation.blocked[:80],
        "ok": violation.disposition == "report",
    }


def _read_problem(*, report: Any, **_: object) -> dict[str, object]:
    return {"key": report.id}


_FIELDS: dict[str, Callable[..., Mapping[str, object] | None]] = {
    "engine_failed": _read_failure,
    "retry_scheduled": _read_retry,
    "engine_fell_back": _read_fallback,
    "engine_health_changed": _read_health,
    "error_pattern_found": _read_pattern,
    "recovery_started": _read_recovery_start,
    "recovery_finished": _read_recovery_end,
    "cache_refreshed": _read_nothing,
    "cache_refresh_failed": _read_key,
    "alert_fired": _read_alert,
    "alert_resolved": _read_alert,
    "notification_sent": _read_notification,
    "notification_failed": _read_failed_notifier,
    "csp_violation_received": _read_violation,
    "problem_reported": _read_problem,
}

"""The notification centre: one queue from every room to every notifier.

A notification is published to the hub (topic ``notifications``, where other workers and later
readers find it) and given to each notifier plugin in the background: a slow or broken notifier
holds up nobody, is bounded in time, and is left out after too many failures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from .. import signals
from ..protocols import Clock, Hub, Notifier, Scheduler
from ..types import Notification

TOPIC = "notifications"
SEND_TIMEOUT_S = 5.0
MAX_MESSAGE = 2000

Guarded = Callable[..., tuple[bool, Any]]
"""``guarded(plugin, function, *args) -> (ok, result)``, as the plugin host gives it."""


class NotificationCentre:
    """Implements :class:`~om_plugins.protocols.Notify`.

    Args:
        hub: where notifications are published.
        scheduler: runs the deliveries.
        clock: stamps notifications without a time.
        emit: tells ``notification_sent`` and ``notification_failed``.
        notifiers: the notifiers with the names of their plugins, asked when something is sent.
        guarded: calls into a plugin, counting its failures.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        scheduler: Scheduler,
        clock: Clock,
        emit: signals.Emit,
        notifiers: Callable[[], Sequence[tuple[str, Notifier]]],
        guarded: Guarded,
    ) -> None:
        self._hub = hub
        self._scheduler = scheduler
        self._clock = clock
        self._emit = emit
        self._notifiers = notifiers
        self._guarded = guarded

    def __call__(self, notification: Notification) -> None:
        """Queue it; never blocks, never raises."""
        note = dataclasses.replace(
            notification,
            message=notification.message[:MAX_MESSAGE],
            at=notification.at or self._clock.time(),
        )
        self._scheduler.submit(lambda: self._deliver(note), name="notify")

    def _deliver(self, note: Notification) -> None:
        data = dataclasses.asdict(note)
        data["actions"] = [dict(action) for action in data["actions"]]
        note.id = self._hub.publish(TOPIC, data)
        for plugin, notifier in self._notifiers():
            ok, error = self._guarded(plugin, notifier.send, note, SEND_TIMEOUT_S)
            if not ok:
                self._emit(
                    signals.notification_failed,
                    notification=note,
                    notifier=notifier.name,
                    error=error,
                )
        self._emit(signals.notification_sent, notification=note)

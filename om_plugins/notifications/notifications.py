"""Notifications: from any part of an application to browsers and notifiers.

A notification is published to the hub (topic ``notifications``), where the event streams of all
workers find it. It also goes to each notifier plugin: in the background, in order, from a bounded
queue that outlives the process (:mod:`.delivery.delivery`).
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Never, TypedDict, Unpack, get_args

from .. import signals
from ..core.fork import CachedProperty, PerProcess
from ..core.moved import refuse_arguments
from ..errors import ConfigError, suggest
from ..protocols import Clock, Notifier, Scheduler
from ..settings.arguments import check_value, seconds
from ..types import Action, Kind, Notification
from ..workers.hub import SharedHub
from ..workers.outbox import Outbox
from .audience import OPERATORS, UNKNOWN_BROWSER, Browsers, check_address
from .delivery.bounds import QueueLimits
from .delivery.delivery import Delivery, Guarded
from .limits import clamp_percent, limit_notification

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from .changed_keys import ChangedKeys
    from .problem_reports import ProblemReports
    from .recent import RecentNotifications
    from .report_form import MakePage

logger = logging.getLogger("om_plugins")

TOPIC = "notifications"
_MAX_QUEUED = 1_000
_KINDS = get_args(Kind)
_DURATION = seconds(none=True)

COMPLETE_S = 3.0
FAILED_S = 5.0

_LOOK_EVERY_S = 30.0


@dataclasses.dataclass(slots=True, frozen=True)
class _QueuedNotification:
    """A notification that waits to be sent.

    Attributes:
        note: the notification.
        cookies: the ``Cookie`` header of the browser that it is for; ``None`` when the
            notification has an address already.
        to_notifiers: whether notifiers get it, too.
    """

    note: Notification
    cookies: str | None = None
    to_notifiers: bool = True


class NotificationKeywords(TypedDict, total=False):
    """The keywords of :meth:`Notifications.send`."""

    title: str
    to: str | None
    actions: Iterable[Action]
    duration: float | None
    key: str
    data: Mapping[str, object] | None


class Notifications:
    """Sends notifications; implements :class:`~om_plugins.protocols.Notify`.

    Nothing here blocks, and nothing but a wrong address raises: the work is done in the
    background.

    Args:
        hub: where notifications are published.
        scheduler: runs the deliveries.
        clock: the time of notifications without a time.
        emit: sends the signals ``notification_sent`` and ``notification_failed``.
        notifiers: returns the notifiers with the names of their plugins; called once.
        guarded: calls into a plugin and counts its failures.
        limits: how much waits for each notifier.
        browsers: recognizes a browser by its cookie. Without it, no notification can go to the
            browser of the request.
        environ: returns the WSGI environ of the current request, ``None`` outside a request.
    """

    check_address = staticmethod(check_address)
    problem_reports: ProblemReports
    changed_keys: ChangedKeys
    recent: RecentNotifications
    report_form: Callable[[MakePage], WSGIApplication]

    def __init__(
        self,
        *,
        hub: SharedHub,
        scheduler: Scheduler,
        clock: Clock,
        emit: signals.Emit,
        notifiers: Callable[[], Sequence[tuple[str, Notifier]]],
        guarded: Guarded,
        limits: QueueLimits,
        browsers: Browsers,
        environ: Callable[[], WSGIEnvironment | None] = lambda: None,
    ) -> None:
        self._hub = hub
        self._scheduler = scheduler
        self._clock = clock
        self._emit = emit
        self._notifiers = notifiers
        self._guarded = guarded
        self._limits = limits
        self._begun: PerProcess[list[bool]] = PerProcess(list)
        self.browsers = browsers
        self._environ = environ
        self._outbox = Outbox("notifications", self._deliver, scheduler, _MAX_QUEUED)
        self._full = False

    # --- what applications call ---------------------------------------------------------------

    def success(self, message: str, **more: Unpack[NotificationKeywords]) -> None:
        """Send a notification of a success. The keywords are those of :meth:`send`."""
        self.send("success", message, **more)

    def error(self, message: str, **more: Unpack[NotificationKeywords]) -> None:
        """Send a notification of an error. The keywords are those of :meth:`send`."""
        self.send("error", message, **more)

    def warning(self, message: str, **more: Unpack[NotificationKeywords]) -> None:
        """Send a warning. The keywords are those of :meth:`send`."""
        self.send("warning", message, **more)

    def info(self, message: str, **more: Unpack[NotificationKeywords]) -> None:
        """Send an information. The keywords are those of :meth:`send`."""
        self.send("info", message, **more)

    def send(
        self,
        kind: Kind,
        message: str,
        *,
        title: str = "",
        to: str | None = None,
        actions: Iterable[Action] = (),
        duration: float | None = None,
        key: str = "",
        data: Mapping[str, object] | None = None,
        **renamed: Never,
    ) -> None:
        """Send a notification.

        Args:
            kind: ``success``, ``error``, ``warning``, ``info`` or ``progress``.
            message: plain text, never markup.
            title: a short heading.
            to: ``everyone``, ``operators``, ``user:<id>``, ``role:<name>`` or ``sid:<id>``. When
                not given: the browser of the request, outside a request the operators.
            actions: buttons.
            duration: seconds that the toast stays; the kind's default when not given.
            key: replaces an earlier notification with the same key.
            data: more data for programs, JSON-like. Browsers get it, too.

        Raises:
            ConfigError: the duration is no number of seconds.
            TypeError: the message is ``None``.
            ValueError: the kind is unknown, or ``to`` is not an address.
        """
        refuse_arguments("send()", renamed, {"duration_s": "duration="})
        if kind not in _KINDS:
            raise ValueError(f"notify.send: the kind {kind!r} is unknown; {suggest(kind, _KINDS)}")
        check_value(f"notify.{kind}(duration)", duration, _DURATION)
        if message is None:  # a function without a return, most often
            raise TypeError(f"notify.{kind}: the message is None; give a text")
        note = Notification(
            kind=kind,
            message=message,
            title=title,
            actions=tuple(actions),
            duration_s=duration,
            key=key,
            data=dict(data or {}),
        )
        self._queue(self._address(note, to))

    def progress(
        self,
        message: str,
        *,
        percent: float = 0.0,
        title: str = "",
        to: str | None = None,
        key: str = "",
    ) -> Progress:
        """Show the progress of some work, until ``complete`` or ``fail`` is called.

        Args:
            message: what is done now.
            percent: how much is done, 0 to 100.
            title: a short heading.
            to: as for :meth:`send`.
            key: made when not given.

        Raises:
            ConfigError: the percent is no number.
            ValueError: ``to`` is not an address.
        """
        if isinstance(percent, bool) or not isinstance(percent, int | float):
            raise ConfigError("notify.progress(percent)", percent, "must be a number from 0 to 100")
        note = Notification(
            kind="progress",
            message=message,
            title=title,
            progress=percent,
            key=key or f"progress-{secrets.token_hex(8)}",
        )
        first = self._address(note, to)
        self._queue(first)

        def send(next_note: Notification, to_notifiers: bool) -> None:
            self._queue(_QueuedNotification(next_note, first.cookies, to_notifiers))

        return Progress(first.note, send)

    def __call__(self, notification: Notification) -> None:
        """Send a notification to the address that it has; never blocks, never raises."""
        self._queue(_QueuedNotification(notification))

    # --- in the background --------------------------------------------------------------------

    def _address(self, note: Notification, to: str | None) -> _QueuedNotification:
        if to is not None:
            return _QueuedNotification(dataclasses.replace(note, to=check_address(to)))
        environ = self._environ()
        if environ is None or self.browsers is None:
            return _QueuedNotification(dataclasses.replace(note, to=OPERATORS))
        # The cookie is checked in the background: reading the secret may ask the hub.
        return _QueuedNotification(note, str(environ.get("HTTP_COOKIE", "")))

    def _queue(self, queued: _QueuedNotification) -> None:
        accepted = self._outbox.put(queued)
        if not accepted and not self._full:
            logger.warning(
                "more than %d notifications wait to be sent: some are left out", _MAX_QUEUED
            )
        self._full = not accepted

    def _deliver(self, queued: _QueuedNotification, _attempt: int) -> None:
        note = limit_notification(queued.note, self._clock.time())
        if queued.cookies is not None and self.browsers is not None:
            note.to = self.browsers.find_address(queued.cookies) or UNKNOWN_BROWSER
        if note.to != UNKNOWN_BROWSER:
            note.id = self._hub.publish(TOPIC, dataclasses.asdict(note))
        if queued.to_notifiers:
            for delivery in self.deliveries:
                delivery.put(note)
        self._emit(signals.notification_sent, notification=note)

    @CachedProperty
    def deliveries(self) -> list[Delivery]:
        """The delivery to each notifier."""
        found: list[Delivery] = []
        names: Counter[str] = Counter()
        for plugin, notifier in self._notifiers():
            name = f"{plugin}/{notifier.name}"
            names[name] += 1
            delivery = Delivery(
                plugin,
                notifier,
                name if names[name] == 1 else f"{name}/{names[name]}",
                hub=self._hub,
                scheduler=self._scheduler,
                clock=self._clock,
                limits=self._limits,
                guarded=self._guarded,
                emit=self._emit,
            )
            found.append(delivery)
        return found

    def start(self) -> None:
        """Send what processes that have ended left, soon and from time to time."""
        # a weak reference, so that it does not keep an application that is dropped before it ran
        begin = weakref.WeakMethod(self._begin)

        def begin_if_alive() -> None:
            alive = begin()
            if alive is not None:
                alive()

        self._scheduler.submit(begin_if_alive, name="deliveries")

    def _begin(self) -> None:
        begun = self._begun.get()
        durable = [one for one in self.deliveries if one.durable]
        if begun or not durable:
            return
        begun.append(True)

        def look() -> None:
            for delivery in durable:
                delivery.look()

        # each worker: one that was elected may be the one whose notifier never returns
        self._scheduler.every(_LOOK_EVERY_S, look, name="deliveries")
        look()


class Progress:
    """The progress of some work: one toast that is replaced as the work goes on.

    ``om.notify.progress(...)`` returns it. Any thread may use it.

    Args:
        note: the first notification, which was sent already.
        send: ``send(notification, to_notifiers)`` sends the next ones to the same address.

    Attributes:
        key: the key of all its notifications.
    """

    def __init__(self, note: Notification, send: Callable[[Notification, bool], None]) -> None:
        self.key = note.key
        self._note = note
        self._send = send

    def update(self, percent: float, message: str | None = None) -> None:
        """Show how much is done.

        Only browsers get this; notifiers get the beginning and the end. An update that would look
        like the one before is not sent, so a tight loop may call this.

        Args:
            percent: 0 to 100.
            message: what is done now; as before when not given.
        """
        before = self._note
        self._note = dataclasses.replace(
            before,
            progress=clamp_percent(percent),
            message=before.message if message is None else message,
        )
        if (int(self._note.progress or 0), self._note.message) != (
            int(before.progress or 0),
            before.message,
        ):
            self._send(self._note, False)

    def complete(self, message: str | None = None) -> None:
        """End with a success, which disappears after 3 seconds.

        Args:
            message: the last message; as before when not given.
        """
        self._send(
            dataclasses.replace(
                self._note,
                kind="success",
                progress=100.0,
                message=self._note.message if message is None else message,
                duration_s=COMPLETE_S,
            ),
            True,
        )

    def fail(self, message: str | None = None, actions: Iterable[Action] = ()) -> None:
        """End with an error.

        Args:
            message: the last message; as before when not given.
            actions: buttons. With buttons the error stays until somebody closes it, else for 5
                seconds.
        """
        actions = tuple(actions)
        self._send(
            dataclasses.replace(
                self._note,
                kind="error",
                message=self._note.message if message is None else message,
                actions=actions,
                duration_s=None if actions else FAILED_S,
            ),
            True,
        )

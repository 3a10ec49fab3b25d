"""Notifications: from any part of an application to browsers and notifiers.

A notification is published to the hub (topic ``notifications``), where the event streams of all
workers find it. It also goes to each notifier plugin: in the background, in order, from a bounded
queue, and with new attempts after 1, 2 and 4 seconds. The plugin host stops calling a notifier
that fails too often.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Never, TypedDict, Unpack, get_args

from .. import signals
from ..core.moved import refuse_arguments
from ..errors import ConfigError, suggest
from ..policies.backoff import full_jitter
from ..protocols import Clock, Hub, Notifier, Scheduler
from ..settings.arguments import check_value, seconds
from ..types import Action, Kind, Notification
from ..workers.outbox import Outbox
from .audience import OPERATORS, UNKNOWN_BROWSER, Browsers, check_address
from .limits import clamp_percent, limit_notification

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from .changed_keys import ChangedKeys
    from .problem_reports import ProblemReports
    from .recent import RecentNotifications
    from .report_form import MakePage

logger = logging.getLogger("om_plugins")

TOPIC = "notifications"
SEND_TIMEOUT_S = 5.0
_RETRIES_S = (1.0, 2.0, 4.0)
_MAX_QUEUED = 1_000
_KINDS = get_args(Kind)
_DURATION = seconds(none=True)
_MAX_QUEUED_FOR_NOTIFIER = 200

COMPLETE_S = 3.0
FAILED_S = 5.0

Guarded = Callable[..., tuple[bool, Any]]
"""``guarded(plugin, function, *args) -> (ok, result)``, as the plugin host gives it."""


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
        notifiers: returns the notifiers with the names of their plugins; called for each
            notification.
        guarded: calls into a plugin and counts its failures.
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
        hub: Hub,
        scheduler: Scheduler,
        clock: Clock,
        emit: signals.Emit,
        notifiers: Callable[[], Sequence[tuple[str, Notifier]]],
        guarded: Guarded,
        browsers: Browsers,
        environ: Callable[[], WSGIEnvironment | None] = lambda: None,
    ) -> None:
        self._hub = hub
        self._scheduler = scheduler
        self._clock = clock
        self._emit = emit
        self._notifiers = notifiers
        self._guarded = guarded
        self.browsers = browsers
        self._environ = environ
        self._outbox = Outbox("notifications", self._deliver, scheduler, _MAX_QUEUED)
        self._queues: dict[tuple[str, int], _NotifierQueue] = {}
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
            for plugin, notifier in self._notifiers():
                self._find_queue(plugin, notifier).put(note)
        self._emit(signals.notification_sent, notification=note)

    def _find_queue(self, plugin: str, notifier: Notifier) -> _NotifierQueue:
        queue = self._queues.get((plugin, id(notifier)))
        if queue is None:
            number = len(self._queues) + 1
            queue = _NotifierQueue(
                plugin, notifier, number, self._scheduler, self._guarded, self._emit
            )
            self._queues[plugin, id(notifier)] = queue
        return queue


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


@dataclasses.dataclass(eq=False, repr=False)
class _NotifierQueue:
    """The outbox of one notifier, so that a slow or broken notifier delays no other."""

    plugin: str
    notifier: Notifier
    number: int
    scheduler: Scheduler
    guarded: Guarded
    emit: signals.Emit

    def __post_init__(self) -> None:
        name = f"notifier {self.plugin} {self.number}"
        self._outbox = Outbox(name, self._send, self.scheduler, _MAX_QUEUED_FOR_NOTIFIER)

    def put(self, note: Notification) -> None:
        if not self._outbox.put(note):
            error = OverflowError(f"{_MAX_QUEUED_FOR_NOTIFIER} notifications wait for it")
            self._emit_failure(note, error)

    def _send(self, note: Notification, attempt: int) -> float | None:
        errors: list[BaseException] = []
        called = False

        def send() -> None:
            nonlocal called
            called = True
            try:
                self.notifier.send(note, SEND_TIMEOUT_S)
            except BaseException as error:
                errors.append(error)
                raise

        send.__qualname__ = f"{type(self.notifier).__name__}.send"
        ok, _ = self.guarded(self.plugin, send)
        if ok:
            return None
        if not called:
            self._emit_failure(note, RuntimeError("its plugin is not active any more"))
            return None
        self._emit_failure(note, errors[0] if errors else None)
        if attempt > len(_RETRIES_S):
            return None
        cap_s = _RETRIES_S[attempt - 1]
        return full_jitter(attempt, _RETRIES_S, at_least_s=cap_s / 2)

    def _emit_failure(self, note: Notification, error: BaseException | None) -> None:
        self.emit(
            signals.notification_failed,
            notification=note,
            notifier=self.notifier.name,
            error=error,
        )

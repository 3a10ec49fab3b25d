"""The notification centre: from every room and view to browsers and notifiers.

A notification is published to the hub (topic ``notifications``), where the streams of all workers
find it, and given to each notifier plugin: in the background, in order, bounded, and tried again
after 1, 2 and 4 seconds. A notifier that fails too often is left out by the plugin host.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import signals
from ..policies.backoff import full_jitter
from ..protocols import Clock, Hub, Notifier, Scheduler
from ..types import Action, Kind, Notification
from ..workers.outbox import Outbox
from .audience import OPERATORS, UNKNOWN_BROWSER, Browsers, check_address
from .limits import bounded
from .limits import percent as share

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("om_plugins")

TOPIC = "notifications"
SEND_TIMEOUT_S = 5.0
_RETRIES_S = (1.0, 2.0, 4.0)
_OUTBOX = 1_000
_NOTIFIER_QUEUE = 200

Guarded = Callable[..., tuple[bool, Any]]
"""``guarded(plugin, function, *args) -> (ok, result)``, as the plugin host gives it."""


@dataclasses.dataclass(slots=True, frozen=True)
class _Letter:
    """A notification on its way; ``cookies`` is set when it is for the browser that sent them."""

    note: Notification
    cookies: str | None = None
    to_notifiers: bool = True


class NotificationCentre:
    """Implements :class:`~om_plugins.protocols.Notify`, and what applications call.

    Nothing here blocks, and nothing but a wrong address raises: the work is done in the
    background.

    Args:
        hub: where notifications are published.
        scheduler: runs the deliveries.
        clock: stamps notifications without a time.
        emit: tells ``notification_sent`` and ``notification_failed``.
        notifiers: the notifiers with the names of their plugins, asked when something is sent.
        guarded: calls into a plugin, counting its failures.
        browsers: knows a browser by its cookie; without it none can be addressed by asking.
        environ: the WSGI environ of the request under way, ``None`` outside one.
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
        browsers: Browsers | None = None,
        environ: Callable[[], WSGIEnvironment | None] = lambda: None,
    ) -> None:
        self._hub = hub
        self._scheduler = scheduler
        self._clock = clock
        self._emit = emit
        self._notifiers = notifiers
        self._guarded = guarded
        self._browsers = browsers
        self._environ = environ
        self._outbox = Outbox("notifications", self._deliver, scheduler, _OUTBOX)
        self._queues: dict[tuple[str, int], _NotifierQueue] = {}
        self._full = False

    # --- what applications call ---------------------------------------------------------------

    def success(self, message: str, **more: Any) -> None:
        """It worked. The keywords are those of :meth:`send`."""
        self.send("success", message, **more)

    def error(self, message: str, **more: Any) -> None:
        """It did not work. The keywords are those of :meth:`send`."""
        self.send("error", message, **more)

    def warning(self, message: str, **more: Any) -> None:
        """Something needs attention. The keywords are those of :meth:`send`."""
        self.send("warning", message, **more)

    def info(self, message: str, **more: Any) -> None:
        """Something is good to know. The keywords are those of :meth:`send`."""
        self.send("info", message, **more)

    def send(
        self,
        kind: Kind,
        message: str,
        *,
        title: str = "",
        to: str | None = None,
        actions: Iterable[Action] = (),
        duration_s: float | None = None,
        key: str = "",
        data: Mapping[str, object] | None = None,
    ) -> None:
        """Tell people something.

        Args:
            kind: ``success``, ``error``, ``warning``, ``info`` or ``progress``.
            message: plain words; never markup.
            title: a short heading.
            to: ``everyone``, ``operators``, ``user:<id>``, ``role:<name>`` or ``sid:<id>``. When
                not given: the browser that asked, outside a request the operators.
            actions: buttons.
            duration_s: seconds that a toast stays; the kind's default when not given.
            key: replaces an earlier notification with the same key.
            data: more for machines; JSON-like. Browsers get it too.

        Raises:
            ValueError: ``to`` is no address.
        """
        note = Notification(
            kind=kind,
            message=message,
            title=title,
            actions=tuple(actions),
            duration_s=duration_s,
            key=key,
            data=dict(data or {}),
        )
        self._put(self._addressed(note, to))

    def progress(
        self,
        message: str,
        *,
        percent: float = 0.0,
        title: str = "",
        to: str | None = None,
        key: str = "",
    ) -> Progress:
        """Show how something goes on, from here to ``complete`` or ``fail``.

        Args:
            message: what is done now.
            percent: how far it is, 0 to 100.
            title, to: as for :meth:`send`.
            key: made when not given.

        Returns:
            A :class:`~om_plugins.notifications.notifications.Progress` with
            ``update(percent, message)``, ``complete(message)`` and ``fail(message, actions)``.

        Raises:
            ValueError: ``to`` is no address.
        """
        note = Notification(
            kind="progress",
            message=message,
            title=title,
            progress=percent,
            key=key or f"progress-{secrets.token_hex(8)}",
        )
        first = self._addressed(note, to)
        self._put(first)

        def send(next_note: Notification, to_notifiers: bool) -> None:
            self._put(_Letter(next_note, first.cookies, to_notifiers))

        return Progress(first.note, send)

    def __call__(self, notification: Notification) -> None:
        """Queue it as it is addressed; never blocks, never raises."""
        self._put(_Letter(notification))

    # --- in the background --------------------------------------------------------------------

    def _addressed(self, note: Notification, to: str | None) -> _Letter:
        if to is not None:
            return _Letter(dataclasses.replace(note, to=check_address(to)))
        environ = self._environ()
        if environ is None or self._browsers is None:
            return _Letter(dataclasses.replace(note, to=OPERATORS))
        # The cookie is checked in the background: the secret may have to be asked for.
        return _Letter(note, str(environ.get("HTTP_COOKIE", "")))

    def _put(self, letter: _Letter) -> None:
        taken = self._outbox.put(letter)
        if not taken and not self._full:
            logger.warning("more than %d notifications wait to be sent: some are left out", _OUTBOX)
        self._full = not taken

    def _deliver(self, letter: _Letter, _: int) -> None:
        note = bounded(letter.note, self._clock.time())
        if letter.cookies is not None and self._browsers is not None:
            note.to = self._browsers.find_address(letter.cookies) or UNKNOWN_BROWSER
        if note.to != UNKNOWN_BROWSER:
            note.id = self._hub.publish(TOPIC, dataclasses.asdict(note))
        if letter.to_notifiers:
            for plugin, notifier in self._notifiers():
                self._queue(plugin, notifier).put(note)
        self._emit(signals.notification_sent, notification=note)

    def _queue(self, plugin: str, notifier: Notifier) -> _NotifierQueue:
        found = self._queues.get((plugin, id(notifier)))
        if found is None:
            number = len(self._queues) + 1
            found = _NotifierQueue(
                plugin, notifier, number, self._scheduler, self._guarded, self._emit
            )
            self._queues[plugin, id(notifier)] = found
        return found


class _NotifierQueue:
    """One notifier's own outbox: a slow or broken notifier holds up nobody else."""

    def __init__(
        self,
        plugin: str,
        notifier: Notifier,
        number: int,
        scheduler: Scheduler,
        guarded: Guarded,
        emit: signals.Emit,
    ) -> None:
        self._plugin = plugin
        self._notifier = notifier
        self._guarded = guarded
        self._emit = emit
        name = f"notifier {plugin} {number}"
        self._outbox = Outbox(name, self._send, scheduler, _NOTIFIER_QUEUE)

    def put(self, note: Notification) -> None:
        if not self._outbox.put(note):
            self._failed(note, OverflowError(f"{_NOTIFIER_QUEUE} notifications wait for it"))

    def _send(self, note: Notification, attempt: int) -> float | None:
        errors: list[BaseException] = []
        called = False

        def send() -> None:
            nonlocal called
            called = True
            try:
                self._notifier.send(note, SEND_TIMEOUT_S)
            except BaseException as error:
                errors.append(error)
                raise

        send.__qualname__ = f"{type(self._notifier).__name__}.send"
        ok, _ = self._guarded(self._plugin, send)
        if ok:
            return None
        if not called:
            self._failed(note, RuntimeError("its plugin is not active any more"))
            return None
        self._failed(note, errors[0] if errors else None)
        if attempt > len(_RETRIES_S):
            return None
        cap_s = _RETRIES_S[attempt - 1]
        return full_jitter(attempt, _RETRIES_S, at_least_s=cap_s / 2)

    def _failed(self, note: Notification, error: BaseException | None) -> None:
        self._emit(
            signals.notification_failed,
            notification=note,
            notifier=self._notifier.name,
            error=error,
        )


# A progress that people watch: one toast that is replaced as the work goes on.

COMPLETE_S = 3.0
FAILED_S = 5.0

Send = Callable[[Notification, bool], None]
"""``send(notification, to_notifiers)``."""


class Progress:
    """What ``notify.progress(...)`` returns. It may be used from any thread.

    Args:
        note: the first notification, which was sent already.
        send: sends the next ones to where the first one went.

    Attributes:
        key: what all its notifications have in common.
    """

    def __init__(self, note: Notification, send: Send) -> None:
        self.key = note.key
        self._note = note
        self._send = send

    def update(self, percent: float, message: str | None = None) -> None:
        """Say how far it is.

        Only browsers get this; notifiers get the beginning and the end. What would look the same
        as before is not sent, so a tight loop may call it.

        Args:
            percent: 0 to 100.
            message: what is done now; as before when not given.
        """
        before = self._note
        self._note = replace(
            before,
            progress=share(percent),
            message=before.message if message is None else message,
        )
        if (int(self._note.progress or 0), self._note.message) != (
            int(before.progress or 0),
            before.message,
        ):
            self._send(self._note, False)

    def complete(self, message: str | None = None) -> None:
        """It is done: a success that goes away after 3 s."""
        self._send(
            replace(
                self._note,
                kind="success",
                progress=100.0,
                message=self._note.message if message is None else message,
                duration_s=COMPLETE_S,
            ),
            True,
        )

    def fail(self, message: str | None = None, actions: Iterable[Action] = ()) -> None:
        """It went wrong: an error that stays for 5 s, or until it is closed if it has actions."""
        actions = tuple(actions)
        self._send(
            replace(
                self._note,
                kind="error",
                message=self._note.message if message is None else message,
                actions=actions,
                duration_s=None if actions else FAILED_S,
            ),
            True,
        )

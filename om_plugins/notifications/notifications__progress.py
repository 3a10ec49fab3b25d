"""A progress that people watch: one toast that is replaced as the work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ..types import Action, Notification
from .limits import percent as share

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

"""The contract of a notifier, as pytest tests."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import typing
from collections.abc import Callable

import pytest

from ..plugins.checks import check_result, explain_sending
from ..protocols import Notifier
from ..settings.callbacks import explain_kind
from ..types import Action, Kind, Notification

__all__ = ["NotifierContract"]


class NotifierContract:
    """Inherit, make your notifier in a fixture, and return what it delivered::

    class TestOutbox(NotifierContract):
        @pytest.fixture
        def notifier(self):
            return Outbox()

        def delivered(self, notifier):
            return "\\n".join(notifier.sent)
    """

    @pytest.fixture
    def notifier(self) -> Notifier:
        """The notifier under test; it must be able to deliver."""
        raise NotImplementedError("make your notifier in a fixture named 'notifier'")

    def delivered(self, notifier: Notifier) -> str:
        """All that was delivered so far, as text, read at the destination."""
        raise NotImplementedError("return what arrived in a method named 'delivered'")

    def test_it_has_a_name(self, notifier: Notifier) -> None:
        assert isinstance(notifier.name, str)
        assert notifier.name

    def test_it_can_be_called(self, notifier: Notifier) -> None:
        check_result("om_notifiers", [notifier])

    def test_its_send_is_a_plain_function(self, notifier: Notifier) -> None:
        problem = explain_kind(notifier.send)
        assert not problem, problem

    def test_it_says_whether_it_wants_a_notification(self, notifier: Notifier) -> None:
        accepts = getattr(notifier, "accepts", None)
        if accepts is not None:
            said = accepts(Notification(kind="info", message="Version 5 is live"))
            assert isinstance(said, bool), "accepts returns True or False"

    @pytest.mark.parametrize("kind", typing.get_args(Kind))
    def test_every_kind_arrives(self, notifier: Notifier, kind: Kind) -> None:
        percent = 40.0 if kind == "progress" else None
        note = Notification(kind=kind, message=f"About {kind}", progress=percent)
        send: Callable[..., object] = notifier.send
        problem = explain_sending(send(note, 5.0))
        assert not problem, f"send {problem}"
        assert f"About {kind}" in self.delivered(notifier)

    def test_a_notification_with_everything_arrives(self, notifier: Notifier) -> None:
        notifier.send(
            Notification(
                kind="error",
                message="The report could not be made",
                title="Report",
                to="everyone",
                actions=(Action("Try again", "refresh"),),
                duration_s=7.0,
                key="report",
                id="17",
                at=1_700_000_000.0,
                data={"attempts": 3},
            ),
            5.0,
        )
        assert "The report could not be made" in self.delivered(notifier)

    def test_words_in_any_script_arrive(self, notifier: Notifier) -> None:
        notifier.send(Notification(kind="info", message="디스크가 거의 찼습니다"), 5.0)
        assert "디스크가 거의 찼습니다" in self.delivered(notifier)

    def test_a_hostile_message_does_no_harm(self, notifier: Notifier) -> None:
        hostile = "<script>alert(1)</script>\r\nX-Forged: yes\x00\x1b[2J %s {0} ${HOME}"
        notifier.send(Notification(kind="warning", message=hostile, title=hostile), 5.0)
        notifier.send(Notification(kind="info", message="after it"), 5.0)
        assert "after it" in self.delivered(notifier)

    def test_a_long_message_does_no_harm(self, notifier: Notifier) -> None:
        notifier.send(Notification(kind="info", message="long " * 20_000), 5.0)
        notifier.send(Notification(kind="info", message="after it"), 5.0)
        assert "after it" in self.delivered(notifier)

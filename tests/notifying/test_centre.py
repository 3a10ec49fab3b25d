"""Notifications reach every notifier, the hub, and the signals; a broken notifier stops nobody."""

from __future__ import annotations

import pytest

from om_plugins import hookimpl, signals
from om_plugins.runtime import Runtime
from om_plugins.settings import Settings
from om_plugins.types import Action, Notification


class Kept:
    name = "kept"

    def __init__(self):
        self.got = []

    def send(self, notification, timeout):
        self.got.append((notification, timeout))


class Broken:
    name = "broken"

    def send(self, notification, timeout):
        raise ConnectionError("nobody there")


class Plugin:
    def __init__(self, *notifiers):
        self.notifiers = notifiers

    @hookimpl
    def om_notifiers(self, context):
        return list(self.notifiers)


@pytest.fixture
def make_runtime():
    made = []

    def make(*plugins, **settings):
        runtime = Runtime(Settings(**settings), testing=True, plugins=plugins)
        made.append(runtime)
        return runtime

    yield make
    for runtime in made:
        runtime.close()


def test_a_notification_reaches_notifier_hub_and_signal(make_runtime):
    kept = Kept()
    runtime = make_runtime((Plugin(kept), "kept"))
    seen = []

    def receiver(sender, notification, **extra):
        seen.append(notification)

    note = Notification(
        kind="error", message="No answer", actions=(Action("Refresh", "refresh"),), key="k"
    )
    with signals.notification_sent.connected_to(receiver):
        runtime.notify(note)
        assert kept.got == []  # nothing happens on the caller's path
        runtime.scheduler.run_pending()
    ((got, timeout),) = kept.got
    assert (got.message, got.at > 0, timeout > 0) == ("No answer", True, True)
    (message,) = runtime.hub.read("notifications")
    assert message.data["actions"] == [{"label": "Refresh", "action": "refresh", "value": ""}]
    assert seen[0].id == message.id


def test_a_broken_notifier_is_told_of_and_the_others_still_get_it(make_runtime):
    kept = Kept()
    runtime = make_runtime((Plugin(Broken()), "broken"), (Plugin(kept), "kept"), plugin_failures=2)
    failed = []

    def receiver(sender, notifier, **extra):
        failed.append(notifier)

    with signals.notification_failed.connected_to(receiver):
        for _ in range(4):
            runtime.notify(Notification(kind="info", message="hello"))
            runtime.scheduler.run_pending()
    assert len(kept.got) == 4
    assert failed.count("broken") >= 2
    states = {status.name: status.state for status in runtime.plugins.statuses()}
    assert states["broken"] == "quarantined"


def test_an_endless_message_is_cut(make_runtime):
    kept = Kept()
    runtime = make_runtime((Plugin(kept), "kept"))
    runtime.notify(Notification(kind="info", message="x" * 10_000))
    runtime.scheduler.run_pending()
    assert len(kept.got[0][0].message) == 2000

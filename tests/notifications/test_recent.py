"""The newest notifications as the console shows them."""

from __future__ import annotations

from om_plugins import MemoryHub
from om_plugins.notifications.recent import MAX_RECENT, RecentNotifications
from om_plugins.testing.fakes import FakeClock


def make():
    hub = MemoryHub("memory://", FakeClock())
    return hub, RecentNotifications(hub, "topic")


def test_each_key_is_there_once_and_the_newest_comes_first():
    hub, recent = make()
    hub.publish("topic", {"message": "begun", "key": "job", "progress": 0, "to": "operators"})
    hub.publish("topic", {"message": "other", "kind": "error", "to": "user:7"})
    assert [one["message"] for one in recent.read()] == ["other", "begun"]
    hub.publish("topic", {"message": "done", "key": "job", "progress": 100, "to": "operators"})
    assert [one["message"] for one in recent.read()] == ["done", "other"]
    assert [one["ours"] for one in recent.read()] == [True, False]


def test_there_are_only_so_many():
    hub, recent = make()
    for number in range(3 * MAX_RECENT):
        hub.publish("topic", {"message": str(number)})
    newest = str(3 * MAX_RECENT - 1)
    assert [one["message"] for one in recent.read()][:1] == [newest]
    assert len(recent.read()) == MAX_RECENT


def test_what_is_no_notification_is_shown_as_an_empty_one():
    hub, recent = make()
    hub.publish("topic", ["planted"])
    (one,) = recent.read()
    assert (one["kind"], one["message"], one["to"]) == ("info", "", "one browser")

from __future__ import annotations

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.subscriptions__changed_keys import KEPT_S, TOPIC, Announcements, keys_of
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import HubMessage


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def hub(clock):
    return MemoryHub("memory://", clock)


def test_a_browser_is_told_what_is_addressed_to_it(hub):
    announce = Announcements(hub)
    announce("load", ["everyone"])
    announce(["inbox", 7], ["user:7"])
    announce("secrets", ["operators", "role:editor"])
    messages = hub.read(TOPIC)
    assert keys_of(messages, {"everyone", "sid:a"}) == ["load"]
    assert keys_of(messages, {"everyone", "user:7"}) == ["load", ["inbox", 7]]
    assert keys_of(messages, {"role:editor"}) == ["secrets"]


def test_what_was_announced_often_is_told_once(hub):
    announce = Announcements(hub)
    for _ in range(3):
        announce("load", ["everyone"])
    assert keys_of(hub.read(TOPIC), {"everyone"}) == ["load"]
    assert announce.recent({"everyone"}) == ["load"]


def test_what_changed_lately_is_told_to_who_comes_now(hub, clock):
    announce = Announcements(hub)
    announce("old", ["everyone"])
    clock.advance(KEPT_S - 1)
    announce("new", ["everyone"])
    announce("other", ["user:7"])
    assert sorted(announce.recent({"everyone"})) == ["new", "old"]
    clock.advance(1)
    assert announce.recent({"everyone"}) == ["new"]


@pytest.mark.parametrize(
    "data",
    [None, 7, "load", {}, {"key": "load"}, {"key": 7, "to": ["everyone"]},
     {"key": "load", "to": "everyone"}, {"key": "load", "to": [["everyone"], 3]}],
)  # fmt: skip
def test_what_does_not_fit_is_passed_by(data):
    assert keys_of([HubMessage("1", TOPIC, data, 0.0)], ["everyone"]) == []

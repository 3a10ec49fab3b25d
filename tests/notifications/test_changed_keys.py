from __future__ import annotations

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.notifications.changed_keys import KEPT_S, ChangedKeys
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import HubMessage


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def hub(clock):
    return MemoryHub("memory://", clock)


def test_a_browser_is_told_what_is_addressed_to_it(hub):
    changed = ChangedKeys(hub)
    changed.publish("load", ["everyone"])
    changed.publish(["inbox", 7], ["user:7"])
    changed.publish("secrets", ["operators", "role:editor"])
    messages = hub.read(changed.topic)
    assert changed.select(messages, {"everyone", "sid:a"}) == ["load"]
    assert changed.select(messages, {"everyone", "user:7"}) == ["load", ["inbox", 7]]
    assert changed.select(messages, {"role:editor"}) == ["secrets"]


def test_what_was_announced_often_is_told_once(hub):
    changed = ChangedKeys(hub)
    for _ in range(3):
        changed.publish("load", ["everyone"])
    assert changed.select(hub.read(changed.topic), {"everyone"}) == ["load"]
    assert changed.read_recent({"everyone"}) == ["load"]


def test_what_changed_lately_is_told_to_who_comes_now(hub, clock):
    changed = ChangedKeys(hub)
    changed.publish("old", ["everyone"])
    clock.advance(KEPT_S - 1)
    changed.publish("new", ["everyone"])
    changed.publish("other", ["user:7"])
    assert sorted(changed.read_recent({"everyone"})) == ["new", "old"]
    clock.advance(1)
    assert changed.read_recent({"everyone"}) == ["new"]


@pytest.mark.parametrize(
    "data",
    [None, 7, "load", {}, {"key": "load"}, {"key": 7, "to": ["everyone"]},
     {"key": "load", "to": "everyone"}, {"key": "load", "to": [["everyone"], 3]}],
)  # fmt: skip
def test_what_does_not_fit_is_passed_by(hub, data):
    assert (
        ChangedKeys(hub).select([HubMessage("1", ChangedKeys.topic, data, 0.0)], {"everyone"}) == []
    )

"""The hub of one process."""

from __future__ import annotations

import os
import signal

import pytest

from om_plugins.builtin import BUILTINS
from om_plugins.builtin.hubs.memory import MemoryHub, om_hubs, om_plugin_info
from om_plugins.testing.fakes import FakeClock
from om_plugins.testing.hub import HubContract


class TestContract(HubContract):
    @pytest.fixture
    def make_hub(self):
        self.clock = FakeClock()
        one = MemoryHub("memory://", self.clock)
        return lambda: one

    def advance(self, seconds):
        self.clock.advance(seconds)


def test_it_is_a_plugin():
    assert BUILTINS["hub-memory"] == "om_plugins.builtin.hubs.memory"
    assert om_hubs(None) == {"memory": MemoryHub}
    assert "memory://" in om_plugin_info().summary


def test_old_messages_go_by_count():
    hub = MemoryHub("memory://", FakeClock(), max_messages=3)
    ids = [hub.publish("news", n) for n in range(10)]
    assert [m.data for m in hub.read("news", ids[0])] == [7, 8, 9]


def test_old_messages_go_by_age():
    clock = FakeClock()
    hub = MemoryHub("memory://", clock, max_age=60)
    hub.publish("news", "old")
    clock.advance(61)
    assert hub.read("news") == []
    hub.publish("news", "new")
    assert [m.data for m in hub.read("news")] == ["new"]


def test_old_messages_go_by_size():
    hub = MemoryHub("memory://", FakeClock(), max_bytes=1000)
    for n in range(10):
        hub.publish("news", [n, "x" * 300])
    assert [m.data[0] for m in hub.read("news")] == [7, 8, 9]


def test_the_oldest_keys_go_when_there_are_too_many():
    hub = MemoryHub("memory://", FakeClock(), max_keys=3)
    for n in range(10):
        hub.put(f"key:{n}", n, 60)
        hub.increment(f"count:{n}")
    assert list(hub.scan("").values()) == [7, 8, 9]
    assert hub.increment("count:9") == 2
    assert hub.increment("count:0") == 1


def test_what_ran_out_is_swept_from_memory():
    clock = FakeClock()
    hub = MemoryHub("memory://", clock, max_age=60)
    for n in range(50):
        hub.put(f"key:{n}", n, 10)
        hub.increment(f"count:{n}", ttl=10)
        hub.lease(f"job:{n}", 10)
        hub.publish(f"topic:{n}", n)
    clock.advance(100)
    hub.put("one", 1, 10)
    assert (len(hub._values), len(hub._counters), len(hub._leases), len(hub._topics)) == (
        1,
        0,
        0,
        0,
    )


def test_ids_grow_when_the_clock_is_set_back():
    clock = FakeClock()
    hub = MemoryHub("memory://", clock)
    first = hub.publish("news", 1)
    clock.advance(-3600)
    second = hub.publish("news", 2)
    assert second > first
    assert [m.data for m in hub.read("news", first)] == [2]


def test_ids_of_a_new_hub_are_after_those_of_the_old():
    clock = FakeClock()
    old = MemoryHub("memory://", clock).publish("news", 1)
    clock.advance(1)
    assert MemoryHub("memory://", clock).publish("news", 1) > old


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_gets_the_values_but_neither_a_held_lock_nor_a_lease():
    hub = MemoryHub("memory://", FakeClock())
    hub.put("key", "value", 60)
    assert hub.lease("job", 60)
    with hub._condition:  # only the parent's thread could release it
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            right = hub.get("key") == "value" and hub.lease("job", 60) is not None
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert hub.lease("job", 60) is None

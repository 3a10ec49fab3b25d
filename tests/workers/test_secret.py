"""The secret: configured, or a random one that all workers find in the hub."""

from __future__ import annotations

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.secret import Secret


@pytest.mark.parametrize("configured", ["geheim", b"geheim"])
def test_a_configured_secret_is_used_and_not_shared(configured):
    hub = MemoryHub("memory://", FakeClock())
    assert Secret(lambda: configured, hub=hub, clock=FakeClock())() == b"geheim"
    assert hub.scan("secret") == {}


@pytest.mark.parametrize("configured", ["", b"", None])
def test_workers_without_a_secret_share_a_random_one(configured):
    hub = MemoryHub("memory://", FakeClock())
    one, two = (Secret(lambda: configured, hub=hub, clock=FakeClock()) for _ in range(2))
    assert len(one()) == 32
    assert one() == two()


def test_a_worker_waits_for_another_that_is_creating_the_secret():
    clock = FakeClock()
    hub = MemoryHub("memory://", clock)
    hub.increment("secret:claim", ttl=60)  # the other worker

    class Sleeper:
        slept = 0

        def sleep(self, seconds):
            self.slept += 1
            if self.slept == 3:
                hub.put("secret", b"s" * 32, ttl=60)

    sleeper = Sleeper()
    assert Secret(lambda: None, hub=hub, clock=sleeper)() == b"s" * 32
    assert sleeper.slept == 3


def test_a_worker_goes_on_alone_when_the_other_one_died():
    hub = MemoryHub("memory://", FakeClock())
    hub.increment("secret:claim", ttl=60)
    assert len(Secret(lambda: None, hub=hub, clock=FakeClock())()) == 32

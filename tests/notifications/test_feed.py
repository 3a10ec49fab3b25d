"""One reader of the hub serves all streams of a process, and no thread is begun for it."""

from __future__ import annotations

import os
import threading
import time

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.core.clock import SystemClock
from om_plugins.notifications.feed import Feed
from tests.patience import PATIENCE_S


class CountingHub(MemoryHub):
    """Says how many read it at once, and how often it was read."""

    at_once = most = reads = 0

    def read(self, *args):
        self.at_once += 1
        self.reads += 1
        self.most = max(self.most, self.at_once)
        try:
            return super().read(*args)
        finally:
            self.at_once -= 1


@pytest.fixture
def hub():
    return CountingHub("memory://", SystemClock())


@pytest.fixture
def feed(hub):
    return Feed(hub, "t", SystemClock())


def texts(messages):
    return [message.data for message in messages]


def test_what_was_there_before_is_not_heard(hub, feed):
    hub.publish("t", "before")
    reader = feed.join()
    hub.publish("t", "now")
    assert texts(feed.wait(reader, PATIENCE_S)) == ["now"]
    assert feed.wait(reader, 0.01) == []


def test_one_who_joins_again_begins_anew(hub, feed):
    reader = feed.join()
    hub.publish("t", "one")
    assert texts(feed.wait(reader, PATIENCE_S)) == ["one"]
    feed.leave(reader)
    feed.leave(reader)
    hub.publish("t", "two")
    reader = feed.join()
    hub.publish("t", "three")
    assert texts(feed.wait(reader, PATIENCE_S)) == ["three"]


def test_all_hear_everything_in_order_while_one_reads(hub, feed):
    heard = {n: [] for n in range(8)}
    readers = {n: feed.join() for n in heard}

    def listen(n):
        until = time.monotonic() + PATIENCE_S
        while len(heard[n]) < 50 and time.monotonic() < until:
            heard[n] += texts(feed.wait(readers[n], 0.5))

    threads = [threading.Thread(target=listen, args=(n,)) for n in heard]
    for thread in threads:
        thread.start()
    for number in range(50):
        hub.publish("t", number)
        time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert all(found == list(range(50)) for found in heard.values())
    assert hub.most == 1


def test_only_so_many_may_join(feed):
    first = feed.join(2)
    assert feed.join(2) is not None
    assert feed.join(2) is None
    feed.leave(first)
    assert feed.join(2) is not None
    assert feed.join(0) is None


def test_what_a_slow_one_does_not_fetch_is_bounded(hub, feed):
    slow, quick = feed.join(), feed.join()
    for number in range(1500):
        hub.publish("t", number)
        feed.wait(quick, 0.1)
    assert texts(feed.wait(slow, 0)) == list(range(1000, 1500))


def test_a_hub_that_answers_at_once_is_not_asked_in_a_loop(hub, feed, monkeypatch):
    reader = feed.join()
    monkeypatch.setattr(MemoryHub, "read", lambda *args: [])
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        feed.wait(reader, 0.5)
    assert hub.reads <= 7


def test_a_child_process_has_readers_of_its_own(hub, feed):
    feed.join(1)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if feed.join(1) is not None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

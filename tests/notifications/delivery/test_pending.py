"""What waits for a notifier is in the hub, and in the process while the hub is away."""

from __future__ import annotations

import os
import stat

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.errors import HubError
from om_plugins.notifications.delivery.pending import LEASE_S, PendingStore
from om_plugins.types import Action, Notification
from om_plugins.workers.hub import SharedHub


def note(message, **more):
    return Notification(kind="error", message=message, **more)


def messages(store):
    return [one.note.message for one in store.list()]


class Switch:
    """Opens a hub that can be taken away."""

    def __init__(self, hub):
        self.hub = hub
        self.away = False

    def __call__(self):
        if self.away:
            raise HubError("away")
        return self

    def __getattr__(self, name):
        if self.away:
            raise HubError("away")
        return getattr(self.hub, name)


@pytest.fixture
def switch(clock):
    return Switch(MemoryHub("memory://", clock))


@pytest.fixture
def make_store(clock, switch):
    def make(name="chat/chat", hub=True):
        shared = SharedHub(switch, lambda: MemoryHub("memory://", clock), clock)
        return PendingStore(name, shared if hub else None, clock, 1000.0)

    return make


def test_another_worker_finds_all_in_order_and_with_everything(make_store):
    first, second = make_store(), make_store()
    whole = note(
        "a", title="t", to="everyone", actions=(Action("Open", "link", "/x"),), progress=1.5,
        key="k", id="7", at=5.0, data={"n": [1, {"x": None}]},
    )  # fmt: skip
    first.add(whole)
    for number in range(30):  # at the same moment of the clock
        first.add(note(str(number)))
    found = second.list()
    assert found[0].note == whole
    assert [one.note.message for one in found[1:]] == [str(number) for number in range(30)]
    second.remove(found[0])
    assert messages(first) == [str(number) for number in range(30)]


def test_queues_of_other_names_are_apart(make_store):
    for name in ("a", "a:b", "a/b", "a.state", "é"):
        make_store(name).add(note(name))
    for name in ("a", "a:b", "a/b", "a.state", "é"):
        assert messages(make_store(name)) == [name]


def test_one_worker_at_a_time_may_send(make_store, clock):
    first, second = make_store(), make_store()
    with first.claim() as renew:
        clock.advance(LEASE_S - 1)
        assert renew()
        clock.advance(LEASE_S - 1)
        with second.claim() as other:
            assert other is None
    with second.claim() as other:
        assert other is not None


def test_the_right_of_a_worker_that_was_killed_ends(make_store, clock):
    with make_store().claim() as renew:
        clock.advance(LEASE_S + 1)
        with make_store().claim() as other:
            assert other is not None
            assert not renew()


def test_while_the_hub_is_away_the_process_keeps_all_and_hands_it_over_later(
    make_store, switch, clock
):
    mine, other = make_store(), make_store()
    mine.add(note("stored"))
    switch.away = True
    clock.advance(1)
    mine.add(note("held"))
    clock.advance(1)
    other.add(note("held by the other"))
    assert messages(mine) == ["held"]  # the hub alone knows the first one
    with mine.claim() as renew:
        assert renew()
    switch.away = False
    clock.advance(60)
    assert messages(mine) == ["stored", "held"]
    assert messages(other) == ["stored", "held", "held by the other"]


def test_what_was_sent_while_the_hub_was_away_is_not_there_when_it_is_back(
    make_store, switch, clock
):
    mine, other = make_store(), make_store()
    first = mine.add(note("sent"))
    switch.away = True
    mine.remove(first)
    second = mine.add(note("sent, too"))
    mine.remove(second)
    switch.away = False
    clock.advance(60)
    assert messages(mine) == []
    assert messages(other) == []


def test_a_second_outage_shows_nothing_of_the_first(make_store, switch, clock):
    mine = make_store()
    switch.away = True
    mine.add(note("first"))
    switch.away = False
    clock.advance(60)
    (pending,) = mine.list()
    mine.remove(pending)
    switch.away = True
    mine.add(note("second"))
    assert messages(mine) == ["second"]


def test_the_state_is_shared_and_kept_while_the_hub_is_away(make_store, switch):
    mine, other = make_store(), make_store()
    mine.write_state({"failures": 1})
    assert other.read_state() == {"failures": 1}
    switch.away = True
    mine.write_state({"failures": 2})
    assert mine.read_state() == {"failures": 2}


def test_a_queue_that_need_not_last_never_touches_the_hub(make_store, switch):
    store = make_store(hub=False)
    pending = store.add(note("x"))
    store.write_state({"failures": 1})
    with store.claim() as renew:
        assert renew()
    assert messages(store) == ["x"]
    assert switch.hub.scan("") == {}
    store.remove(pending)
    assert messages(store) == []


def test_what_cannot_be_read_is_left_out_and_said(make_store, switch, caplog):
    store = make_store()
    store.add(note("good"))
    (key,) = switch.hub.scan("delivery.")
    for number, bad in enumerate(("x", 7, {}, {"note": {"kind": "odd"}, "at": 1.0, "size": 1})):
        switch.hub.put(f"{key}{number}", bad, 60)
    assert messages(store) == ["good"]
    assert caplog.text.count("cannot be read") == 4
    assert list(switch.hub.scan("delivery.")) == [key]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_nobody_else_on_the_machine_may_read_what_waits(tmp_path, clock):
    path = tmp_path / "om" / "hub.sqlite3"
    url = f"sqlite:///{path}"
    hub = SharedHub(lambda: SqliteHub(url, clock), lambda: MemoryHub("memory://", clock), clock)
    store = PendingStore("chat", hub, clock, 1000.0)
    store.add(note("a secret"))
    for file in path.parent.iterdir():
        if file.name.startswith("hub"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    hub.close()

"""The hub of one host, on real files and with real processes.

Covers ``om_plugins.builtin.hubs.sqlite_file``, too.
"""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.core.clock import SystemClock
from om_plugins.errors import ConfigError, HubError
from om_plugins.testing.fakes import FakeClock
from om_plugins.testing.hub import ProcessHubContract
from tests.patience import HANG_S, cut_off


class TestContract(ProcessHubContract):
    @pytest.fixture
    def make_hub(self, tmp_path):
        return lambda: SqliteHub(f"sqlite:///{tmp_path}/om/hub.sqlite3", SystemClock())

    @pytest.fixture
    def hub_source(self, tmp_path):
        return (
            "from om_plugins.builtin.hubs.sqlite import SqliteHub;"
            f"hub = SqliteHub('sqlite:///{tmp_path}/om/hub.sqlite3', clock)"
        )


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "om" / "hub.sqlite3"


@pytest.fixture
def open_hub(path, clock):
    opened = []

    def open_hub(**options):
        opened.append(SqliteHub(f"sqlite:///{path}", clock, **options))
        return opened[-1]

    yield open_hub
    for hub in opened:
        hub.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:/x"])
def test_a_url_without_a_file_is_a_config_error(url):
    with pytest.raises(ConfigError, match="absolute one has 4 slashes"):
        SqliteHub(url, SystemClock())


def test_nothing_is_made_before_the_first_use(open_hub, path):
    hub = open_hub()
    assert not path.parent.exists()
    hub.get("key")
    assert path.exists()


def test_file_and_directory_are_private_and_ignored_by_git(open_hub, path):
    open_hub().publish("news", 1)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.glob("hub*")}
    assert set(files) == {"hub.sqlite3", "hub.sqlite3-wal", "hub.sqlite3-shm"}
    assert set(files.values()) == {0o600}
    assert (path.parent / ".gitignore").read_text() == "*\n"


def test_a_directory_with_other_files_gets_no_gitignore(open_hub, path):
    path.parent.mkdir()
    (path.parent / "app.py").touch()
    open_hub().publish("news", 1)
    assert not (path.parent / ".gitignore").exists()


def test_an_empty_file_becomes_a_hub(open_hub, path):
    path.parent.mkdir()
    path.touch()
    hub = open_hub()
    hub.put("key", 1, 60)
    assert hub.get("key") == 1


def test_a_damaged_file_is_a_hub_error_and_left_as_it_is(open_hub, path):
    path.parent.mkdir()
    garbage = b"this is no database " * 1000
    path.write_bytes(garbage)
    hub = open_hub()
    for use in (lambda: hub.get("key"), lambda: hub.publish("news", 1), lambda: hub.lease("j", 1)):
        with pytest.raises(HubError, match=r"hub\.sqlite3: file is not a database"):
            use()
    assert path.read_bytes() == garbage


def test_a_file_that_is_damaged_later_is_a_hub_error(open_hub, path):
    hub = open_hub()
    for _ in range(300):
        hub.publish("news", "x" * 1000)
    hub.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(HubError, match="malformed"):
        hub.read("news")
    with pytest.raises(HubError, match="malformed"):
        hub.publish("news", 1)


def test_another_applications_database_is_refused_and_left_as_it_is(open_hub, path):
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE users (name TEXT)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(HubError, match="another application's database"):
        open_hub().publish("news", 1)
    assert path.read_bytes() == before


def test_a_file_of_another_release_is_refused(open_hub, path):
    hub = open_hub()
    hub.put("key", 1, 60)
    hub.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(HubError, match="another release"):
        hub.get("key")


def test_a_directory_that_cannot_be_made_is_a_hub_error(tmp_path, clock):
    (tmp_path / "file").touch()
    hub = SqliteHub(f"sqlite:///{tmp_path}/file/om/hub.sqlite3", clock)
    with pytest.raises(HubError, match="Not a directory"):
        hub.get("key")


def test_a_file_that_another_process_locks_for_long_is_a_hub_error(open_hub, path):
    hub = open_hub()
    hub.put("key", 1, 60)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HubError, match="locked"):
        hub.put("key", 2, 60)
    assert hub.get("key") == 1  # a reader does not wait for writers
    other.execute("ROLLBACK")
    other.close()
    hub.put("key", 3, 60)
    assert hub.get("key") == 3


def test_damaged_rows_are_skipped(open_hub, path):
    hub = open_hub()
    first = hub.publish("news", 0)
    for n in range(1, 6):
        hub.publish("news", n)
        hub.put(f"key:{n}", n, 60)
    db = sqlite3.connect(path)
    db.execute(
        "UPDATE messages SET data = x'c1' WHERE id > ? AND id <= ?", (int(first), int(first) + 2)
    )
    db.execute("UPDATE messages SET data = 'text' WHERE id = ?", (int(first) + 3,))
    db.execute("UPDATE entries SET value = x'dfffffffff' WHERE key = 'key:1'")
    db.commit()
    db.close()
    assert [m.data for m in hub.read("news", limit=2)] == [0, 4]
    assert [m.data for m in hub.read("news", first, limit=1)] == [4]
    assert hub.get("key:1") is None
    assert list(hub.scan("key:")) == ["key:2", "key:3", "key:4", "key:5"]


def test_old_messages_go_by_count_in_batches(open_hub):
    hub = open_hub(max_messages=80)
    ids = [hub.publish("news", n) for n in range(500)]
    kept = [m.data for m in hub.read("news", ids[0], limit=1000)]
    assert 80 <= len(kept) <= 90
    assert kept[-1] == 499


def test_old_messages_go_by_age(open_hub, clock, path):
    hub = open_hub(max_age=60)
    hub.publish("news", "old")
    clock.advance(61)
    assert hub.read("news") == []
    hub.publish("other", "new")
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM messages").fetchone() == (1,)
    db.close()


def test_what_ran_out_is_swept_from_the_file(open_hub, clock, path):
    hub = open_hub()
    for n in range(20):
        hub.put(f"key:{n}", n, 10)
        hub.increment(f"count:{n}", ttl=10)
        hub.lease(f"job:{n}", 10)
    clock.advance(100_000)
    hub.put("one", 1, 10)
    db = sqlite3.connect(path)
    for table, left in (("entries", 1), ("counters", 0), ("leases", 0)):
        assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (left,), table
    db.close()


def test_ids_grow_over_restarts_with_the_clock_set_back(open_hub, clock):
    hub = open_hub(max_messages=1)
    last = [hub.publish("news", n) for n in range(5)][-1]
    hub.close()
    clock.advance(-3600)
    assert open_hub().publish("news", 1) > last


def test_ids_grow_when_the_file_is_deleted(open_hub, clock, path):
    hub = open_hub()
    last = hub.publish("news", 1)
    token = hub.lease("job", 60).token
    for file in path.parent.glob("hub*"):
        file.unlink()
    clock.advance(2)
    assert hub.publish("news", 2) > last
    assert path.exists()
    assert [m.data for m in hub.read("news")] == [2]
    assert hub.lease("job", 60).token > token


def test_a_lease_does_not_last_longer_when_the_clock_is_set_back(open_hub, clock):
    hub = open_hub()
    old = hub.lease("job", 10)
    clock.advance(-3600)
    new = hub.lease("job", 10)
    assert new is not None
    assert new.token > old.token
    assert not old.renew(10)


def test_waiting_polls_slower_and_slower_until_the_time_is_over(open_hub, clock):
    hub = open_hub()
    assert hub.read("news", wait=5) == []
    assert clock.slept[0] == pytest.approx(0.02)
    assert max(clock.slept) == pytest.approx(0.2)
    assert sum(clock.slept) == pytest.approx(5)


def test_children_forked_in_the_middle_of_writing_inherit_no_lock(path):
    # SQLite's list of locks is copied by fork; what a thread held would be held for ever.
    source = f"""
import os, threading, time
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.core.clock import SystemClock
hub = SqliteHub("sqlite:///{path}", SystemClock())
def work():
    while not stop.is_set():
        hub.publish("parent", "x" * 5000)
        hub.read("parent", limit=50)
stop = threading.Event()
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]
codes = []
for _ in range(15):
    time.sleep(0.01)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for _ in range(5):
                hub.publish("child", os.getpid())
                hub.read("child")
            code = 0
        finally:
            os._exit(code)
    codes.append(os.waitpid(pid, 0)[1])
stop.set()
[t.join() for t in threads]
assert codes == [0] * 15, codes
assert len(hub.read("child", limit=1000)) == 75
hub.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_a_childs_file_stays_whole_when_the_parent_closes(path):
    # A child with inherited connections would hold no lock of its own, and the parent, as if it
    # were the last, would delete the write-ahead log that the child still writes to.
    source = f"""
import os
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.core.clock import SystemClock
hub = SqliteHub("sqlite:///{path}", SystemClock())
hub.publish("news", "parent")
hub.read("news")
to_child, to_parent = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    hub.publish("news", "child")
    hub.read("news")
    os.write(to_parent[1], b"x")
    os.read(to_child[0], 1)
    hub.publish("news", "child after")
    os.write(to_parent[1], b"x")
    os.read(to_child[0], 1)
    os._exit(0)
os.read(to_parent[0], 1)
hub.read("news")
hub.close()
os.write(to_child[1], b"x")
os.read(to_parent[0], 1)
data = [m.data for m in hub.read("news")]
os.write(to_child[1], b"x")
os.waitpid(pid, 0)
hub.close()
assert data == ["parent", "child", "child after"], data
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_waiting_reader_hears_its_own_process(path):
    hub = SqliteHub(f"sqlite:///{path}", SystemClock())
    thread = threading.Timer(0.1, hub.publish, ("news", 1))
    thread.start()
    with cut_off():
        assert [m.data for m in hub.read("news", wait=HANG_S)] == [1]
    thread.join()
    hub.close()


def test_a_file_that_another_makes_just_now_is_not_taken_for_a_foreign_one(path, monkeypatch):
    others = []

    class Slow(sqlite3.Connection):
        def execute(self, sql, *arguments):
            if "sqlite_master" in sql and not others:
                other = threading.Thread(target=make)
                others.append(other)
                other.start()
                other.join(0.5)  # it is done by now, if nothing makes it wait
            return super().execute(sql, *arguments)

    def make():
        hub = SqliteHub(f"sqlite:///{path}", SystemClock())
        hub.put("other", 1, ttl=60)
        hub.close()

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Slow, **k))
    hub = SqliteHub(f"sqlite:///{path}", SystemClock())
    hub.put("mine", 1, ttl=60)
    others[0].join()
    assert hub.scan("") == {"mine": 1, "other": 1}
    hub.close()

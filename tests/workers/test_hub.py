"""The hub as an application sees it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.core.clock import SystemClock
from om_plugins.errors import HubError
from om_plugins.testing.fakes import FakeClock
from om_plugins.testing.hub import HubContract, ProcessHubContract
from om_plugins.workers.hub import SharedHub
from tests.patience import HANG_S, PATIENCE_S


class TestContractOverMemory(HubContract):
    @pytest.fixture
    def make_hub(self):
        self.clock = FakeClock()
        one = shared(lambda: MemoryHub("memory://", self.clock), self.clock)
        return lambda: one

    def advance(self, seconds):
        self.clock.advance(seconds)

    # A request must not fail for a value that cannot be kept, so these do not raise here.
    test_data_without_an_encoding_is_a_value_error = None
    test_data_beyond_the_size_limit_is_a_value_error_that_says_so = None
    test_a_name_that_cannot_be_kept_is_a_value_error = None
    test_a_time_that_is_none_is_a_value_error = None


class TestContractOverSqlite(ProcessHubContract):
    @pytest.fixture
    def make_hub(self, tmp_path):
        url = f"sqlite:///{tmp_path}/om/hub.sqlite3"
        return lambda: shared(lambda: SqliteHub(url, SystemClock()), SystemClock())

    @pytest.fixture
    def hub_source(self, tmp_path):
        return (
            "from om_plugins.builtin.hubs.memory import MemoryHub;"
            "from om_plugins.builtin.hubs.sqlite import SqliteHub;"
            "from om_plugins.workers.hub import SharedHub;"
            f"opened = lambda: SqliteHub('sqlite:///{tmp_path}/om/hub.sqlite3', clock);"
            "hub = SharedHub(opened, lambda: MemoryHub('memory://', clock), clock)"
        )

    test_data_without_an_encoding_is_a_value_error = None
    test_data_beyond_the_size_limit_is_a_value_error_that_says_so = None
    test_a_name_that_cannot_be_kept_is_a_value_error = None
    test_a_time_that_is_none_is_a_value_error = None


def shared(open_hub, clock):
    return SharedHub(open_hub, lambda: MemoryHub("memory://", clock), clock, name="test://")


class Backend:
    """A hub that other processes share too, and that can be taken away."""

    def __init__(self, clock):
        self.real = MemoryHub("memory://", clock)
        self.error = None
        self.opened = 0

    def __call__(self):
        self.opened += 1
        if self.error is not None:
            raise self.error
        return Link(self)


class Link:
    def __init__(self, backend):
        self.backend = backend

    def __getattr__(self, name):
        if self.backend.error is not None:
            raise self.backend.error
        return getattr(self.backend.real, name)

    def lease(self, name, ttl):
        found = self.__getattr__("lease")(name, ttl)
        return found and LinkLease(self.backend, found)


class LinkLease:
    def __init__(self, backend, lease):
        self.backend = backend
        self.real = lease
        self.name = lease.name
        self.token = lease.token

    def renew(self, ttl):
        if self.backend.error is not None:
            raise self.backend.error
        return self.real.renew(ttl)

    def release(self):
        self.real.release()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def backend(clock):
    return Backend(clock)


@pytest.fixture
def hub(backend, clock):
    return shared(backend, clock)


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.DEBUG, "om_plugins")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def use_all(hub):
    hub.publish("news", 1)
    hub.put("key", 2, 60)
    assert hub.get("key") == 2
    assert hub.scan("k") == {"key": 2}
    assert hub.increment("c") >= 1
    assert hub.last_id("news")
    assert hub.read("news")[-1].data == 1
    lease = hub.lease("job", 10)
    assert lease.renew(10)
    assert hub.lease("job", 10) is None
    lease.release()


def test_nothing_is_opened_before_the_first_call(backend, hub):
    assert backend.opened == 0
    hub.get("key")
    hub.get("key")
    assert backend.opened == 1


@pytest.mark.parametrize(
    "error", [HubError("gone"), OSError(5, "io"), KeyError("bug"), RuntimeError("bug")], ids=repr
)
def test_every_call_is_answered_while_the_backend_is_away_and_one_warning_is_logged(
    backend, hub, warnings, error
):
    backend.error = error
    for _ in range(5):
        use_all(hub)
    assert hub.alone
    assert len(warnings()) == 1
    assert "the hub test:// is out of reach" in warnings()[0]
    assert warnings()[0].endswith("this process goes on alone")


def test_a_backend_that_goes_away_later_is_noticed_in_the_middle_of_work(backend, hub, warnings):
    use_all(hub)
    assert not hub.alone
    backend.error = HubError("gone")
    use_all(hub)
    assert hub.alone
    assert len(warnings()) == 1


def tries_within(seconds, backend, hub, clock):
    """When the backend was tried again, in seconds from now."""
    tries = []
    began = clock.monotonic()
    while clock.monotonic() - began < seconds:
        before = backend.opened
        hub.get("key")
        if backend.opened > before:
            tries.append(clock.monotonic() - began)
        clock.advance(0.1)
    return tries


def test_it_is_tried_each_half_second_where_a_try_costs_nothing(backend, hub, clock):
    backend.error = HubError("refused")
    hub.get("key")
    assert len(tries_within(60, backend, hub, clock)) == pytest.approx(110, abs=15)


def test_trying_takes_a_twentieth_of_the_time_where_it_has_to_wait(clock):
    class Slow(Backend):
        def __call__(self):
            clock.advance(0.5)
            return super().__call__()

    backend = Slow(clock)
    backend.error = HubError("timed out")
    hub = shared(backend, clock)
    hub.get("key")
    assert len(tries_within(200, backend, hub, clock)) == pytest.approx(19, abs=2)


def test_a_backend_that_is_lost_again_soon_is_left_alone_for_longer_and_longer(backend, hub, clock):
    def go_away():
        backend.error = HubError("gone")
        hub.get("key")
        began = clock.monotonic()
        backend.error = None
        while hub.alone:
            clock.advance(0.05)
            hub.get("key")
        return clock.monotonic() - began

    assert [go_away() for _ in range(8)] == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30], abs=0.11)
    clock.advance(11)
    assert go_away() == pytest.approx(0.5, abs=0.11)


def test_messages_published_meanwhile_are_handed_on_in_order_when_it_is_back(
    backend, hub, clock, caplog
):
    caplog.set_level(logging.INFO, "om_plugins")
    hub.publish("news", "before")
    backend.error = HubError("gone")
    for n in range(5):
        hub.publish("news", n)
    backend.error = None
    clock.advance(1.5)
    hub.publish("news", "after")
    assert not hub.alone
    assert [m.data for m in backend.real.read("news")] == ["before", 0, 1, 2, 3, 4, "after"]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.INFO] == [
        "the hub test:// is back; handed on 5 messages"
    ]


def test_of_very_many_messages_only_the_newest_are_handed_on(backend, hub, clock):
    backend.error = HubError("gone")
    for n in range(1500):
        hub.publish("news", n)
    backend.error = None
    clock.advance(1.5)
    hub.get("key")
    handed_on = [m.data for m in backend.real.read("news", limit=10_000)]
    assert handed_on == list(range(500, 1500))


def test_a_reader_gets_each_message_once_over_an_outage(backend, hub, clock):
    seen = []
    after = ""

    def read():
        nonlocal after
        for message in hub.read("news", after):
            seen.append(message.data)
            after = message.id

    hub.publish("news", "mine before")
    read()
    clock.advance(0.01)
    backend.error = HubError("gone")
    hub.publish("news", "mine, seen during")
    read()
    backend.real.publish("news", "another process, during")
    hub.publish("news", "mine, not seen during")
    backend.error = None
    clock.advance(1.5)
    hub.get("key")
    backend.real.publish("news", "another process, after")
    read()
    read()
    assert seen == [
        "mine before",
        "mine, seen during",
        "another process, during",
        "mine, not seen during",
        "another process, after",
    ]


def test_a_lease_taken_alone_is_lost_when_the_backend_is_back(backend, hub, clock):
    backend.error = HubError("gone")
    lease = hub.lease("job", 600)
    assert lease.renew(600)
    backend.error = None
    clock.advance(1.5)
    assert hub.lease("job", 600) is not None
    assert not lease.renew(600)
    lease.release()


def test_a_lease_of_the_backend_is_lost_when_that_goes_away(backend, hub):
    lease = hub.lease("job", 600)
    backend.error = HubError("gone")
    assert not lease.renew(600)
    assert hub.alone
    lease.release()


@pytest.mark.parametrize("alone", [False, True])
def test_a_value_that_cannot_be_kept_is_logged_and_left_out(backend, hub, alone, caplog, warnings):
    if alone:
        backend.error = HubError("gone")
        hub.get("key")
    assert hub.publish("news", object()) == ""
    hub.put("key", "x" * 2_000_000, 60)
    assert hub.increment("c", 2, ttl=-1) == 2
    assert hub.lease("", 5) is None
    assert hub.alone == alone
    assert len(warnings()) == alone
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 4
    assert "object cannot be kept" in errors[0]


def test_a_flapping_backend_is_tried_less_and_less(backend, hub, clock, warnings):
    for _ in range(400):
        backend.error = None
        hub.get("key")
        backend.error = HubError("gone")
        hub.get("key")
        clock.advance(0.5)
    assert len(warnings()) < 20


def test_eight_threads_go_on_while_the_backend_comes_and_goes(backend, hub):
    stop = threading.Event()
    failures = []

    def work():
        try:
            while not stop.is_set():
                hub.publish("news", 1)
                hub.increment("c")
                hub.read("news", hub.last_id("news"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for n in range(30):
        backend.error = HubError("gone") if n % 2 else None
        hub.clock.advance(40)
        time.sleep(0.005)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_late_failure_of_the_old_backend_does_not_end_the_new_one(clock, warnings):
    began, gate = threading.Event(), threading.Event()

    class Old:
        def get(self, key):
            began.set()
            gate.wait(HANG_S)
            raise HubError("late")

        def put(self, key, value, ttl):
            raise HubError("gone")

    backends = [Old(), MemoryHub("memory://", clock)]
    hub = shared(lambda: backends.pop(0), clock)
    answers = []
    late = threading.Thread(target=lambda: answers.append(hub.get("key")))
    late.start()
    assert began.wait(PATIENCE_S)
    hub.put("key", "alone", 60)
    clock.advance(1.5)
    hub.put("key", "together", 60)
    gate.set()
    late.join()
    assert answers == ["alone"]
    assert not hub.alone
    assert hub.get("key") == "together"
    assert len(warnings()) == 1


def test_a_log_handler_may_use_the_hub(backend, hub):
    class Handler(logging.Handler):
        def emit(self, record):
            hub.publish("log", record.getMessage())

    handler = Handler()
    logging.getLogger("om_plugins").addHandler(handler)
    try:
        backend.error = HubError("gone")
        hub.get("key")
    finally:
        logging.getLogger("om_plugins").removeHandler(handler)
    assert "out of reach" in hub.read("log")[0].data


def test_a_damaged_file_means_this_process_alone_and_a_new_one_is_used_when_there_is_one(
    tmp_path, clock, warnings
):
    path = tmp_path / "hub.sqlite3"
    path.write_bytes(b"garbage " * 1000)
    hub = shared(lambda: SqliteHub(f"sqlite:///{path}", clock), clock)
    use_all(hub)
    assert len(warnings()) == 1
    assert "file is not a database" in warnings()[0]
    assert path.read_bytes() == b"garbage " * 1000
    path.unlink()
    clock.advance(2)
    use_all(hub)
    assert not hub.alone
    assert path.read_bytes().startswith(b"SQLite format 3")
    hub.close()


def test_a_path_that_cannot_be_written_means_this_process_alone(tmp_path, clock, warnings):
    (tmp_path / "file").touch()
    for url in (f"sqlite:///{tmp_path}/file/om/hub.sqlite3", "sqlite:////proc/om/hub.sqlite3"):
        use_all(shared(lambda url=url: SqliteHub(url, clock), clock))
    assert len(warnings()) == 2


def test_a_child_opens_its_own_backend_and_leaves_the_parents_alone(tmp_path):
    source = f"""
import os
from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.core.clock import SystemClock
from om_plugins.workers.hub import SharedHub
clock = SystemClock()
opened = []
def open_hub():
    opened.append(os.getpid())
    return SqliteHub("sqlite:///{tmp_path}/hub.sqlite3", clock)
hub = SharedHub(open_hub, lambda: MemoryHub("memory://", clock), clock)
hub.put("who", "parent", 60)
lease = hub.lease("job", 60)
pid = os.fork()
if pid == 0:
    assert hub.get("who") == "parent"
    assert opened[-1] == os.getpid()
    assert not lease.renew(60)
    lease.release()
    assert hub.lease("job", 60) is None
    hub.put("who", "child", 60)
    hub.close()
    os._exit(0 if not hub.alone else 3)
assert os.waitpid(pid, 0)[1] == 0
assert hub.get("who") == "child"
assert lease.renew(60)
hub.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# --- what a third party's hub returns -------------------------------------------------------------


class Odd:
    """A third party's hub that says odd things."""

    def __init__(self, clock, **says):
        self.real = MemoryHub("memory://", clock)
        for name, said in says.items():
            setattr(self, name, lambda *args, said=said: said() if callable(said) else said)

    def __getattr__(self, name):
        return getattr(self.real, name)


async def later():
    return True


class LeaseLike:
    name, token = "job", 1

    def __init__(self, said, **more):
        self.said = said
        vars(self).update(more)

    def renew(self, ttl):
        return self.said() if callable(self.said) else self.said

    def release(self):
        pass


@pytest.mark.parametrize(
    "said",
    [
        True, False, 1, "job", Mock(), {"name": "job"}, later, lambda: LeaseLike, ("job", 1),
        lambda: LeaseLike(True, token="1"),
        lambda: LeaseLike(True, token=True),
        lambda: LeaseLike(True, token=Mock()),
        lambda: LeaseLike(True, name=None),
        lambda: LeaseLike(True, renew=True),
        lambda: LeaseLike(True, release=None),
    ],
)  # fmt: skip
def test_what_is_no_lease_gives_nobody_the_right(clock, said, caplog):
    one = shared(lambda: Odd(clock, lease=said), clock)
    assert one.lease("job", 60) is None
    assert not one.alone
    assert "return a Lease with name, token, renew(ttl) and release(), or None" in caplog.text


@pytest.mark.parametrize("said", [None, 1, "OK", Mock(), later, lambda: (True for _ in "1")])
def test_a_lease_is_renewed_by_true_alone(clock, said, caplog):
    one = shared(lambda: Odd(clock, lease=lambda: LeaseLike(said)), clock)
    lease = one.lease("job", 60)
    assert lease.renew(60) is False
    assert "renew() of a lease of the hub returned" in caplog.text
    other = shared(lambda: Odd(clock, lease=lambda: LeaseLike(True)), clock)
    assert other.lease("job", 60).renew(60) is True


@pytest.mark.parametrize(
    ("method", "ask", "alone"),
    [
        ("publish", lambda one: bool(one.publish("news", 1)), True),
        ("read", lambda one: one.read("news"), []),
        ("last_id", lambda one: one.last_id("news"), ""),
        ("scan", lambda one: one.scan(""), {}),
    ],
)
@pytest.mark.parametrize("said", [None, True, 7, later, lambda: (one for one in "ab"), Mock()])
def test_a_method_that_does_not_answer_is_a_hub_out_of_reach(
    clock, said, method, ask, alone, caplog
):
    one = shared(lambda: Odd(clock, **{method: said}), clock)
    assert ask(one) == alone
    assert one.alone
    assert f"TypeError: {method} returned" in caplog.text


@pytest.mark.parametrize("method", ["put", "get"])
def test_a_value_that_is_not_written_or_read_is_a_hub_out_of_reach(clock, method, caplog):
    one = shared(lambda: Odd(clock, **{method: later}), clock)
    one.put("k", 1, 60)
    assert one.get("k") in (1, None)
    assert one.alone
    assert "nobody awaits" in caplog.text
    one.put("k", 2, 60)
    assert one.get("k") == 2


@pytest.mark.parametrize("said", [None, True, "1", 1.0, later, Mock()])
def test_a_counter_that_does_not_count_is_a_hub_out_of_reach(clock, said, caplog):
    one = shared(lambda: Odd(clock, increment=said), clock)
    assert [one.increment("tries") for _ in range(3)] == [1, 2, 3]
    assert one.alone
    assert "increment returned" in caplog.text

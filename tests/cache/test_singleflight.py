from __future__ import annotations

import os
import threading
import time
import traceback

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.cache.singleflight import InFlightTable, PrivateValue, copy_error
from om_plugins.core.clock import SystemClock
from om_plugins.workers.scheduler import BackgroundScheduler
from tests.patience import HANG_S, PATIENCE_S, cut_off, wait_until


@pytest.fixture
def cache():
    clock = SystemClock()
    hub = MemoryHub("memory://", clock)
    scheduler = BackgroundScheduler(2, 100, clock, hub)
    cache = SmartCache(CacheOptions(
        stale_time=60, cache_time=600, l1_bytes=1 << 20, max_value=1 << 16, clock=clock,
        scheduler=scheduler,
    ))  # fmt: skip
    yield cache
    scheduler.close()
    hub.close()


def at_once(count, ask):
    """Run ``ask`` in that many threads at once; what each returned or raised."""
    results = [None] * count
    ready = threading.Barrier(count)

    def run(number):
        ready.wait()
        try:
            results[number] = ask()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_thirty_two_threads_make_one_fetch(cache):
    calls = []

    def fetch():
        calls.append(1)
        time.sleep(0.1)
        return ["value"]

    results = at_once(32, lambda: cache.query("k", fetch))
    assert results == [["value"]] * 32
    assert len(calls) == 1
    assert len(set(map(id, results))) == 32  # everybody has a copy of their own
    stats = cache.stats()
    assert stats.misses == stats.fetches == 1
    assert stats.coalesced + stats.fresh == 31


def test_an_error_is_given_to_all_who_wait_each_with_its_own_traceback(cache):
    def fetch():
        time.sleep(0.1)
        raise OSError(5, "down")

    results = at_once(32, lambda: cache.query("k", fetch, retries=0))
    assert all(type(r) is OSError and r.args == (5, "down") for r in results)
    assert len(set(map(id, results))) == 32
    assert max(len(traceback.extract_tb(r.__traceback__)) for r in results) < 20
    stats = cache.stats()
    assert (stats.fetches, stats.negative) == (1, 31)


def test_a_private_answer_is_given_to_nobody_else_and_nobody_waits_for_the_next(cache):
    calls = []
    others = threading.Barrier(15)

    def fetch():
        calls.append(threading.get_ident())
        if len(calls) == 1:
            time.sleep(0.05)  # those who come meanwhile wait for it
        else:
            others.wait(PATIENCE_S)  # not one after the other
        raise PrivateValue(f"for {threading.get_ident()}")

    results = at_once(16, lambda: (threading.get_ident(), cache.query("k", fetch)))
    assert all(answer == f"for {ident}" for ident, answer in results)
    assert len(calls) == 16
    assert cache.stats().entries == 0
    assert cache.stats().coalesced == 0


def test_the_others_go_on_when_the_one_who_fetches_is_ended(cache):
    entered = threading.Event()

    def ended():
        entered.set()
        time.sleep(0.05)
        raise SystemExit

    def lead():
        with pytest.raises(SystemExit):
            cache.query("k", ended)

    leader = threading.Thread(target=lead)
    leader.start()
    entered.wait()
    assert cache.query("k", lambda: "own") == "own"
    leader.join()


def test_a_slow_fetch_does_not_hold_other_keys(cache):
    entered, release = threading.Event(), threading.Event()

    def fetch():
        entered.set()
        return release.wait(HANG_S)

    slow = threading.Thread(target=lambda: cache.query("slow", fetch))
    slow.start()
    assert entered.wait(PATIENCE_S)
    with cut_off():
        assert cache.query("fast", lambda: 1) == 1
    assert cache.stats().misses == 2
    release.set()
    slow.join()


def test_hits_from_many_threads_are_counted_exactly(cache):
    cache.set("k", 1)
    at_once(8, lambda: [cache.query("k", lambda: 1) for _ in range(2000)])
    assert cache.stats().fresh == 16_000
    assert cache.stats().fresh == 16_000  # reading them does not count


def test_a_real_background_thread_refreshes(cache):
    done = threading.Event()
    cache.set("k", "old", stale_time=0)
    assert cache.query("k", lambda: done.set() or "new") == "old"
    assert done.wait(PATIENCE_S)
    wait_until(lambda: cache.get("k") == "new")
    assert cache.query("k", lambda: "never") == "new"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_the_entries_but_not_the_locks_of_its_parent(cache):
    cache.set("k", "inherited")
    process = cache.internals.here().memory
    reader, writer = os.pipe()
    process.lock.acquire()  # as if another thread were in the middle of something
    pid = os.fork()
    if not pid:
        try:
            answer = [cache.query("k", lambda: "fetched"), cache.query("new", lambda: "own")]
            answer.append(str(cache.get("k")))
            os.write(writer, " ".join(answer).encode())
        finally:
            os._exit(0)
    process.lock.release()
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == "inherited own inherited"
    os.waitpid(pid, 0)
    assert cache.get("new") is None


def test_an_error_that_cannot_be_copied_is_shared():
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    odd = Odd(1, 2)
    assert copy_error(odd) is odd
    plain = ValueError("x")
    plain.note = "kept"  # type: ignore[attr-defined]
    twin = copy_error(plain)
    assert twin is not plain
    assert (twin.args, twin.note) == (("x",), "kept")  # type: ignore[attr-defined]


def test_remembered_failures_are_bounded():
    table = InFlightTable(threading.Lock())
    error = ValueError("down")
    for number in range(10_050):
        table.remember_failure(f"key {number}", error, 10.0)
    assert len(table.failures) == 10_000
    assert table.find_failure("key 49", 0.0) is None
    assert table.find_failure("key 50", 0.0) is error
    assert table.find_failure("key 10049", 0.0) is error

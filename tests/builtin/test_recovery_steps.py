"""The shipped recovery steps: soft, bounded, honest."""

from __future__ import annotations

import sys

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from om_plugins import OpenManagerMiddleware, Settings
from om_plugins.builtin import BUILTINS
from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.builtin.recovery_steps import (
    CheckReach,
    FreeMemory,
    MarkStale,
    ProbeEngines,
    measure_pressure,
)
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.errors import EngineUnavailable
from om_plugins.plugins.kit import Host
from om_plugins.protocols import RecoveryStep
from om_plugins.runtime import Runtime
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.scheduler import BackgroundScheduler


@pytest.fixture
def cache():
    clock = FakeClock()
    scheduler = BackgroundScheduler(1, 100, clock, MemoryHub("memory://", clock), synchronous=True)
    cache = SmartCache(CacheOptions(
        stale_time=300, cache_time=1800, l1_bytes=2**20, max_value=2**20, clock=clock,
        scheduler=scheduler,
    ))  # fmt: skip
    cache.scheduler = scheduler
    return cache


def test_entries_of_a_chain_are_served_once_more_while_a_new_answer_is_fetched(cache):
    cache.set("answer", "old", tags=["chain:assistant"])
    cache.set("other", "kept", tags=["chain:other"])
    assert MarkStale(cache).run("chain:assistant", 10) == "1 marked stale"
    assert cache.query("answer", lambda: "new") == "old"
    cache.scheduler.run_pending()
    assert cache.query("answer", lambda: "newer") == "new"
    assert cache.query("other", lambda: "new") == "kept"


def test_views_that_are_cached_under_a_plain_rule_are_marked(cache):
    cache.set(("view", "/page", "http"), "old")
    cache.set(("view", "/page2", "http"), "kept")
    assert MarkStale(cache).run("route:/page", 10) == "1 marked stale"
    assert cache.get(("view", "/page", "http")) == "old"


def test_a_rule_with_variables_marks_what_has_its_tag(cache):
    cache.set(("view", "/item/1", "http"), "old", tags=["route:/item/<int:id>"])
    cache.set(("view", "/item/2", "http"), "old")
    assert MarkStale(cache).run("route:/item/<int:id>", 10) == "1 marked stale"


def test_memory_is_given_back_and_the_cache_is_left_alone_while_there_is_enough(cache):
    cache.set("k", "v")
    assert "collected" in FreeMemory(cache, lambda: 0.5).run("chain:a", 10)
    assert cache.get("k") == "v"


def test_half_of_the_cache_goes_when_memory_is_short(cache):
    for number in range(100):
        cache.set(f"k{number}", "v" * 100)
    size = cache.stats().size_bytes
    assert "put out of memory" in FreeMemory(cache, lambda: 0.95).run("chain:a", 10)
    assert 0 < cache.stats().size_bytes <= size / 2


def test_the_shared_http_cache_is_halved_as_well():
    runtime = Runtime(Settings(http_cache=True), host=Host(testing=True))
    page = Response("x" * 1_000, headers={"Cache-Control": "public, max-age=60"})
    client = Client(OpenManagerMiddleware(page, runtime=runtime))
    for number in range(20):
        client.get(f"/{number}").close()
        runtime.part_of("cache").set(f"k{number}", "v" * 100)
    size = runtime.part_of("http_cache").cache.stats().size_bytes
    (step,) = [
        step
        for _, found in runtime.plugins.collect("om_recovery_steps")
        for step in found
        if isinstance(step, FreeMemory)
    ]
    step.pressure = lambda: 0.95
    told = step.run("chain:a", 10)
    assert 0 < runtime.part_of("http_cache").cache.stats().size_bytes <= size / 2
    gone = (
        40
        - runtime.part_of("http_cache").cache.stats().entries
        - runtime.part_of("cache").stats().entries
    )
    assert f"{gone} cached values put out of memory" in told
    runtime.close()


def test_garbage_in_circles_is_collected(cache):
    import gc
    import weakref

    class Circle:
        pass

    gc.disable()
    try:
        one = Circle()
        one.self = one
        gone = weakref.ref(one)
        del one
        FreeMemory(cache, lambda: 0.0).run("chain:a", 10)
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_pressure_of_this_machine_is_a_share():
    assert 0.0 < measure_pressure() <= 1.0


def test_the_limit_of_a_container_counts_without_its_file_cache(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("950\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 450\n")
    assert measure_pressure(cgroup=tmp_path) == 0.5


@pytest.mark.parametrize("limit", ["max", "", "x", "-1", "0"])
def test_without_a_limit_the_machine_counts_and_without_both_nothing(tmp_path, limit):
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("950\n")
    (tmp_path / "memory.stat").write_text("")
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 1000 kB\nMemAvailable: 250 kB\n")
    assert measure_pressure(cgroup=tmp_path, meminfo=info) == 0.75
    info.write_text("garbage")
    assert measure_pressure(cgroup=tmp_path, meminfo=info) == 0.0


def test_the_last_two_steps_say_what_the_prober_says():
    class Prober:
        def reach(self, subject, timeout):
            return f"{subject} is there"

        def probe(self, subject, timeout):
            raise EngineUnavailable("one", "did not answer")

    assert CheckReach(Prober()).run("chain:a", 3) == "chain:a is there"
    with pytest.raises(EngineUnavailable):
        ProbeEngines(Prober()).run("chain:a", 3)


def test_the_plugin_is_built_in_and_brings_its_steps_in_order():
    assert BUILTINS["recovery-steps"] == "om_plugins.builtin.shipped:recovery_steps"
    runtime = Runtime(Settings(), host=Host(testing=True))
    steps: list[RecoveryStep] = [
        step for plugin, found in runtime.plugins.collect("om_recovery_steps") for step in found
    ]
    assert [step.percent for step in steps] == [20, 50, 70, 90]
    runtime.close()

"""Live settings: changed at run time, in every worker, checked, and over by themselves."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from om_plugins import OpenManager, Settings, StaticEngine
from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.feature import ChainKeys
from om_plugins.chains.live_settings import LiveSettings
from om_plugins.chains.options import ChainPolicy
from om_plugins.core.clock import SystemClock
from om_plugins.errors import ChainExhausted, ConfigError, Transient
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import EngineSpec
from om_plugins.workers.scheduler import BackgroundScheduler
from tests.patience import PATIENCE_S, join


class Worker:
    """What one process has: chains of its own, and the hub that all share."""

    def __init__(self, hub, clock, settings):
        self.chains = {}
        self.live = LiveSettings(
            defaults=settings.of(ChainKeys).chain_defaults,
            own=settings.of(ChainKeys).chains,
            hub=hub,
            scheduler=BackgroundScheduler(1, 9, clock, hub, synchronous=True),
            clock=clock,
            chains=lambda: self.chains,
        )
        for name in ("assistant", "search"):
            chain = EngineChain(
                name,
                self.live.get_policy(name),
                options=self.live.get_engine_options(name),
                clock=clock,
            )
            for tier, engine in enumerate(("model", "local"), 1):
                chain.add(EngineSpec(CallableEngine(engine, lambda call, e=engine: e), name, tier))
            self.chains[name] = chain


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def hub(clock):
    return MemoryHub("memory://", clock)


@pytest.fixture
def worker(hub, clock):
    def make(**settings):
        return Worker(hub, clock, Settings(**settings))

    return make


def test_a_change_holds_at_once_here_and_after_a_look_elsewhere(worker):
    here, there = worker(), worker()
    here.live.configure("assistant", timeout=3, retries=0)
    assert here.chains["assistant"].policy.timeout == 3
    assert there.chains["assistant"].policy.timeout == 10
    there.live.poll()
    assert there.chains["assistant"].policy.timeout == 3
    assert there.chains["search"].policy.timeout == 10


def test_a_worker_that_comes_later_begins_with_the_changes(worker, hub, clock):
    worker().live.configure("assistant", timeout=3)
    late = worker()
    late.live.poll()
    assert late.chains["assistant"].policy.timeout == 3


def test_a_change_of_every_chain_is_below_that_of_one(worker):
    one = worker(chains={"search": {"timeout": 7}})
    one.live.configure("*", timeout=2, retries=1)
    one.live.configure("assistant", timeout=3)
    policies = {name: chain.policy for name, chain in one.chains.items()}
    assert (policies["assistant"].timeout, policies["assistant"].retries) == (3, 1)
    assert (policies["search"].timeout, policies["search"].retries) == (2, 1)


def test_an_engine_is_switched_off_and_moved(worker):
    one = worker()
    chain = one.chains["assistant"]
    one.live.configure("assistant", engines={"model": {"enabled": False}})
    assert chain.call().engine == "local"
    assert [spec.engine.name for spec in chain.engines] == ["model", "local"]
    one.live.configure("assistant", engines={"model": {"enabled": None, "tier": 9}})
    assert [place.name for place in chain.states] == ["local", "model"]
    one.live.configure("assistant", engines=None)
    assert [place.name for place in chain.states] == ["model", "local"]


def test_what_the_settings_switched_off_or_forced_is_switched_on_again(worker):
    said = {"model": {"enabled": False}, "local": {"breaker": "open"}}
    one = worker(chains={"assistant": {"engines": said}})
    chain = one.chains["assistant"]
    assert [place.name for place in chain.states] == ["local"]
    one.live.configure(
        "assistant", engines={"model": {"enabled": True}, "local": {"breaker": "auto"}}
    )
    assert [place.name for place in chain.states] == ["model", "local"]
    assert chain.states[1].breaker.view(0.0).forced is None


def test_what_would_hold_without_a_chains_own_changes_can_be_asked(worker):
    one = worker(chains={"assistant": {"retries": 2}})
    one.live.configure("*", timeout=4)
    one.live.configure("assistant", timeout=3, retries=0, engines={"model": {"tier": 7}})
    base = one.live.get_policy("assistant", own=False)
    assert (base.timeout, base.retries) == (4, 2)
    assert one.live.get_engine_options("assistant", own=False) == {}


def test_changes_add_up_and_none_takes_one_back(worker):
    one = worker()
    one.live.configure("assistant", timeout=3)
    one.live.configure("assistant", retries=1)
    one.live.configure("assistant", timeout=None)
    policy = one.chains["assistant"].policy
    assert (policy.timeout, policy.retries) == (10, 1)
    assert one.live.changes()["assistant"].options == {"retries": 1}


def test_all_is_taken_back_everywhere(worker):
    here, there = worker(), worker()
    here.live.configure("*", timeout=3)
    there.live.poll()
    there.live.reset()
    here.live.poll()
    assert [w.chains["search"].policy.timeout for w in (here, there)] == [10, 10]
    assert here.live.changes() == {}


def test_a_change_ends_by_itself(worker, clock):
    here, there = worker(), worker()
    here.live.configure("assistant", timeout=3, lasts=60)
    there.live.poll()
    clock.advance(61)
    for one in (here, there):
        one.live.poll()
        assert one.chains["assistant"].policy.timeout == 10


@pytest.mark.parametrize("chain", ["assistant", "*"])
def test_an_attempt_that_the_deadline_in_force_ends_is_refused(worker, chain):
    live = worker(chain_defaults={"timeout": 20}).live
    with pytest.raises(ConfigError, match=r"attempt_timeout 30\.0: is longer .* 20 seconds"):
        live.configure(chain, attempt_timeout=30)
    live.configure(chain, attempt_timeout=30, timeout=30)
    live.configure(chain, timeout=10, attempt_timeout=None)


def test_where_no_chain_has_an_engine_the_error_says_so(worker):
    one = worker()
    one.chains = {}
    with pytest.raises(ConfigError, match="belongs to it; no chain has an engine yet"):
        one.live.configure("assistant", timeout=3)


@pytest.mark.parametrize(
    ("chain", "options", "words"),
    [
        ("asistant", {}, "did you mean 'assistant'"),
        ("assistant", {"timeuot": 3}, "timeuot.*did you mean 'timeout'"),
        ("assistant", {"timeout": -3}, "timeout -3: must be"),
        ("assistant", {"engines": {"modle": {"tier": 2}}}, "'modle'.*did you mean 'model'"),
        ("assistant", {"engines": {"model": {"teir": 2}}}, "teir.*did you mean 'tier'"),
        ("assistant", {"engines": {"model": 2}}, "must be a dict"),
        ("assistant", {"engines": {"model": {"chaos": {"rate": 2}}}}, "rate 2"),
        ("assistant", {"retry_on": ["os.system"]}, "no dotted names"),
        ("assistant", {"lasts": 0}, "above 0"),
        ("assistant", {"lasts": timedelta(1)}, "lasts .* must be seconds, a number above 0"),
        ("assistant", {"lasts": "60"}, "lasts '60': must be seconds"),
        ("assistant", {"lasts_s": 60}, "is now called lasts"),
    ],
)
def test_what_cannot_work_is_refused_whole(worker, chain, options, words):
    one = worker()
    one.live.configure("assistant", retries=1)
    with pytest.raises(ConfigError, match=words):
        one.live.configure(chain, **{"timeout": 5, **options})
    assert one.live.changes()["assistant"].options == {"retries": 1}
    assert one.chains["assistant"].policy.timeout == 10


@pytest.mark.parametrize(
    "planted",
    [
        "text",
        {"assistant": 3},
        {"assistant": {"options": {"timeout": "x"}, "until": 2e12}},
        {"assistant": {"options": {"retry_on": ["os.path"]}, "until": 2e12}},
        {"assistant": {"options": {"engines": {"none": {"tier": 2}}}, "until": 2e12}},
        {"nobody": {"options": {}, "until": 2e12}},
    ],
)
def test_whatever_is_planted_in_the_hub_changes_nothing(worker, hub, clock, planted):
    one = worker()
    for whole in (planted, {"at": clock.time(), "changes": planted}):
        hub.put("live:settings:2", whole, 60)
        one.live.poll()
        assert one.chains["assistant"].policy.timeout == 10
        assert one.chains["assistant"].call().engine == "model"
    one.live.configure("assistant", timeout=3)  # and does not stay in the way
    assert one.chains["assistant"].policy.timeout == 3


deep = {"a": 1}
for _ in range(5000):
    deep = {"a": deep}
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.just("deep").map(lambda _: deep) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "options", "until", "assistant", "*", "engines", "model", "chaos", "timeout",
            "retry_on", "delays", "breaker", "tier", "balance", "rate", "error", "",
        ]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


class Planted(MemoryHub):
    """A hub that somebody else writes to, whatever it would encode itself."""

    value = None

    def get(self, key):
        return super().get(key) if self.value is None else self.value

    def put(self, key, value, ttl):
        self.value = None
        super().put(key, value, ttl)


@given(json_like)
@settings(max_examples=150)
def test_nothing_in_the_hub_breaks_a_look(planted):
    clock = FakeClock()
    hub = Planted("memory://", clock)
    one = Worker(hub, clock, Settings())
    for number, changes in enumerate([planted, {"assistant": planted}, {"assistant": {
            "options": planted, "until": clock.time() + 60}}], 1):  # fmt: skip
        hub.value = {"at": clock.time() + number, "changes": changes}
        one.live.poll()
        assert one.chains["assistant"].call().engine in ("model", "local")
    one.live.reset()
    assert one.chains["assistant"].policy == ChainPolicy()


def test_no_change_lasts_longer_or_comes_from_further_ahead_than_may_be(worker, hub, clock):
    one = worker()
    change = {"options": {"timeout": 3}, "until": 1e300}
    hub.put("live:settings:2", {"at": clock.time() + 1e6, "changes": {"assistant": change}}, 1e9)
    one.live.poll()
    assert one.live.changes() == {}
    hub.put("live:settings:2", {"at": clock.time(), "changes": {"assistant": change}}, 1e9)
    one.live.poll()
    assert one.chains["assistant"].policy.timeout == 3
    clock.advance(30 * 86_400 + 1)
    one.live.poll()
    assert one.chains["assistant"].policy.timeout == 10


def test_a_hub_that_lost_its_memory_gets_it_back(worker, hub):
    here, there = worker(), worker()
    here.live.configure("assistant", timeout=3)
    there.live.poll()
    hub.put("live:settings:2", None, 60)
    there.live.poll()
    assert there.chains["assistant"].policy.timeout == 3
    late = worker()
    late.live.poll()
    assert late.chains["assistant"].policy.timeout == 3
    late.live.reset()
    for one in (here, there):
        one.live.poll()
        assert one.chains["assistant"].policy.timeout == 10


def test_what_was_changed_while_the_hub_was_away_holds_when_it_is_back(worker, hub, clock):
    here, there = worker(), worker()
    here.live.configure("assistant", timeout=3)
    old = hub.get("live:settings:2")
    clock.advance(1)
    here.live.configure("assistant", timeout=5)
    hub.put("live:settings:2", old, 60)  # it has not heard of it
    for one in (here, there):
        one.live.poll()
    assert there.chains["assistant"].policy.timeout == 5


def test_an_operator_whose_clock_is_behind_is_heard(worker, hub, clock):
    there = worker()
    there.live.configure("assistant", timeout=3)
    behind = FakeClock(clock.time() - 60)
    here = Worker(hub, behind, Settings())
    here.live.configure("assistant", timeout=5)
    there.live.poll()
    assert there.chains["assistant"].policy.timeout == 5


def test_two_operators_at_once_lose_nothing():
    clock = SystemClock()

    class Slow(MemoryHub):
        def put(self, key, value, ttl):
            time.sleep(0.02)  # what the other one read meanwhile is out of date
            super().put(key, value, ttl)

    hub = Slow("memory://", clock)
    workers = [Worker(hub, clock, Settings()) for _ in range(4)]
    together = threading.Barrier(4)

    def operate(number, one):
        together.wait(PATIENCE_S)
        chain = ("assistant", "search")[number % 2]
        one.live.configure(chain, **{("timeout", "retries")[number // 2]: number + 1})

    threads = [threading.Thread(target=operate, args=pair) for pair in enumerate(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    late = Worker(hub, clock, Settings())
    late.live.poll()
    assert {name: one.options for name, one in late.live.changes().items()} == {
        "assistant": {"timeout": 1, "retries": 3},
        "search": {"timeout": 2, "retries": 4},
    }


def test_an_operator_does_not_wait_for_ever_for_another_one(worker, hub, clock):
    one = worker()
    held = hub.lease("live", 1000.0)
    one.live.configure("assistant", timeout=3)
    assert one.chains["assistant"].policy.timeout == 3
    held.release()


def test_changes_that_are_too_many_are_refused(worker):
    one = worker()
    one.live.configure("assistant", retries=1)
    with pytest.raises(ConfigError, match="200000 bytes"):
        one.live.configure("assistant", engines={"model": {"chaos": {"error": "x" * 300_000}}})
    assert one.live.changes()["assistant"].options == {"retries": 1}


def test_a_change_that_cannot_be_applied_to_one_chain_is_taken_back_from_all(worker):
    one = worker()
    one.chains["search"].add(EngineSpec(CallableEngine("web", lambda call: "web"), "search", 3))
    with pytest.raises(ConfigError, match="rate 2"):
        one.live.configure("*", timeout=3, engines={"web": {"chaos": {"rate": 2}}})
    assert {chain.policy.timeout for chain in one.chains.values()} == {10}


def test_a_change_of_every_chain_finds_an_engine_where_it_is(worker):
    one = worker()
    one.chains["search"].add(EngineSpec(CallableEngine("web", lambda call: "web"), "search", 3))
    one.live.configure("*", engines={"web": {"enabled": False}})
    assert [place.name for place in one.chains["search"].states] == ["model", "local"]
    with pytest.raises(ConfigError, match=r"'wbe'.*did you mean 'web'"):
        one.live.configure("*", engines={"wbe": {"enabled": False}})


def test_a_change_of_an_engine_that_is_gone_is_in_nobodys_way(worker, hub, clock):
    old = worker()
    old.chains["search"].add(EngineSpec(CallableEngine("web", lambda call: "web"), "search", 3))
    old.live.configure("search", engines={"web": {"enabled": False}})
    new = worker()
    new.live.configure("search", timeout=3)
    assert new.chains["search"].policy.timeout == 3
    new.live.configure("search", engines={"web": None})
    assert new.live.changes()["search"].options == {"timeout": 3}


def test_a_worker_looks_as_soon_as_it_starts(worker):
    here, there = worker(), worker()
    here.live.configure("assistant", timeout=3)
    there.live.start()
    there.live._scheduler.run_pending()
    assert there.chains["assistant"].policy.timeout == 3


def test_a_call_under_way_ends_as_it_began(worker):
    one = worker()
    chain = one.chains["assistant"]

    def changes_meanwhile(call):
        one.live.configure("assistant", engines={"local": {"enabled": False}}, retries=0)
        raise Transient("down")

    chain.add(EngineSpec(CallableEngine("zero", changes_meanwhile), "assistant", 1))
    one.live.configure("assistant", engines={"model": {"enabled": False}})
    assert chain.call().engine == "local"
    with pytest.raises(ChainExhausted):
        chain.call()


def test_what_was_counted_stays(worker):
    one = worker(chains={"assistant": {"engines": {"model": {"max_concurrency": 2}}}})
    chain = one.chains["assistant"]
    breaker, budget = chain.states[0].breaker, chain.budget
    one.live.configure("assistant", breaker_min_calls=3, engines={"model": {"tier": 5}})
    (place,) = [place for place in chain.states if place.name == "model"]
    assert place.breaker is breaker
    assert breaker.min_calls == 3
    assert chain.budget is budget


def test_a_breaker_is_held_open_and_let_go(worker):
    one = worker()
    chain = one.chains["assistant"]
    one.live.configure("assistant", engines={"model": {"breaker": "open"}})
    assert chain.call().engine == "local"
    one.live.configure("assistant", engines={"model": {"breaker": None}})
    assert chain.call().engine == "model"


def test_chaos_comes_and_goes(worker):
    one = worker()
    chain = one.chains["assistant"]
    one.live.configure(
        "assistant", engines={"model": {"chaos": {"rate": 1, "error": "Unsupported"}}}
    )
    assert chain.call().engine == "local"
    one.live.configure("assistant", engines={"model": {"chaos": None}})
    assert chain.call().engine == "model"


def test_changes_of_others_are_looked_for_each_second(worker, clock):
    here, there = worker(), worker()
    there.live.start()
    here.live.configure("assistant", timeout=3)
    clock.advance(1)
    there.live._scheduler.run_due()
    assert there.chains["assistant"].policy.timeout == 3


def test_an_app_is_configured_in_one_line():
    app = Flask("live")
    app.config["TESTING"] = True
    om = OpenManager(app)
    om.add_engine(CallableEngine("model", lambda call: "fine"), chain="assistant")
    om.configure("assistant", timeout=3)
    assert om.chain("assistant").policy.timeout == 3
    om.runtime.part_of("chains").live.reset("assistant")
    assert om.chain("assistant").policy.timeout == 10


NEWS = {"live settings", "engine-news"}


def start_with(*names):
    runtime = Runtime(Settings(hub_url="memory://"), host=Host(testing=True))
    for name in names:
        runtime.add_engine(EngineSpec(StaticEngine(name, {}), "c"))
    runtime.start()
    return runtime


def test_an_application_without_engines_reads_no_news_of_them():
    runtime = start_with()
    assert not NEWS & runtime.scheduler._periodic.keys()
    assert not runtime.scheduler.run_pending()
    runtime.close()


def test_the_first_engine_begins_to_read_news_and_the_next_ones_change_nothing():
    runtime = start_with()
    for name, chain in (("a", "c"), ("b", "c"), ("a", "other")):
        runtime.add_engine(EngineSpec(StaticEngine(name, {}), chain))
        assert runtime.scheduler._periodic.keys() >= NEWS
    assert runtime.scheduler.run_pending() == 1
    runtime.close()


def test_an_application_with_engines_reads_news_from_its_start():
    runtime = start_with("a", "b")
    assert runtime.scheduler._periodic.keys() >= NEWS
    runtime.start()
    runtime.close()


def test_an_engine_before_the_start_begins_nothing():
    runtime = Runtime(Settings(hub_url="memory://"), host=Host(testing=True))
    runtime.add_engine(EngineSpec(StaticEngine("a", {}), "c"))
    assert not runtime.scheduler._periodic
    runtime.close()

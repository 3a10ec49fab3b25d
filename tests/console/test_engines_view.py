"""What the engines' page says of chains and engines."""

from __future__ import annotations

import pytest

from om_plugins import Settings
from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.console.dashboard import Dashboard
from om_plugins.console.engines_view import build_board
from om_plugins.errors import RateLimited, Transient
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import EngineSpec


class Probed(CallableEngine):
    def probe(self, call):
        """Well."""


@pytest.fixture
def runtime():
    settings = Settings(
        hub_url="memory://",
        secret_key=b"x" * 32,
        chain_defaults={"breaker_min_calls": 3},
        chains={"assistant": {"retries": 0, "engines": {"model": {"max_concurrency": 8}}}},
    )
    runtime = Runtime(settings, clock=FakeClock(), host=Host(testing=True))
    yield runtime
    runtime.close()


@pytest.fixture
def look(runtime):
    picture = Dashboard(runtime.kit)

    def look():
        runtime.clock.advance(1)  # a picture is kept that long
        return build_board(runtime.kit, picture.read())

    return look


def add(runtime, name, answer=lambda call: "yes", tier=1, kind=CallableEngine, **traits):
    engine = kind(name, answer, **traits)
    runtime.add_engine(EngineSpec(engine, "assistant", tier))
    return engine


def fail(call):
    raise Transient("no")


def test_engines_stand_by_tier_with_their_traffic(runtime, look):
    add(runtime, "spare", tier=2)
    add(runtime, "model")
    runtime.part_of("chains").get("assistant").call()
    made = look()
    (chain,) = made.chains
    assert chain["name"] == "assistant"
    ids = {one["name"]: one["id"] for one in chain["engines"]}
    assert made.orders[chain["id"]] == [ids["model"], ids["spare"]]
    model = ids["model"]
    said = {name: made.texts[f"{model}.{name}"] for name in ("health", "calls", "failed", "flight")}
    assert said == {"health": "healthy", "calls": "1", "failed": "0\u00a0%", "flight": "0 of 8"}
    assert made.texts[f"{ids['spare']}.flight"] == "–"


def test_an_open_breaker_says_when_it_probes_next_and_how_often_it_opened(runtime, look):
    add(runtime, "model", fail)
    for _ in range(3):
        with pytest.raises(Exception, match="engine"):
            runtime.part_of("chains").get("assistant").call()
    made = look()
    assert made.texts["c0e0.breaker"] == "breaker open"
    assert made.levels["c0e0.breaker"] == "bad"
    assert made.texts["c0e0.next"] == "in 9 s"
    assert made.texts["c0e0.opened"] == "1 time"
    assert made.texts["c0e0.error"] == "Transient"
    runtime.clock.advance(10)
    made = look()
    assert (made.texts["c0e0.breaker"], made.texts["c0e0.next"]) == (
        "breaker half-open", "the next call"
    )  # fmt: skip


def test_a_forced_breaker_and_an_engine_that_is_off_say_so(runtime, look):
    add(runtime, "model")
    add(runtime, "spare", tier=2)
    engines = {"model": {"breaker": "open"}, "spare": {"enabled": False}}
    runtime.part_of("chains").live.configure("assistant", engines=engines)
    made = look()
    assert made.texts["c0e0.breaker"] == "breaker forced open"
    assert made.texts["c0e0.next"] == "–"
    assert made.flags["c0e0.is_open"] and not made.flags["c0e0.is_auto"]
    assert made.texts["c0e1.health"] == "switched off"
    assert not made.flags["c0e1.enabled"]
    assert made.flags["c0e0.changed"] and made.flags["c0e1.changed"]


def test_what_is_set_aside_says_why_and_for_how_long(runtime, look):
    def busy(call):
        raise RateLimited("slow down", retry_after=30)

    add(runtime, "model", busy)
    with pytest.raises(Exception, match="engine"):
        runtime.part_of("chains").get("assistant").call()
    assert look().texts["c0e0.aside"] == "cooling down, 29 s"


def test_one_of_several_equals_is_ejected_for_a_while(runtime, look):
    add(runtime, "model")
    add(runtime, "other")
    runtime.part_of("chains").get("assistant").states[0].ejection.begin(runtime.clock.monotonic())
    made = look()
    assert made.texts["c0e0.aside"] == "asked last, 29 s"
    assert (made.texts["c0e0.flight"], made.texts["c0e1.flight"]) == ("0 of 8", "0")


def test_the_last_probe_is_told(runtime, look):
    add(runtime, "bare")
    add(runtime, "model", tier=2, kind=Probed)
    assert [look().texts[f"c0e{i}.probe"] for i in (0, 1)] == ["has none", "–"]
    breaker = runtime.part_of("chains").get("assistant").states[1].breaker
    breaker.note_probe(False, 1000.0, runtime.clock.monotonic())
    assert look().texts["c0e1.probe"] == "failed 1 ×, now"
    breaker.note_probe(True, 1000.0, runtime.clock.monotonic())
    runtime.clock.advance(60)
    assert look().texts["c0e1.probe"] == "well, 1 min ago"


def test_settings_that_are_changed_live_say_until_when_and_what_holds_otherwise(runtime, look):
    add(runtime, "model")
    assert look().values["c0.timeout"] == "10"
    runtime.part_of("chains").live.configure(
        "assistant", timeout=3, lasts=3600, engines={"model": {"weight": 2}}
    )
    made = look()
    assert made.values["c0.timeout"] == "3"
    assert made.flags["c0.timeout"] and not made.flags["c0.retries"]
    assert made.texts["c0.timeout.note"] == "until 23:13 UTC; otherwise 10"
    assert made.texts["c0.until"] == "changed live, until 23:13 UTC"
    assert made.texts["c0.amount"] == "1 changed"
    assert made.texts["c0e0.weight.note"] == "otherwise 1"
    assert made.texts["c0.summary"].startswith("timeout 3 s · 0 retries · budget 20\u00a0% · round")


def test_a_change_of_every_chain_is_told_where_it_holds(runtime, look):
    add(runtime, "model")
    runtime.part_of("chains").live.configure("*", timeout=3)
    made = look()
    assert made.values["c0.timeout"] == "3"
    assert made.texts["c0.timeout.note"].startswith("for every chain, until 15 Nov 22:13")
    assert not made.flags["c0.timeout"]  # it is not this chain's to take back
    assert made.texts["every"].startswith("For every chain: timeout 3; until")


def test_all_chains_have_settings_of_their_own_to_change_at_once(runtime, look):
    add(runtime, "model")
    assert (look().values["every.timeout"], look().flags["every.timeout"]) == ("10", False)
    runtime.part_of("chains").live.configure("*", timeout=3, lasts=3600)
    runtime.part_of("chains").live.configure("assistant", retries=2)
    made = look()
    assert (made.values["every.timeout"], made.flags["every.timeout"]) == ("3", True)
    note = "until 23:13 UTC; otherwise 10, or as a chain says"
    assert made.texts["every.timeout.note"] == note
    assert (made.texts["every.amount"], made.values["every.retries"]) == ("1 changed", "3")


def test_what_all_workers_know_says_whether_an_engine_is_asked(runtime, look):
    add(runtime, "model")
    add(runtime, "other")
    assert look().texts["c0e0.asked"] == "in its turn"
    runtime.part_of("chains").get("assistant").states[0].ejection.begin(runtime.clock.monotonic())
    runtime.part_of("chains").live.configure("assistant", engines={"other": {"breaker": "open"}})
    made = look()
    assert made.texts["c0e0.asked"] == "last of its tier"
    assert made.texts["c0e1.asked"] == "never, forced open"
    runtime.part_of("chains").live.configure("assistant", engines={"model": {"breaker": "closed"}})
    made = look()
    assert made.texts["c0e0.asked"] == "always, held closed, last of its tier"
    assert made.texts["c0e0.breaker"] == "breaker held closed"


def test_a_probe_that_only_another_worker_has_heard_of_is_told_too(runtime):
    add(runtime, "model", kind=Probed)
    picture = Dashboard(runtime.kit).read()
    picture["engines"][0]["probed_at"] = runtime.clock.time() - 60
    assert build_board(runtime.kit, picture).texts["c0e0.probe"] == "elsewhere, 1 min ago"


def test_chaos_says_how_many_calls_it_hit(runtime, look):
    add(runtime, "model")
    runtime.part_of("chains").live.configure(
        "assistant", engines={"model": {"chaos": {"rate": 1, "garble": "type"}}}
    )
    assert look().texts["c0e0.chaos"] == "chaos, no call yet"
    runtime.part_of("chains").get("assistant").call()
    made = look()
    assert made.texts["c0e0.chaos"] == "chaos, 1 of 1 calls hit"
    assert (made.values["c0e0.rate"], made.values["c0e0.garble"]) == ("1", "type")

"""What holds for every call of every chain, whatever operators change meanwhile."""

from __future__ import annotations

import collections
import gc
import itertools
import random
import threading
import time
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from om_plugins.chains.chain import EngineChain
from om_plugins.chains.options import BALANCES, ChainPolicy, EngineOptions
from om_plugins.errors import (
    AttemptTimeout,
    CallerDeadline,
    ChainExhausted,
    ConfigError,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    TooLong,
    Transient,
)
from om_plugins.policies.error_table import may_have_run, may_retry
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import EngineSpec, EngineTraits
from tests.patience import HANG_S, join

HEDGE_S = 0.05

sent = st.sampled_from(["no", "maybe", "yes"])
errors = st.one_of(
    st.builds(lambda s: Transient("x", sent=s), sent),
    st.builds(lambda r: RateLimited("x", retry_after=r), st.none() | st.floats(0, 3)),
    st.sampled_from([AttemptTimeout, TooLong, Misconfigured, ValueError, InvalidRequest]).map(
        lambda kind: kind("x")
    ),
)
steps = st.tuples(
    st.one_of(st.just("fine"), st.just("fine"), errors),
    st.sampled_from([0.0, 0.01, 0.1, 1.0, 4.0]),
)
engines = st.fixed_dictionaries(
    {
        "steps": st.lists(steps, min_size=1, max_size=4),
        "idempotent": st.booleans(),
        "hedge_safe": st.booleans(),
        "local": st.booleans(),
        "patient": st.booleans(),  # goes on after its time is over
        "max_concurrency": st.none() | st.integers(1, 2),
        "weight": st.sampled_from([0.5, 1.0, 3.0]),
    }
)
tiers = st.lists(st.lists(engines, min_size=1, max_size=3), min_size=1, max_size=3)
policies = st.fixed_dictionaries(
    {
        "retries": st.integers(0, 3),
        "attempt_timeout": st.none() | st.sampled_from([0.05, 2.0]),
        "at_most_once": st.booleans(),
        "balance": st.sampled_from(BALANCES),
        "hedge": st.sampled_from([0.0, 0.9, 0.95]),
        "eject_after": st.integers(0, 3),
        "retry_on": st.none() | st.just((Transient, AttemptTimeout)),
        "give_up_on": st.sampled_from([(), (Transient,), (ValueError,)]),
        "retry_sleep": st.none() | st.just(0.5),
        "breaker_min_calls": st.sampled_from([1, 3, 100_000]),
        "breaker_half_open_permits": st.integers(1, 3),
    }
).map(lambda given: ChainPolicy(**given, breaker_window=3600.0))
options = st.fixed_dictionaries(
    {},
    optional={
        "tier": st.integers(1, 3),
        "enabled": st.booleans(),
        "max_concurrency": st.integers(0, 2),
        "breaker": st.sampled_from(["auto", "open", "closed"]),
        "weight": st.sampled_from([0.001, 1.0]),
    },
).map(EngineOptions.from_mapping)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.none() | st.booleans(), st.sampled_from([0.02, 1.0, 10.0])),
        st.tuples(st.just("stream"), st.sampled_from(["read", "drop", "keep", "close"])),
        st.tuples(st.just("configure"), policies),
        st.tuples(st.just("options"), st.integers(0, 8), options),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 11.0, 40.0])),
    ),
    min_size=1,
    max_size=14,
)


class Model:
    """A chain, and what must be true of each of its calls."""

    def __init__(self, tiers, policy):
        self.clock = FakeClock()
        self.naps = []
        self.ends_at = 0.0
        self.asked = []
        self.spent = False
        self.last_error = {}
        self.well = collections.Counter()
        self.kept = []
        self.forced = set()
        sleep = self.clock.sleep

        def watched(seconds):
            assert seconds >= 0
            assert self.clock.monotonic() + seconds <= self.ends_at
            sleep(seconds)

        self.clock.sleep = watched
        self.chain = EngineChain("c", policy, clock=self.clock)
        self.specs = {}
        for tier, members in enumerate(tiers, 1):
            for spec in members:
                name = f"e{len(self.specs)}"
                self.specs[name] = spec
                engine = Modelled(name, spec, self)
                self.chain.add(EngineSpec(engine, "c", tier, spec["weight"]))
        self.warm()

    def warm(self):
        for place in self.chain.all_states:
            times = place.traffic and place.traffic.latency
            while times and times.value_s is None:
                times.record(HEDGE_S / 1.1)

    # --- what an engine finds when it is asked ---

    def about_to_ask(self, name, call):
        policy = self.chain.policy
        (place,) = [one for one in self.chain.states if one.name == name]
        said = self.chain.options.get(name, EngineOptions())
        assert said.enabled
        assert said.breaker != "open"
        assert call.attempt == len(self.asked) + 1
        assert call.tier == place.tier
        assert not self.asked or self.asked[-1][1] <= place.tier
        if not place.local:
            assert call.remaining() > 0
            assert call.attempt_deadline <= self.ends_at
            assert not (policy.at_most_once and self.spent)
        times = [one for one, _, _ in self.asked].count(name)
        assert times <= policy.retries + 1  # and one hedge
        if times:
            _, _, error = [one for one in self.asked if one[0] == name][-1]
            idempotent = place.idempotent if call.idempotent is None else call.idempotent
            hedged = policy.hedge and isinstance(error, AttemptTimeout) and idempotent
            assert hedged or (
                may_retry(error, idempotent)
                and not isinstance(error, policy.give_up_on)
                and (policy.retry_on is None or isinstance(error, policy.retry_on))
            )
        self.asked.append((name, place.tier, None))
        return place

    def failed(self, place, error):
        self.asked[-1] = (place.name, place.tier, error)
        if not place.local and may_have_run(error):
            self.spent = True
        raise error

    # --- what is done ---

    def do(self, action, *details):
        getattr(self, f"do_{action}")(*details)

    def do_call(self, idempotent, timeout, stream=False):
        self.asked, self.spent = [], False
        self.ends_at = self.clock.monotonic() + timeout
        try:
            answer = self.chain.call(timeout=timeout, idempotent=idempotent, stream=stream)
        except InvalidRequest:
            return None
        except ConfigError:
            assert not self.chain.all_states
            return None
        except (ChainExhausted, CallerDeadline) as error:
            told = {one.engine for one in error.attempts}
            tried = self.chain.states or self.chain.all_states  # who is off, where nobody is on
            assert told == {place.name for place in tried}
            self.check_history(error.attempts, len(self.asked))
            return None
        assert answer.attempts == len(self.asked)
        assert (answer.engine, answer.tier) == self.asked[-1][:2]
        assert answer.degraded == any(one.tier != answer.tier for one in answer.history)
        self.check_history(answer.history, len(self.asked) - 1)
        if not stream:
            self.well[answer.engine] += 1
        return answer

    def check_history(self, history, failures):
        assert sum(not one.skipped for one in history) == failures

    def do_stream(self, end):
        answer = self.do_call(None, 10.0, stream=True)
        if answer is None:
            return
        if end == "read":
            assert list(answer) == ["fi", "ne"]
            self.well[answer.engine] += 1
        elif end == "close":
            answer.close()
        elif end == "keep":
            self.kept.append(answer)

    def do_configure(self, policy):
        self.chain.configure(policy)
        self.warm()

    def do_options(self, number, said):
        names = list(self.specs)
        name = names[number % len(names)]
        if said.breaker != "auto":
            self.forced.add(name)
        self.chain.configure(options={**self.chain.options, name: said})
        self.warm()

    def do_wait(self, seconds):
        self.clock.advance(seconds)


class Modelled:
    """An engine that says what it finds, and does as its steps say."""

    def __init__(self, name, spec, model):
        self.name = name
        self.model = model
        self.patient = spec["patient"]
        self.steps = itertools.cycle(spec["steps"])
        self.traits = EngineTraits(
            streaming=True,
            idempotent=spec["idempotent"],
            hedge_safe=spec["hedge_safe"],
            local=spec["local"],
            max_concurrency=spec["max_concurrency"],
        )

    def call(self, call):
        model = self.model
        place = model.about_to_ask(self.name, call)
        step, takes_s = next(self.steps)
        if takes_s > call.remaining() and not self.patient:
            model.clock.advance(max(call.remaining(), 0.0))
            model.failed(place, AttemptTimeout("too slow", sent="yes"))
        model.clock.advance(takes_s)
        if isinstance(step, Exception):
            model.failed(place, step)
        return iter(["fi", "ne"]) if call.stream else step


@given(tiers=tiers, policy=policies, actions=actions)
@settings(max_examples=120)
def test_every_call_of_every_chain_keeps_the_rules(tiers, policy, actions):
    model = Model(tiers, policy)
    for action in actions:
        model.do(*action)
    for answer in model.kept:
        answer.close()
    gc.collect(0)
    now = model.clock.monotonic()
    for place in model.chain.all_states:
        assert place.in_flight == 0
        assert not place.breaker._probes.any_out(now)
        assert model.chain._breakers._bulkheads == {} or all(
            shared.bulkhead.in_use == 0 for shared in model.chain._breakers._bulkheads.values()
        )
        view = place.breaker.view(now)
        if place.breaker.permit and not view.opened and place.name not in model.forced:
            assert view.calls - view.failures == model.well[place.name]


# --- and under threads --------------------------------------------------------------------------


class Shaky:
    """An engine that answers, fails, streams and waits, as chance has it."""

    def __init__(self, name, **traits):
        self.name = name
        self.traits = EngineTraits(idempotent=True, streaming=True, **traits)

    def call(self, call):
        chance = random.random()
        if chance < 0.1:
            time.sleep(0.002)
        if chance > 0.9:
            raise Transient("x", sent="no")
        if chance > 0.85:
            raise KeyboardInterrupt
        if call.stream:
            return self.chunks(chance)
        return self.name

    def chunks(self, chance):
        yield 1
        if chance > 0.6:
            raise Transient("broken in the middle")
        yield 2


def test_nothing_is_kept_and_nothing_is_stuck_after_sixteen_threads():
    policy = ChainPolicy(
        delays=(0.002,), breaker_cooldown=0.05, breaker_cooldown_max=0.05, breaker_min_calls=5,
        bulkhead_wait=0.005, retry_budget=1.0, hedge=0.9, timeout=HANG_S,
    )  # fmt: skip
    chain = EngineChain("c", policy)
    for name in "abc":
        chain.add(EngineSpec(Shaky(name, max_concurrency=4, hedge_safe=True), "c", 1))
    chain.add(EngineSpec(Shaky("local", local=True), "c", 2))
    until = time.monotonic() + 2.5
    counts = collections.Counter()
    surprises = []

    def work():
        kept = []
        while time.monotonic() < until or counts["answered"] < 200:
            stream = random.random() < 0.4
            try:
                answer = chain.call(stream=stream)
                if stream:
                    kept.append(answer)  # some are never read
                    if random.random() < 0.5:
                        list(kept.pop())
                    elif len(kept) > 2:
                        kept.clear()
                counts["answered"] += 1
            except (ChainExhausted, Transient, KeyboardInterrupt):
                counts["failed"] += 1
            except BaseException as error:
                surprises.append(error)
                raise

    def operate():
        changes = itertools.cycle(
            [
                {"a": {"enabled": False}},
                {"a": {"max_concurrency": 1}, "b": {"tier": 2}},
                {"b": {"breaker": "open"}},
                {"c": {"breaker": "closed", "max_concurrency": 9}},
                {},
            ]
        )
        balances = itertools.cycle(BALANCES)
        while time.monotonic() < until:
            said = {name: EngineOptions.from_mapping(one) for name, one in next(changes).items()}
            chain.configure(replace(policy, balance=next(balances)), said)
            chain.health()
            time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(16)]
    threads.append(threading.Thread(target=operate))
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    gc.collect()
    assert surprises == []
    # A window of another length begins empty: however many calls this machine made in the time
    # above, one failure more now opens a breaker.
    chain.configure(replace(policy, breaker_min_calls=1, breaker_window=60.0), {})
    assert [place.in_flight for place in chain.all_states] == [0, 0, 0, 0]
    assert [
        (shared.bulkhead.in_use, shared.bulkhead.waiting)
        for shared in chain._breakers._bulkheads.values()
    ] == [(0, 0)] * 3
    for place in chain.states:  # each breaker lets a probe in, closes, and opens again
        time.sleep(0.06)
        now = time.monotonic()
        for _ in range(2):
            if not place.breaker.permit:
                permit = place.breaker.enter(now)
                assert permit, place.name
                place.breaker.leave(permit, now, 0.0)
        assert place.breaker.permit
        successes = place.breaker.view(now).calls
        assert successes <= 1  # the probe that closed it
        for _ in range(successes + 1):
            if place.breaker.permit:
                place.breaker.leave(place.breaker.permit, time.monotonic(), 0.0, failed=True)
        assert not place.breaker.permit

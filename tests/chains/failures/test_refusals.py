"""A refused call takes the engine from nobody else; only its own probe can take it offline."""

from __future__ import annotations

import contextlib
import threading

import pytest
from flask import Flask

from om_plugins import EngineTraits, OpenManager, StaticEngine
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.failures.refusals import ASK_EVERY_S, begin_no_probe
from om_plugins.chains.options import ChainPolicy
from om_plugins.errors import (
    AttemptTimeout,
    Cancelled,
    ChainExhausted,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)
from om_plugins.types import Call, EngineSpec
from tests.patience import wait_until


class Service:
    """Refuses the callers in ``refused`` with ``error``, and answers all others."""

    name = "one"
    traits = EngineTraits()

    def __init__(self, error: Exception, *refused: object) -> None:
        self.error = error
        self.refused = refused
        self.asked: list[object] = []

    def call(self, call):
        self.asked.append(call.payload)
        if call.payload in self.refused:
            raise self.error
        return "answer"


class ProbedService(Service):
    """A service with a probe, which raises ``verdict`` if that is an error."""

    def __init__(self, error: Exception, *refused: object, verdict: Exception | None = None):
        super().__init__(error, *refused)
        self.verdict = verdict
        self.probes: list[object] = []

    def probe(self, call):
        self.probes.append((call.payload, call.headers, call.remaining()))
        if self.verdict is not None:
            raise self.verdict


@pytest.fixture
def serve(clock, engine):
    """Make a chain whose second tier always answers; probes run where the call is refused."""

    def begin(ask):
        ask()
        return True

    def make(service, begin_probe=begin, **policy):
        chain = EngineChain(
            "chain", ChainPolicy(retries=0, **policy), clock=clock, begin_probe=begin_probe
        )
        chain.add(EngineSpec(service, "chain", 1))
        chain.add(EngineSpec(engine("two"), "chain", 2))
        return chain

    return make


def state_of(chain: EngineChain) -> str:
    return chain.health()[0].state.value


REFUSALS = [
    Misconfigured("401", status=401),
    Misconfigured("404", status=404),
    Unsupported("418"),
    TooLong("413"),
    RateLimited("429", retry_after=60, concerns_caller=True),
    Misconfigured("403", status=403, concerns_caller=True),
    Transient("told off", concerns_caller=True),
]


@pytest.mark.parametrize("error", REFUSALS, ids=repr)
@pytest.mark.parametrize("kind", [Service, ProbedService])
def test_one_callers_refusals_cost_no_other_caller_the_engine(serve, clock, kind, error):
    service = kind(error, "bad")
    chain = serve(service, breaker_min_calls=1)
    for _ in range(50):
        assert chain.call("bad").tier == 2
        assert chain.call("good").tier == 1
        clock.advance(1)
    assert state_of(chain) == "healthy"


def test_an_engine_without_a_probe_is_never_offline_but_degraded(serve, clock):
    service = Service(Misconfigured("no key"), "bad")
    chain = serve(service)
    for _ in range(2):
        chain.call("bad")
    assert state_of(chain) == "no data"
    chain.call("bad")
    assert state_of(chain) == "degraded"
    assert chain.health()[0].last_error == "Misconfigured"
    chain.call("bad")
    assert service.asked == ["bad"] * 4
    chain.call("good")
    assert state_of(chain) == "healthy"
    clock.advance(31)  # the answer has left the window, the refusals before it count no more
    chain.call("bad")
    assert state_of(chain) == "degraded"
    clock.advance(301)
    assert state_of(chain) == "no data"


def test_refusals_between_answers_are_no_refusals_in_a_row(serve, clock):
    chain = serve(Service(Misconfigured("404"), "bad"))
    for _ in range(5):
        chain.call("good")
        chain.call("bad")
    clock.advance(31)
    assert state_of(chain) == "no data"


def test_a_refused_probe_takes_the_engine_offline_and_an_accepted_one_brings_it_back(serve, clock):
    service = ProbedService(Misconfigured("401"), "a", "b", verdict=Misconfigured("401"))
    chain = serve(service, breaker_cooldown=10)
    assert chain.call("a").tier == 2
    assert state_of(chain) == "offline"
    assert chain.call("b").history[0].error.reason == "offline"
    assert service.asked == ["a"]
    assert [(payload, headers) for payload, headers, _ in service.probes] == [(None, None)]
    service.verdict = None  # the operator gave it the right key
    clock.advance(10)
    assert chain.call("b").tier == 2, "this caller is still refused"
    assert len(service.probes) == 2
    assert state_of(chain) != "offline"
    assert chain.call("c").tier == 1


def test_a_call_that_succeeds_after_the_offline_time_brings_the_engine_back(serve, clock):
    service = ProbedService(Misconfigured("401"), "a", verdict=Misconfigured("401"))
    chain = serve(service, breaker_cooldown=10)
    chain.call("a")
    clock.advance(9)
    assert chain.call("c").tier == 2
    clock.advance(1)
    assert chain.call("c").tier == 1
    assert state_of(chain) == "healthy"


@pytest.mark.parametrize(
    "verdict",
    [None, Transient("down"), RateLimited("later"), NotImplementedError(), ValueError("a bug"),
     AttemptTimeout(), Unsupported("?"), Misconfigured("403", concerns_caller=True)],
    ids=repr,
)  # fmt: skip
def test_only_a_probe_that_is_refused_takes_the_engine_offline(serve, verdict):
    service = ProbedService(Misconfigured("403"), "bad", verdict=verdict)
    chain = serve(service)
    for _ in range(3):
        chain.call("bad")
    assert len(service.probes) == 1
    assert chain.call("good").tier == 1


def test_an_engine_that_answers_is_not_offline_whatever_its_probe_says(serve, clock):
    service = ProbedService(Misconfigured("404"), "bad", verdict=Misconfigured("wrong health_url"))
    chain = serve(service)
    for _ in range(100):
        assert chain.call("good").tier == 1
        assert chain.call("bad").tier == 2
        clock.advance(5)
    assert state_of(chain) == "healthy"
    assert len(service.probes) == 50, "once in ten seconds"


def test_a_probe_that_is_refused_although_the_engine_answers_is_not_believed(serve, clock, caplog):
    wrong = Misconfigured("wrong health_url")
    service = ProbedService(Misconfigured("404"), "bad", verdict=wrong)
    chain = serve(service, breaker_cooldown=10)
    chain.call("bad")
    assert state_of(chain) == "offline"
    clock.advance(10)
    assert chain.call("good").tier == 1
    assert "'one' refuses its own probe and answers calls" in caplog.text
    for _ in range(20):  # more seldom than a breaker remembers
        clock.advance(60)
        assert chain.call("bad").tier == 2
        assert chain.call("good").tier == 1
    assert caplog.text.count("refuses its own probe") == 1
    service.verdict = None  # the operator corrects it
    clock.advance(60)
    chain.call("bad")
    service.verdict = wrong
    clock.advance(60)
    chain.call("bad")
    assert state_of(chain) == "offline", "it is believed again"


def test_a_probe_that_is_accepted_after_the_repair_is_believed_the_next_time(serve, clock, caplog):
    service = ProbedService(Misconfigured("401"), "bad", verdict=Misconfigured("401"))
    chain = serve(service, breaker_cooldown=10)
    for _ in range(3):
        service.verdict = Misconfigured("401")
        chain.call("bad")
        assert state_of(chain) == "offline"
        service.verdict = None
        clock.advance(10)
        assert chain.call("good").tier == 1
        clock.advance(60)
    assert "refuses its own probe" not in caplog.text


def test_the_probe_is_asked_once_in_a_while_however_many_calls_are_refused(serve, clock):
    service = ProbedService(Misconfigured("404"), "bad")
    chain = serve(service)
    for _ in range(100):
        chain.call("bad")
    assert len(service.probes) == 1
    clock.advance(ASK_EVERY_S)
    for _ in range(100):
        chain.call("bad")
    assert len(service.probes) == 2


def test_a_probe_that_runs_is_not_asked_again_and_no_call_waits_for_it(serve, clock):
    waiting = []

    def begin(ask):
        waiting.append(ask)
        return True

    service = ProbedService(Misconfigured("404"), "bad", verdict=Misconfigured("404"))
    chain = serve(service, begin)
    for _ in range(3):
        chain.call("bad")
        clock.advance(2 * ASK_EVERY_S)
    assert len(waiting) == 1
    waiting[0]()
    assert state_of(chain) == "offline"


def test_where_nobody_probes_no_call_takes_the_engine_offline(serve, clock):
    service = ProbedService(Misconfigured("404"), "bad", verdict=Misconfigured("404"))
    chain = serve(service, begin_no_probe)
    for _ in range(3):
        chain.call("bad")
        clock.advance(2 * ASK_EVERY_S)
    assert service.probes == []
    assert chain.call("good").tier == 1


def test_a_probe_that_could_not_begin_is_asked_for_by_a_later_refusal(serve, clock):
    service = ProbedService(Misconfigured("404"), "bad")
    tries = []

    def begin(ask):
        tries.append(ask)
        if len(tries) == 1:
            return False
        ask()
        return True

    chain = serve(service, begin)
    chain.call("bad")
    clock.advance(ASK_EVERY_S)
    chain.call("bad")
    assert len(service.probes) == 1


def test_by_default_the_probe_runs_on_a_thread_of_its_own():
    threads = []

    class Local(ProbedService):
        def probe(self, call):
            threads.append(threading.current_thread())
            raise Misconfigured("401")

    chain = EngineChain("chain", ChainPolicy(retries=0))
    chain.add(EngineSpec(Local(Misconfigured("401"), "bad"), "chain"))
    with pytest.raises(ChainExhausted):
        chain.call("bad")
    wait_until(lambda: state_of(chain) == "offline")
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon


@pytest.mark.parametrize(
    "error",
    [Unsupported("?"), TooLong("?"), InvalidRequest("?"), Cancelled("?"),
     RateLimited("?", concerns_caller=True)],
    ids=repr,
)  # fmt: skip
def test_a_trial_that_says_nothing_leaves_the_turn_to_the_next_call(serve, clock, error):
    service = ProbedService(Misconfigured("401"), "bad", verdict=Misconfigured("401"))
    chain = serve(service, breaker_cooldown=10)
    chain.call("bad")
    clock.advance(10)
    service.error = error
    with contextlib.suppress(InvalidRequest, Cancelled):
        chain.call("bad")
    assert chain.call("good").tier == 1


def test_a_stream_that_nobody_reads_leaves_the_turn_to_the_next_call(serve, clock):
    service = ProbedService(Misconfigured("401"), "bad", verdict=Misconfigured("401"))
    chain = serve(service, breaker_cooldown=10)
    chain.call("bad")
    clock.advance(10)
    service.call = lambda call: iter(["a", "b"])
    chain.states[0].ask = service.call
    chain.call("good", stream=True).close()
    assert chain.call("good", stream=True).tier == 1


def test_a_chain_inside_a_chain_is_not_blamed_for_refusals_of_one_caller(clock):
    inner = EngineChain("inner", ChainPolicy(retries=0), clock=clock)
    inner.add(EngineSpec(Service(Misconfigured("404"), "bad"), "inner"))

    class Inner:
        name = "inner"
        traits = EngineTraits()

        def call(self, call):
            return inner.call(call.payload)

    outer = EngineChain("outer", ChainPolicy(retries=0, breaker_min_calls=1), clock=clock)
    outer.add(EngineSpec(Inner(), "outer"))
    for _ in range(20):
        with pytest.raises(ChainExhausted):
            outer.call("bad")
    assert outer.call("good").payload == "answer"


@pytest.mark.parametrize(
    ("settings", "asked"),
    [({}, True), ({"OM_PROBE_INTERVAL": 0}, False), ({"TESTING": True}, False)],
    ids=["as it is", "no probes", "testing"],
)
def test_in_an_app_refusals_ask_the_probe_unless_nobody_probes(settings, asked):
    app = Flask("app")
    app.config.update({"OM_HUB_URL": "memory://", "OM_CHAIN_DEFAULTS": {"retries": 0}, **settings})
    om = OpenManager(app)
    service = ProbedService(Misconfigured("401"), "bad", verdict=Misconfigured("401"))
    om.add_engine(service, chain="chain", tier=1)
    om.add_engine(StaticEngine("two", "answer"), chain="chain", tier=2)
    chain = om.chain("chain")
    assert chain.call("bad").tier == 2
    if asked:
        wait_until(lambda: state_of(chain) == "offline")
    else:
        assert chain.call("good").tier == 1
        assert service.probes == []
    chain.close()


def test_in_a_recovery_the_own_probe_decides_and_a_repeated_call_does_not(serve):
    service = ProbedService(Misconfigured("401"), "bad", verdict=Misconfigured("401"))
    chain = serve(service, begin_no_probe)
    (state, _) = chain.states
    with pytest.raises(Misconfigured):
        state.probe(Call("bad"), state.ask)
    assert state_of(chain) != "offline"
    with pytest.raises(Misconfigured):
        state.probe(Call(), state.run_probe)
    assert state_of(chain) == "offline"
    service.verdict = None
    state.probe(Call(), state.run_probe)
    assert state_of(chain) != "offline"

"""The stale engine: what it learns, when, and what it gives back."""

from __future__ import annotations

import contextlib
import os
import threading
from unittest.mock import Mock

import pytest

from om_plugins.builtin.engines.last_good import StaleEngine, hash_question
from om_plugins.errors import ChainExhausted, ConfigError, Transient, Unsupported
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing import EngineContract, FakeClock
from om_plugins.types import Answer, Call, EngineSpec, EngineTraits


class House:
    """An application with one stale engine in it."""

    def __init__(self, **options):
        self.clock = FakeClock()
        self.runtime = Runtime(clock=self.clock, host=Host(testing=True))
        self.engine = self.add(**options)

    def add(self, name="memory", **options):
        self.runtime.add_engine(EngineSpec(StaleEngine(name, **options), "c", tier=2))
        return self.runtime.part_of("chains").get("c").engines[-1].engine

    def learn(self, payload, answer, *, engine=None, call=None, **marks):
        (engine or self.engine).learn(
            call or Call(payload, "c"), Answer(answer, engine="model", **marks)
        )
        self.runtime.scheduler.run_pending()

    def ask(self, payload, **options):
        return self.engine.call(Call(payload, "c", **options))


@pytest.fixture
def house():
    with contextlib.ExitStack() as stack:

        def make(**options):
            made = House(**options)
            stack.callback(made.runtime.close)
            return made

        yield make


class TestContract(EngineContract):
    @pytest.fixture
    def engine(self, house):
        made = house()
        made.engine.learn(self.make_call(), Answer({"answer": "fine"}, engine="model"))
        made.runtime.scheduler.run_pending()
        return made.engine


def test_it_gives_back_the_last_good_answer_marked_with_its_age(house):
    it = house()
    it.learn({"q": 1}, {"a": [1, 2.5, None, "x"]}, status=201)
    it.clock.advance(90)
    answer = it.ask({"q": 1})
    assert answer.payload == {"a": [1, 2.5, None, "x"]}
    assert answer.stale
    assert answer.status == 201
    assert answer.metadata == {"age_s": 90.0, "answered_by": "model"}


def test_a_newer_answer_takes_the_place_of_the_older(house):
    it = house()
    it.learn("q", "old")
    it.clock.advance(2)
    it.learn("q", "new")
    assert it.ask("q").payload == "new"


def test_the_order_of_keys_is_no_part_of_the_question(house):
    it = house()
    it.learn({"a": 1, "b": 2}, "yes")
    assert it.ask({"b": 2, "a": 1}).payload == "yes"


@pytest.mark.parametrize("other", [True, "1", 1.0, b"1", [1], {"1": 1}, None])
def test_a_question_of_another_type_is_another_question(house, other):
    it = house()
    it.learn(1, "one")
    with pytest.raises(Unsupported, match="no answer is known"):
        it.ask(other)


def test_another_chain_and_another_method_are_other_questions(house):
    it = house()
    it.learn("q", "mine")
    for call in (Call("q", "other"), Call("q", "c", method="GET")):
        with pytest.raises(Unsupported):
            it.engine.call(call)


def test_it_is_not_an_engine_of_two_applications(house):
    one, other = house(), house()
    shared = StaleEngine("shared")
    for it in (one, other):
        it.runtime.add_engine(EngineSpec(shared, "s"))
    mine = one.runtime.part_of("chains").get("s").engines[0].engine
    mine.learn(Call("q", "s"), Answer("secret of one", engine="model"))
    one.runtime.scheduler.run_pending()
    assert mine.call(Call("q", "s")).payload == "secret of one"
    with pytest.raises(Unsupported):
        other.runtime.part_of("chains").get("s").engines[0].engine.call(Call("q", "s"))
    with pytest.raises(Unsupported, match="no application"):
        shared.call(Call("q", "s"))


@pytest.mark.parametrize(
    "marks", [{"stale": True}, {"degraded": True}, {"status": 404}, {"chunks": iter("abc")}]
)
def test_only_whole_good_answers_are_learned(house, marks):
    it = house()
    it.learn("q", "a", **marks)
    with pytest.raises(Unsupported):
        it.ask("q")


def test_degraded_answers_are_learned_when_asked_for(house):
    it = house(learn_degraded=True)
    it.learn("q", "a", degraded=True)
    assert it.ask("q").payload == "a"


def test_calls_with_credentials_are_kept_out_unless_vary_tells_users_apart(house):
    mine = {"authorization": "Bearer mine"}
    it = house()
    it.learn("q", "for me", call=Call("q", "c", mine))
    it.learn("q", "for all")
    with pytest.raises(Unsupported, match="not kept"):
        it.ask("q", headers=mine)
    assert it.ask("q").payload == "for all"

    it = house(vary=lambda call: (call.headers or {}).get("authorization"))
    it.learn("q", "for me", call=Call("q", "c", mine))
    assert it.ask("q", headers=mine).payload == "for me"
    with pytest.raises(Unsupported):
        it.ask("q", headers={"authorization": "Bearer yours"})


def test_vary_that_says_nothing_tells_no_users_apart(house):
    it = house(vary=lambda call: (call.headers or {}).get("accept-language"))
    it.learn("q", "for me", call=Call("q", "c", {"cookie": "user=me"}))
    for headers in ({"cookie": "user=you"}, {"cookie": "user=me"}, {"authorization": "Bearer"}):
        with pytest.raises(Unsupported, match="not kept"):
            it.ask("q", headers=headers)
    it.learn("q", "for all")
    assert it.ask("q").payload == "for all"
    both = {"cookie": "user=me", "accept-language": "ko"}
    it.learn("q", "in Korean", call=Call("q", "c", both))
    assert it.ask("q", headers=both).payload == "in Korean"


async def answer_later():
    return "later"


@pytest.mark.parametrize("option", ["key", "vary"])
@pytest.mark.parametrize(
    ("said", "why"),
    [
        (lambda call: answer_later(), "a coroutine, which nobody awaits"),
        (lambda call: (one for one in "ab"), "a generator"),
        (Mock(), "a Mock"),
        (lambda call: {1: 2}, "a dict"),
        (lambda call: object(), "an object"),
    ],
)
def test_what_is_no_plain_data_is_told_once(house, option, said, why, caplog):
    it = house(**{option: said})
    for _ in range(3):
        it.learn("q", "fine")
    with pytest.raises(TypeError, match=f"engine 'memory': {option} returned {why}"):
        it.ask("q")
    errors = [one for one in caplog.records if one.levelname == "ERROR"]
    assert [one.getMessage() for one in errors] == ["an answer was not learned"]
    assert why in str(errors[0].exc_info[1])


def test_key_says_what_the_question_is(house):
    it = house(key=lambda call: call.payload.get("q"))
    it.learn({"q": "x", "request_id": 1}, "a")
    assert it.ask({"q": "x", "request_id": 2}).payload == "a"
    it.learn({"request_id": 1}, "a")  # its key is None
    with pytest.raises(Unsupported, match="not kept"):
        it.ask({"request_id": 1})


def test_it_learns_off_the_hot_path_and_once_a_second_at_most(house):
    it = house()
    for number in range(100):
        it.engine.learn(Call("q", "c"), Answer(number, engine="model"))
    with pytest.raises(Unsupported):
        it.ask("q")  # nothing is kept in the caller's own time
    it.runtime.scheduler.run_pending()
    assert it.ask("q").payload == 0
    assert it.engine.stats()["learned"] == 1


def test_what_the_caller_does_to_the_answer_afterwards_is_not_learned(house):
    it = house()
    payload = {"a": [1]}
    it.engine.learn(Call("q", "c"), Answer(payload, engine="model"))
    payload["a"].append("for my eyes only")
    it.runtime.scheduler.run_pending()
    assert it.ask("q").payload == {"a": [1]}


def test_a_burst_of_questions_is_bounded(house):
    it = house()
    for number in range(1000):
        it.engine.learn(Call(number, "c"), Answer("a", engine="model"))
    it.runtime.scheduler.run_pending()
    stats = it.engine.stats()
    assert stats["learned"] == 256
    assert stats["dropped"] == 744


def test_a_large_or_odd_answer_is_refused_and_counted(house):
    it = house(max_bytes=100)
    it.learn("large", "x" * 101)
    it.learn("odd", object())
    assert it.engine.stats()["refused"] == 2


def test_it_forgets_what_is_too_old(house):
    it = house(max_age=60)
    it.learn("q", "a")
    it.clock.advance(61)
    with pytest.raises(Unsupported):
        it.ask("q")
    it = house(keep=30)
    it.learn("q", "a")
    it.clock.advance(31)
    with pytest.raises(Unsupported):
        it.ask("q")


def test_invalidating_the_chain_leaves_the_last_good_answer(house):
    it = house()
    it.learn("q", "a")
    assert it.runtime.part_of("cache").invalidate(tags=["chain:c"]) == 1
    assert it.ask("q").payload == "a"


@pytest.mark.parametrize(
    "planted",
    [None, "text", {}, {"data": b"\xff", "at": 1.0, "status": 200}, {"data": 7, "at": 1.0}],
)
def test_a_planted_entry_is_no_answer(house, planted):
    it = house()
    it.learn("q", "a")
    key = f"om-stale:{it.engine.name}:{hash_question(Call('q', 'c'), 'q')}"
    it.runtime.part_of("cache").set(key, planted)
    with pytest.raises(Unsupported):
        it.ask("q")


def test_a_function_of_the_user_that_fails_costs_nobody_the_answer(house):
    it = house(vary=lambda call: 1 / 0)
    it.learn("q", "a")
    assert it.engine.stats()["refused"] == 1


def test_a_forked_child_learns_on_its_own(house):
    it = house()
    it.engine.learn(Call("parent", "c"), Answer("a", engine="model"))  # queued in the parent only
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in the child
        try:
            it.learn("child", "b")
            os.write(write, str(it.ask("child").payload).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"b"
    os.waitpid(pid, 0)


def test_many_threads_learn_without_a_lost_answer(house):
    it = house()

    def learn(number):
        for one in range(20):
            it.engine.learn(Call([number, one], "c"), Answer("a", engine="model"))

    threads = [threading.Thread(target=learn, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    it.runtime.scheduler.run_pending()
    assert it.engine.stats()["learned"] == 160


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 0}, "keep"),
        ({"max_age": -1}, "max_age"),
        ({"max_bytes": True}, "max_bytes"),
        ({"vary": "accept-language"}, "vary"),
        ({"key": 7}, "key"),
    ],
)
def test_a_wrong_argument_is_a_config_error(options, said):
    with pytest.raises(ConfigError, match=said):
        StaleEngine("memory", **options)


def test_in_a_chain_it_answers_what_was_answered_before(house):
    it = house()
    down = []

    class Model:
        name = "model"
        traits = EngineTraits(idempotent=True)

        def call(self, call):
            if down:
                raise Transient("down", sent="no")
            return {"answer": call.payload}

    it.runtime.add_engine(EngineSpec(Model(), "c", tier=1))
    chain = it.runtime.part_of("chains").get("c")
    assert not chain.call("q").stale
    it.runtime.scheduler.run_pending()
    down.append(True)
    it.clock.advance(5)
    answer = chain.call("q")
    assert answer.payload == {"answer": "q"}
    assert answer.stale
    assert answer.degraded
    assert answer.engine == "memory"
    assert answer.metadata["answered_by"] == "model"
    assert it.engine.stats()["learned"] == 1, "it does not learn from itself"
    with pytest.raises(ChainExhausted):
        chain.call("never asked before")


async def later(call):
    return "q"


@pytest.mark.parametrize("option", ["key", "vary"])
@pytest.mark.parametrize(
    "wrong", [later, lambda: "q", lambda call, more: "q", (lambda call: (yield)), "q", True]
)
def test_a_function_that_cannot_name_the_question_is_refused(option, wrong):
    with pytest.raises(ConfigError, match=f"engine 's': {option}.*must be a function of the call"):
        StaleEngine("s", **{option: wrong})

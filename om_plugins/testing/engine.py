"""The contract of an engine, as pytest tests."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import contextlib
import copy
import time

import pytest

from ..chains.stream import begin, is_stream
from ..errors import CallerDeadline, Cancelled, ConfigError, EngineError
from ..plugins.checks import check_engine, explain_answer
from ..plugins.kit import Host
from ..protocols import Engine
from ..runtime import Runtime
from ..settings.callbacks import explain_kind, explain_no_success, explain_unfinished
from ..types import Answer, Call, EngineSpec, EngineTraits
from .fakes import run_in_threads

__all__ = ["EngineContract"]

_ENDS = (EngineError, CallerDeadline, Cancelled)
"""Errors with which a call may end, where a test only checks that it ends."""


class EngineContract:
    """Inherit, and make your engine in a fixture::

        class TestWikiEngine(EngineContract):
            @pytest.fixture
            def engine(self):
                return WikiEngine(WikiConfig())

    Attributes:
        payload: a payload that the engine can answer.
        patience_s: the most seconds until a call that nobody waits for has ended.
    """

    payload: object = {"question": "How are you?"}
    patience_s: float = 2.0

    @pytest.fixture
    def engine(self) -> Engine:
        """The engine under test; it must be able to answer."""
        raise NotImplementedError("make your engine in a fixture named 'engine'")

    def make_call(self, *, stream: bool = False, timeout: float = 10.0) -> Call:
        """A call as a chain makes it."""
        call = Call(
            copy.deepcopy(self.payload),
            chain="contract",
            stream=stream,
            deadline=time.monotonic() + timeout,
        )
        call.attempt_deadline = call.deadline
        return call

    def test_it_has_a_name_and_traits(self, engine: Engine) -> None:
        assert isinstance(engine.name, str)
        assert engine.name
        assert isinstance(engine.traits, EngineTraits)
        limit = engine.traits.max_concurrency
        assert limit is None or limit >= 1

    def test_its_call_is_a_plain_function(self, engine: Engine) -> None:
        problem = explain_kind(engine.call, may_yield=engine.traits.streaming)
        assert not problem, problem

    def test_a_chain_accepts_it(self, engine: Engine) -> None:
        problem = ""
        try:
            check_engine(EngineSpec(engine, "contract"), "contract")
        except (ConfigError, TypeError) as error:
            problem = str(error)
        assert not problem, problem

    def test_it_answers_completely_unless_a_stream_is_asked_for(self, engine: Engine) -> None:
        answer = _to_answer(engine, self.make_call())
        assert not answer.streamed, "nobody asked for a stream"

    def test_it_leaves_the_payload_alone(self, engine: Engine) -> None:
        call = self.make_call()
        _to_answer(engine, call).close()
        assert call.payload == self.payload

    def test_it_answers_again_and_again(self, engine: Engine) -> None:
        for _ in range(3):
            _to_answer(engine, self.make_call()).close()

    def test_a_stream_can_be_read_to_its_end(self, engine: Engine) -> None:
        answer = _to_answer(engine, self.make_call(stream=True))
        assert engine.traits.streaming or not answer.streamed, "it lacks the trait 'streaming'"
        assert [chunk for chunk in answer if chunk is not None]
        answer.close()

    def test_a_stream_can_be_given_up_early(self, engine: Engine) -> None:
        answer = _to_answer(engine, self.make_call(stream=True))
        next(iter(answer))
        answer.close()
        _to_answer(engine, self.make_call()).close()

    def test_a_call_whose_time_is_over_ends_soon(self, engine: Engine) -> None:
        began = time.monotonic()
        with contextlib.suppress(*_ENDS):
            _to_answer(engine, self.make_call(timeout=-1)).close()
        assert time.monotonic() - began < self.patience_s

    def test_a_cancelled_call_ends_soon(self, engine: Engine) -> None:
        call = self.make_call()
        call.cancel()
        began = time.monotonic()
        with contextlib.suppress(*_ENDS):
            _to_answer(engine, call).close()
        assert time.monotonic() - began < self.patience_s

    def test_it_answers_several_callers_at_once(self, engine: Engine) -> None:
        callers = min(4, engine.traits.max_concurrency or 4)
        run_in_threads(callers, lambda _: _to_answer(engine, self.make_call()))

    def test_a_probe_finds_it_well(self, engine: Engine) -> None:
        probe = getattr(engine, "probe", None)
        if probe is not None:
            problem = explain_no_success(probe(self.make_call()))
            assert not problem, f"probe {problem}"

    def test_two_applications_may_attach_it(self, engine: Engine) -> None:
        attach = getattr(engine, "attach", None)
        if attach is None:
            return
        for _ in range(2):
            with contextlib.closing(Runtime(host=Host(testing=True))) as runtime:
                runtime.add_engine(EngineSpec(engine, "contract"))
                (spec,) = runtime.part_of("chains").get("contract").engines
            assert isinstance(spec.engine, Engine), "attach returns None or an engine"
            assert spec.engine.name == engine.name
            assert spec.engine.traits == engine.traits

    def test_learning_never_fails_and_leaves_call_and_answer_alone(self, engine: Engine) -> None:
        learn = getattr(engine, "learn", None)
        if learn is None:
            return
        for payload in ({"answer": [1, "two"]}, object(), None):
            call = self.make_call()
            answer = Answer(payload, engine="another")
            assert learn(call, answer) is None
            assert call.payload == self.payload
            assert answer.payload is payload
            assert not answer.stale
        recursive: list[object] = []
        recursive.append(recursive)
        learn(self.make_call(), Answer(recursive, engine="another"))

    def test_it_can_be_closed_twice(self, engine: Engine) -> None:
        close = getattr(engine, "close", None)
        if close is not None:
            assert not explain_unfinished(close())
            assert not explain_unfinished(close())


def _to_answer(engine: Engine, call: Call) -> Answer:
    """The answer that a chain makes of what an engine returns for a call."""
    result = engine.call(call)
    chunked = isinstance(result, Answer) and result.chunks is not None
    if chunked or ((call.stream or engine.traits.streaming) and is_stream(result)):
        return begin(result, call, call.remaining(), time.monotonic)
    problem = explain_answer(result)
    assert not problem, f"call {problem}"
    return result if isinstance(result, Answer) else Answer(result)

"""The callable engine: functions with and without the call, generators, coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
from unittest.mock import AsyncMock, Mock, create_autospec

import pytest

from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.errors import AttemptTimeout, Cancelled
from om_plugins.types import Call


def test_a_function_of_the_call_gets_it():
    assert CallableEngine("f", lambda call: call.payload).call(Call("q")) == "q"


def test_a_function_of_nothing_gets_nothing():
    assert CallableEngine("f", lambda: "here").call(Call("q")) == "here"


def test_an_optional_argument_gets_the_call():
    assert CallableEngine("f", lambda call=None: call.payload).call(Call("q")) == "q"


class Thing:
    def method(self, call):
        return ("method", call.payload)

    def __call__(self, call):
        return ("object", call.payload)

    async def slow(self, call):
        return ("async", call.payload)


class AsyncThing:
    async def __call__(self, call):
        return ("async object", call.payload)


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (Thing().method, ("method", "q")),
        (Thing(), ("object", "q")),
        (Thing().slow, ("async", "q")),
        (AsyncThing(), ("async object", "q")),
        (functools.partial(lambda a, call: (a, call.payload), "partial"), ("partial", "q")),
        (functools.partial(Thing().slow), ("async", "q")),
    ],
)
def test_methods_objects_and_partials_will_do(function, answer):
    assert CallableEngine("f", function).call(Call("q")) == answer


async def answer_later(call):
    return "fine"


def passing_on(function):
    @functools.wraps(function)
    def ask(*args, **kwargs):
        return function(*args, **kwargs)

    return ask


def giving_more(function):
    @functools.wraps(function)
    def ask(*args):
        return function("database", *args)

    return ask


def giving_nothing(function):
    @functools.wraps(function)
    def ask(call):
        return function()

    return ask


@pytest.mark.parametrize(
    "function",
    [
        passing_on(lambda: "fine"),
        passing_on(passing_on(lambda call: "fine")),
        passing_on(lambda call=None: "fine" if call else None),
        giving_more(lambda database, call: "fine"),
        giving_nothing(lambda: "fine"),
        functools.lru_cache(lambda: "fine"),
        functools.wraps(lambda call: None)(lambda: "fine"),
        create_autospec(lambda call: None, return_value="fine"),
        Mock(spec=lambda call: None, return_value="fine"),
    ],
)
def test_a_decorated_function_gets_what_its_decorator_takes(function):
    assert CallableEngine("e", function).call(Call("q")) == "fine"


@pytest.mark.parametrize(
    "function",
    [
        functools.partial(lambda call: "fine", 1, 2),
        functools.partial(lambda call: "fine", other=1),
        functools.lru_cache(answer_later),
    ],
)
def test_a_function_that_can_never_answer_is_refused(function):
    with pytest.raises(TypeError, match=r"partial with other|lru_cache keeps"):
        CallableEngine("e", function)


def test_a_function_of_two_arguments_is_refused():
    with pytest.raises(TypeError, match=r"one argument, the call, or none; it takes \(a, b\)"):
        CallableEngine("f", lambda a, b: None)


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="is not a function"):
        CallableEngine("f", "text")


def test_an_unknown_trait_is_refused_with_the_known_ones():
    with pytest.raises(TypeError, match=r"no argument 'idempotant'; did you mean 'idempotent'"):
        CallableEngine("f", lambda: 1, idempotant=True)


def test_traits_are_false_unless_said_or_seen():
    def generate(call):
        yield 1

    async def work(call):
        return 1

    plain = CallableEngine("f", lambda: 1).traits
    assert not (plain.streaming or plain.idempotent or plain.local or plain.cancellable)
    assert CallableEngine("f", generate).traits.streaming
    assert not CallableEngine("f", generate, streaming=False).traits.streaming
    assert CallableEngine("f", work).traits.cancellable
    assert CallableEngine("f", lambda: 1, idempotent=True, local=True).traits.local


def test_a_generator_function_gives_its_chunks():
    def generate(call):
        yield from call.payload

    assert list(CallableEngine("f", generate).call(Call("abc"))) == ["a", "b", "c"]


def test_a_coroutine_function_runs_in_the_calling_thread():
    async def work():
        await asyncio.sleep(0)
        return threading.current_thread()

    assert CallableEngine("f", work).call(Call()) is threading.current_thread()


def test_inside_a_running_event_loop_it_still_answers_and_sees_the_callers_context():
    request = contextvars.ContextVar("request")

    async def work(call):
        await asyncio.sleep(0)
        return request.get(), call.payload

    engine = CallableEngine("f", work)

    async def view():
        request.set("mine")
        return engine.call(Call("q"))

    assert asyncio.run(view()) == ("mine", "q")


def test_inside_a_running_event_loop_an_error_comes_through():
    async def work():
        raise LookupError("no")

    engine = CallableEngine("f", work)

    async def view():
        engine.call(Call())

    with pytest.raises(LookupError):
        asyncio.run(view())


def test_a_coroutine_is_cut_at_the_attempts_deadline():
    async def hang():
        await asyncio.sleep(60)

    call = Call(deadline=time.monotonic() + 60)
    call.attempt_deadline = time.monotonic() + 0.02
    with pytest.raises(AttemptTimeout):
        CallableEngine("f", hang).call(call)


def test_a_coroutines_own_timeout_is_its_own():
    async def work():
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        CallableEngine("f", work).call(Call(deadline=time.monotonic() + 60))


def test_a_coroutine_ends_when_the_call_is_cancelled():
    call = Call()

    async def hang():
        threading.Timer(0.01, call.cancel).start()
        await asyncio.sleep(60)

    with pytest.raises(Cancelled):
        CallableEngine("f", hang).call(call)


def test_an_async_generator_is_refused_when_it_is_registered():
    async def generate(call):
        yield 1

    with pytest.raises(TypeError, match="use a plain generator"):
        CallableEngine("f", generate)


def test_a_function_that_returns_a_coroutine_is_told_so():
    async def work():
        return 1

    with pytest.raises(TypeError, match="register the coroutine function"):
        CallableEngine("f", lambda call: work()).call(Call())


class AsyncObject:
    async def __call__(self, call):
        return "awaited"


class YieldingObject:
    def __call__(self, call):
        yield "a"
        yield "b"


def test_objects_and_partials_are_what_their_call_is():
    for function in (AsyncObject(), functools.partial(AsyncObject()), AsyncObject().__call__):
        engine = CallableEngine("x", function)
        assert engine.call(Call()) == "awaited"
        assert engine.traits.cancellable
    for function in (YieldingObject(), functools.partial(YieldingObject())):
        engine = CallableEngine("x", function)
        assert list(engine.call(Call())) == ["a", "b"]
        assert engine.traits.streaming


def test_a_mock_is_a_function_like_any_other():
    assert CallableEngine("x", Mock(return_value={"a": 1})).call(Call()) == {"a": 1}
    assert CallableEngine("x", AsyncMock(return_value={"a": 1})).call(Call()) == {"a": 1}

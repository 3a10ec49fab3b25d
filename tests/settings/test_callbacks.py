"""Functions that someone gives are looked at before they are called."""

from __future__ import annotations

import functools
import inspect
import re
from unittest.mock import AsyncMock, Mock, create_autospec

import click
import pytest

from om_plugins.settings.callbacks import (
    explain_arguments,
    explain_callback,
    explain_no_success,
    is_permitted,
)


class Auth:
    def __call__(self, request):
        return True

    def method(self, request):
        return True


class AsyncAuth:
    async def __call__(self, request):
        return True


async def coroutine(request):
    return True


async def generator(request):
    yield True


class YieldingAuth:
    def __call__(self, request):
        yield True


class PartialAuth:
    async def check(self, once, request):
        return True

    __call__ = functools.partialmethod(check, 1)


class StaticAuth:
    __call__ = staticmethod(coroutine)


class DelegatingAuth:
    __call__ = AsyncAuth()


def yielding(request):
    yield True


@pytest.mark.parametrize(
    "sound",
    [
        lambda request: True,
        lambda *args: True,
        lambda request, extra=None: True,
        functools.partial(lambda one, request: True, 1),
        Auth(),
        Auth().method,
        bool,
    ],
)
def test_what_can_be_called_with_one_argument_passes(sound):
    assert explain_callback(sound, 1) == ""


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda: True, r"must take 1 argument; it takes \(\)"),
        (lambda user, password: True, r"must take 1 argument; it takes \(user, password\)"),
        (lambda *, request: True, "must take 1 argument"),
        (functools.partial(lambda request: True, 1), "must take 1 argument"),
        (Auth.method, "must take 1 argument"),
        (coroutine, "async"),
        (functools.partial(coroutine), "async"),
        (generator, "async"),
        (AsyncAuth(), "async"),
        (AsyncAuth().__call__, "async"),
        (functools.partial(AsyncAuth()), "async"),
        (PartialAuth(), "async"),
        (StaticAuth(), "async"),
        (DelegatingAuth(), "async"),
        (AsyncMock(), "async"),
        (staticmethod(coroutine), "async"),
        (yielding, "write return, not yield"),
        (functools.partial(yielding), "write return, not yield"),
        (YieldingAuth(), "write return, not yield"),
        (YieldingAuth().__call__, "write return, not yield"),
        (AsyncAuth, r"must take 1 argument; it takes \(\)"),
        ("auth", "'auth' is no function"),
        (True, "True is no function"),
    ],
)
def test_what_cannot_is_explained(wrong, why):
    assert re.search(why, explain_callback(wrong, 1))


def give_database(function):
    @functools.wraps(function)
    def call(request):
        return function("database", request)

    return call


def give_more(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function("database", *args, **kwargs)

    return call


def give_nothing(function):
    @functools.wraps(function)
    def call(request):
        return function()

    return call


class Dispatching:
    @functools.singledispatchmethod
    def check(self, request):
        return True

    @functools.lru_cache  # noqa: B019 - of the one object that the test makes
    def cached(self, request):
        return True


@pytest.mark.parametrize(
    "sound",
    [
        give_database(lambda database, request: True),
        give_more(lambda database, request: True),
        give_more(give_more(lambda one, two, request: True)),
        give_nothing(lambda: True),
        click.pass_context(lambda context, request: True),
        functools.singledispatch(lambda request: True),
        Dispatching().check,
        Dispatching().cached,
        functools.lru_cache(lambda request: True),
        functools.partial(give_database(lambda database, request: True)),
        Mock(spec=give_database, return_value=True),
        create_autospec(give_database),
    ],
)
def test_of_a_decorated_function_the_decorators_own_arguments_count(sound):
    assert explain_callback(sound, 1) == ""


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (
            functools.partial(lambda request: True, 1, 2),
            r"a partial with other arguments .*request",
        ),
        (functools.partial(lambda request: True, other=1), "a partial with other arguments"),
        (functools.partial(functools.partial(coroutine, 1), 2), "async"),
        (functools.partial(Auth(), 1, 2, 3), "a partial with other arguments"),
        (functools.update_wrapper(lambda: True, Auth().method), "must take 1 argument"),
        (functools.lru_cache(lambda: True), "must take 1 argument"),
        (functools.lru_cache(lambda user, password: True), "must take 1 argument"),
        (functools.lru_cache(coroutine), "lru_cache keeps a coroutine"),
        (functools.cache(generator), "lru_cache keeps"),
        (functools.partial(functools.cache(yielding)), "lru_cache keeps"),
    ],
)
def test_partials_and_cached_functions_that_cannot_be_called_are_explained(wrong, why):
    assert re.search(why, explain_callback(wrong, 1))


def test_who_reads_what_is_yielded_may_say_so():
    assert explain_callback(yielding, 1, may_yield=True) == ""
    assert "async" in explain_callback(generator, 1, may_yield=True)


def test_a_class_is_called_as_it_is():
    class Checked(AsyncAuth):
        def __init__(self, request):
            pass

    assert explain_callback(Checked, 1) == ""


def test_a_decorator_says_itself_how_it_calls_what_it_wraps():
    @functools.wraps(coroutine)
    def run(request):
        return True

    assert explain_callback(run, 1) == ""


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (None, "a return may be missing"),
        (1, "returned an int; return True or False"),
        ("yes", "returned a str; return True or False"),
        (0, "returned an int"),
        (Mock(), "returned a Mock"),
        ((True for _ in "1"), "returned a generator"),
    ],
)
def test_a_permission_is_true_itself(said, text, caplog):
    assert not is_permitted(said, "OM_X")
    assert text in caplog.text
    assert "OM_X " in caplog.text
    assert is_permitted(True, "OM_X")


def test_a_no_is_not_logged(caplog):
    assert not is_permitted(False, "OM_X")
    assert not caplog.records


def test_a_coroutine_is_closed_so_that_python_does_not_warn():
    said = coroutine(None)
    assert not is_permitted(said, "OM_X")
    assert inspect.getcoroutinestate(said) == inspect.CORO_CLOSED


@pytest.mark.parametrize("result", [False, 0, 1, "", "ok", [], Mock(), (1 for _ in "1")])
def test_only_none_and_true_are_a_success(result):
    assert explain_no_success(result)


def test_none_and_true_are_a_success():
    assert explain_no_success(None) == explain_no_success(True) == ""


def test_the_count_stands_in_the_text():
    assert "no argument" in explain_arguments(lambda one: 1, 0)
    assert "2 arguments" in explain_arguments(lambda one: 1, 2)


class SaysItIsBool:
    """A proxy or a mock says what it likes of its class."""

    @property
    def __class__(self):
        return bool

    def __repr__(self):
        return "the secret"


class HasNoClass:
    @property
    def __class__(self):
        raise RuntimeError("working outside of the request")


@pytest.mark.parametrize("kind", [SaysItIsBool, HasNoClass])
def test_an_answer_is_not_asked_what_it_is(kind, caplog):
    assert not is_permitted(kind(), "OM_X")
    assert f"returned a {kind.__name__}" in caplog.text
    assert "secret" not in caplog.text

"""Functions that someone gives are looked at before they are called."""

from __future__ import annotations

import functools
import re

import pytest

from om_plugins.settings.callbacks import explain_arguments, explain_callback


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
        ("auth", "'auth' is no function"),
        (True, "True is no function"),
    ],
)
def test_what_cannot_is_explained(wrong, why):
    assert re.search(why, explain_callback(wrong, 1))


def test_the_count_stands_in_the_text():
    assert "no argument" in explain_arguments(lambda one: 1, 0)
    assert "2 arguments" in explain_arguments(lambda one: 1, 2)

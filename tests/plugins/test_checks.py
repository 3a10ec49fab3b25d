"""What hooks return is checked before it is used: a part that nobody could call is a failure."""

from __future__ import annotations

import functools

import pytest

from om_plugins.plugins.checks import BadResult, check_result


class Part:
    """Anything with the attributes given."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


def step(**changes):
    return Part(**{"name": "x", "percent": 50, "run": lambda subject, timeout: "", **changes})


def notifier(**changes):
    return Part(**{"name": "x", "send": lambda notification, timeout: None, **changes})


async def asynchronous(*args):
    return None


def yielding(*args):
    yield


class AsyncObject:
    async def __call__(self, *args):
        return None


@pytest.mark.parametrize(
    ("hook", "result", "why"),
    [
        ("om_monitors", [Part(record=lambda: None)], "record cannot be called"),
        ("om_monitors", [Part(record=lambda one, two: None)], "it gets the samples"),
        ("om_monitors", [Part(record=asynchronous)], "async"),
        ("om_monitors", [Part(record="x")], "no function"),
        ("om_monitors", [Part(record=yielding)], "write return, not yield"),
        ("om_monitors", [Part(record=AsyncObject())], "async"),
        ("om_notifiers", [notifier(send=yielding)], "write return, not yield"),
        ("om_notifiers", [notifier(send=functools.partial(AsyncObject()))], "async"),
        ("om_recovery_steps", [step(run=yielding)], "write return, not yield"),
        ("om_recovery_steps", [step(run=AsyncObject().__call__)], "async"),
        ("om_caches", {"x": yielding}, "write return, not yield"),
        ("om_hubs", {"x": AsyncObject()}, "async"),
        ("om_csp", yielding, "write return, not yield"),
        ("om_csp", (one for one in "ab"), "returned a generator"),
        ("om_startup", (one for one in "ab"), "returned a generator"),
        ("om_notifiers", [notifier(send=lambda notification: None)], "send cannot be called"),
        ("om_notifiers", [notifier(send=asynchronous)], "async"),
        ("om_notifiers", [notifier(name="")], "name is ''"),
        ("om_notifiers", [notifier(accepts=lambda: True)], "accepts cannot be called"),
        ("om_notifiers", [notifier(accepts=asynchronous)], "accepts cannot be called: an async"),
        ("om_notifiers", [notifier(accepts=yielding)], "accepts cannot be called: a generator"),
        ("om_notifiers", [notifier(accepts=True)], "accepts cannot be called"),
        ("om_notifiers", [notifier(durable=None)], "durable is None"),
        ("om_notifiers", [notifier(durable=0)], "durable is 0"),
        ("om_notifiers", [notifier(name=5)], "name is 5"),
        ("om_recovery_steps", [step(run=lambda: "")], "run cannot be called"),
        ("om_recovery_steps", [step(percent=250)], "percent is 250"),
        ("om_recovery_steps", [step(percent=-1)], "percent is -1"),
        ("om_recovery_steps", [step(percent="50")], "percent is '50'"),
        ("om_recovery_steps", [step(percent=True)], "percent is True"),
        ("om_recovery_steps", [step(percent=float("nan"))], "percent is nan"),
        ("om_caches", {"x": lambda: None}, "factory that cannot be called.*the URL"),
        ("om_caches", {"x": asynchronous}, "async"),
        ("om_hubs", {"x": lambda url: None}, "the URL and the clock"),
        ("om_csp", lambda: {"img-src": ["a.example"]}, "the WSGI environ"),
        ("om_csp", asynchronous, "async"),
    ],
)
def test_a_part_that_nobody_can_use_is_a_wrong_result(hook, result, why):
    with pytest.raises(BadResult, match=why):
        check_result(hook, result)


@pytest.mark.parametrize(
    ("hook", "result"),
    [
        ("om_monitors", [Part(record=lambda samples: None)]),
        ("om_notifiers", [notifier(), notifier(send=lambda *args, **kwargs: None)]),
        ("om_recovery_steps", [step(), step(percent=0), step(percent=100), step(percent=33.3)]),
        ("om_caches", {"x": lambda url: None, "y": dict}),
        ("om_hubs", {"x": lambda url, clock, size=1: None}),
        ("om_csp", lambda environ: {}),
    ],
)
def test_a_part_that_can_be_used_passes(hook, result):
    assert check_result(hook, result) == result

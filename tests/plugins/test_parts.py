"""Hubs and stores of third parties: what cannot be asked is refused when it is opened."""

from __future__ import annotations

import functools
import re

import pytest

from om_plugins import MemoryHub, Settings, hookimpl
from om_plugins.core.clock import SystemClock
from om_plugins.plugins.kit import Host
from om_plugins.plugins.parts import explain_hub, explain_store
from om_plugins.runtime import Runtime


class Store:
    def __init__(self, url="dict://"):
        self.values = {}

    def get(self, key):
        return self.values.get(key)

    def set(self, key, value, ttl):
        self.values[key] = value

    def delete(self, key):
        self.values.pop(key, None)


def wrapped(function):
    @functools.wraps(function)
    def call(*args):
        return function("database", *args)

    return call


def with_attributes(part, **attributes):
    for name, value in attributes.items():
        setattr(part, name, value)
    return part


async def later(key):
    return key


def pieces(key):
    yield key


def make_hub():
    return MemoryHub("memory://", SystemClock())


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (None, "returned None, without get, set, delete: a return may be missing"),
        (True, "returned True, without get"),
        (Store, "cannot be called"),
        ({}, "without set, delete"),
        (with_attributes(Store(), get=later), "get .* async"),
        (with_attributes(Store(), get=pieces), "get .* generator"),
        (with_attributes(Store(), set=lambda key, value: None), "set .* must take 3 arguments"),
        (with_attributes(Store(), delete=None), "without delete"),
        (with_attributes(Store(), compare_and_set=lambda key, value: True), "compare_and_set"),
        (with_attributes(Store(), close=lambda now: None), "close .* no argument"),
    ],
)
def test_what_is_no_store_is_explained(part, why):
    assert re.search(why, explain_store(part))


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (None, "returned None, without publish, read"),
        (MemoryHub, "cannot be called"),
        (with_attributes(make_hub(), get=later), "get .* async"),
        (with_attributes(make_hub(), put=lambda key, value: None), "put .* must take 3 arguments"),
        (with_attributes(make_hub(), lease=lambda name: None), "lease .* must take 2 arguments"),
        (with_attributes(make_hub(), read=pieces), "read .* generator"),
        (pieces("a"), "returned a generator"),
    ],
)
def test_what_is_no_hub_is_explained(part, why):
    assert re.search(why, explain_hub(part))


def test_sound_parts_pass():
    assert explain_store(Store()) == ""
    assert explain_store(with_attributes(Store(), get=wrapped(lambda database, key: None))) == ""
    assert explain_hub(make_hub()) == ""


class Bringer:
    def __init__(self, hub=None, store=None):
        self.hub, self.store = hub, store

    @hookimpl
    def om_hubs(self, context):
        return {"odd": lambda url, clock: self.hub}

    @hookimpl
    def om_caches(self, context):
        return {"odd": lambda url: self.store}


@pytest.mark.parametrize(
    "hub", [None, with_attributes(make_hub(), get=later), later("a")], ids=["None", "async", "coro"]
)
def test_an_application_says_which_hub_it_cannot_use_and_goes_on_alone(hub, caplog):
    runtime = Runtime(
        Settings(hub_url="odd://"), host=Host(testing=True), plugins=[(Bringer(hub), "bringer")]
    )
    runtime.hub.put("k", 1, 60)
    assert runtime.hub.get("k") == 1
    assert runtime.hub.alone
    assert "the hub of 'odd' cannot be used" in caplog.text
    runtime.close()

"""What caches further out are told."""

from __future__ import annotations

import pytest

from om_plugins.http_cache.origin.downstream import (
    address_to_one,
    declare_inputs,
    list_headers,
)
from tests.http_cache.world import World

OURS = "public, max-age=0, s-maxage=60"


def told(control, *names, vary=None, ours="", personal=False, **more):
    headers = [("X-Other", "1")]
    headers += [("Cache-Control", control)] if control else []
    headers += [("Vary", vary)] if vary else []
    headers += [(name.replace("_", "-"), value) for name, value in more.items()]
    found = declare_inputs(headers, names, ours=ours, personal=personal)
    assert found[0] == ("X-Other", "1")
    return dict(found).get("Cache-Control"), dict(found).get("Vary")


def test_headers_that_were_looked_at_are_named_in_vary():
    names = ("header:x-key", 'accept:accept-language:best_match:[["de"], null]', "vary:accept")
    assert list_headers(names) == ["accept", "accept-language", "x-key"]
    assert told("max-age=60", *names) == ("max-age=60", "Accept, Accept-Language, X-Key")
    assert told(OURS, *names, ours=OURS)[0] == OURS


@pytest.mark.parametrize(
    ("vary", "result"),
    [
        ("X-Key", "X-Key"),
        ("x-key, Origin", "x-key, Origin"),
        ("Origin", "Origin, X-Key"),
        ("*", "*"),
    ],
)
def test_vary_names_each_header_once(vary, result):
    assert told("max-age=60", "header:x-key", vary=vary) == ("max-age=60", result)


@pytest.mark.parametrize(
    "name", ["cookie:u", "cookies", "session:u", "session", "session?", "address", "environ:X"]
)
def test_a_personal_page_is_private_and_varies_by_cookie(name):
    assert told("max-age=60", name) == ("private, max-age=60", "Cookie")
    assert told(OURS, name, ours=OURS) == ("private, max-age=0", "Cookie")
    assert told("", name) == ("private", "Cookie")


@pytest.mark.parametrize(
    ("control", "result"),
    [
        ("public, max-age=60", "public, max-age=60"),
        ("s-maxage=60", "s-maxage=60"),
        (OURS, OURS),
        ("private, max-age=9", "private, max-age=9"),
        ("no-store", "no-store"),
        ('private="x", max-age=9', 'private, private="x", max-age=9'),
    ],
)
def test_the_applications_own_word_stays(control, result):
    assert told(control, "cookie:u") == (result, "Cookie")


def test_a_field_for_one_kind_of_cache_is_the_applications_word():
    found = told("max-age=60", "cookie:u", CDN_Cache_Control="max-age=60")
    assert found == ("max-age=60", "Cookie")


def test_a_page_that_looks_at_nobody_is_told_of_as_it_is():
    assert told(OURS, ours=OURS) == (OURS, None)
    assert told(OURS, ours=OURS, personal=True) == ("private, max-age=0", "Cookie")


def test_one_clients_cookies_make_a_response_private():
    headers = [("Cache-Control", OURS), ("CDN-Cache-Control", "max-age=9"), ("A", "b")]
    assert address_to_one(headers, [("Set-Cookie", "a=b")]) == [
        ("A", "b"), ("Cache-Control", "private, max-age=0"), ("Set-Cookie", "a=b"),
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "304 Not Modified"])
def test_misses_and_hits_tell_the_same(method, status):
    world = World(observes=True)
    world.origin.looks = ("header:x-key", "cookie:u")
    world.origin.status = status
    if status[:3] == "304":
        world.origin.body = []
    for _ in range(2):
        answer = world.get(method=method, X_Key="1")
        assert answer.headers["Vary"] == "X-Key, Cookie"
        assert answer.headers["Cache-Control"] == "private, max-age=60"


@pytest.mark.parametrize("control", ["no-store", "private, max-age=1", ""])
def test_what_nobody_may_store_leaves_as_it_came(control):
    world = World(observes=True)
    world.origin.looks = ("header:x-key", "cookie:u")
    world.origin.headers = [("Cache-Control", control)] if control else []
    answer = world.get()
    assert "Vary" not in answer.headers
    assert answer.headers.get("Cache-Control", "") == control


def test_an_unknown_hosts_headers_stay_as_they_are():
    world = World()
    assert world.get().headers["Cache-Control"] == "max-age=60"
    assert "Vary" not in world.get().headers

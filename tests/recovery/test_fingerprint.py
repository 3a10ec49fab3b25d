"""Fingerprints: one kind of error has one, whomever it concerned."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from om_plugins.recovery.fingerprint import MAX_MESSAGE, describe_error, fingerprint, mask


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("took 12.5 s, 3 times", "took <n> s, <n> times"),
        ("order 0xDEADbeef is lost", "order <id> is lost"),
        ("no object 5f2d9c1ab3", "no object <id>"),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8 is gone", "<id> is gone"),
        ("cannot read /var/lib/app/ann.db", "cannot read <path>"),
        (r"cannot read C:\Users\ann\x.txt", "cannot read <path>"),
        ("no key 'ann' in \"table\"", "no key <text> in <text>"),
        ("GET https://host.example:81/a?b=c failed", "GET <url> failed"),
        ("mail to ann.b@mail.example.org bounced", "mail to <email> bounced"),
        ("host 10.0.0.7:8080 refused", "host <n> refused"),
        ("several  \n\t spaces", "several spaces"),
        ("one of 1, 2, 3", "one of <n>"),
        ("can't go on", "can't go on"),
        ("the facade is dead", "the facade is dead"),
        ("서버 17 오류", "서버 <n> 오류"),
    ],
)
def test_what_differs_from_error_to_error_is_masked(message: str, expected: str) -> None:
    assert mask(message) == expected


def test_errors_of_one_kind_share_a_fingerprint_and_others_do_not() -> None:
    one = fingerprint(KeyError("user 17"), "chain:a")
    assert one == fingerprint(KeyError("user 18"), "chain:a")
    assert one != fingerprint(ValueError("user 17"), "chain:a")
    assert one != fingerprint(KeyError("user 17"), "chain:b")
    assert one != fingerprint(RuntimeError("another thing"), "chain:a")
    assert len(one) == 16
    assert int(one, 16) >= 0


def test_two_classes_of_one_name_differ() -> None:
    mine = type("TimeoutError", (Exception,), {"__module__": "mine"})
    theirs = type("TimeoutError", (Exception,), {"__module__": "theirs"})
    assert fingerprint(mine("x"), "s") != fingerprint(theirs("x"), "s")


def test_a_message_that_cannot_be_had_leaves_the_class() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert describe_error(Mute()).endswith("Mute")
    assert fingerprint(Mute(), "s") == fingerprint(Mute(), "s")


def test_a_kind_is_short_and_on_one_line_whatever_was_raised() -> None:
    long_name = type("E" * 5_000, (Exception,), {})
    kind = describe_error(long_name("x y\n\x1b[31m\x00" * 10_000))
    assert len(kind) <= MAX_MESSAGE + 90
    assert kind.isprintable()


@given(st.text(max_size=400))
def test_any_text_is_masked_to_something_short_and_printable(message: str) -> None:
    found = mask(message)
    assert len(found) <= MAX_MESSAGE
    assert found.isprintable()
    assert not any(c in "0123456789" for c in found)


@pytest.mark.parametrize(
    "hostile",
    ["a@" * 500_000, "/" * 10**6, "'" * 999_999, "a" * 10**6, "1." * 500_000, "a://" * 99_999],
)
def test_a_hostile_message_costs_little(hostile: str) -> None:
    began = time.thread_time()
    mask(hostile)
    assert time.thread_time() - began < 1

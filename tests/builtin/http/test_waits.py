"""A wait is understood in whichever of the usual words a service asks for it."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from om_plugins.builtin.http.waits import MAX_WAIT_S, read_asked_wait, read_wait

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
SOON = formatdate(NOW + 20, usegmt=True)
LATER = formatdate(NOW + 30, usegmt=True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        # numbers
        ("20", 20), ("0", 0), ("1.5", 1.5), ("20.", 20), ("+20", 20), (" 20 ", 20), ('"20"', 20),
        ("20;duration=3600", 20), ("20 (in a meeting)", 20), ("999999", MAX_WAIT_S),
        # durations
        ("20s", 20), ("20 s", 20), ("20 seconds", 20), ("500ms", 0.5), ("1m30s", 90), ("2h", 3600),
        ("6m0s", 360), ("1m 30s", 90), ("1 minute and 30 seconds", 90), ("PT20S", 20),
        ("1 minute, 30 seconds", 90), ("PT1M30S", 90), ("00:00:20", 20), ("20S", 20),
        ("7.66s", 7.66), ("20000000us", 20),
        # points in time
        (SOON, 20), ("Tuesday, 14-Nov-23 22:13:40 GMT", 20), ("Tue Nov 14 22:13:40 2023", 20),
        ("Tue, 14 Nov 2023 22:13:40 -0000", 20), ("Tue, 14 Nov 2023 23:13:40 +0100", 20),
        ("2023-11-14T22:13:40Z", 20), ("2023-11-14t22:13:40.500z", 20.5),
        ("2023-11-14T23:13:40+01:00", 20), ("2023-11-14 22:13:40 UTC", 20),
        ("2023-11-14T22:13:40", 20), ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("1700000020", 20), ("1700000020.5", 20.5), ("1700000020000", 20),
        ("1700000020000000", 20),
        # more than one
        ("20, 20", 20), ("20,30", 30), ("20s, 20s", 20), ("soon, 20", 20), ("20, 1m", 60),
        (f"{SOON}, {LATER}", 30), (f"{SOON},{SOON}", 20), (f"5, {SOON}", 20),
        # nothing that anybody could wait for
        ("-5", None), ("soon", None), ("", None), ("٣", None), ("nan", None), ("inf", None),
        ("1e3", None), ("1" * 500, None), ("Mon, 99 Foo 9999 99:99:99 GMT", None), ("20x", None),
        ("20 apples", None), ("1m30", None), ("30s1m", None), ("2023-99-99T22:13:40Z", None),
        (",", None), ("0x20", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_every_form(value, seconds):
    assert read_wait({"retry-after": value}, now=NOW) == seconds
    assert read_asked_wait({"Retry-After": value}, now=NOW) == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retry-after-ms", "20000"), ("x-ms-retry-after-ms", "20000"), ("retry-after-ms", "20s"),
        ("X-Retry-After", "20"), ("Retry-After-Seconds", "20"), ("retry-after-millis", "20000"),
        ("X-Rate-Limit-Retry-After-Seconds", "20"), ("x-ratelimit-retry-after", "20s"),
        ("grpc-retry-pushback-ms", "20000"), ("retry-after-ms", "1700000020000"),
    ],
)  # fmt: skip
def test_other_headers_ask_for_a_wait_too(name, value):
    assert read_asked_wait({name: value}, now=NOW) == 20


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-reset-tokens": "20"},
        {"x-ratelimit-reset-requests": "20s", "x-ratelimit-remaining-requests": "0"},
        {"x-ratelimit-reset-tokens-minute": "20.0"},
        {"X-RateLimit-Reset": "20"},
        {"X-RateLimit-Reset": "1700000020", "X-RateLimit-Remaining": "0"},
        {"x-rate-limit-reset": "1700000020000"},
        {"x-ratelimit-reset-after": "20", "x-ratelimit-reset": "1700000020"},
        {"x-ratelimit-reset-ms": "20000"},
        {"ratelimit-reset": "20"},
        {"ratelimitbysize-reset": "20"},
        {"anthropic-ratelimit-requests-reset": "2023-11-14T22:13:40Z"},
        {"RateLimit": '"default";r=0;t=20'},
        {"RateLimit": '"second";r=9;t=3, "day";r=0;t=20, "month";r=9;t=999'},
        {"RateLimit": "limit=100, remaining=0, reset=20"},
        {"RateLimit": "limit=100, reset=20"},
    ],
)
def test_headers_say_when_a_limit_begins_anew(headers):
    assert read_wait(headers, now=NOW) == 20
    assert read_asked_wait(headers, now=NOW) is None, "services send them with every answer"


@pytest.mark.parametrize(
    ("requests_left", "tokens_left", "seconds"),
    [
        ("0", "9", 60), ("9", "0", 20), ("0", "0", 60), (None, None, 60), (None, "0", 20),
        (None, "9", 60), ("9", "9", 20),
    ],
)  # fmt: skip
def test_of_several_limits_the_one_that_is_used_up_counts(requests_left, tokens_left, seconds):
    headers = {"x-ratelimit-reset-requests": "1m0s", "x-ratelimit-reset-tokens": "20s"}
    for name, left in (("requests", requests_left), ("tokens", tokens_left)):
        if left is not None:
            headers[f"x-ratelimit-remaining-{name}"] = left
    assert read_wait(headers) == seconds


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-limit-requests": "20"},
        {"x-ratelimit-reset-requests": "0s"},
        {"x-ratelimit-reset": "1699999999"},
        {"RateLimit-Policy": '"default";q=100;w=20'},
        {"x-password-reset": "20"},
        {"x-do-not-retry-after-all": "20"},
        {"RateLimit": "garbage"},
    ],
)
def test_other_headers_ask_for_nothing(headers):
    assert read_wait(headers, now=NOW) is None


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"message": "Rate limit reached. Please try again in 20s. Visit our site."}},
        {"error": {"message": "Please retry after 20 seconds."}},
        {"error": "Too many requests, wait 20 seconds before you try again"},
        {"detail": "Request was throttled. Expected available in 20 seconds."},
        {"message": "Limit resets at 2023-11-14 22:13:40 UTC"},
        {"message": "retry after 20"},
        {"error": {"message": "Please try again in ~20 secs."}},
        "Too many requests. Try again in 20 seconds.",
        "<h1>Slow down</h1><p>Please retry in 20.0s</p>",
        [{"error": {"message": "Please retry in 20.000s."}}],
        {"error": {"details": [{"@type": "…RetryInfo", "retryDelay": "20s"}]}},
        {"retry_after": 20},
        {"retry_after": "20"},
        {"parameters": {"retry_after": 20}},
        {"retryAfterMs": 20_000},
        {"error": "loading", "estimated_time": 20.0},
        {"resets_in_seconds": 20},
        {"error": {"type": "usage_limit_reached", "resets_at": 1_700_000_020}},
        {"reset_at": "2023-11-14T22:13:40Z"},
        {"error": {"retry-after": "20s"}},
        {"message": "quota used up (retry_after=20)"},
        "slow down, Retry-After: 20",
        '{"retry_after": 20}  {"and": "no JSON"',
        {"error": {"metadata": {"headers": {"X-RateLimit-Reset": "1700000020000"}}}},
    ],
)
def test_the_body_asks_for_a_wait(document):
    assert read_wait({}, document, now=NOW) == 20


def test_longer_words_in_a_text_are_added_up():
    assert read_wait({}, "Please try again in 7m12.288s.") == pytest.approx(432.288)
    assert read_wait({}, "Please wait for 1 minute and 30 seconds.") == 90
    assert read_wait({}, "Please try again in 6ms.") == pytest.approx(0.006)


@pytest.mark.parametrize(
    "document",
    [
        {"message": "Try another model: 20 of 20 requests per 60 seconds are used"},
        {"message": "Please try again in 20 apples"},
        {"message": "Please try again at 10:30"},
        {"message": "failed", "input": "please try again in 20s"},
        {"message": "failed", "param": "please try again in 20s"},
        {"message": "failed", "you_sent": ["please try again in 20s"]},
        {"message": "failed", "request": {"message": "try again in 20s", "retry_after": 20}},
        {"retry_after": True}, {"retry_after": -3}, {"retry_after": None},
        {"retry_after": float("inf")}, {"retry_after": [None]}, {"retry_after": "soon"},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"retry_after": 20}}}}}}}}}},
        [0] * 1000 + [{"retry_after": 20}],
        "", 7, [], {},
    ],
)  # fmt: skip
def test_a_body_that_asks_for_nothing_is_no_wait(document):
    assert read_wait({}, document) is None


def test_headers_that_ask_come_before_the_body_and_the_body_before_resets():
    reset = {"x-ratelimit-reset-requests": "60s"}
    document = {"message": "try again in 30s"}
    assert read_wait({"retry-after": "20", **reset}, document) == 20
    assert read_wait(reset, document) == 30
    assert read_wait(reset, {"message": "slow down"}) == 60
    assert read_wait({"retry-after": "soon", **reset}) == 60


def test_of_several_headers_that_ask_the_longest_wait_counts():
    assert read_wait({"retry-after": "1", "retry-after-ms": "20000"}) == 20


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs tzset")
@pytest.mark.parametrize(
    "value",
    [
        "Tue Nov 14 22:13:40 2023", "Tue, 14 Nov 2023 22:13:40 -0000", "2023-11-14T22:13:40",
        "2023-11-14 22:13:40 UTC", "Tue, 14 Nov 2023 22:13:40",
    ],
)  # fmt: skip
def test_a_date_without_a_zone_is_in_utc_wherever_the_server_is(monkeypatch, value):
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    try:
        assert read_wait({"retry-after": value}, now=NOW) == 20
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset"])
def test_a_point_in_time_is_compared_with_the_answers_own_date(name):
    headers = {name: formatdate(1_000_000_090, usegmt=True)}
    headers["date"] = formatdate(1_000_000_000, usegmt=True)
    assert read_wait(headers, now=NOW) == 90
    assert read_wait({**headers, "date": "broken"}, now=1_000_000_050) == 90 - 50


def test_a_wait_has_an_upper_limit_wherever_it_is():
    for headers, document in (
        ({"retry-after-ms": "9" * 15}, None),
        ({"x-ratelimit-reset": "999d"}, None),
        ({}, {"retry_after": 1e8}),
        ({"RateLimit": '"x";r=0;t=99999999'}, None),
    ):
        assert read_wait(headers, document, now=NOW) == MAX_WAIT_S

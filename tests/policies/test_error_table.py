"""Every row of the error table. tests/chains/test_execute.py has what a chain does with them."""

from __future__ import annotations

import re
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError

import pytest
from werkzeug.exceptions import NotFound

from om_plugins import errors
from om_plugins.builtin.http.status import map_status
from om_plugins.errors import (
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    EngineError,
    EngineUnavailable,
    Misconfigured,
    NextTier,
    OpenManagerError,
    RateLimited,
    Retry,
    TooLong,
    Transient,
    Unsupported,
)
from om_plugins.policies.error_table import (
    ForeignRefusal,
    asked_wait_s,
    blames_engine,
    cooldown_of,
    cooling_s,
    is_about_caller,
    may_have_run,
    may_retry,
    row_of,
    sent_of,
    trips_breaker,
)

TABLE = """
                  retry          next tier     trips  cooldown      caller's  HTTP
OpenManagerError  IF_IDEMPOTENT  UNLESS_SPENT  True   -             False     500
ConfigError       IF_IDEMPOTENT  UNLESS_SPENT  True   -             False     500
MissingExtra      IF_IDEMPOTENT  UNLESS_SPENT  True   -             False     500
PluginError       IF_IDEMPOTENT  UNLESS_SPENT  True   -             False     500
HubError          IF_IDEMPOTENT  UNLESS_SPENT  True   -             False     500
CacheError        IF_IDEMPOTENT  UNLESS_SPENT  True   -             False     500
CallerDeadline    NEVER          NEVER         False  -             True      504
Cancelled         NEVER          NEVER         False  -             True      503
EngineError       IF_IDEMPOTENT  UNLESS_SPENT  True   -             False     502
Transient         IF_SAFE        UNLESS_SPENT  True   -             False     502
RateLimited       AFTER_WAIT     ALWAYS        False  cooling down  False     502
AttemptTimeout    IF_IDEMPOTENT  UNLESS_SPENT  True   -             False     504
NoAnswer          NEVER          UNLESS_SPENT  True   -             False     502
InvalidRequest    NEVER          NEVER         False  -             True      400
Unsupported       NEVER          ALWAYS        False  -             True      502
TooLong           NEVER          ALWAYS        False  -             True      413
Misconfigured     NEVER          ALWAYS        False  offline       False     502
EngineUnavailable NEVER          ALWAYS        False  -             False     502
ChainExhausted    NEVER          UNLESS_SPENT  True   -             False     503
"""


def test_the_whole_table_is_this_one():
    rows = [
        f"{kind.__name__:17} {kind.retry.name:14} {kind.next_tier.name:13} {kind.trips!s:6} "
        f"{kind.cooldown or '-':13} {kind.callers_fault!s:9} {kind.http_status}"
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, OpenManagerError)
    ]
    assert rows == TABLE.strip("\n").splitlines()[1:]


WORDS = {
    Retry.NEVER: "no",
    Retry.IF_SAFE: "if not sent, or idempotent",
    Retry.IF_IDEMPOTENT: "if idempotent",
    Retry.AFTER_WAIT: "if its Retry-After fits the deadline",
    NextTier.NEVER: "no",
    NextTier.ALWAYS: "yes",
    NextTier.UNLESS_SPENT: "yes*",
    "": "",
    "cooling down": "; the engine cools down",
    "offline": "; offline if its own probe is refused, too",
}


@pytest.fixture
def page():
    return Path(__file__).parents[2].joinpath("docs", "engines.md").read_text(encoding="utf-8")


def read_table(page):
    """The name, the statuses and the rest of each row."""
    row = r"^\|[^`|]*`(\w+)`[^|]*\| ([^|]*) \| (.* \| \d{3}) \|$"
    return re.findall(row, page, re.MULTILINE)


def test_the_page_on_engines_has_the_statuses_of_each_error(page):
    shown = {
        status: name
        for name, cell, _ in read_table(page)
        if cell != "–"
        for status in cell.split(", ")
    }
    waits = {"retry-after": "1"}
    assert shown.pop("503 with `Retry-After`") == type(map_status(503, waits, "up")).__name__
    for status in range(300, 600):
        rest = f"{status // 100}xx"
        name = shown.get(str(status)) or shown.get(rest) or shown[f"every other {rest}"]
        assert name == type(map_status(status, {}, "up")).__name__, status


def test_the_page_on_engines_has_the_same_table(page):
    names = {"Exception": "OpenManagerError", "HTTPError": "ForeignRefusal"}
    shown = {
        names.get(name, name): row.replace(", unless all its engines refused the call", "")
        for name, _, row in read_table(page)
    }
    assert shown == {
        name: f"{WORDS[kind.retry]} | {WORDS[kind.next_tier]} | "
        f"{'yes' if kind.trips else 'no'}{WORDS[kind.cooldown]} | {kind.http_status}"
        for name in shown
        for kind in [getattr(errors, name, ForeignRefusal)]
    }
    raised_by_engines = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, EngineError | CallerDeadline | Cancelled)
    }
    assert shown.keys() == raised_by_engines | {
        "ChainExhausted",
        "ForeignRefusal",
        "OpenManagerError",
    }


def test_a_subclass_has_the_row_of_its_nearest_base_and_may_change_it():
    class Overloaded(RateLimited):
        trips = True

    class Both(Misconfigured, ValueError):
        pass

    class Foreign(ValueError):
        """Not of this package, so its attributes are not ours."""

        trips = False
        retry = 3

    assert (row_of(Overloaded()).retry, row_of(Overloaded()).trips) == (RateLimited.retry, True)
    assert row_of(Both()).cooldown == "offline"
    assert row_of(KeyError()) is row_of(Foreign()) is OpenManagerError


class Response:
    def __init__(self, status_code):
        self.status_code = status_code


def with_attributes(**attributes):
    error = ValueError("refused")
    vars(error).update(attributes)
    return error


@pytest.mark.parametrize(
    "error",
    [
        with_attributes(response=Response(404)),  # requests, httpx
        with_attributes(response=None, status_code=401),  # openai, anthropic
        with_attributes(status=403),  # aiohttp
        HTTPError("http://x", 410, "gone", Message(), None),  # urllib
        NotFound(),  # werkzeug
        with_attributes(response=Response(422)),
        with_attributes(code=499),
        with_attributes(response=Response(302)),
        with_attributes(response={"ResponseMetadata": {"HTTPStatusCode": 404}}),  # botocore
    ],
)
def test_a_status_that_another_package_raises_is_a_refusal_of_the_call(error):
    assert row_of(error) is ForeignRefusal
    assert not trips_breaker(error)
    assert not blames_engine(error)
    assert not may_retry(error, idempotent=True)
    assert cooldown_of(error) == "offline"
    assert may_have_run(error), "a function may have done a part of its work"


class Hostile(ValueError):
    @property
    def response(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "error",
    [
        with_attributes(response=Response(500)),
        with_attributes(response=Response(200)),
        with_attributes(status_code=429),
        with_attributes(status_code=408),
        with_attributes(status_code="404"),
        with_attributes(code=True),
        with_attributes(code=1045),  # a database's own
        with_attributes(response="404"),
        with_attributes(response={"ResponseMetadata": None}),
        Hostile("x"),
    ],
)
def test_what_carries_no_status_of_a_refusal_has_the_row_of_any_exception(error):
    assert row_of(error) is OpenManagerError
    assert blames_engine(error)


def test_an_attribute_that_is_no_rule_is_refused_where_the_class_is_written():
    with pytest.raises(TypeError, match=r"Hasty\.retry must be one of Retry"):

        class Hasty(Transient):
            retry = 3


class Overloaded(RateLimited):
    trips = True


ABOUT = [
    # error, about the caller, trips the breaker, cooldown, certainly the engine's fault
    (Transient("x"), False, True, "", True),
    (Transient("x", concerns_caller=True), True, False, "", False),
    (RateLimited("x"), False, False, "cooling down", True),
    (RateLimited("x", concerns_caller=True), True, False, "", False),
    (Overloaded("x", concerns_caller=True), True, False, "", False),
    (Misconfigured("x"), False, False, "offline", False),
    (Misconfigured("x", concerns_caller=True), True, False, "", False),
    (TooLong("x"), True, False, "", False),
    (ValueError("x"), False, True, "", True),
    (EngineUnavailable("x", "offline"), False, False, "", True),
    (ChainExhausted("x", [Misconfigured("x"), TooLong("x")]), False, False, "", False),
    (ChainExhausted("x", [Unsupported("x"), TooLong("x")]), True, False, "", False),
    (ChainExhausted("x", [Misconfigured("x"), Transient("x")]), False, True, "", True),
    (ChainExhausted("x", [EngineUnavailable("x", "offline")]), False, True, "", True),
]


@pytest.mark.parametrize("row", ABOUT, ids=lambda row: repr(row[0]))
def test_what_an_error_says_of_the_engine(row):
    error, *expected = row
    assert [
        is_about_caller(error), trips_breaker(error), cooldown_of(error), blames_engine(error)
    ] == expected  # fmt: skip


def test_a_foreign_error_concerns_its_caller_only_where_it_says_true():
    for said in ("yes", 1, object(), None):
        error = ValueError()
        error.concerns_caller = said
        assert not is_about_caller(error)


def test_an_unknown_error_may_have_been_sent():
    assert sent_of(ValueError()) == "maybe"
    strange = ValueError()
    strange.sent = object()
    assert sent_of(strange) == "maybe"
    assert may_have_run(strange)
    assert not may_retry(strange, idempotent=False)


@pytest.mark.parametrize(
    ("said", "believed", "cools"),
    [
        (None, None, 1.0),
        (float("nan"), None, 1.0),
        ("soon", None, 1.0),
        (-5, 0.0, 0.0),
        (7, 7.0, 7.0),
        (1e12, 1e12, 300.0),
        (float("inf"), float("inf"), 300.0),
    ],
)
def test_a_hostile_retry_after_is_made_harmless(said, believed, cools):
    error = RateLimited(retry_after=said)
    assert asked_wait_s(error) == believed
    assert cooling_s(error) == cools

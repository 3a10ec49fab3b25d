"""Every row of the error table, as the table says it and as a chain does it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from om_plugins import errors
from om_plugins.chains.error_table import (
    asked_wait_s,
    cooling_s,
    may_have_run,
    may_retry,
    row_of,
    sent_of,
)
from om_plugins.errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    Misconfigured,
    NextTier,
    OpenManagerError,
    RateLimited,
    Retry,
    TooLong,
    Transient,
    Unsupported,
)


def group() -> ChainExhausted:
    return ChainExhausted("inner", [ValueError()])


# error, retried when not idempotent, retried when idempotent, next tier, next tier under
# at_most_once, trips the breaker
ROWS = [
    (Transient(sent="no"), True, True, True, True, True),
    (Transient(sent="maybe"), False, True, True, False, True),
    (Transient(sent="yes"), False, True, True, False, True),
    (RateLimited(retry_after=1), True, True, True, True, False),
    (RateLimited(retry_after=60), False, False, True, True, False),
    (RateLimited(), True, True, True, True, False),
    (AttemptTimeout(), False, True, True, False, True),
    (CallerDeadline(), False, False, False, False, False),
    (Cancelled(), False, False, False, False, False),
    (InvalidRequest(), False, False, False, False, False),
    (Unsupported(), False, False, True, True, False),
    (TooLong(), False, False, True, True, False),
    (Misconfigured(), False, False, True, True, False),
    (EngineUnavailable("x", "bulkhead full"), False, False, True, True, False),
    (EngineError(), False, True, True, False, True),
    (ValueError(), False, True, True, False, True),
    (group(), False, False, True, False, True),
]
IDS = [
    f"{type(row[0]).__name__}-{getattr(row[0], 'sent', '')}-{getattr(row[0], 'retry_after', '')}"
    for row in ROWS
]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_chain_does_what_the_table_says(row, engine, chain_of, clock):
    error, retried, retried_if_idempotent, next_tier, next_if_at_most_once, trips = row

    def run(idempotent: bool, at_most_once: bool):
        one, two = engine("one", error, idempotent=idempotent), engine("two")
        chain = chain_of(one, two, retries=1, at_most_once=at_most_once, breaker_min_calls=100)
        with contextlib.suppress(ChainExhausted, CallerDeadline, Cancelled, InvalidRequest):
            chain.call()
        return one.times > 1, two.times == 1, chain.health()[0]

    again, fell_back, health = run(idempotent=False, at_most_once=False)
    assert (again, fell_back) == (retried, next_tier)
    assert health.failure_rate == (1.0 if trips else 0.0)
    assert health.samples == (1 + again if trips else 0)
    assert run(idempotent=True, at_most_once=False)[:2] == (retried_if_idempotent, next_tier)
    assert run(idempotent=False, at_most_once=True)[1] == next_if_at_most_once


@pytest.mark.parametrize("error", [row[0] for row in ROWS], ids=IDS)
def test_only_misconfigured_is_offline_and_only_rate_limited_cools(error, engine, chain_of):
    chain = chain_of(engine("one", error), engine("two"), retries=0, breaker_min_calls=100)
    with contextlib.suppress(CallerDeadline, Cancelled, InvalidRequest):
        chain.call()
    state = chain.health()[0].state.value
    assert (state == "offline") == isinstance(error, Misconfigured)
    assert (row_of(error).cooldown == "cooling down") == isinstance(error, RateLimited)


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
    "offline": "; offline until a probe succeeds",
}


def test_the_page_on_engines_has_the_same_table():
    page = Path(__file__).parents[2].joinpath("docs", "engines.md").read_text(encoding="utf-8")
    names = {"Exception": "OpenManagerError"}
    rows = re.findall(r"^\|[^`|]*`(\w+)`[^|]*\| (.*) \| (\d{3}) \|$", page, re.MULTILINE)
    shown = {names.get(name, name): f"{row} | {status}" for name, row, status in rows}
    assert shown == {
        name: f"{WORDS[kind.retry]} | {WORDS[kind.next_tier]} | "
        f"{'yes' if kind.trips else 'no'}{WORDS[kind.cooldown]} | {kind.http_status}"
        for name in shown
        for kind in [getattr(errors, name)]
    }
    raised_by_engines = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, EngineError | CallerDeadline | Cancelled)
    }
    assert shown.keys() == raised_by_engines | {"ChainExhausted", "OpenManagerError"}


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


def test_an_attribute_that_is_no_rule_is_refused_where_the_class_is_written():
    with pytest.raises(TypeError, match=r"Hasty\.retry must be one of Retry"):

        class Hasty(Transient):
            retry = 3


def test_at_most_once_retries_only_what_was_not_sent(engine, chain_of):
    for sent, times in (("no", 2), ("maybe", 1), ("yes", 1)):
        one = engine("one", Transient(sent=sent), idempotent=True)
        with pytest.raises(ChainExhausted):
            chain_of(one, at_most_once=True, retries=1).call()
        assert one.times == times


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

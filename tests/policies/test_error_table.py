"""Every row of the error table. tests/chains/test_execute.py has what a chain does with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from om_plugins import errors
from om_plugins.errors import (
    CallerDeadline,
    Cancelled,
    EngineError,
    Misconfigured,
    NextTier,
    OpenManagerError,
    RateLimited,
    Retry,
    Transient,
)
from om_plugins.policies.error_table import (
    asked_wait_s,
    cooling_s,
    may_have_run,
    may_retry,
    row_of,
    sent_of,
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

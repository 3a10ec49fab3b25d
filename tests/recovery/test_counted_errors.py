"""Which errors count: an engine's own, not those of one caller."""

from __future__ import annotations

import pytest

from om_plugins.errors import (
    EngineUnavailable,
    Misconfigured,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)
from om_plugins.recovery.counted_errors import find_engine_error, find_skip_reason, is_counted
from om_plugins.types import Attempt


def attempts_of(*errors):
    return [
        Attempt("one", 1, 1, error, "yes", 9.0, skipped=isinstance(error, EngineUnavailable))
        for error in errors
    ]


@pytest.mark.parametrize(
    "error",
    [Misconfigured("404"), Misconfigured("401", concerns_caller=True), Unsupported("418"),
     TooLong("413"), RateLimited("429", concerns_caller=True)],
    ids=repr,
)  # fmt: skip
def test_what_may_be_the_fault_of_one_call_is_no_error_of_an_engine(error):
    assert find_engine_error(attempts_of(error), 1.0) is None
    down = Transient("down")
    assert find_engine_error(attempts_of(error, down), 1.0) is down


@pytest.mark.parametrize("error", [Transient("down"), RateLimited("429"), ValueError()], ids=repr)
def test_what_the_engine_did_is_its_error(error):
    assert find_engine_error(attempts_of(error), 1.0) is error


def test_an_engine_whose_probe_was_refused_counts_as_skipped():
    offline = EngineUnavailable("one", "offline")
    assert find_skip_reason(attempts_of(Misconfigured("404"), offline)) is offline


def test_an_error_that_concerns_its_caller_is_not_counted():
    assert not is_counted(RateLimited("429", concerns_caller=True))
    assert is_counted(RateLimited("429"))

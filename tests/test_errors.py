"""The exception tree: what each error says, and what it carries."""

from __future__ import annotations

import inspect

import pytest

from om_plugins import errors
from om_plugins.errors import (
    ChainExhausted,
    ConfigError,
    EngineError,
    EngineUnavailable,
    MissingExtra,
    OpenManagerError,
    PluginError,
    RateLimited,
    Transient,
    suggest,
)
from om_plugins.types import Attempt

EVERY = [
    one
    for one in vars(errors).values()
    if inspect.isclass(one) and issubclass(one, BaseException) and one.__module__ == errors.__name__
]


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.__name__)
def test_every_error_is_ours_documented_and_drawn_in_the_tree(one: type) -> None:
    assert issubclass(one, OpenManagerError)
    assert inspect.getdoc(one)
    assert one.__name__ in (errors.__doc__ or "")


def test_a_config_error_names_key_value_and_reason() -> None:
    error = ConfigError("OM_CSP_MODE", "enforced", "must be 'enforce'")
    assert str(error) == "OM_CSP_MODE 'enforced': must be 'enforce'"
    assert (error.key, error.value, error.reason) == (
        "OM_CSP_MODE",
        "enforced",
        "must be 'enforce'",
    )
    assert isinstance(error, ValueError)


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(str(ConfigError("OM_X", "x" * 10_000, "no"))) < 200


def test_a_missing_extra_says_what_to_install() -> None:
    error = MissingExtra("OM_CACHE_URL", "redis://", "redis")
    assert "pip install 'om-plugins[redis]'" in str(error)
    assert error.extra == "redis"


def test_a_plugin_error_names_the_plugin() -> None:
    assert str(PluginError("wiki", "gone")) == "plugin 'wiki': gone"


def test_an_engine_error_carries_what_the_chain_decides_on() -> None:
    error = Transient("refused", sent="no", retry_after=2.0, status=503)
    assert (error.sent, error.retry_after, error.status) == ("no", 2.0, 503)
    assert (EngineError().sent, str(Transient())) == ("maybe", "Transient")


def test_a_skipped_engine_was_never_sent_anything() -> None:
    error = EngineUnavailable("gpt", "breaker open", retry_after=3.0)
    assert (error.sent, str(error)) == ("no", "gpt: breaker open")


def exhausted(*found: Exception) -> ChainExhausted:
    records = [Attempt("e", 1, n, error, "no", 0.1) for n, error in enumerate(found, 1)]
    return ChainExhausted("chain 'c' is exhausted", list(found), "c", records, 2.5)


def test_an_exhausted_chain_is_a_group_of_its_attempts() -> None:
    error = exhausted(Transient("one"), RateLimited("two"))
    assert [str(one) for one in error.exceptions] == ["one", "two"]
    assert (error.chain, len(error.attempts), error.retry_after) == ("c", 2, 2.5)
    with pytest.raises(OpenManagerError):
        raise error


def test_except_star_takes_an_exhausted_chain_apart_and_keeps_its_details() -> None:
    try:
        raise exhausted(Transient("one"), RateLimited("two"))
    except* RateLimited as group:
        caught = group
    except* Transient:
        pass
    assert isinstance(caught, ChainExhausted)
    assert (caught.chain, caught.retry_after) == ("c", 2.5)
    assert [str(one) for one in caught.exceptions] == ["two"]


def test_all_rate_limited_counts_engines_that_were_cooling_down() -> None:
    assert exhausted(RateLimited(), EngineUnavailable("e", "cooling down")).all_rate_limited
    assert not exhausted(RateLimited(), EngineUnavailable("e", "offline")).all_rate_limited
    assert not exhausted(RateLimited(), Transient()).all_rate_limited


def test_the_most_similar_name_is_suggested():
    assert suggest("redsi", ["memory", "redis"]) == "did you mean 'redis'?"
    assert suggest("CAMERA", ["Camera", "usb"]) == "did you mean 'Camera'?"


def test_without_a_similar_name_all_are_listed_or_the_given_text_is_returned():
    assert suggest("x", ["memory", "redis"]) == "known are memory, redis"
    assert suggest("x", ["memory"], "install it") == "install it"
    assert suggest("x", [], "") == ""


def test_a_name_that_is_no_text_is_compared_by_its_text():
    assert suggest(12345, ["123456"]) == "did you mean '123456'?"


def test_the_cutoff_says_how_similar_a_name_must_be():
    assert suggest("httq", ["http"], "no", cutoff=0.9) == "no"
    assert suggest("httq", ["http"], "no", cutoff=0.7) == "did you mean 'http'?"

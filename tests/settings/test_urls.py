from __future__ import annotations

from typing import Any

import pytest

from om_plugins.errors import ConfigError
from om_plugins.settings.urls import CheckedFactory, check_scheme, check_url


def test_an_unknown_scheme_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown scheme 'redsi'; did you mean 'redis'\?"):
        check_scheme("OM_CACHE_URL", "redsi://host", ["redis", "file"])


def test_a_scheme_that_is_near_to_none_lists_them_all() -> None:
    with pytest.raises(ConfigError, match="unknown scheme 'x'; known are file, redis"):
        check_scheme("OM_CACHE_URL", "x:", ["redis", "file"])


def test_the_factory_of_a_scheme_checks_the_rest_of_the_url() -> None:
    checked: list[str] = []
    factories = {"file": CheckedFactory(str.upper, checked.append), "plain": str.upper}
    check_url("OM_CACHE_URL", "file:///a", factories)
    check_url("OM_CACHE_URL", "plain://a", factories)
    assert checked == ["file:///a"]
    assert factories["file"]("made") == "MADE"


async def checked_later(url: str) -> None: ...


@pytest.mark.parametrize("check", [lambda url: False, checked_later, lambda url: (1 for _ in url)])
def test_a_check_that_says_no_or_has_not_run_refuses_the_url(check: Any) -> None:
    with pytest.raises(ConfigError, match="OM_CACHE_URL 'file:///a': its check returned "):
        check_url("OM_CACHE_URL", "file:///a", {"file": CheckedFactory(str.upper, check)})

"""``Strict-Transport-Security``: the value, and what the preload list would refuse."""

from __future__ import annotations

import pytest

from om_plugins.errors import ConfigError
from om_plugins.headers.hsts import HstsOptions


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, "max-age=31536000"),
        ({"max_age": 0}, "max-age=0"),
        ({"include_subdomains": True}, "max-age=31536000; includeSubDomains"),
        (
            {"include_subdomains": True, "preload": True},
            "max-age=31536000; includeSubDomains; preload",
        ),
    ],
)
def test_the_value_says_what_the_options_say(options, value):
    assert HstsOptions(**options).render() == value


@pytest.mark.parametrize(
    "options",
    [{}, {"include_subdomains": True, "max_age": 31_535_999}, {"max_age": 63_072_000}],
)
def test_the_preload_list_takes_no_site_with_less(options):
    with pytest.raises(ConfigError, match=r"OM_HSTS\['preload'\]"):
        HstsOptions(preload=True, **options).render()

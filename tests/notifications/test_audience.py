"""A browser is known by a cookie that nobody can make up."""

from __future__ import annotations

import re
from unittest.mock import MagicMock, Mock

import pytest
from werkzeug.http import parse_cookie

from om_plugins.notifications.audience import Browsers, check_address, find_audience


@pytest.fixture
def browsers():
    return Browsers(lambda: b"a secret of ours")


def cookie_of(header):
    return header.partition(";")[0]


def test_a_browser_is_known_again(browsers):
    address, header = browsers.assign_address({}, "")
    assert re.fullmatch(r"sid:[A-Za-z0-9_-]{22}", address)  # 128 bits
    assert browsers.find_address(cookie_of(header)) == address
    assert browsers.find_address(f"a=1; {cookie_of(header)}; b=2") == address
    assert check_address(address) == address


def test_each_browser_has_an_address_of_its_own(browsers):
    assert len({browsers.assign_address({}, "")[0] for _ in range(100)}) == 100


def test_the_cookie_is_kept_from_scripts_and_other_sites(browsers):
    _, plain = browsers.assign_address({"wsgi.url_scheme": "http"}, "")
    assert [part.strip() for part in plain.split(";")][1:] == ["HttpOnly", "Path=/", "SameSite=Lax"]
    _, tls = browsers.assign_address({"wsgi.url_scheme": "https"}, "/app")
    assert "Secure" in tls
    assert "Path=/app/" in tls


def test_a_forged_cookie_counts_for_nothing(browsers):
    _, header = browsers.assign_address({}, "")
    value = parse_cookie(cookie_of(header))["om_sid"]
    version, sid, signature = value.split(".")
    others = parse_cookie(cookie_of(Browsers(lambda: b"another secret").assign_address({}, "")[1]))
    for forged in (
        sid,
        f"{version}.{sid}.",
        f"{version}.{sid}.{'A' * 43}",
        f"{version}.{'A' * 22}.{signature}",
        f"{version}.{signature}.{sid}",
        value + "x",
        "",
        others["om_sid"],
    ):
        assert browsers.find_address(f"om_sid={forged}") == ""
    assert browsers.find_address("om_sid=" + "A" * 100_000) == ""


def test_of_two_cookies_the_one_of_this_application_counts(browsers):
    address, header = browsers.assign_address({}, "")
    _, others = Browsers(lambda: b"another secret").assign_address({}, "")
    assert browsers.find_address(f"{cookie_of(others)}; {cookie_of(header)}") == address


def test_an_audience_says_for_whom_a_request_speaks():
    environ = {"HTTP_X_USER": "7"}
    found = find_audience(
        environ, lambda request: [f"user:{request.headers['X-User']}", "operators"], None
    )
    assert found == {"user:7", "operators"}
    assert find_audience(environ, lambda request: None, None) == set()


def test_an_audience_may_yield():
    def audience(request):
        yield "operators"

    assert find_audience({}, audience, None) == {"operators"}


async def later():
    return ["operators"]


@pytest.mark.parametrize(
    "said",
    [
        lambda: {"operators": False},
        lambda: "operators",
        lambda: b"operators",
        lambda: True,
        lambda: later(),
        lambda: Mock(),
        lambda: MagicMock(__iter__=lambda self: iter([self])),
    ],
)
def test_an_audience_that_lists_nothing_speaks_for_nobody(said, caplog):
    assert find_audience({}, lambda request: said(), None) == set()
    assert "OM_NOTIFY_AUDIENCE" in caplog.text


@pytest.mark.parametrize("said", [["everyone"], ["sid:" + "A" * 22], ["admin"], [3], 5])
def test_an_audience_that_says_anything_else_speaks_for_nobody(said, caplog):
    assert find_audience({}, lambda request: said, None) == set()
    assert "OM_NOTIFY_AUDIENCE failed" in caplog.text


def test_an_audience_that_raises_speaks_for_nobody(caplog):
    assert find_audience({}, lambda request: 1 / 0, None) == set()
    assert "ZeroDivisionError" in caplog.text

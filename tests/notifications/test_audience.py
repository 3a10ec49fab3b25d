"""A browser is known by a cookie that nobody can make up."""

from __future__ import annotations

import re

import pytest
from werkzeug.http import parse_cookie

from om_plugins.notifications.audience import Browsers, audience_of, check_address


@pytest.fixture
def browsers():
    return Browsers(lambda: b"a secret of ours")


def cookie_of(header):
    return header.partition(";")[0]


def test_a_browser_is_known_again(browsers):
    address, header = browsers.welcome({}, "")
    assert re.fullmatch(r"sid:[A-Za-z0-9_-]{22}", address)  # 128 bits
    assert browsers.address(cookie_of(header)) == address
    assert browsers.address(f"a=1; {cookie_of(header)}; b=2") == address
    assert check_address(address) == address


def test_each_browser_has_an_address_of_its_own(browsers):
    assert len({browsers.welcome({}, "")[0] for _ in range(100)}) == 100


def test_the_cookie_is_kept_from_scripts_and_other_sites(browsers):
    _, plain = browsers.welcome({"wsgi.url_scheme": "http"}, "")
    assert [part.strip() for part in plain.split(";")][1:] == ["HttpOnly", "Path=/", "SameSite=Lax"]
    _, tls = browsers.welcome({"wsgi.url_scheme": "https"}, "/app")
    assert "Secure" in tls
    assert "Path=/app/" in tls


def test_a_forged_cookie_counts_for_nothing(browsers):
    _, header = browsers.welcome({}, "")
    value = parse_cookie(cookie_of(header))["om_sid"]
    sid, _, signature = value.partition(".")
    others = parse_cookie(cookie_of(Browsers(lambda: b"another secret").welcome({}, "")[1]))
    for forged in (
        sid,
        f"{sid}.",
        f"{sid}.{'A' * 22}",
        f"{'A' * 22}.{signature}",
        f"{signature}.{sid}",
        value + "x",
        "",
        others["om_sid"],
    ):
        assert browsers.address(f"om_sid={forged}") == ""
    assert browsers.address("om_sid=" + "A" * 100_000) == ""


def test_of_two_cookies_the_one_of_this_application_counts(browsers):
    address, header = browsers.welcome({}, "")
    _, others = Browsers(lambda: b"another secret").welcome({}, "")
    assert browsers.address(f"{cookie_of(others)}; {cookie_of(header)}") == address


def test_an_audience_says_for_whom_a_request_speaks():
    environ = {"HTTP_X_USER": "7"}
    found = audience_of(
        environ, lambda request: [f"user:{request.headers['X-User']}", "operators"], None
    )
    assert found == {"user:7", "operators"}
    assert audience_of(environ, lambda request: None, None) == set()


@pytest.mark.parametrize("said", [["everyone"], ["sid:" + "A" * 22], ["admin"], [3], 5])
def test_an_audience_that_says_anything_else_speaks_for_nobody(said, caplog):
    assert audience_of({}, lambda request: said, None) == set()
    assert "OM_NOTIFY_AUDIENCE failed" in caplog.text


def test_an_audience_that_raises_speaks_for_nobody(caplog):
    assert audience_of({}, lambda request: 1 / 0, None) == set()
    assert "ZeroDivisionError" in caplog.text

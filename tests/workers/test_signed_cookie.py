"""A cookie comes back as it was written, or counts for nothing."""

from __future__ import annotations

import base64
import hmac

import pytest

from om_plugins.console.access import Sessions
from om_plugins.notifications.audience import Browsers
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.signed_cookie import MAX_HEADER, MAX_VALUE, SignedCookie

SECRET = b"a secret of ours"


def cookie(name="om_test", secret=SECRET, **more):
    return SignedCookie(name, lambda: secret, same_site="Lax", **more)


def pair(payload="value", made_by=None):
    """``name=value`` as a browser sends it."""
    return (made_by or cookie()).write(payload, {}, path="/").partition(";")[0]


def read(cookies, read_by=None):
    return list((read_by or cookie()).read(cookies))


def test_a_payload_comes_back():
    assert read(pair("with.dots.1")) == ["with.dots.1"]
    assert read(f"a=1; {pair()}; b=2") == ["value"]
    assert read("") == read("a=1") == []


def test_browsers_get_the_attributes_that_protect_it():
    written = cookie().write("x", {"wsgi.url_scheme": "http"}, path="/app/", max_age_s=60)
    parts = {part.strip() for part in written.split(";")[1:]}
    assert {"HttpOnly", "Path=/app/", "SameSite=Lax", "Max-Age=60"} <= parts
    assert "Secure" not in parts
    strict = SignedCookie("om_test", lambda: SECRET, same_site="Strict")
    secure = strict.write("x", {"wsgi.url_scheme": "https"}, path="/")
    assert {"Secure", "SameSite=Strict"} <= {part.strip() for part in secure.split(";")}
    assert "Max-Age" not in secure


def test_a_deleted_cookie_is_empty_and_over():
    deleted = cookie().delete({}, path="/app")
    assert deleted.startswith("om_test=;")
    assert {"Max-Age=0", "Path=/app"} <= {part.strip() for part in deleted.split(";")}


@pytest.mark.parametrize(
    "other",
    [cookie(secret=b"another secret"), cookie(salt=b"another salt"), cookie("om_other")],
    ids=["secret", "salt", "name"],
)
def test_what_another_secret_salt_or_name_signed_is_ignored(other):
    value = pair(made_by=other).partition("=")[2]
    assert read(f"om_test={value}") == []


def test_a_changed_value_is_ignored():
    value = pair().partition("=")[2]
    version, payload, signature = value.split(".")
    for forged in (
        f"{version}.{payload}",
        f"{version}.other.{signature}",
        f"{version}.{payload}.{'A' * 43}",
        f"1.{payload}.{signature}",
        f"{payload}.{signature}",
        value + "x",
        value.replace("v", "ü"),
        "2.",
        "..",
        "",
    ):
        assert read(f"om_test={forged}") == [], forged


def test_bytes_of_other_cookies_do_not_matter():
    assert read(f"other=\xfc; {pair()}; one=\xe2\x82") == ["value"]


def test_of_several_cookies_each_valid_one_is_read():
    others = pair(made_by=cookie(secret=b"another secret"))
    assert read(f"{others}; {pair('one')}; {pair('two')}") == ["one", "two"]


def test_a_header_over_the_cap_is_not_read():
    filler = "a=" + "x" * (MAX_HEADER - len(pair()) - 4)
    fits = f"{filler}; {pair()}"
    assert len(fits) == MAX_HEADER
    assert read(fits) == ["value"]
    assert read("x" + fits) == []


def test_a_value_over_the_cap_is_ignored():
    room = MAX_VALUE - len("2..") - 43
    assert read(pair("x" * room)) == ["x" * room]
    assert read(pair("x" * (room + 1))) == []


def test_the_secret_is_asked_for_when_a_cookie_is_there_alone():
    asked = []

    def secret():
        asked.append(1)
        return SECRET

    one = SignedCookie("om_test", secret, same_site="Lax")
    assert read("a=1; om_test=nonsense; om_test=1.x.y", one) == []
    assert not asked
    assert read(pair(), one) == ["value"]
    assert asked


def test_cookies_of_the_earlier_form_are_ignored_and_renewed():
    browser, session_id = "B" * 22, "S" * 22

    def sign(text, size):
        digest = hmac.digest(SECRET, text.encode(), "sha256")[:size]
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    old_browser = f"om_sid={browser}.{sign(f'om_sid:{browser}', 16)}"
    browsers = Browsers(lambda: SECRET)
    assert browsers.find_address(old_browser) == ""
    address, renewed = browsers.assign_address({"HTTP_COOKIE": old_browser}, "")
    assert browsers.find_address(f"{old_browser}; {renewed.partition(';')[0]}") == address

    clock = FakeClock()
    until = int(clock.time()) + 60
    signature = sign(f"om_console:session:{session_id}.{until}.0:", 32)
    old_session = f"om_console={session_id}.{until}.0.{signature}"
    sessions = Sessions(lambda: SECRET, clock)
    assert sessions.find({"HTTP_COOKIE": old_session}) is None
    session, renewed = sessions.create({"HTTP_COOKIE": old_session}, signed_in=False)
    both = f"{old_session}; {renewed.partition(';')[0]}"
    assert sessions.find({"HTTP_COOKIE": both}) == session

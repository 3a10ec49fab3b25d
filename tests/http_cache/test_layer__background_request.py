"""The request of a refresh is nobody's in particular."""

from __future__ import annotations

from werkzeug.test import create_environ

from om_plugins.http_cache.layer__background_request import anonymous_request


def of(**fields):
    environ = create_environ("/page?x=1", "http://h.example", method="HEAD", headers=fields)
    return environ, anonymous_request(environ)


def test_it_is_a_get_for_the_same_address():
    before, made = of(Accept_Language="de")
    for name in ("PATH_INFO", "QUERY_STRING", "HTTP_HOST", "wsgi.url_scheme"):
        assert made[name] == before[name]
    assert made["REQUEST_METHOD"] == "GET"
    assert made["wsgi.input"].read() == b""


def test_cookies_credentials_conditions_and_ranges_are_left_out():
    headers = {
        "Cookie": "a=b",
        "Authorization": "Basic x",
        "If-None-Match": '"a"',
        "Range": "bytes=0-1",
        "Cache-Control": "no-cache",
    }
    environ = create_environ("/", headers=headers) | {"REMOTE_USER": "me", "om_plugins.nonce": "x"}
    made = anonymous_request(environ)
    left = {name for name in made if name.startswith("HTTP_")} - {"HTTP_HOST"}
    assert left == set()
    assert "REMOTE_USER" not in made
    assert "om_plugins.nonce" not in made
    assert anonymous_request(environ, keep_user=True)["HTTP_COOKIE"] == "a=b"

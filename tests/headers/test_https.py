import pytest
from werkzeug.test import create_environ, run_wsgi_app

from om_plugins import OpenManagerMiddleware, Settings
from om_plugins.headers.https import HttpsLayer


def host(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"host"]


def ask(layer, path="/", url="http://shop.example/", method="GET", **environ):
    request = create_environ(path, url, method=method)
    request.update(environ)
    body, status, headers = run_wsgi_app(layer, request)
    return status[:3], headers.get("Location"), b"".join(body)


@pytest.mark.parametrize(
    ("method", "permanent", "code"),
    [
        ("GET", False, "302"),
        ("HEAD", False, "302"),
        ("POST", False, "307"),
        ("GET", True, "301"),
        ("PUT", True, "308"),
    ],
)
def test_plain_http_is_redirected_to_the_same_address(method, permanent, code):
    layer = HttpsLayer(host, permanent=permanent)
    answer = ask(layer, "/a b/ü?x=1&y=%20", method=method)
    assert answer[:2] == (code, "https://shop.example/a%20b/%C3%BC?x=1&y=%20")


def test_https_passes():
    assert ask(HttpsLayer(host), url="https://shop.example/") == ("200", None, b"host")


def test_a_header_that_anybody_can_send_changes_nothing():
    forged = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_FORWARDED": "proto=https"}
    assert ask(HttpsLayer(host), **forged)[0] == "302"


def test_what_is_exempt_is_answered_over_plain_http():
    layer = HttpsLayer(host, exempt=["/up", "/status/*", "/größe"])
    assert ask(layer, "/größe")[2] == b"host"
    assert ask(layer, "/up")[2] == ask(layer, "/status/a/b")[2] == b"host"
    assert [ask(layer, path)[0] for path in ("/up/", "/upper", "/status")] == ["302"] * 3


@pytest.mark.parametrize("name", ["evil.example", "a b", "a/b", "a\r\nX: y", "", "a@b", "[::1"])
def test_a_host_that_is_not_trusted_or_no_host_is_no_place_to_go(name):
    trusting = HttpsLayer(host, trusted_hosts=["shop.example"])
    assert ask(trusting, HTTP_HOST=name)[:2] == ("400", None)
    if name not in ("evil.example", ""):
        assert ask(HttpsLayer(host), HTTP_HOST=name)[:2] == ("400", None)


def test_nothing_in_an_address_ends_the_header():
    location = ask(
        HttpsLayer(host), SCRIPT_NAME="/x", PATH_INFO="//evil\r\nA: b", QUERY_STRING="\n"
    )[1]
    assert location == "https://shop.example/x//evil%0D%0AA:%20b?%0A"


def test_the_whole_stack_redirects_and_keeps_its_health_checks_open():
    app = OpenManagerMiddleware(host, Settings(csp_mode="enforce", force_https={"exempt": ["/up"]}))
    assert ask(app)[0] == "302"
    assert ask(app, "/up")[2] == b"host"
    assert ask(app, "/_om/health")[0] == "200"
    assert ask(app, "/_om/static/om.js")[0] == "302"
    headers = run_wsgi_app(app, create_environ("/", "http://shop.example/"))[2]
    assert headers["X-Content-Type-Options"] == "nosniff"
    app.runtime.close()


def test_a_proxy_counts_only_when_it_is_trusted():
    app = OpenManagerMiddleware(host, Settings(force_https=True, proxies=1))
    assert ask(app, HTTP_X_FORWARDED_PROTO="https")[0] == "200"
    assert ask(app)[0] == "302"
    app.runtime.close()

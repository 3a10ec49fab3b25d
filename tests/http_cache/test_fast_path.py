"""The short way of a hit is the same answer as through all layers."""

from __future__ import annotations

import re

import pytest
from flask import Flask, request
from werkzeug.test import Client

from om_plugins import OpenManager, OpenManagerMiddleware, Settings
from om_plugins.core.request_state import KEY, RequestState
from om_plugins.headers.report_turns import ReportTurns
from om_plugins.http_cache.fast_path import FastPath
from om_plugins.wsgi import find_source
from tests.opening import OpeningClient

NONCE = re.compile(r"\b[0-9a-f]{32}\b")
PAGE = "<!doctype html><script>one()</script><p>{{ number }}</p><style>p{}</style>"
SETTINGS = {
    "enforce": {"OM_CSP_MODE": "enforce"},
    "adopt": {},
    "learn": {"OM_CSP_MODE": "learn", "OM_CSP_REPORT_SAMPLE": 0.5},
    "off": {"OM_CSP_MODE": "off"},
    "compatible": {"OM_CSP_MODE": "enforce", "OM_CSP_PRESET": "compatible"},
    "several": {"OM_CSP_MODE": "enforce", "OM_CSP_REPORT_ALSO": "script-src 'self'"},
    "headers": {
        "OM_CSP_MODE": "enforce",
        "OM_HSTS": {"max_age": 3600},
        "OM_HEADERS": {"Cross-Origin-Resource-Policy": "same-origin"},
    },
    "no word of the hit": {"OM_CSP_MODE": "enforce", "OM_HTTP_CACHE": {"all": False, "status": ""}},
    "not watched": {"OM_CSP_MODE": "enforce", "OM_MONITORING": False},
}
VIEWS = {
    "literal tags": lambda app: app.jinja_env.from_string(PAGE).render(number=1),
    "its nonce": lambda app: app.jinja_env.from_string(
        "<script nonce={{ csp_nonce() }}>one()</script>"
    ).render(),
    "no tags": lambda app: "<p>plain</p>",
    "json": lambda app: {"a": 1},
    "own policy": lambda app: ("own", {"Content-Security-Policy": "default-src 'none'"}),
    "own cache rules": lambda app: ("own", {"Cache-Control": "public, max-age=60"}),
    "svg": lambda app: ("<svg/>", {"Content-Type": "image/svg+xml"}),
    "not found": lambda app: ("gone", 404),
}


class Site:
    """A page in the shared cache, asked for on both ways."""

    def __init__(self, view, **config):
        self.app = app = Flask("app")
        app.test_client_class = OpeningClient
        app.config.update(OM_HUB_URL="memory://", **{"OM_CSP_REPORT_SAMPLE": 0, **config})
        self.om = om = OpenManager(app)
        self.runs = 0

        @app.get("/page")
        @om.cached(stale_time=60, shared=True, negative_time=60)
        def page():
            self.runs += 1
            return view(app)

        self.client = app.test_client()
        self.get(path="/page")
        self.get(path="/page")
        self.fast_path = find_source(app.wsgi_app).layers
        assert isinstance(self.fast_path, FastPath)
        self.passed = 0
        layers = self.fast_path._layers

        def counted(environ, start_response):
            self.passed += 1
            return layers(environ, start_response)

        self.fast_path._layers = counted

    def get(self, path="/page", **more):
        return self.client.get(path, buffered=True, **more)

    def by_layers(self, **more):
        pages, self.fast_path._cache = self.fast_path._cache, _Nothing
        try:
            return self.get(**more)
        finally:
            self.fast_path._cache = pages


class _Nothing:
    @staticmethod
    def find_fresh(environ):
        return None


def look_of(answer):
    headers = sorted((name, NONCE.sub("N", value)) for name, value in answer.headers)
    return answer.status, headers, NONCE.sub("N", answer.text)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    "ask",
    [{}, {"base_url": "https://localhost/"}, {"base_url": "http://localhost/below"}],
    ids=["http", "https", "below"],
)
def test_both_ways_are_one_answer(settings, view, ask):
    site = Site(VIEWS[view], **SETTINGS[settings])
    site.om.runtime.part_of("headers").policy.draw = lambda: False
    site.get(**ask)
    runs, passed = site.runs, site.passed
    answer = site.get(**ask)
    assert site.runs == runs
    assert (site.passed > passed) == (answer.status_code != 200)
    through = site.by_layers(**ask)
    assert site.runs == runs
    assert look_of(answer) == look_of(through)
    assert set(NONCE.findall(answer.text)) <= set(
        NONCE.findall(answer.headers.get("Content-Security-Policy", ""))
        + NONCE.findall(answer.headers.get("Content-Security-Policy-Report-Only", ""))
    ) or settings == "off" or (settings, view) == ("adopt", "its nonce")  # fmt: skip


def test_each_hit_has_a_nonce_of_its_own():
    site = Site(VIEWS["literal tags"], OM_CSP_MODE="enforce")
    seen = [set(NONCE.findall(site.get().text)) for _ in range(200)]
    assert all(len(found) == 1 for found in seen)
    assert len(set.union(*seen)) == 200


def test_the_share_that_asks_for_reports_is_kept():
    site = Site(VIEWS["literal tags"], OM_CSP_MODE="enforce", OM_CSP_REPORT_SAMPLE=0.5)
    policy = site.om.runtime.part_of("headers").policy
    drawn = iter([True, False, False, True])
    policy.draw = lambda: next(drawn)  # once for each answer, whichever way it goes
    asked = ["report-uri" in site.get().headers["Content-Security-Policy"] for _ in range(4)]
    assert asked == [True, False, False, True]
    assert site.passed == 2


def test_a_hit_that_a_script_fetches_asks_for_no_reports():
    site = Site(VIEWS["literal tags"], OM_CSP_MODE="enforce", OM_CSP_REPORT_SAMPLE=0.5)
    site.om.runtime.part_of("headers").policy.draw = lambda: True
    site.get(headers={"Sec-Fetch-Dest": "empty"})
    assert site.passed == 0
    site.get(headers={"Sec-Fetch-Dest": "document"})
    assert site.passed == 1


@pytest.mark.parametrize("ask", [{}, {"headers": {"Cache-Control": "no-cache"}}], ids=str)
@pytest.mark.parametrize("everything", [False, True])
def test_one_response_a_minute_goes_past_the_stored_page_to_ask_for_reports(everything, ask):
    site = Site(VIEWS["literal tags"], OM_HTTP_CACHE={"all": everything})
    policy = site.om.runtime.part_of("headers").policy
    seconds = [1000.0]
    policy.report_turns = ReportTurns(lambda: seconds[0])
    plain = site.get()
    assert "nonce" not in plain.text
    runs = site.runs
    policy.draw = lambda: True
    for turn in (1, 2):
        reported = site.get(**ask)
        assert site.runs == runs + turn
        assert "nonce" in reported.text
        assert "report-uri" in reported.headers["Content-Security-Policy-Report-Only"]
        for _ in range(3):
            again = site.get(**ask)
            assert again.data == plain.data
            assert "Content-Security-Policy-Report-Only" not in again.headers
        seconds[0] += 60
    policy.draw = lambda: False
    assert site.get().data == plain.data
    assert site.runs == runs + 2
    assert len(site.om.runtime.part_of("http_cache").store.responses()) == 1


def test_a_missing_page_is_stored_without_nonces_whoever_asks_for_it():
    site = Site(VIEWS["literal tags"])
    policy = site.om.runtime.part_of("headers").policy
    policy.draw = lambda: True
    site.get()  # takes the turn
    site.om.http_cache.purge("/page")
    runs = site.runs
    pages = [site.get() for _ in range(3)]
    assert site.runs == runs + 1
    assert not any("nonce" in page.text for page in pages)


def test_chance_says_nothing_about_what_an_enforced_policy_stores():
    site = Site(VIEWS["literal tags"], OM_CSP_MODE="enforce")
    policy = site.om.runtime.part_of("headers").policy
    policy.draw = lambda: True
    runs = site.runs
    for _ in range(3):
        assert "report-uri" in site.get().headers["Content-Security-Policy"]
    assert site.runs == runs


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Range": "bytes=0-3"}, 206),
        ({"Cache-Control": "no-cache"}, 200),
        ({"X-Forwarded-Host": "other"}, 200),
        ({"If-None-Match": '"other"'}, 200),
        ({"Authorization": "Basic eDp5"}, 200),
    ],
)
def test_a_request_that_says_more_goes_through_all_layers(headers, status):
    site = Site(VIEWS["no tags"], OM_CSP_MODE="enforce")
    assert site.get(headers=headers).status_code == status
    assert site.passed == 1


def test_other_methods_go_through_all_layers():
    site = Site(VIEWS["no tags"])
    assert site.client.head("/page").status_code == 200
    assert site.client.post("/page").status_code == 405
    assert site.passed == 2


@pytest.mark.parametrize(
    "config",
    [{"OM_CSP_PATHS": {"/page": {"update": {"img-src": ["https://cdn.example"]}}}}],
)
def test_what_changes_by_path_is_kept(config):
    site = Site(VIEWS["literal tags"], OM_CSP_MODE="enforce", **config)
    assert "https://cdn.example" in site.get().headers["Content-Security-Policy"]
    assert site.passed == 1


def test_what_the_view_changed_is_kept():
    app = Flask("app")
    app.config.update(OM_HUB_URL="memory://", OM_CSP_MODE="enforce")
    om = OpenManager(app)

    @app.get("/page")
    @om.csp(update={"img-src": ["https://cdn.example"]})
    @om.headers({"Referrer-Policy": "no-referrer"})
    @om.cached(stale_time=60, shared=True, negative_time=60)
    def page():
        return "page"

    client = app.test_client()
    for _ in range(3):
        answer = client.get("/page")
        assert "https://cdn.example" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_one_address_below_another_root_has_the_changes_of_its_own_path():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html"), ("Cache-Control", "s-maxage=60")])
        return [b"page"]

    settings = Settings(
        csp_mode="enforce",
        csp_paths={"/page": {"update": {"img-src": ["https://cdn.example"]}}},
        http_cache=True,
        hub_url="memory://",
    )
    client = Client(OpenManagerMiddleware(app, settings))
    whole = {"path": "/below/page"}
    below = {"path": "/page", "base_url": "http://localhost/below"}
    for ask, changed in ((whole, False), (whole, False), (below, True), (whole, False)):
        policy = client.get(**ask, buffered=True).headers["Content-Security-Policy"]
        assert ("cdn.example" in policy) == changed


def test_a_nonce_of_a_layer_further_out_is_the_one_that_is_sent():
    site = Site(VIEWS["literal tags"], OM_CSP_MODE="enforce")
    nonce = "a" * 32
    answer = site.get(environ_overrides={KEY: RequestState(None, page_nonce=nonce)})
    assert set(NONCE.findall(answer.text)) == {nonce}
    assert site.passed == 1


def test_what_was_purged_is_not_sent_any_more():
    site = Site(VIEWS["no tags"])
    site.get()
    site.om.http_cache.purge("/page")
    site.get()
    assert site.runs == 2


def test_hits_are_counted_as_any_request():
    site = Site(VIEWS["no tags"])
    collector = site.om.runtime.part_of("monitoring").collector
    samples = []
    collector.add_listener(samples.append)
    before = site.om.http_cache.stats().hits
    for _ in range(3):
        site.get()
    collector.fold()
    assert site.om.http_cache.stats().hits == before + 3
    assert {(one.route, one.method, one.status, one.size_bytes) for one in samples} == {
        ("/page", "GET", 200, len("<p>plain</p>"))
    }
    assert collector.in_flight() == 0
    assert site.passed == 0


def test_where_http_is_redirected_every_layer_is_asked():
    app = Flask("app")
    app.config.update(OM_HUB_URL="memory://", OM_FORCE_HTTPS=True, OM_HTTP_CACHE=True)
    OpenManager(app)
    app.get("/page")(lambda: f"{request.scheme}")
    client = app.test_client()
    client.get("/page", base_url="https://localhost")
    assert not isinstance(find_source(app.wsgi_app).layers, FastPath)
    assert client.get("/page").status_code in (301, 302, 307, 308)


def test_a_cookie_that_the_page_looked_at_takes_a_request_off_the_fast_path():
    site = Site(lambda app: f"hello {request.cookies.get('u')}", OM_CSP_MODE="off")
    assert site.get().text == "hello None"
    assert site.passed == 0
    client = site.app.test_client(use_cookies=False)
    # a name inside of another one is found by the slow way only
    for cookie, passed, text in (
        ("theme=dark", 0, "hello None"),
        ("uu=1", 1, "hello None"),
        ("a=u", 2, "hello None"),
        ("u=alice", 3, "hello alice"),
    ):
        found = client.get("/page", headers={"Cookie": cookie}, buffered=True)
        assert (site.passed, found.text) == (passed, text)

"""Views with ``shared=True`` through the whole stack: the layer in front of the app keeps them."""

from __future__ import annotations

import gzip
import itertools
import re

import pytest
from flask import Flask, abort, make_response, render_template_string, request, session

from om_plugins import OpenManager
from om_plugins.flask.current import plain_environ
from tests.opening import OpeningClient

PAGE = "<script>go()</script><p>{{ number }}</p>"


@pytest.fixture
def site():
    return Site()


class Site:
    """An app whose pages say how often they ran."""

    def __init__(self, **config):
        self.app = Flask("site")
        self.app.test_client_class = OpeningClient
        self.app.secret_key = "of the test"
        self.app.testing = True
        self.app.config.update({"OM_HUB_URL": "memory://", **config})
        self.om = OpenManager(self.app)
        self.numbers = itertools.count(1)
        self.asked = []
        self.app.before_request(lambda: self.asked.append(request.path))

    def view(self, body=None, path="/page", **options):
        options.setdefault("shared", True)

        @self.om.cached(**options)
        def page(**_):
            number = next(self.numbers)
            return body(number) if body else f"run {number}"

        self.app.add_url_rule(path, path, page, methods=["GET", "POST"])
        return self.app.test_client()

    def run(self):
        """Run the jobs of the background."""
        self.om.runtime.scheduler.run_pending()

    @property
    def runs(self):
        return int(repr(self.numbers)[6:-1]) - 1

    @property
    def stats(self):
        return self.om.http_cache.stats()


def test_a_shared_page_is_answered_before_the_application(site):
    client = site.view()
    first, second = client.get("/page"), client.get("/page")
    assert first.text == second.text == "run 1"
    assert site.asked == ["/page"]
    assert second.headers["Cache-Control"] == (
        "public, max-age=0, s-maxage=300, stale-while-revalidate=1500, stale-if-error=1500"
    )
    assert "hit" in second.headers["Cache-Status"]
    assert first.headers["ETag"] == second.headers["ETag"]


def test_a_shared_page_that_is_not_there_is_kept_for_its_own_time(site):
    client = site.view(lambda number: abort(404), negative_time=5)
    found = [client.get("/page") for _ in range(2)]
    assert [one.status_code for one in found] == [404, 404]
    assert site.runs == 1
    assert found[1].headers["Cache-Control"] == "public, max-age=0, s-maxage=5"


def test_without_a_shared_view_there_is_no_layer():
    site = Site()
    client = site.view(shared=False)
    client.get("/page")
    assert not site.om.runtime.part_of("http_cache").wanted
    assert "Cache-Status" not in client.get("/page").headers


def test_other_pages_of_the_application_are_left_alone(site):
    client = site.view()

    @site.app.get("/other")
    def other():
        return "other", {"Cache-Control": "public, max-age=600"}

    client.get("/page")
    for _ in range(2):
        found = client.get("/other")
        assert "Cache-Status" not in found.headers
    assert site.asked.count("/other") == 2


def test_with_the_setting_every_page_that_says_so_is_stored():
    site = Site(OM_HTTP_CACHE=True)

    @site.app.get("/other")
    def other():
        return "other", {"Cache-Control": "public, max-age=600"}

    client = site.app.test_client()
    client.get("/other")
    client.get("/other")
    assert site.asked == ["/other"]


def test_a_factory_may_share_a_view_before_it_binds_an_app():
    om = OpenManager()
    app = Flask("factory")
    app.testing = True

    @app.get("/page")
    @om.cached(shared=True)
    def page():
        return "page"

    om.init_app(app)
    client = app.test_client()
    client.get("/page")
    assert "hit" in client.get("/page").headers["Cache-Status"]


@pytest.mark.parametrize(
    "body",
    [
        lambda number: ("x", {"Set-Cookie": "a=b"}),
        lambda number: ("x", {"Cache-Control": "private"}),
        lambda number: ("x", 500),
    ],
)
def test_personal_pages_are_refused_though_they_are_shared(site, body):
    client = site.view(body)
    for _ in range(2):
        client.get("/page")
    assert site.runs == 2
    assert site.stats.entries == 0


def test_a_session_that_was_looked_at_elsewhere_is_noticed(site):
    site.app.before_request(lambda: session.get("user") and None)
    site.app.add_url_rule("/in", "in", lambda: session.update(user="alice") or "")
    client, alice = site.view(), site.app.test_client()
    alice.get("/in")
    assert [client.get("/page").text for _ in range(2)] == ["run 1"] * 2
    assert [alice.get("/page").text for _ in range(2)] == ["run 2", "run 3"]
    assert client.get("/page").text == "run 1"


def test_a_browser_that_has_the_page_gets_304(site):
    client = site.view()
    etag = client.get("/page").headers["ETag"]
    assert client.get("/page", headers={"If-None-Match": etag}).status_code == 304
    assert site.runs == 1


def test_a_query_may_be_left_out(site):
    client = site.view(query=False)
    client.get("/page?a=1")
    assert client.get("/page?a=2").text == "run 1"


def test_a_page_that_needs_its_query_is_not_taken_for_one_without(site):
    client = site.view(query=False)
    site.view(lambda n: f"{n} {request.args.get('page')}", path="/other")
    client.get("/page?a=1")
    assert client.get("/other").text == "2 None"
    assert client.get("/other?page=1").text == "3 1"
    assert client.get("/other").text == "2 None"
    assert client.get("/page?a=2").text == "run 1"
    assert client.get("/page").text == "run 1"


def test_views_may_look_at_headers_that_they_name(site):
    client = site.view(lambda n: request.headers.get("X-Any", ""), vary=["X-Any"])
    assert client.get("/page", headers={"X-Any": "1"}).text == "1"
    assert client.get("/page", headers={"X-Any": "2"}).text == "2"
    client.get("/page", headers={"X-Any": "1"})
    assert site.runs == 2


def test_posting_takes_the_page_back(site):
    client = site.view()
    client.get("/page")
    client.post("/page")
    assert client.get("/page").text == "run 3"


def test_a_stale_page_is_served_and_refreshed_with_what_it_looked_at(site):
    brought = []

    def look():
        brought.append(sorted(dict.keys(plain_environ(request))))
        site.asked.append(request.headers.get("X-Any"))

    client = site.view(stale_time=0, cache_time=60)
    site.app.before_request(look)
    client.set_cookie("a", "b")
    headers = {"X-Any": "1", "X-Other": "2"}
    client.get("/page", headers=headers)
    assert client.get("/page", headers=headers).text == "run 1"
    site.run()
    assert "HTTP_X_ANY" in brought[1]
    assert not {"HTTP_COOKIE", "HTTP_X_OTHER"}.intersection(brought[1])
    assert client.get("/page", headers=headers).text == "run 2"
    assert site.asked[:4] == ["/page", "1", "/page", "1"]


def test_invalidating_a_tag_reaches_the_pages(site):
    client = site.view(tags=["report"])
    client.get("/page")
    site.om.cache.invalidate(tags=["report"])
    assert client.get("/page").text == "run 1"  # stale, while the new one is made
    site.run()
    assert client.get("/page").text == "run 2"
    site.om.cache.invalidate(("view", "/page"))
    client.get("/page")
    site.run()
    assert client.get("/page").text == "run 3"


@pytest.mark.parametrize("what", [{"url": "/page"}, {"prefix": "/pa"}, {"tags": ["report"]}])
def test_purging_takes_the_page_away_at_once(site, what):
    client = site.view(tags=["report"])
    client.get("/page")
    assert site.om.http_cache.purge(**what) == 1
    assert client.get("/page").text == "run 2"


# --- nonces and policies ------------------------------------------------------------------------


def nonces(response):
    """Those of the policy and those of the page."""
    policy = set(re.findall(r"'nonce-([^']+)'", response.headers["Content-Security-Policy"]))
    return policy, set(re.findall(r'nonce="([^"]+)"', response.text))


@pytest.fixture
def strict():
    site = Site(OM_CSP_MODE="enforce")
    site.client = site.view(lambda number: render_template_string(PAGE, number=number))
    return site


def test_each_hit_has_a_nonce_of_its_own_in_page_and_policy(strict):
    seen = set()
    for _ in range(4):
        policy, page = nonces(strict.client.get("/page"))
        assert policy == page
        assert len(page) == 1
        seen |= page
    assert len(seen) == 4
    assert strict.runs == 1


def test_a_page_with_a_nonce_that_the_application_compressed_is_not_kept_and_is_said_once(
    strict, caplog
):
    @strict.app.after_request
    def compress(response):
        response.set_data(gzip.compress(response.get_data()))
        response.headers["Content-Encoding"] = "gzip"
        return response

    for _ in range(2):
        response = strict.client.get("/page")
        assert response.headers["Cache-Status"] == "OpenManager; fwd=uri-miss"
    assert strict.runs == 2
    assert strict.om.http_cache.refusals() == {"nonce": 2}
    (said,) = [r.getMessage() for r in caplog.records if "compressed" in r.getMessage()]
    assert said.startswith("http://localhost/page is not kept")


def test_no_cache_further_out_keeps_a_nonce(strict):
    for _ in range(2):
        control = strict.client.get("/page").cache_control
        assert control.private
        assert not control.public
        assert control.s_maxage is None


def test_a_page_with_nonces_is_revalidated_by_its_tag(strict):
    tags = {strict.client.get("/page").headers["ETag"] for _ in range(3)}
    assert len(tags) == 1
    found = strict.client.get("/page", headers={"If-None-Match": tags.pop()})
    assert found.status_code == 304
    assert "Content-Security-Policy" not in found.headers


def test_a_views_own_policy_comes_back_with_its_page():
    site = Site(OM_CSP_MODE="enforce")

    @site.app.get("/page")
    @site.om.cached(shared=True)
    @site.om.csp(update={"script-src": ["https://cdn.example"]})
    def page():
        return make_response("<p>page</p>")

    client = site.app.test_client()
    policies = [client.get("/page").headers["Content-Security-Policy"] for _ in range(2)]
    assert all("https://cdn.example" in policy for policy in policies)


def test_a_page_left_without_nonces_is_made_for_one_response_that_asks_for_reports():
    site = Site()
    client = site.view(lambda number: render_template_string(PAGE, number=number))
    assert "nonce" not in client.get("/page").text
    assert "nonce" not in client.get("/page").text
    policy = site.om.runtime.part_of("headers").policy
    policy.draw = lambda: True
    reported = client.get("/page")
    assert "nonce" in reported.text
    policy.draw = lambda: False
    again = client.get("/page")
    assert "nonce" not in again.text
    assert site.runs == 2


@pytest.mark.parametrize("everything", [False, True])
def test_what_reaches_the_application_is_counted_under_its_route(everything):
    site = Site(OM_HTTP_CACHE=everything)
    client = site.view(path="/page/<int:number>")
    site.app.add_url_rule("/own", "own", lambda: "mine")
    samples = []
    collector = site.om.runtime.part_of("monitoring").collector
    collector.add_listener(samples.append)
    for path in ("/page/1", "/page/1", "/page/2", "/own"):
        client.get(path, buffered=True)
    collector.fold()
    assert [one.route for one in samples] == ["/page/<int:number>"] * 3 + ["/own"]


def test_workers_share_pages_with_their_policies_and_nonces(tmp_path):
    config = {"OM_CACHE_URL": f"file://{tmp_path}/cache", "OM_CSP_MODE": "enforce"}
    sites = [Site(**config) for _ in range(2)]
    seen = set()
    for site in sites:

        def body(number, site=site):
            return render_template_string(PAGE, number=number)

        client = site.view(site.om.csp(update={"script-src": ["https://cdn.example"]})(body))
        for _ in range(2):
            found = client.get("/page")
            policy, page = nonces(found)
            assert policy == page
            assert "https://cdn.example" in found.headers["Content-Security-Policy"]
            seen |= page
    assert len(seen) == 4
    assert [site.runs for site in sites] == [1, 0]


def test_a_streamed_page_is_public_only_when_it_is_known_what_its_body_looked_at(site):
    def stream():
        yield "for "
        yield "everybody"

    client = site.view(lambda number: stream())
    told = [client.get("/page", buffered=True).headers["Cache-Control"] for _ in range(2)]
    assert told[0] == "private, max-age=0"
    assert told[1].startswith("public, max-age=0, s-maxage=")


def test_a_page_is_private_when_a_kept_part_of_it_looked_at_who_the_client_is(site):
    @site.om.cached()
    def part():
        return f"hello {request.remote_user}"

    client = site.view(lambda number: part().get_data())
    for _ in range(2):
        assert client.get("/page").headers["Cache-Control"] == "private, max-age=0"
    assert site.om.cache.stats().fresh == 1


def test_a_page_without_its_query_is_not_kept_with_a_kept_part_that_looked_at_it(site):
    @site.om.cached()
    def part():
        return f"page {request.args.get('page', 1)}"

    client = site.view(lambda number: part().get_data(), shared=False, query=False)
    assert [client.get("/page?page=2").text for _ in range(2)] == ["page 2"] * 2
    assert client.get("/page").text == "page 1"

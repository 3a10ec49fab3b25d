"""Cached views.

Covers ``om_plugins.flask.views``, ``om_plugins.flask.view_rules`` and
``om_plugins.flask.view_lookup``.
"""

from __future__ import annotations

import itertools
import re
import threading
import time

import flask
import pytest
from flask import (
    Flask,
    Response,
    abort,
    flash,
    g,
    jsonify,
    redirect,
    request,
    session,
)
from flask.views import MethodView

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.core.clock import SystemClock
from om_plugins.core.inputs import InputRules
from om_plugins.flask.current import plain_environ
from om_plugins.flask.observation.dispatch import observe_requests
from om_plugins.flask.views import cached
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.scheduler import BackgroundScheduler


class Site:
    """An app, its cache, and a view that counts how often it ran."""

    def __init__(self, clock=None, synchronous=True) -> None:
        self.clock = clock or FakeClock()
        self.hub = MemoryHub("memory://", self.clock)
        self.scheduler = BackgroundScheduler(2, 100, self.clock, self.hub, synchronous=synchronous)
        self.cache: SmartCache | None = SmartCache(CacheOptions(
            stale_time=10, cache_time=100, l1_bytes=1 << 20, max_value=1 << 16, clock=self.clock,
            scheduler=self.scheduler,
        ))  # fmt: skip
        self.app = Flask("site")
        self.app.secret_key = "of the test"
        self.app.testing = True
        observe_requests(self.app, InputRules(lambda: b"of the test"))
        self.numbers = itertools.count(1)

    def view(self, body=None, path="/page", **options):
        """Route ``path`` to a cached view that answers ``body()``, or the number of its run."""

        def page(**values):
            number = next(self.numbers)
            return f"run {number}" if body is None else body(**values)

        decorated = cached(self.find_cache, **options)(page)
        self.app.add_url_rule(path, f"page{path}", decorated, methods=["GET", "POST"])
        return self.app.test_client()

    def find_cache(self):
        return self.cache

    @property
    def runs(self):
        return int(repr(self.numbers)[6:-1]) - 1


@pytest.fixture
def site():
    site = Site()
    yield site
    site.scheduler.close()
    site.hub.close()


def stored(site):
    return site.cache.stats().entries


def test_a_fresh_page_is_answered_without_the_view(site):
    client = site.view()
    first, second = client.get("/page"), client.get("/page")
    assert first.text == second.text == "run 1"
    assert first.headers == second.headers
    assert site.runs == 1


def test_the_response_is_private_and_carries_an_etag_that_is_answered_with_304(site):
    client = site.view()
    etags = set()
    for _ in range(2):
        found = client.get("/page")
        assert found.cache_control.private
        assert found.cache_control.max_age == 0
        etags.add(found.headers["ETag"])
    (etag,) = etags
    assert etag.startswith('"')
    again = client.get("/page", headers={"If-None-Match": etag})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get("/page", headers={"If-None-Match": '"other"'}).status_code == 200


def test_what_the_view_says_of_its_caching_is_kept(site):
    def body():
        made = Response("x", headers={"Cache-Control": "max-age=7", "ETag": '"mine"', "X-Own": "1"})
        made.headers.add("Link", "</a>")
        made.headers.add("Link", "</b>")
        return made

    client = site.view(body)
    for found in (client.get("/page"), client.get("/page")):
        assert found.headers["Cache-Control"] == "max-age=7"
        assert found.headers["ETag"] == '"mine"'
        assert found.headers.getlist("Link") == ["</a>", "</b>"]
    assert site.cache.stats().fresh == 1


def test_a_stale_page_is_served_while_the_view_runs_once_in_the_background(site):
    client = site.view()
    client.get("/page")
    site.clock.advance(11)
    assert [client.get("/page").text for _ in range(3)] == ["run 1"] * 3
    assert site.scheduler.run_pending() == 1
    assert client.get("/page").text == "run 2"
    assert site.runs == 2


@pytest.mark.parametrize(
    "body",
    [
        lambda: "text",
        lambda: {"a": 1},
        lambda: [1, 2],
        lambda: ("text", 203, {"X-Own": "1"}),
        lambda: Response("text", mimetype="text/csv"),
        lambda: jsonify(a=1),
        lambda: b"bytes",
        lambda: ("gone", 410, {"Cache-Control": "max-age=9"}),
        lambda: ("", 204),
    ],
)
def test_whatever_a_view_may_return_comes_back_the_same(site, body):
    client = site.view(body)
    first, second = client.get("/page"), client.get("/page")
    assert (first.status, first.data) == (second.status, second.data)
    assert first.headers == second.headers
    assert site.cache.stats().fresh == 1


def test_path_query_host_and_scheme_are_part_of_the_key(site):
    client = site.view(lambda name: f"{name} {next(site.numbers)}", path="/p/<name>")
    pages = [
        ("/p/a", {}),
        ("/p/b", {}),
        ("/p/a?x=1", {}),
        ("/p/a?x=1&y=2", {}),
        ("/p/a?x=2&x=1", {}),
        ("/p/a?x=1&x=2", {}),
        ("/p/a", {"base_url": "http://other.test"}),
        ("/p/a", {"base_url": "https://localhost"}),
        ("/p/a", {"base_url": "http://localhost/prefix"}),
    ]
    first = [client.get(path, **more).text for path, more in pages]
    assert len(set(first)) == len(pages)
    assert [client.get(path, **more).text for path, more in pages] == first
    assert client.get("/p/a?y=2&x=1").text == client.get("/p/a?x=1&y=2").text


def test_the_query_and_headers_count_only_as_far_as_told(site):
    client = site.view(
        lambda: f"{request.headers.get('Accept-Language')} {next(site.numbers)}",
        query=False, vary=["Accept-Language"],
    )  # fmt: skip
    english, korean = {"Accept-Language": "en"}, {"Accept-Language": "ko"}
    assert client.get("/page?a", headers=english).text == client.get("/page", headers=english).text
    found = client.get("/page", headers=korean)
    assert found.text.startswith("ko")
    assert found.vary.as_set() == {"accept-language"}


def test_other_methods_and_parts_of_pages_go_to_the_view(site):
    client = site.view()
    client.get("/page")
    assert client.post("/page").text == "run 2"
    assert client.get("/page", headers={"Range": "bytes=0-1"}).text == "run 3"


def test_head_is_answered_from_a_stored_get_but_never_stored(site):
    client = site.view()
    assert client.head("/page").data == b""
    assert stored(site) == 0
    full = client.get("/page")
    head = client.head("/page")
    assert site.runs == 2
    assert head.data == b""
    assert head.headers == full.headers


# --- personal answers ---------------------------------------------------------------------------


def read_session():
    return f"hello {session.get('name')}"


def write_session():
    session["seen"] = session.get("seen", 0) + 1
    return "x"


def set_cookie():
    made = Response("x")
    made.set_cookie("a", "b")
    return made


def set_cookie_later():
    @flask.after_this_request
    def later(made):
        made.set_cookie("a", "b")
        return made

    return "x"


def use_nonce():
    request.environ["om_plugins.state"].page_nonce = "abc"
    return "<script nonce=abc>"


def change_policy():
    request.environ["om_plugins.state"].overrides = (object(),)
    return "x"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (write_session, "session"),
        (lambda: flash("saved") or "x", "session"),
        (set_cookie, "cookie"),
        (set_cookie_later, "cookie"),
        (lambda: str(dict(request.headers)), "input"),
        (lambda: ("x", {"Vary": "*"}), "vary"),
        (lambda: iter(["a", "b"]), "streamed"),
        (use_nonce, "nonce"),
        (change_policy, "csp"),
    ],
)
def test_what_no_other_request_may_get_is_not_stored_and_one_warning_says_so(
    site, body, reason, caplog
):
    client = site.view(body)
    for _ in range(3):
        assert client.get("/page").status_code == 200
    assert stored(site) == 0
    assert site.cache.refusals() == {reason: 3}
    assert len(caplog.records) == 1
    assert "the view 'page/page' is not cached" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        lambda: ("x", 500),
        lambda: ("x", 302, {"Location": "/"}),
        lambda: ("x", {"Cache-Control": "no-store"}),
        lambda: ("x", {"Cache-Control": "no-cache"}),
        lambda: abort(404),
    ],
)
def test_what_says_by_itself_that_it_is_not_for_keeping_is_not_stored(site, body, caplog):
    client = site.view(body)
    statuses = {client.get("/page").status_code for _ in range(2)}
    assert len(statuses) == 1
    assert stored(site) == 0
    assert not caplog.records


@pytest.mark.parametrize(
    "body",
    [
        lambda: ("x", 404),
        lambda: ("x", 410),
        lambda: ("x", 403),
        lambda: abort(404, response=Response("x", 404, {"Cache-Control": "max-age=9"})),
    ],
)
def test_an_error_without_freshness_of_the_views_own_response_is_not_stored(site, body):
    client = site.view(body)
    for _ in range(2):
        assert client.get("/page").status_code >= 400
    assert site.runs == 2
    assert stored(site) == 0


@pytest.mark.parametrize("status", [400, 404, 451, 503])
@pytest.mark.parametrize("freshness", ["max-age=9", "s-maxage=9"])
def test_an_error_with_freshness_that_the_view_set_is_stored(site, status, freshness):
    client = site.view(lambda: ("x", status, {"Cache-Control": freshness}))
    assert [client.get("/page").status_code for _ in range(2)] == [status] * 2
    assert site.runs == 1


def test_each_client_who_names_himself_has_a_page_of_his_own(site):
    client = site.view()
    asks = [
        {},
        {"headers": {"Authorization": "Bearer ann"}},
        {"headers": {"Authorization": "Bearer bob"}},
        {"headers": {"Proxy-Authorization": "Basic ann"}},
        {"environ_overrides": {"REMOTE_USER": "ann"}},
        {"environ_overrides": {"REMOTE_USER": "ann", "AUTH_TYPE": "Digest"}},
        {"environ_overrides": {"SSL_CLIENT_S_DN": "CN=ann"}},
        {"environ_overrides": {"SSL_CLIENT_S_DN": "CN=ann", "SSL_CLIENT_I_DN": "CN=other"}},
    ]
    first = [client.get("/page", **ask).text for ask in asks]
    assert len(set(first)) == len(asks)
    assert [client.get("/page", **ask).text for ask in asks] == first


def test_a_page_that_says_private_is_kept_for_its_own_visitor(site):
    client = site.view(
        lambda: (f"{request.cookies.get('u')} {next(site.numbers)}", {"Cache-Control": "private"})
    )
    first = {}
    for name in ("ann", "bob", "ann", "bob"):
        client.set_cookie("u", name)
        found = client.get("/page")
        assert found.text.startswith(name)
        assert first.setdefault(name, found.text) == found.text
        assert found.cache_control.private


@pytest.mark.parametrize(
    ("vary", "header", "one", "other"),
    [
        ("Accept-Language", "Accept-Language", "de", "en"),
        ("Cookie", "Cookie", "a=1", "a=2"),
        ("X-Tenant", "X-Tenant", "blue", "red"),
        ("Accept-Encoding, X-Tenant", "Accept-Encoding", "gzip", "br"),
    ],
)
def test_what_a_views_vary_names_is_compared(site, vary, header, one, other):
    client = site.app.test_client(use_cookies=False)
    site.view(lambda: (str(next(site.numbers)), {"Vary": vary}))
    texts = [client.get("/page", headers={header: value}).text for value in (one, other, one)]
    assert texts[0] == texts[2] != texts[1]
    assert client.get("/page").text not in texts


@pytest.mark.parametrize(
    ("body", "one", "other"),
    [
        (read_session, {"name": "ann"}, {"name": "bob"}),
        (lambda: str("name" in session), {"name": "ann"}, {}),
        (lambda: str(bool(session)), {"name": "ann"}, {}),
        (lambda: str(sorted(session.items())), {"name": "ann"}, {"name": "ann", "x": 1}),
    ],
)
def test_what_a_view_reads_from_the_session_is_compared(site, body, one, other):
    site.view(body)
    fresh = []
    for content in (one, other, one, other):
        client = site.app.test_client()
        if content:
            with client.session_transaction() as kept:
                kept.update(content)
        fresh.append(client.get("/page").text)
    assert fresh[:2] == fresh[2:]
    assert fresh[0] != fresh[1]
    assert site.runs == 2


def test_what_a_hook_looks_at_counts_like_what_the_view_looks_at(site):
    @site.app.before_request
    def read():
        g.name = session.get("name")
        request.cookies.get("x")

    site.view(lambda: f"{g.name} {next(site.numbers)}")
    texts = {}
    for name in ("ann", "bob", "ann", "bob"):
        client = site.app.test_client()
        with client.session_transaction() as kept:
            kept["name"] = name
        found = client.get("/page")
        assert texts.setdefault(name, found.text) == found.text
        # Flask adds it at the end, since CVE-2023-30861 was fixed
        assert "Cookie" in found.headers["Vary"]
    assert texts["ann"][:3] == "ann"
    assert texts["bob"][:3] == "bob"


def test_before_request_sees_every_request(site):
    seen = []

    @site.app.before_request
    def gate():
        seen.append(request.path)
        if request.args.get("token") == "bad":
            abort(403)

    client = site.view()
    assert client.get("/page").status_code == 200
    assert client.get("/page?token=bad").status_code == 403
    assert client.get("/page").status_code == 200
    assert len(seen) == 3
    assert site.runs == 1


@pytest.mark.parametrize(
    ("query", "look", "said"),
    [
        (False, lambda: request.args.get("a"), "'?a'"),
        (["b"], lambda: request.args.get("a"), "'?a'"),
        (["b"], lambda: request.args.get("a") or request.args["b"], "'?a'"),
        (False, lambda: list(request.args), "the whole query"),
        (False, lambda: request.full_path, "the whole query"),
        (["a"], lambda: request.url, "the whole query"),
        (["b"], lambda: request.values.get("a"), "'?a'"),
        (["b"], lambda: request.environ["QUERY_STRING"], "the whole query"),
        (["b"], lambda: request.environ.get("RAW_URI"), "the whole query"),
    ],
)
def test_a_parameter_that_the_key_leaves_out_and_code_looked_at_is_not_stored(
    site, query, look, said, caplog
):
    client = site.view(lambda: str(look()), query=query)
    for number in (1, 2):
        client.get(f"/page?a={number}&b=1")
    assert site.runs == 2
    assert site.cache.refusals() == {"query": 2}
    assert said.strip("'?") in caplog.text


def test_a_scope_keeps_users_apart_and_may_use_the_session(site):
    client = site.view(
        lambda: f"{session.get('name')} {next(site.numbers)}", scope=lambda: session.get("name")
    )
    for name in ("ann", "bob", "ann", "bob"):
        with client.session_transaction() as kept:
            kept["name"] = name
        assert client.get("/page").text.startswith(name)
    assert stored(site) == 2
    assert site.cache.stats().fresh == 2
    site.clock.advance(11)
    with client.session_transaction() as kept:
        kept["name"] = "ann"
    before = client.get("/page").text
    site.scheduler.run_pending()
    after = client.get("/page").text
    assert after.startswith("ann")  # the refresh was hers
    assert after != before


async def later():
    return "ann"


@pytest.mark.parametrize("scope", [later, lambda: (yield), lambda user: user])
def test_a_scope_that_cannot_be_asked_is_refused(scope):
    with pytest.raises(TypeError, match=r"scope=.* cannot be called: "):
        cached(lambda: None, scope=scope)


@pytest.mark.parametrize("nobody", [None, ""])
def test_nobody_in_particular_falls_under_the_rules_for_no_scope(site, nobody):
    client = site.view(
        lambda: f"{request.cookies.get('theme')} {session.get('user')}",
        scope=lambda: session.get("user") or nobody,
    )
    for theme in ("dark", "light", "dark"):
        client.set_cookie("theme", theme)
        assert client.get("/page").text == f"{theme} None"
    assert site.runs == 2


def test_a_scope_says_by_hand_whose_page_it_is(site):
    client = site.view(
        lambda: f"{session['user']} {request.headers.get('X-Unit')}",
        scope=lambda: session["user"],
    )
    for theme in ("dark", "light"):
        client.set_cookie("theme", theme)
        with client.session_transaction() as kept:
            kept.update(user="ann", theme=theme)
        assert client.get("/page").text == "ann None"
    assert site.runs == 1
    assert client.get("/page", headers={"X-Unit": "km"}).text == "ann km"  # headers are compared


def test_a_number_may_be_a_scope(site):
    client = site.view(
        lambda: request.headers["X-User"], scope=lambda: int(request.headers["X-User"])
    )
    texts = [client.get("/page", headers={"X-User": n}).text for n in ("1", "2", "1")]
    assert texts == ["1", "2", "1"]
    assert stored(site) == 2


def test_followers_of_a_personal_answer_run_the_view_themselves():
    site = Site(SystemClock(), synchronous=False)

    def body():
        time.sleep(0.05)
        return f"hello {session.get('name')}"

    site.view(body)
    answers = {}

    def ask(name):
        client = site.app.test_client()
        with client.session_transaction() as kept:
            kept["name"] = name
        answers[name] = client.get("/page").text

    threads = [threading.Thread(target=ask, args=(f"user{n}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    site.scheduler.close()
    site.hub.close()
    assert answers == {f"user{n}": f"hello user{n}" for n in range(12)}


def test_threads_that_ask_at_once_run_the_view_once():
    site = Site(SystemClock(), synchronous=False)

    def body():
        time.sleep(0.05)
        return f"run {next(site.numbers)}"

    site.view(body)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(site.app.test_client().get("/page").text))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    site.scheduler.close()
    site.hub.close()
    assert len(set(answers)) == 1
    assert len(answers) == 12


# --- refreshes ----------------------------------------------------------------------------------


def test_a_refresh_is_a_request_of_its_own_with_what_was_looked_at_and_nothing_else(site):
    seen = []
    contexts = []

    @site.app.before_request
    def note():
        g.db = object()
        contexts.append(g.db)

    def body():
        seen.append(dict(plain_environ(request)))
        return f"{request.cookies.get('unit')} {request.headers.get('X-Tenant')}"

    client = site.view(body)
    client.set_cookie("sid", "secret")
    client.set_cookie("unit", "km")
    ask = {
        "headers": {"X-Tenant": "blue", "X-Other": "1", "If-None-Match": '"x"'},
        "environ_overrides": {"om_plugins.x": 1, "REMOTE_USER": "ann", "REMOTE_ADDR": "10.0.0.9"},
    }
    client.get("/page?a=1", **ask)
    site.clock.advance(11)
    client.get("/page?a=1", **ask)
    assert site.scheduler.run_pending() == 1
    first, again = seen
    assert first["HTTP_COOKIE"] == "sid=secret; unit=km"
    assert again["HTTP_COOKIE"] == "unit=km"
    assert again["HTTP_X_TENANT"] == "blue"
    assert again["REMOTE_USER"] == "ann"  # who the client is is always in the key
    gone = {"HTTP_X_OTHER", "HTTP_IF_NONE_MATCH", "om_plugins.x", "REMOTE_ADDR", "HTTP_USER_AGENT"}
    assert gone.isdisjoint(again)
    assert (again["REQUEST_METHOD"], again["QUERY_STRING"]) == ("GET", "a=1")
    assert len(set(map(id, contexts))) == 3  # before_request ran for it
    assert client.get("/page?a=1", **ask).text == "km blue"
    assert stored(site) == 1


@pytest.mark.parametrize(
    "look",
    [
        lambda: request.headers.get("User-Agent"),
        lambda: request.remote_addr,
        lambda: request.environ.get("REMOTE_PORT"),
        lambda: request.accept_languages.best_match(["de", "en"]),
        lambda: session.get("user"),
        lambda: sorted(session.items()),
        lambda: sorted(request.cookies.items()),
    ],
)
def test_a_refresh_has_each_kind_of_input(site, look):
    client = site.view(lambda: f"{look()} {next(site.numbers)}")
    client.set_cookie("unit", "km")
    with client.session_transaction() as kept:
        kept["user"] = "ann"
    ask = {
        "headers": {"User-Agent": "Tester", "Accept-Language": "de"},
        "environ_overrides": {"REMOTE_ADDR": "10.0.0.9", "REMOTE_PORT": "4711"},
    }
    before = client.get("/page", **ask).text
    site.clock.advance(11)
    assert client.get("/page", **ask).text == before
    assert site.scheduler.run_pending() == 1
    after = client.get("/page", **ask).text
    assert after != before
    assert after.rpartition(" ")[0] == before.rpartition(" ")[0]
    assert stored(site) == 1


@pytest.mark.parametrize("wrong", [lambda: abort(500), lambda: ("x", 503), lambda: 1 / 0])
def test_a_stale_page_stays_when_its_refresh_fails(site, wrong, caplog):
    answers = [lambda: "good", wrong, wrong]
    client = site.view(lambda: answers.pop(0)())
    client.get("/page")
    for _ in range(2):
        site.clock.advance(11)
        assert client.get("/page").text == "good"
        assert site.scheduler.run_pending() == 1
    assert client.get("/page").text == "good"
    assert "the stale value stays" in caplog.text


@pytest.mark.parametrize(
    "wrong", [lambda: abort(404), lambda: ("x", {"Cache-Control": "no-store"}), set_cookie]
)
def test_a_page_that_may_not_be_kept_any_more_goes(site, wrong):
    answers = [lambda: "good", wrong, lambda: "next"]
    client = site.view(lambda: answers.pop(0)())
    client.get("/page")
    site.clock.advance(11)
    assert client.get("/page").text == "good"
    site.scheduler.run_pending()
    assert stored(site) == 0
    assert client.get("/page").text == "next"


@pytest.mark.parametrize("gone", [lambda: abort(404), lambda: ("none", 404), lambda: abort(410)])
def test_that_there_is_none_is_kept_for_its_own_time(site, gone):
    answers = [gone, lambda: "there"]
    client = site.view(lambda: answers.pop(0)(), negative_time=3)
    found = [client.get("/page") for _ in range(3)]
    assert len(answers) == 1
    assert {one.status_code for one in found} <= {404, 410}
    assert len({one.text for one in found}) == 1
    site.clock.advance(4)
    assert client.get("/page").text == "there"  # not the old answer once more
    site.clock.advance(4)
    assert client.get("/page").text == "there"  # what there is has its own times


def test_the_application_s_own_404_page_is_what_is_kept(site):
    site.app.register_error_handler(404, lambda error: ("nothing here", 404))
    client = site.view(lambda: abort(404), negative_time=30)
    assert [client.get("/page").text for _ in range(2)] == ["nothing here"] * 2
    assert site.runs == 1
    site.cache.invalidate(("view", "/page"))
    client.get("/page")
    site.scheduler.run_pending()
    assert site.runs == 2


def test_a_page_that_is_gone_takes_the_place_of_the_stale_one(site):
    answers = [lambda: "good", lambda: abort(404)]
    client = site.view(lambda: answers.pop(0)(), negative_time=30)
    client.get("/page")
    site.clock.advance(11)
    assert client.get("/page").text == "good"
    site.scheduler.run_pending()
    assert client.get("/page").status_code == 404
    assert stored(site) == 1


@pytest.mark.parametrize("error", [403, 500])
def test_other_errors_are_not_kept_as_there_is_none(site, error):
    client = site.view(lambda: abort(error), negative_time=30)
    assert [client.get("/page").status_code for _ in range(2)] == [error] * 2
    assert site.runs == 2


WITHDRAWN = [
    lambda: abort(401),
    lambda: abort(403),
    lambda: abort(404),
    lambda: abort(410),
    lambda: abort(451),
    lambda: ("no", 401),
    lambda: ("no", 403),
    lambda: ("no", 404),
    lambda: ("no", 410),
    lambda: ("no", 451),
    lambda: redirect("/login"),
    lambda: abort(redirect("/login", 307)),
]


@pytest.mark.parametrize("answer", WITHDRAWN)
@pytest.mark.parametrize("of", ["view", "hook"])
def test_access_that_a_refresh_finds_withdrawn_ends_the_old_page_at_once(site, answer, of):
    gone = []

    @site.app.before_request
    def gate():
        return answer() if gone and of == "hook" else None

    answers = [lambda: "secret", answer if of == "view" else lambda: "secret", lambda: "next"]
    client = site.view(lambda: answers.pop(0)())
    client.get("/page")
    site.clock.advance(11)
    assert client.get("/page").text == "secret"  # what was right a moment ago
    gone.append(True)
    assert site.scheduler.run_pending() == 1
    gone.clear()
    assert client.get("/page").text != "secret" or of == "hook"
    assert len(answers) == (0 if of == "view" else 1)


@pytest.mark.parametrize(
    "answer", [lambda: abort(429), lambda: ("slow", 429), lambda: abort(502), lambda: ("x", 500)]
)
@pytest.mark.parametrize("of", ["view", "hook"])
def test_a_refresh_over_a_limit_or_in_an_outage_leaves_the_old_page(site, answer, of):
    down = []
    site.app.before_request(lambda: answer() if down and of == "hook" else None)
    client = site.view(lambda: answer() if down else "page")
    client.get("/page")
    site.clock.advance(11)
    assert client.get("/page").text == "page"
    down.append(True)
    assert site.scheduler.run_pending() == 1
    if of == "view":
        assert client.get("/page").text == "page"
    assert stored(site) == 1


def test_a_refresh_that_sets_something_ends_the_old_page(site):
    def cookie(response):
        if turn[0] == "cookie":
            response.set_cookie("a", "b")
        return response

    def change():
        if turn[0] == "session":
            session["seen"] = 1

    site.app.after_request(cookie)
    site.app.before_request(change)
    turn = ["nothing"]
    client = site.view()
    for what in ("cookie", "session"):
        turn[0] = "nothing"
        before = client.get("/page").text
        site.clock.advance(11)
        assert client.get("/page").text == before
        turn[0] = what
        site.scheduler.run_pending()
        assert stored(site) == 0


def test_a_refresh_that_looks_at_more_is_stored_under_that_and_the_old_page_ends(site):
    more = []
    client = site.view(lambda: f"{request.cookies.get('u') if more else ''}{next(site.numbers)}")
    client.set_cookie("u", "ann")
    assert client.get("/page").text == "2"
    site.clock.advance(11)
    client.get("/page")
    more.append(True)
    site.scheduler.run_pending()
    assert client.get("/page").text.startswith("ann")
    client.set_cookie("u", "bob")
    assert client.get("/page").text.startswith("bob")


def test_a_refresh_makes_the_function_that_was_stale_and_no_other(site):
    def cached_part(name):
        def part():
            return f"{name}{next(site.numbers)}"

        part.__qualname__ = name  # tells two functions of one address apart
        return cached(site.find_cache)(part)

    parts = [cached_part("a"), cached_part("b")]

    def page():
        return " ".join(part().get_data(as_text=True) for part in parts)

    site.app.add_url_rule("/plain", "plain", page)
    site.app.add_url_rule("/whole", "whole", cached(site.find_cache)(page))
    client = site.app.test_client()
    for path in ("/plain", "/whole"):
        seen = set()
        for _ in range(5):
            found = client.get(path).text
            assert re.fullmatch(r"a\d+ b\d+", found)
            seen.add(found)
            site.clock.advance(11)
            site.scheduler.run_pending()
        assert len(seen) > 1


def test_pages_are_invalidated_by_tag_and_by_path(site):
    client = site.view(tags=["report"])
    for what in ({"tags": ["report"]}, {"prefix": ("view", "/page")}):
        before = client.get("/page").text
        assert site.cache.invalidate(**what) == 1
        assert client.get("/page").text == before
        site.scheduler.run_pending()
        assert client.get("/page").text != before


# --- the other ways to use it -------------------------------------------------------------------


def test_shared_pages_say_public_and_how_old_they_are(site):
    client = site.view(shared=True)
    client.get("/page")
    site.clock.advance(4)
    found = client.get("/page")
    assert found.headers["Cache-Control"] == (
        "public, max-age=0, s-maxage=10, stale-while-revalidate=90, stale-if-error=90"
    )
    assert found.headers["Age"] == "4"
    assert site.runs == 1


def test_shared_and_scope_exclude_each_other(site):
    with pytest.raises(ValueError, match="cannot be combined with scope="):
        cached(lambda: None, shared=True, scope="x")


@pytest.mark.parametrize("name", ["tags", "vary", "query"])
def test_one_text_in_place_of_a_list_is_refused(name):
    with pytest.raises(TypeError, match=f"{name} must be a list of texts, not the text 'report'"):
        cached(lambda: None, **{name: "report"})


@pytest.mark.parametrize("wrong", [60, "report", None])
def test_what_is_no_view_is_refused_with_the_way_out(wrong):
    with pytest.raises(TypeError, match=r"is no view: write @om\.cached, or @om\.cached\(stale_ti"):
        cached(lambda: None)(wrong)


def test_class_based_views_work_by_method_and_by_decorators(site):
    class Page(MethodView):
        @cached(site.find_cache)
        def get(self, name):
            return f"{name} {next(site.numbers)}"

        def post(self, name):
            return "posted"

    site.app.add_url_rule("/c/<name>", view_func=Page.as_view("page"))
    client = site.app.test_client()
    assert client.get("/c/a").text == client.get("/c/a").text == "a 1"
    assert client.get("/c/b").text == "b 2"
    assert client.post("/c/a").text == "posted"


def test_an_async_view_is_run_or_refused_as_flask_does(site):
    @site.app.get("/async")
    @cached(site.find_cache)
    async def page():
        return f"run {next(site.numbers)}"

    client = site.app.test_client()
    try:
        import asgiref  # noqa: F401
    except ImportError:
        with pytest.raises(RuntimeError, match="async"):
            client.get("/async")
    else:
        assert client.get("/async").text == client.get("/async").text == "run 1"


def test_one_cached_view_may_call_another(site):
    inner = cached(site.find_cache)(lambda: f"inner {next(site.numbers)}")
    client = site.view(lambda: f"outer of {inner().get_data(as_text=True)}")
    assert client.get("/page").text == client.get("/page").text == "outer of inner 2"


def test_without_a_cache_the_view_is_simply_called(site):
    client = site.view()
    site.cache = None
    assert [client.get("/page").text for _ in range(2)] == ["run 1", "run 2"]
    assert "ETag" not in client.get("/page").headers


def test_an_error_of_the_view_keeps_its_cause_and_is_not_remembered(site):
    def body():
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise RuntimeError("broken") from error

    client = site.view(body)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken") as found:
            client.get("/page")
        assert isinstance(found.value.__cause__, KeyError)
    assert site.runs == 2


def test_a_page_is_invalidated_with_the_data_that_its_view_looked_up(site):
    rows = [1]

    def body():
        return str(site.cache.query("rows", lambda: list(rows), tags=["rows"]))

    client = site.view(body)
    assert client.get("/page").text == "[1]"
    rows.append(2)
    site.clock.advance(1.5)
    assert site.cache.invalidate(tags=["rows"]) == 2
    assert client.get("/page").text == "[1]"  # stale, and refreshed in the background
    site.scheduler.run_pending()
    assert client.get("/page").text == "[1, 2]"

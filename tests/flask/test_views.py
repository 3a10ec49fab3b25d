from __future__ import annotations

import itertools
import threading
import time
from importlib.metadata import version

import flask
import pytest
from flask import Flask, Response, abort, flash, g, jsonify, request, session
from flask.views import MethodView

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.core.clock import SystemClock
from om_plugins.core.inputs import InputRules
from om_plugins.flask.dispatch import observe_requests
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

        decorated = cached(self.find_responses, **options)(page)
        self.app.add_url_rule(path, f"page{path}", decorated, methods=["GET", "POST"])
        return self.app.test_client()

    def find_responses(self):
        return None if self.cache is None else self.cache.internals.responses

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
        lambda: ("gone", 410),
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
    session["seen"] = 1
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
        (read_session, "session"),
        (write_session, "session"),
        (lambda: request.cookies.get("theme", "x"), "session"),
        (lambda: flash("saved") or "x", "session"),
        (set_cookie, "cookie"),
        (set_cookie_later, "cookie"),
        (lambda: ("x", {"Cache-Control": "private"}), "private"),
        (lambda: ("x", {"Vary": "Accept-Language"}), "vary"),
        (lambda: ("x", {"Vary": "*"}), "vary"),
        (lambda: ("x", {"Vary": "Cookie"}), "vary"),
        (lambda: iter(["a", "b"]), "streamed"),
        (use_nonce, "nonce"),
        (change_policy, "csp"),
    ],
)
def test_what_is_not_for_everybody_is_not_stored_and_one_warning_says_so(
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


def test_a_request_with_authorization_goes_to_the_view(site):
    client = site.view()
    for number in (1, 2):
        found = client.get("/page", headers={"Authorization": "Bearer secret"})
        assert found.text == f"run {number}"
    assert stored(site) == 0


def test_a_session_read_before_the_view_does_not_count_and_is_still_known_afterwards(site):
    @site.app.before_request
    def read():
        g.name = session.get("name")
        request.cookies.get("x")

    client = site.view()
    for _ in range(2):
        vary = client.get("/page").headers.get("Vary", "")
        # Flask adds it at the end, since CVE-2023-30861 was fixed
        assert ("Cookie" in vary) is (version("flask") not in ("2.3.0", "2.3.1"))
    assert site.runs == 1


def test_before_request_sees_every_request(site):
    seen = []

    @site.app.before_request
    def gate():
        seen.append(request.path)
        if request.args.get("token") == "bad":
            abort(403)

    client = site.view(query=False)
    assert client.get("/page").status_code == 200
    assert client.get("/page?token=bad").status_code == 403
    assert client.get("/page").status_code == 200
    assert len(seen) == 3
    assert site.runs == 1


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


def test_nobody_in_particular_falls_under_the_rules_for_no_scope(site):
    client = site.view(read_session, scope=lambda: session.get("user"))
    client.get("/page")
    assert stored(site) == 0
    assert site.cache.refusals() == {"session": 1}


def test_a_number_may_be_a_scope(site):
    client = site.view(lambda: str(request.args["u"]), scope=lambda: int(request.args["u"]),
                       query=False)  # fmt: skip
    assert [client.get(f"/page?u={n}").text for n in (1, 2, 1)] == ["1", "2", "1"]
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


def test_a_refresh_is_a_request_of_its_own_without_the_callers_identity(site):
    seen = []

    @site.app.before_request
    def note():
        g.db = object()

    def body():
        seen.append((
            dict(request.headers), request.method, request.full_path, g.db,
            request.environ.get("om_plugins.x"), request.get_data(),
        ))  # fmt: skip
        return "x"

    client = site.view(body)
    client.set_cookie("sid", "secret")
    ask = {
        "headers": {"X-Tenant": "blue", "If-None-Match": '"x"'},
        "environ_overrides": {"om_plugins.x": 1, "REMOTE_USER": "ann"},
    }
    client.get("/page?a=1", **ask)
    site.clock.advance(11)
    client.get("/page?a=1", **ask)
    site.scheduler.run_pending()
    (_, first), (headers, method, path, db, own, data) = (("", seen[0]), seen[1])
    assert first[0]["Cookie"] == "sid=secret"
    assert "Cookie" not in headers
    assert "If-None-Match" not in headers
    assert headers["X-Tenant"] == "blue"
    assert (method, path, own, data) == ("GET", "/page?a=1", None, b"")
    assert db is not first[3]  # before_request ran for it


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


def test_a_before_request_that_answers_the_refresh_leaves_the_stale_page(site, caplog):
    @site.app.before_request
    def login():
        if not session.get("name"):
            return "who are you?", 401
        return None

    client = site.view()
    with client.session_transaction() as kept:
        kept["name"] = "ann"
    client.get("/page")
    site.clock.advance(11)
    client.get("/page")
    site.scheduler.run_pending()
    assert client.get("/page").text == "run 1"
    assert "carries no cookie: use scope=" in caplog.text


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


def test_shared_pages_are_refused_for_the_same_reasons(site):
    client = site.view(read_session, shared=True)
    found = client.get("/page")
    assert "public" not in found.headers.get("Cache-Control", "")
    assert stored(site) == 0


def test_shared_and_scope_exclude_each_other(site):
    with pytest.raises(ValueError, match="cannot be combined with scope="):
        cached(lambda: None, shared=True, scope="x")
    with pytest.raises(TypeError, match="lists of texts"):
        cached(lambda: None, tags="report")


def test_class_based_views_work_by_method_and_by_decorators(site):
    class Page(MethodView):
        @cached(lambda: site.cache)
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
    @cached(lambda: site.cache)
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
    inner = cached(lambda: site.cache)(lambda: f"inner {next(site.numbers)}")
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

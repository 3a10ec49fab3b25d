"""query(): which answer counts, to whom it is told, and to whom no more; ``query_request.js``."""

from __future__ import annotations

import json
import threading

import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from om_plugins.browser.static_files import StaticFiles
from om_plugins.console.prefix import Pages, PrefixLayer
from tests.patience import HANG_S, wait_until

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">
<script type="module">
import { query } from "/_om/static/om.js";
import * as core from "/_om/static/query.js";
window.errors = [];
addEventListener("error", (event) => errors.push(String(event.error)));
addEventListener("unhandledrejection", (event) => errors.push(`unhandled ${event.reason}`));
window.lost = 0;
addEventListener("om-unreachable", () => lost++);
window.of = (promise) => promise.catch((error) => error.name);
window.show = (key, url, options) => {
  const one = core.query(key, url, options);
  const shown = { one, states: [] };
  shown.stop = one.subscribe((state) => shown.states.push(state));
  shown.last = () => shown.states.at(-1);
  return shown;
};
window.later = query;
window.query = core.query;
</script>"""


class Desk:
    """A server whose answers a test chooses, and holds back as long as it likes."""

    def __init__(self):
        self.gates = {}
        self.begin()

    def begin(self):
        for gate in self.gates.values():
            gate.set()
        self.values = {}
        self.gates = {}
        self.asked = []  # the path of each request
        self.tags = []  # the If-None-Match of each request

    def times(self, path):
        return self.asked.count(path)

    def waits(self, path, times=1):
        """Wait until a path was asked for so often."""
        wait_until(lambda: self.times(path) >= times)

    def hold(self, path):
        """Hold the next answer, which is made at once. Return what lets it go."""
        self.gates[path] = gate = threading.Event()
        return gate.set

    @Request.application
    def app(self, request):
        path = request.full_path.rstrip("?")
        if path == "/page":
            return Response(PAGE, content_type="text/html")
        self.asked.append(path)
        self.tags.append(request.headers.get("If-None-Match"))
        value = self.values.get(path)
        answer = value(request) if callable(value) else as_json(value, request)
        if gate := self.gates.pop(path, None):
            gate.wait(HANG_S)
        return answer


def as_json(value, request, tag=True):
    answer = Response(json.dumps(value), content_type="application/json")
    if tag:
        answer.add_etag()
        answer.make_conditional(request)
    return answer


def text(body, status=200, content_type="text/html", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Response(body, status, named, content_type=content_type)


def to(url):
    return text("<a>moved</a>", 302, Location=url)


def reaches(page, expression):
    wait_until(lambda: page.evaluate(f"() => Boolean({expression})"))


@pytest.fixture(scope="module")
def served():
    desk = Desk()
    endpoints = {"/static/<name>": StaticFiles()}
    app = PrefixLayer(desk.app, "/_om", Pages(lambda: endpoints))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield desk, server.port
    desk.begin()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def tabs(browser, served):
    context = browser.new_context()
    yield [context.new_page() for _ in range(2)]
    context.close()


@pytest.fixture
def desk(served):
    served[0].begin()
    return served[0]


def opened(tab, port):
    tab.goto(f"http://127.0.0.1:{port}/page")
    tab.wait_for_function("() => Boolean(window.query)")
    return tab


@pytest.fixture
def page(tabs, served, desk):
    yield opened(tabs[0], served[1])
    desk.begin()
    tabs[0].goto("about:blank")


@pytest.fixture
def other(tabs, served, page):
    """Another tab of the same browser."""
    yield opened(tabs[1], served[1])
    tabs[1].goto("about:blank")


# --- an older answer under way ------------------------------------------------------------------

SUBSCRIBE = "() => { window.s = show('v', '/api/v'); window.v = s.one }"
ONLY_FETCH = "() => { window.v = query('v', '/api/v'); window.early = of(v.fetch()) }"
REFETCH = "() => { window.early = of(v.refetch()) }"
SET = "() => v.set('mine')"
ANNOUNCED = "dispatchEvent(new CustomEvent('om-changed', { detail: { keys: ['v'] } }))"


def under_way(page, desk, start, path="/api/v"):
    """Start a request whose answer is made now and arrives when the result is called."""
    before = desk.times(path)
    release = desk.hold(path)
    page.evaluate(start)
    desk.waits(path, before + 1)
    return release


@pytest.mark.parametrize("has_value", [True, False])
@pytest.mark.parametrize(
    "change", [SET, "() => v.set(() => 'mine')", "() => { v.set('not this'); v.set('mine') }"]
)
def test_what_was_set_wins_over_an_answer_under_way(page, desk, has_value, change):
    desk.values["/api/v"] = "old"
    if has_value:
        page.evaluate(SUBSCRIBE)
        reaches(page, "s.last().data === 'old'")
        release = under_way(page, desk, REFETCH)
    else:
        release = under_way(page, desk, ONLY_FETCH)
        page.evaluate("() => { window.s = show('v', '/api/v') }")
    page.evaluate(change)
    release()
    assert page.evaluate("() => early") == "mine"  # who waited gets what the page shows
    state = page.evaluate("() => s.last()")
    assert (state["data"], state["fetching"], state["stale"]) == ("mine", False, False)
    states = page.evaluate("() => s.states.map(({ data }) => data)")
    assert "old" not in states[states.index("mine") :]
    desk.values["/api/v"] = "new"  # what the server answers afterwards wins over what was set
    assert page.evaluate("() => v.refetch()") == "new"


def test_an_older_failure_does_not_touch_what_was_set(page, desk):
    desk.values["/api/v"] = text("", 503)
    release = under_way(page, desk, "() => { window.s = show('v', '/api/v', { retries: 0 }) }")
    page.evaluate("() => s.one.set(1)")
    release()
    desk.values["/api/w"] = 1
    page.evaluate("() => query('w', '/api/w').fetch()")  # a whole answer later
    state = page.evaluate("() => s.last()")
    assert (state["data"], state["error"], state["fetching"]) == (1, None, False)


def test_a_function_that_returns_nothing_leaves_the_value_and_the_answer_under_way(page, desk):
    desk.values["/api/v"] = "old"
    release = under_way(page, desk, SUBSCRIBE)
    page.evaluate("() => v.set((value) => value && [value])")
    release()
    reaches(page, "s.last().data === 'old'")
    assert page.evaluate("() => { try { v.set(undefined) } catch (error) { return error.name } }")


@pytest.mark.parametrize(
    ("begin", "change", "has_value"),
    [
        (SUBSCRIBE, "() => v.refetch()", True),
        (SUBSCRIBE, "() => v.refetch()", False),
        (ONLY_FETCH, "() => query('v', '/api/v').refetch()", False),
        (SUBSCRIBE, "() => { later('v', '/api/v').invalidate() }", False),
        (ONLY_FETCH, "() => { v.invalidate() }", True),
        (ONLY_FETCH, "() => { v.invalidate() }", False),
        (SUBSCRIBE, "() => { query('v', '/api/other').invalidate() }", False),
        (
            "() => { window.s = show('v', '/api/v', { live: true }); window.v = s.one }",
            f"() => {{ {ANNOUNCED} }}",
            False,
        ),
    ],
)
def test_a_request_that_begins_later_wins_over_an_answer_under_way(
    page, desk, begin, change, has_value
):
    desk.values["/api/v"] = "old"
    if has_value:
        page.evaluate(begin)
        reaches(page, "v.get() === 'old'")
        release = under_way(page, desk, REFETCH)
    else:
        release = under_way(page, desk, begin)
    before = desk.times("/api/v")
    desk.values["/api/v"] = "new"
    assert page.evaluate(change) == ("new" if "refetch" in change else None)
    desk.waits("/api/v", before + 1)
    release()
    reaches(page, "v.get() === 'new'")
    if begin == ONLY_FETCH or has_value:
        assert page.evaluate("() => early") == "new"
    assert page.evaluate("() => v.fetch()") == "new"
    assert desk.times("/api/v") == before + 1


def test_the_tag_of_an_overtaken_answer_is_not_kept(page, desk):
    desk.values["/api/v"] = "old"
    release = under_way(page, desk, SUBSCRIBE)
    page.evaluate(SET)
    release()
    desk.values["/api/w"] = 1
    page.evaluate("() => query('w', '/api/w').fetch()")
    assert page.evaluate("() => v.refetch()") == "old"
    assert desk.tags[-1] is None


def test_an_answer_that_is_overtaken_while_it_is_read_leaves_no_tag_either(page, desk):
    desk.values["/api/v"] = "old"
    page.evaluate(
        """() => {
          window.v = query("v", "/api/v");
          const read = Response.prototype.text;
          Response.prototype.text = async function () {
            const text = await read.call(this);
            Response.prototype.text = read;
            v.set("mine");
            return text;
          };
        }"""
    )
    assert page.evaluate("() => v.fetch()") == "mine"
    assert page.evaluate("() => v.refetch()") == "old"
    assert desk.tags == [None, None]


def test_who_waits_gets_the_answer_also_when_the_last_subscriber_leaves(page, desk):
    desk.values["/api/v"] = "old"
    page.evaluate(SUBSCRIBE)
    reaches(page, "s.last().data === 'old'")
    desk.values["/api/v"] = "new"
    release = under_way(page, desk, REFETCH)
    page.evaluate("() => s.stop()")
    release()
    assert page.evaluate("() => early") == "new"


# --- subscribers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thrown", "when", "said"),
    [
        ("new Error('mine')", "true", "Error: mine"),
        ("new Error('mine')", "state.data", "Error: mine"),
        ("'text'", "!state.data", "text"),
        ("null", "state.data === 2", "null"),
        ("state.data.user.name", "true", "TypeError"),
    ],
)
def test_a_subscriber_that_throws_is_reported_and_harms_nobody_else(page, desk, thrown, when, said):
    desk.values |= {"/api/v": 1, "/api/w": 1}
    page.evaluate(
        f"""() => {{
          window.v = query('v', '/api/v');
          v.subscribe((state) => {{ if ({when}) throw {thrown}; }});
          window.s = show('v', '/api/v');
          window.w = show('w', '/api/w');
        }}"""
    )
    reaches(page, "s.last().data === 1 && w.last().data === 1 && !s.last().fetching")
    page.evaluate("() => v.set(2)")  # nor its caller
    assert page.evaluate("() => s.last().data") == 2
    found = page.evaluate("() => errors")
    assert found and all(said in one for one in found)


def test_a_rejection_in_an_async_subscriber_reaches_the_page(page, desk):
    page.evaluate("() => query('v', '/api/v').subscribe(async () => { throw new Error('mine') })")
    reaches(page, "errors[0] === 'unhandled Error: mine'")
    assert "function" in page.evaluate(
        "() => { try { query('v', '/api/v').subscribe() } catch (error) { return error.message } }"
    )


def test_each_state_is_told_once_and_a_subscriber_may_leave_in_its_first_call(page, desk):
    desk.values["/api/v"] = 1
    page.evaluate(SUBSCRIBE)
    reaches(page, "s.last().data === 1")
    told = page.evaluate("() => s.states.map(({ data, fetching }) => [data ?? null, fetching])")
    assert told == [[None, True], [1, False]]
    page.evaluate(
        """async () => {
          window.calls = 0;
          const stop = later("v", "/api/v").subscribe(() => { calls++; stop(); });
          await later("v", "/api/v").get();
          v.set(2);
        }"""
    )
    assert page.evaluate("() => calls") == 1


# --- what is given out --------------------------------------------------------------------------


def test_what_is_given_out_or_taken_is_a_copy(page, desk):
    desk.values["/api/v"] = {"rows": ["a"]}
    assert page.evaluate(
        """async () => {
          const v = query("v", "/api/v");
          const given = [await v.fetch(), await v.refetch(), v.get()];
          v.subscribe(({ data }) => data.rows.push("X"));
          given.forEach(({ rows }) => rows.push("X"));
          v.set((value) => (value.rows.push("b"), value));
          const mine = { rows: ["c"] };
          const first = query("w", "/api/w", { initial: mine });
          mine.rows.push("X");
          const before = [v.get(), first.get()];
          v.set(mine);
          mine.rows.push("X");
          return [...before, v.get()];
        }"""
    ) == [{"rows": ["a", "b"]}, {"rows": ["c"]}, {"rows": ["c", "X"]}]


def test_a_function_may_change_the_value_it_gets_in_place(page, desk):
    desk.values["/api/v"] = ["a"]
    page.evaluate(SUBSCRIBE)
    reaches(page, "s.last().data")
    page.evaluate("() => v.set((value) => (value.push('b'), value))")
    assert page.evaluate("() => s.last().data") == ["a", "b"]
    said = page.evaluate(
        """() => {
          const mine = ["c"];
          const w = query("w", "/api/w");
          w.set(mine);
          mine.push("X");
          return w.get();
        }"""
    )
    assert said == ["c"]


def test_a_subscriber_has_one_object_as_long_as_the_value_is_the_same(page, desk):
    desk.values["/api/v"] = {"n": 1}
    page.evaluate(SUBSCRIBE)
    reaches(page, "s.last().data")
    page.evaluate("() => v.refetch()")
    assert page.evaluate("() => new Set(s.states.map(({ data }) => data)).size") == 2  # undefined
    assert "JSON" in page.evaluate(
        "() => { try { v.set({ run() {} }) } catch (error) { return error.message } }"
    )


def test_the_value_that_came_with_the_page_is_a_value_before_anybody_subscribes(page, desk):
    values = [None, 0, False, "", [], {}]
    got = page.evaluate(
        """(values) => Promise.all(values.map(async (initial, n) => {
          const one = query(`v${n}`, "/api/v", { initial });
          const first = one.get();
          return [first, await one.fetch(), await later(`w${n}`, "/api/w", { initial }).get()];
        }))""",
        values,
    )
    assert got == [[value] * 3 for value in values]
    assert desk.asked == []


def test_another_address_or_other_headers_have_their_own_value_under_the_key(page, desk):
    desk.values |= {
        "/api/v": 1,
        "/api/v?page=2": 2,
        "/api/who": lambda request: as_json(request.headers.get("Authorization"), request),
    }
    assert page.evaluate(
        """async () => {
          const as = (who) => query("v", "/api/who", { headers: { authorization: who } }).fetch();
          const first = query("v", "/api/v");
          const got = [await first.fetch(), await query("v", "/api/v?page=2").fetch(),
                       await as("a"), await as("b"), await query("v", "/api/who").fetch()];
          first.set("mine");
          const same = query("v", location.origin + "/api/v");
          return [...got, same.get(), query("v", "/api/v?page=2").get()];
        }"""
    ) == [1, 2, "a", "b", None, "mine", 2]
    page.evaluate(
        """() => {
          show("v", "/api/v", { live: true });
          query("v", "/api/v").get();
          show("v", "/api/v?page=2", { live: true });
        }"""
    )
    desk.asked.clear()
    page.evaluate(f"() => {ANNOUNCED}")  # the key changed, at each of its addresses
    wait_until(lambda: sorted(desk.asked) == ["/api/v", "/api/v?page=2"])


# --- sign-in and answers without a value --------------------------------------------------------

FAILURE = """async ([url, options]) => {
  const said = ({ name, message, status, url }) => [name, message, status, url];
  return query(url, url, { retry_delay: 0.01, ...options }).fetch().catch(said);
}"""


def fails(page, url, **options):
    return page.evaluate(FAILURE, [url, options])


def test_a_redirect_to_a_page_is_a_sign_in_error_and_not_retried(page, desk, served):
    away = (
        f"http://localhost:{served[1]}/api/page"  # another origin: the browser says only "failed"
    )
    here = f"http://127.0.0.1:{served[1]}"
    desk.values |= {
        "/api/a": to("/signin?next=/api/a"),
        "/api/b": to("/api/a"),
        "/api/c": to(away),
        "/api/d": to("/forbidden"),
        "/api/page": text("<form>"),
        "/signin?next=/api/a": text("<form>"),
        "/forbidden": text("<form>", 401),
    }
    signin = f"{here}/signin?next=/api/a"
    for path, status, url in [
        ("/api/a", 200, signin),
        ("/api/b", 200, signin),
        ("/api/c", 0, ""),
        ("/api/d", 401, f"{here}/forbidden"),
    ]:
        assert fails(page, path) == ["SignInError", "Please sign in.", status, url]
    assert desk.times("/api/d") == 1
    assert page.evaluate("() => lost") == 0


def test_a_401_is_a_sign_in_error_with_the_words_of_its_problem(page, desk):
    problem = text('{"detail": "Your session ended."}', 401, "application/problem+json")
    desk.values["/api/v"] = problem
    assert fails(page, "/api/v") == ["SignInError", "Your session ended.", 401, ""]
    desk.values["/api/w"] = text("no", 403)
    assert fails(page, "/api/w")[0::2] == ["QueryError", 403]


def test_a_redirect_to_data_is_followed_and_one_to_the_same_page_is_no_sign_in(page, desk):
    desk.values |= {
        "/api/v": to("/api/v/"),
        "/api/v/": 1,
        "/api/w": to("/api/w/"),
        "/api/w/": text("<p>no data</p>"),
    }
    assert fails(page, "/api/v") == 1
    name, message, *_ = fails(page, "/api/w")
    assert (name, "text/html instead of JSON" in message) == ("QueryError", True)


def test_a_connection_that_fails_once_makes_no_sign_in_of_a_redirect_to_data(page, desk):
    desk.values |= {"/api/v": to("/api/v/"), "/api/v/": 1}
    page.evaluate(
        """() => {
          const real = fetch;
          window.fetch = () => ((window.fetch = real), Promise.reject(new TypeError("failed")));
        }"""
    )
    assert fails(page, "/api/v") == 1


def test_an_answer_that_is_no_json_says_what_it_is(page, desk):
    answers = {
        "/api/text": (text("plain"), "text/html instead of JSON", 1),
        "/api/empty": (text(""), "nothing instead of JSON", 1),
        "/api/untyped": (text("<p>", content_type=""), "text instead of JSON", 1),
        "/api/cut": (text('{"a": ', content_type="application/json"), "incomplete JSON", 2),
    }
    for path, (answer, said, times) in answers.items():
        desk.values[path] = answer
        name, message, status, _ = fails(page, path, retries=1)
        assert (name, said in message, status) == ("QueryError", True, 200), path
        assert desk.times(path) == times
    desk.values |= {"/api/sloppy": text("[1]"), "/api/none": text("", 204)}
    assert [fails(page, "/api/sloppy"), fails(page, "/api/none")] == [[1], None]


# --- the end of a session -----------------------------------------------------------------------


def who(desk, name):
    desk.values |= {"/api/me": name, "/api/mail": f"mail of {name}"}


SIGNED_IN = """async () => {
  window.me = show("me", "/api/me");
  window.mail = query("mail", "/api/mail", { initial: "first" });
  window.box = query("box", "/api/box", { initial: "first" });
  await me.one.fetch();
  await mail.refetch();
}"""


def test_forget_removes_all_values_in_all_tabs(page, other, desk):
    who(desk, "alice")
    for tab in (page, other):
        tab.evaluate(SIGNED_IN)
    who(desk, "bob")
    desk.tags.clear()
    page.evaluate("() => { query.forget(); window.now = [me.last().data, mail.get(), box.get()] }")
    assert page.evaluate("() => now") == [None, None, None]
    for tab in (page, other):
        reaches(tab, "me.last().data === 'bob'")
        shown = tab.evaluate("() => me.states.map(({ data }) => data)")
        assert list(dict.fromkeys(shown[shown.index("alice") :])) == ["alice", None, "bob"]
        assert tab.evaluate("() => [mail.get(), box.get()]") == [None, None]
        assert tab.evaluate("() => mail.fetch()") == "mail of bob"
    assert set(desk.tags) == {None}
    # what comes with the page from now on is the next person's
    assert page.evaluate("() => query('box', '/api/box', { initial: 'bob' }).get()") == "bob"


def test_an_answer_under_way_is_neither_kept_nor_given_after_forget(page, other, desk):
    who(desk, "alice")
    page.evaluate(
        "() => { window.me = query('me', '/api/me'); window.mail = show('m', '/api/mail') }"
    )
    reaches(page, "mail.last().data")
    releases = [
        under_way(page, desk, "() => { window.early = of(me.fetch()) }", "/api/me"),
        under_way(page, desk, "() => { window.more = of(mail.one.refetch()) }", "/api/mail"),
    ]
    who(desk, "bob")
    assert other.evaluate("() => later.forget()") is None  # also from a page without queries
    reaches(page, "mail.last().data === 'mail of bob'")
    for release in releases:
        release()
    assert page.evaluate("() => Promise.all([early, more])") == ["AbortError"] * 2
    assert page.evaluate("() => me.get()") is None
    assert page.evaluate("() => me.fetch()") == "bob"
    assert page.evaluate("() => mail.last().data") == "mail of bob"


def test_a_handle_forgets_its_key_alone(page, other, desk):
    who(desk, "alice")
    for tab in (page, other):
        tab.evaluate(SIGNED_IN)
    page.evaluate("() => mail.forget()")
    reaches(other, "mail.get() === undefined")
    for tab in (page, other):
        assert tab.evaluate("() => [me.last().data, mail.get() ?? null]") == ["alice", None]


def test_a_page_that_comes_back_has_forgotten_what_was_forgotten_meanwhile(page, desk):
    who(desk, "alice")
    page.evaluate(SIGNED_IN)
    back = "() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))"
    page.evaluate(back)
    assert page.evaluate("() => me.last().data") == "alice"
    who(desk, "bob")
    page.evaluate("() => localStorage.setItem('om-forgotten /_om', 'by another tab')")
    page.evaluate(back)
    reaches(page, "me.last().data === 'bob'")
    assert page.evaluate("() => mail.get()") is None


@pytest.mark.parametrize("refusal", [text("", 401), to("/signin")], ids=["401", "redirect"])
def test_a_session_that_ends_forgets_its_values_in_all_tabs(page, other, desk, refusal):
    who(desk, "alice")
    desk.values |= {"/signin": text("<form>"), "/api/public": 1}
    for tab in (page, other):
        tab.evaluate(SIGNED_IN)
        tab.evaluate("() => { window.public = show('public', '/api/public') }")
    desk.values |= {"/api/me": refusal, "/api/mail": refusal}
    assert page.evaluate("() => of(me.one.refetch())") == "SignInError"
    for tab in (page, other):
        reaches(tab, "me.last().error?.name === 'SignInError' && !me.last().data")
        assert tab.evaluate("() => mail.get()") is None
        reaches(tab, "public.last().data === 1")
    asked = desk.times("/api/me")
    page.evaluate("() => of(me.one.refetch())")  # a visitor forgets nothing
    assert page.evaluate("() => public.last().data") == 1
    assert desk.times("/api/me") == asked + 1


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("/api/never", {}),
        ("/api/token", {"headers": {"Authorization": "Bearer a"}}),
        ("http://localhost:{port}/api/elsewhere", {}),
    ],
)
def test_a_401_that_says_nothing_about_the_session_forgets_nothing(
    page, desk, served, url, options
):
    who(desk, "alice")
    open_to_all = {"Access-Control-Allow-Origin": "*"}
    page.evaluate(SIGNED_IN)
    url = url.format(port=served[1])
    path = url[url.index("/api") :]
    if path != "/api/never":
        desk.values[path] = text("1", content_type="application/json", **open_to_all)
        page.evaluate("([url, options]) => query('x', url, options).fetch()", [url, options])
    desk.values[path] = text("", 401, **open_to_all)
    ask = "([url, options]) => of(query('x', url, options).refetch())"
    assert page.evaluate(ask, [url, options]) == "SignInError"
    assert page.evaluate("() => [me.last().data, mail.get()]") == ["alice", "mail of alice"]

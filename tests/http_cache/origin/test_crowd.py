"""A crowd: who waits for whom, and what each gets."""

from __future__ import annotations

import threading
import time

import pytest
from flask import Flask, request, session

from om_plugins import OpenManager
from om_plugins.http_cache.origin.collapsing import CutOffError
from tests.http_cache.world import World
from tests.patience import HANG_S, PATIENCE_S, join


class Crowd:
    """A world whose origin holds its first request until all others wait or were answered."""

    def __init__(self, *looks, **rules):
        self.world = World(observes=True, **rules)
        self.world.origin.looks = looks
        self.gate, self.inside = threading.Event(), threading.Event()
        self.answers = {}

    def hold(self, environ, inputs):
        if len(self.world.origin.asked) == 1:
            self.inside.set()
            assert self.gate.wait(HANG_S)
        return [b"page"]

    def ask(self, name, **fields):
        self.answers[name] = self.world.get(**fields)

    def run(self, leader, *others):
        """Ask with the fields of each; return the answers in order."""
        self.world.origin.body = self.hold
        self.before = self.count_asked()
        threads = [
            threading.Thread(target=self.ask, args=(number,), kwargs=fields)
            for number, fields in enumerate((leader, *others))
        ]
        threads[0].start()
        assert self.inside.wait(PATIENCE_S)
        for thread in threads[1:]:
            thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            waiting = sum(t.is_alive() for t in threads[1:])
            if self.settled(waiting):
                break
            threading.Event().wait(0.005)
        self.gate.set()
        for thread in threads:
            join(thread)
        return [self.answers[number] for number in range(len(threads))]

    def settled(self, waiting):
        return self.count_asked() - self.before == len(self.answers) + 1 + waiting

    def count_asked(self):
        stats = self.world.cache.stats()
        return stats.misses + stats.passed


def numbers(answers):
    return [int(one.headers["X-Number"]) for one in answers]


def test_those_who_agree_with_the_leader_get_its_answer():
    crowd = Crowd("header:x-one")
    found = crowd.run({"X_One": "1"}, {"X_One": "1"}, {"X_One": "1", "User_Agent": "other"})
    assert numbers(found) == [1, 1, 1]
    assert crowd.world.cache.stats().coalesced == 2


def test_those_who_differ_go_on_their_own():
    crowd = Crowd("header:x-one")
    found = crowd.run({"X_One": "1"}, {"X_One": "2"}, {"X_One": "1"}, {})
    assert found[2].headers["X-Number"] == "1"
    assert sorted(numbers(found)) == [1, 1, 2, 3]


def test_those_who_bring_a_cookie_that_the_leader_looked_at_go_on_their_own():
    crowd = Crowd("session:u")
    found = crowd.run({}, {"Cookie": "session=a"}, {"Cookie": "_ga=1"}, {"Cookie": "session=b"})
    assert found[2].headers["X-Number"] == "1"
    assert sorted(numbers(found)) == [1, 1, 2, 3]


def test_nobody_gets_the_answer_of_a_leader_who_brought_such_a_cookie():
    crowd = Crowd("session:u")
    found = crowd.run({"Cookie": "session=a"}, {"Cookie": "session=a"}, {})
    assert sorted(numbers(found)) == [1, 2, 3]


def test_where_the_inputs_are_known_nobody_waits_who_differs_in_them():
    crowd = Crowd("header:x-one", "cookie:u")
    crowd.world.get()
    crowd.world.cache.purge(prefix="/")
    crowd.world.origin.asked.clear()
    crowd.world.origin.body = crowd.hold
    thread = threading.Thread(target=crowd.ask, args=("held",), kwargs={"X_One": "1"})
    thread.start()
    assert crowd.inside.wait(PATIENCE_S)
    assert crowd.world.number(X_One="2") == 2  # at once: the leader is still held
    assert crowd.world.number(X_One="1", Cookie="u=1") == 3
    crowd.gate.set()
    join(thread)
    assert crowd.answers["held"].headers["X-Number"] == "1"


def test_a_stream_is_cut_off_where_it_begins_to_depend_on_its_leader():
    world = World(observes=True)
    first, go_on = threading.Event(), threading.Event()
    world.origin.headers += [("Content-Type", "text/csv"), ("Content-Length", "17")]

    def stream(environ, inputs):
        yield b"for all,"
        first.set()
        assert go_on.wait(HANG_S)
        inputs.note("cookie:u")
        yield b"for alice"

    world.origin.body = stream
    leader = []
    thread = threading.Thread(target=lambda: leader.append(world.get(Cookie="u=alice")))
    thread.start()
    assert first.wait(PATIENCE_S)
    environ = {"wsgi.url_scheme": "http", "HTTP_HOST": "localhost", "REQUEST_METHOD": "GET"}
    environ |= {"PATH_INFO": "/", "QUERY_STRING": ""}
    along = iter(world.layer(environ, lambda status, headers: None))
    assert next(along) == b"for all,"
    go_on.set()
    with pytest.raises(CutOffError):
        next(along)
    join(thread)
    assert leader[0].data == b"for all,for alice"


@pytest.mark.parametrize("late", ["header:x-one", "cookie:u", "session:u"])
def test_a_body_of_unknown_length_is_whole_for_those_who_agree_with_late_looks(late):
    crowd = Crowd()
    crowd.world.origin.headers.append(("Content-Type", "text/csv"))
    hold = crowd.hold

    def stream(environ, inputs):
        yield b"head,"
        yield from hold(environ, inputs)
        inputs.note(late)
        yield b" of " + environ.get("HTTP_X_ONE", environ.get("HTTP_COOKIE", "all")).encode()

    crowd.hold = stream
    fields = {"X_One": "bob"} if late == "header:x-one" else {"Cookie": "u=bob; session=bob"}
    leader, same, other = crowd.run({}, {}, fields)
    assert leader.data == same.data == b"head,page of all"
    assert numbers([leader, same, other]) == [1, 1, 2]
    assert other.data == b"head,page of " + next(iter(fields.values())).encode()


@pytest.mark.parametrize("variants", [False, True])
@pytest.mark.parametrize(
    ("asks", "finer"),
    [("header:x-app", {"X_App": "1"}), ("session:u", {"Cookie": "session=a"})],
)
def test_one_visitor_whose_page_depends_on_more_does_not_tell_the_others_apart(
    asks, finer, variants
):
    crowd = Crowd(cookies=variants)

    def looks(environ):
        signed_in = environ.get("HTTP_X_APP") or environ.get("HTTP_COOKIE")
        return (asks, "header:user-agent") if signed_in else (asks,)

    crowd.world.origin.looks = looks
    crowd.world.get()
    crowd.world.get(User_Agent="x", **finer)
    crowd.world.cache.purge(prefix="/")
    crowd.world.origin.asked.clear()
    found = crowd.run(*({"User_Agent": f"browser {number}"} for number in range(4)))
    assert numbers(found) == [1, 1, 1, 1]


def test_whose_page_depended_on_more_waits_only_for_who_agrees_in_it():
    crowd = Crowd(wait_s=30)
    crowd.world.origin.looks = lambda environ: (
        ("header:x-app", "header:user-agent") if "HTTP_X_APP" in environ else ("header:x-app",)
    )
    crowd.world.get()
    crowd.world.get(X_App="1", User_Agent="a")
    crowd.world.cache.purge(prefix="/")
    crowd.world.origin.asked.clear()
    crowd.world.origin.body = crowd.hold
    fields = {"X_App": "1", "User_Agent": "a"}
    thread = threading.Thread(target=crowd.ask, args=("held",), kwargs=fields)
    thread.start()
    assert crowd.inside.wait(PATIENCE_S)
    assert crowd.world.number(X_App="1", User_Agent="b") == 2  # at once: the leader is still held
    crowd.gate.set()
    join(thread)
    assert crowd.answers["held"].headers["X-Number"] == "1"


# --- inside of a view -----------------------------------------------------------------------------


class SharedSite:
    """A Flask app with a shared view, whose first run is held until the crowd has arrived."""

    def __init__(self, view, hook=None, after=None, size=5):
        self.app = app = Flask("crowd")
        app.testing = True
        app.secret_key = "s" * 32
        om = OpenManager(app)
        self.size = size
        self.arrived = threading.Semaphore(0)
        self.counts = {"before": 0, "after": 0, "teardown": 0, "view": 0}
        self.lock = threading.Lock()

        @app.before_request
        def before():
            if request.path == "/warm":
                return None
            self.count("before")
            self.arrived.release()
            return hook() if hook else None

        @app.after_request
        def later(response):
            if request.path != "/warm":
                self.count("after")
                response = after(response) if after else response
            return response

        @app.teardown_request
        def teardown(error):
            if request.path != "/warm":
                self.count("teardown")

        @app.get("/warm")
        def warm():
            return ""

        @app.get("/page")
        @om.cached(stale_time=60, shared=True)
        def page():
            number = self.count("view")
            if number == 1:
                for _ in range(self.size):
                    assert self.arrived.acquire(timeout=PATIENCE_S)
                threading.Event().wait(0.1)  # the last of them is on its way from hook to view
            return view()

        app.test_client().get("/warm")

    def count(self, name):
        with self.lock:
            self.counts[name] += 1
            return self.counts[name]

    def run(self, cookies=lambda number: {}):
        answers = {}

        def ask(number):
            client = self.app.test_client()
            for name, value in cookies(number).items():
                client.set_cookie(name, value)
            answers[number] = client.get("/page")

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            join(thread)
        assert set(self.counts.values()) - {self.counts["view"]} <= {self.size}
        assert self.counts["before"] == self.counts["after"] == self.counts["teardown"] == self.size
        return [answers[number] for number in range(self.size)]


def test_hooks_run_once_for_each_and_the_view_once_for_all():
    site = SharedSite(lambda: "same")
    assert [one.text for one in site.run()] == ["same"] * 5
    assert site.counts["view"] == 1


def test_hooks_run_once_also_when_the_page_turns_out_personal():
    site = SharedSite(lambda: f"hello {request.cookies.get('u')}")
    found = site.run(lambda number: {"u": str(number)})
    assert [one.text for one in found] == [f"hello {number}" for number in range(5)]
    assert site.counts["view"] == 5


def test_a_crowd_that_changes_its_sessions_keeps_all_its_cookies():
    site = SharedSite(lambda: "same", hook=lambda: session.update(n=1))
    found = site.run()
    assert all("session=" in one.headers["Set-Cookie"] for one in found)
    assert site.counts["view"] == 5


def test_the_cookies_of_one_who_waited_are_sent_and_make_his_answer_private():
    numbers = iter(range(100))

    def greet_those_who_waited(response):
        if response.get_data() != b"same":
            response.set_cookie("seen", str(next(numbers)))
        return response

    site = SharedSite(lambda: "same", after=greet_those_who_waited)
    found = site.run()
    assert [one.text for one in found] == ["same"] * 5
    waited = [one for one in found if "Set-Cookie" in one.headers]
    assert len({one.headers["Set-Cookie"] for one in waited}) == 4
    assert {one.headers["Cache-Control"] for one in waited} == {"private, max-age=0"}
    assert site.counts["view"] == 1


def test_a_hook_that_answers_in_place_of_the_view_is_heard():
    def close_for_those_who_waited(response):
        if response.get_data() != b"same":
            response.status_code, response.data = 503, b"closed"
        return response

    site = SharedSite(lambda: "same", after=close_for_those_who_waited)
    found = site.run()
    assert sorted(one.status_code for one in found) == [200, 503, 503, 503, 503]


def test_an_error_of_the_leader_is_its_own():
    runs = iter(range(100))
    site = SharedSite(lambda: ("broken", 500) if next(runs) == 0 else "fine")
    found = site.run()
    assert sorted(one.status_code for one in found) == [200, 200, 200, 200, 500]

"""405: many of one kind are told to operators, and nothing is ever repaired for them."""

from __future__ import annotations

import flask
import pytest
from werkzeug.test import Client

from om_plugins import OpenManager, OpenManagerMiddleware, Settings
from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.notifications.notifications import TOPIC
from om_plugins.plugins.kit import Host
from om_plugins.recovery.wrong_methods import WrongMethods
from om_plugins.runtime import Runtime
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.scheduler import BackgroundScheduler


class Worker:
    def __init__(self, clock, hub):
        self.notes, self.events = [], []
        self.scheduler = BackgroundScheduler(4, 100, clock, hub, synchronous=True)
        self.wrong = WrongMethods(
            clock=clock, hub=hub, scheduler=self.scheduler, notify=self.notes.append,
            emit=lambda signal, **details: self.events.append((signal.name, details)),
        )  # fmt: skip

    def note(self, times=1, rule="/x", method="POST", allowed=("GET", "OPTIONS", "HEAD")):
        for _ in range(times):
            self.wrong.note(rule, method, allowed)
        self.scheduler.run_pending()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def hub(clock):
    return MemoryHub("memory://", clock)


@pytest.fixture
def worker(clock, hub):
    return Worker(clock, hub)


def test_nine_are_a_number_and_the_tenth_is_told_to_operators(worker):
    worker.note(9)
    assert worker.notes == []
    worker.note()
    (note,) = worker.notes
    assert note.to == "operators"
    assert note.message == (
        "Clients send POST to /x, which allows GET, HEAD, OPTIONS only: 10 times in five minutes."
    )
    (pattern,) = worker.wrong.current()
    assert pattern.example == "clients send POST to a GET-only route; it allows GET, HEAD, OPTIONS"
    assert (pattern.subject, pattern.count) == ("route:/x", 10)
    assert [name for name, _ in worker.events] == ["error_pattern_found"]


def test_it_is_said_again_only_at_a_hundred_and_a_thousand_in_the_same_place(worker):
    worker.note(37)
    assert worker.wrong.current()[0].count == 37
    worker.note(900)
    worker.note(900)
    worker.note(900)
    assert [note.message.split()[-5] for note in worker.notes] == ["37", "937", "1837"]
    assert len({note.key for note in worker.notes}) == 1


def test_workers_add_up(clock, hub):
    workers = [Worker(clock, hub) for _ in range(2)]
    for _ in range(5):
        for worker in workers:
            worker.note()
    assert sum(len(worker.notes) for worker in workers) == 1
    assert workers[0].wrong.current()[0].count == 10


def test_what_left_the_window_does_not_count(worker, clock):
    worker.note(9)
    clock.advance(301)
    worker.note(9)
    assert worker.notes == []


def test_methods_and_routes_count_apart_and_unknown_methods_together(worker):
    worker.note(5)
    worker.note(5, method="PUT")
    worker.note(5, rule="/y")
    for number in range(300):
        worker.note(method=f"X{number}")
    kinds = {(one.subject, one.fingerprint): one.count for one in worker.wrong.current()}
    assert kinds == {
        ("route:/x", "405-POST"): 5,
        ("route:/x", "405-PUT"): 5,
        ("route:/y", "405-POST"): 5,
        ("route:/x", "405-_OTHER"): 300,
    }


def test_memory_is_bounded(worker):
    for number in range(500):
        worker.wrong.note(f"/{number}", "POST", ["GET"])
    worker.scheduler.run_pending()
    assert len(worker.wrong.current()) == 200


def test_a_route_of_several_methods_is_named_by_them(worker):
    worker.note(allowed=["PUT", "GET", "HEAD", "X-ODD"])
    assert "to a GET/PUT route; it allows GET, HEAD, PUT" in worker.wrong.current()[0].example


def test_where_nothing_says_what_is_allowed_it_is_told_without(worker):
    worker.note(10, allowed=["", "<script>"])
    (note,) = worker.notes
    assert note.message == "Clients send POST to /x, which refuses it: 10 times in five minutes."
    assert worker.wrong.current()[0].example == "clients send POST to a route that refuses it"


# --- in an app ------------------------------------------------------------------------------------


@pytest.fixture
def app():
    app = flask.Flask("methods")
    app.config.update(TESTING=True, OM_ROUTES={"/ask": {"chain": "c", "rate": None}})
    om = OpenManager(app)

    @om.engine("e", chain="c", local=True)
    def engine(call):
        return {}

    @app.get("/items/<int:number>")
    def item(number):
        return str(number)

    app.om = om
    return app


def test_an_apps_405s_are_counted_by_their_rule(app):
    client = app.test_client()
    for number in range(12):
        reply = client.post(f"/items/{number}")
        assert (reply.status_code, set(reply.allow)) == (405, {"GET", "HEAD", "OPTIONS"})
        reply.close()
        assert client.post(f"/nowhere/{number}").status_code == 404
        assert client.get("/items/1").status_code == 200
    runtime = app.om.runtime
    (pattern,) = runtime.part_of("recovery").wrong_methods.current()
    assert (pattern.subject, pattern.count) == ("route:/items/<int:number>", 12)
    assert runtime.part_of("recovery").recovery.patterns() == []
    assert runtime.part_of("recovery").recovery.history() == []
    assert {m.data["to"] for m in runtime.hub.read(TOPIC)} == {"operators"}


def test_an_engine_routes_405s_are_counted_too(app):
    for _ in range(3):
        reply = app.test_client().put("/ask")
        assert reply.status_code == 405
        reply.close()
    (pattern,) = app.om.runtime.part_of("recovery").wrong_methods.current()
    assert (pattern.subject, pattern.fingerprint, pattern.count) == ("route:/ask", "405-PUT", 3)


def test_a_views_own_405_is_counted_by_its_rule_with_what_it_allows(app):
    @app.route("/form/<int:number>", methods=["GET", "POST"])
    def form(number):
        said = {"Allow": "GET, HEAD" + ", X" * 1000} if flask.request.method == "POST" else {}
        return "no", 405, said

    client = app.test_client()
    for number in range(3):
        client.post(f"/form/{number}").close()
        client.get(f"/form/{number}").close()
        client.put("/_om/health").close()  # this package's own pages do not count
    found = {
        one.fingerprint: one for one in app.om.runtime.part_of("recovery").wrong_methods.current()
    }
    assert {(one.subject, one.count) for one in found.values()} == {("route:/form/<int:number>", 3)}
    assert found["405-POST"].example == "clients send POST to a GET-only route; it allows GET, HEAD"
    assert found["405-GET"].example == "clients send GET to a route that refuses it"


def test_a_plain_apps_405s_are_counted_without_their_paths():
    def plain(environ, start_response):
        start_response("405 Method Not Allowed", [("Allow", "GET"), ("Content-Type", "text/plain")])
        return [b"no"]

    runtime = Runtime(Settings(hub_url="memory://"), host=Host(testing=True))
    client = Client(OpenManagerMiddleware(plain, runtime=runtime))
    for number in range(3):
        client.post(f"/secret/{number}").close()
    (pattern,) = runtime.part_of("recovery").wrong_methods.current()
    assert (pattern.subject, pattern.count) == ("route:<unmatched>", 3)
    assert pattern.example == "clients send POST to a GET-only route; it allows GET"
    runtime.close()


def test_the_console_shows_them(app):
    from om_plugins.console.dashboard import Dashboard

    app.test_client().post("/items/1").close()
    (shown,) = Dashboard(app.om.runtime.kit).read()["wrong_methods"]
    assert shown["subject"] == "route:/items/<int:number>"
    assert shown["count"] == 1


def test_the_kill_switch_counts_nothing(app):
    app.config["OM_ENABLED"] = False
    assert app.test_client().post("/items/1").status_code == 405
    assert app.om.runtime.part_of("recovery").wrong_methods.current() == []

"""Recovery in an application: what is counted, and who is told."""

from __future__ import annotations

import gc
import logging
import weakref

import flask
import pytest

from om_plugins import OpenManager, signals
from om_plugins.builtin.engines.static import StaticEngine
from om_plugins.errors import ChainExhausted, Transient


def make(**config):
    app = flask.Flask("app")
    app.config.update(TESTING=True, PROPAGATE_EXCEPTIONS=False)
    app.config.update(OM_ROUTES={"/ask": {"chain": "assistant"}}, **config)
    om = OpenManager(app)

    @om.engine("one", chain="assistant", tier=1)
    def one(call):
        raise Transient("no 17")

    @app.get("/item/<int:number>")
    def item(number):
        raise KeyError(number)

    @app.get("/handled")
    def handled():
        try:
            om.chain("assistant").call()
        except ChainExhausted:
            return "sorry"

    @app.get("/missing")
    def missing():
        flask.abort(404)

    return app, om


def ask(app, path="/ask", method="POST", times=1, body=b"{}", **headers):
    client = app.test_client(use_cookies=False)
    content_type = "application/json" if method == "POST" else None
    for _ in range(times):
        with client.open(
            path, method=method, data=body, content_type=content_type, headers=headers
        ) as got:
            got.get_data()
    return got.status_code


def test_an_engine_that_was_repaired_in_one_worker_is_asked_in_the_others(tmp_path):
    down, apps = [True], []

    def make_worker():
        app = flask.Flask("app")
        apps.append(app)  # an OpenManager does not keep its app
        app.config.update(
            TESTING=True,
            OM_HUB_URL=f"sqlite:///{tmp_path / 'hub.sqlite3'}",
            OM_CHAIN_DEFAULTS={"retries": 0, "breaker_min_calls": 1},
        )
        om = OpenManager(app)

        @om.engine("one", chain="assistant", idempotent=True)
        def one(call):
            if down[0]:
                raise Transient("gone")
            return "well"

        om.runtime.part_of("chains").bus.read()
        return om

    workers = [make_worker() for _ in range(2)]
    for om in workers:
        with pytest.raises(ChainExhausted):
            om.chain("assistant").call()
    down[0] = False
    assert workers[0].recovery.recover("chain:assistant")
    workers[0].run_pending_jobs()
    assert workers[0].chain("assistant").call().payload == "well"
    workers[1].runtime.part_of("chains").bus.read()
    assert workers[1].chain("assistant").call().payload == "well"


def found(om):
    return [
        (p.subject, p.count, p.example) for p in om.runtime.part_of("recovery").recovery.patterns()
    ]


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL)


def test_a_view_that_raises_is_counted_by_its_rule():
    app, om = make()
    assert ask(app, "/item/1", "GET") == 500
    ask(app, "/item/2", "GET")
    ask(app, "/missing", "GET")
    assert found(om) == [("route:/item/<int:number>", 2, "KeyError: <n>")]


def test_an_engine_route_that_fails_is_counted_once_by_its_chain():
    app, om = make()
    assert ask(app) == 503
    assert found(om) == [("chain:assistant", 1, "Transient: no <n>")]


def test_an_engine_route_that_falls_back_is_counted_too():
    app, om = make()
    om.add_engine(StaticEngine("rest", {}), chain="assistant", tier=2)
    assert ask(app) == 200
    assert found(om) == [("chain:assistant", 1, "Transient: no <n>")]


def test_a_failed_chain_is_counted_although_the_view_has_an_answer():
    app, om = make()
    assert ask(app, "/handled", "GET") == 200
    assert found(om) == [("chain:assistant", 1, "Transient: no <n>")]


def test_a_wrong_question_is_not_counted():
    app, om = make()
    assert ask(app, body=b"no json", times=5) == 400
    assert ask(app, method="DELETE", times=5) == 405
    assert found(om) == []


def test_five_failures_lead_to_a_recovery_that_signals_its_end():
    app, om = make()
    reports = []

    def ended(sender, *, report, **extra):
        reports.append((sender, report))

    with signals.recovery_finished.connected_to(ended):
        ask(app, times=5)
    ((sender, report),) = reports
    assert sender is app
    assert report.subject == "chain:assistant"
    assert [line.partition(":")[0] for line in report.steps] == [
        "Renewing saved answers", "Freeing memory", "Checking the network", "Asking again",
    ]  # fmt: skip
    assert om.runtime.part_of("recovery").recovery.history() == [report]


def test_the_browser_that_asked_is_told_in_its_language_and_the_operators_in_english():
    app, om = make(OM_DISPLAY_NAMES={"assistant": "도우미"})
    _, cookie = om.runtime.part_of("notifications").browsers.assign_address(
        {"wsgi.url_scheme": "http"}, ""
    )
    ask(app, **{"Cookie": cookie.partition(";")[0], "Accept-Language": "ko"})
    mine, operators = [m.data for m in om.runtime.hub.read("notifications")]
    assert mine["to"].startswith("sid:")
    assert "도우미" in mine["message"]
    assert "문제" in mine["message"]
    assert mine["data"] == {}
    assert operators["to"] == "operators"
    assert operators["message"].startswith("assistant had a problem")


def test_nothing_is_counted_when_the_package_is_switched_off():
    app, om = make(OM_ENABLED=False)
    ask(app, "/item/1", "GET", times=5)
    with pytest.raises(ChainExhausted):
        om.runtime.part_of("chains").get("assistant").call()
    om.runtime.scheduler.run_pending()
    assert found(om) == []


def test_an_app_whose_views_failed_is_collected_when_it_is_dropped():
    app, om = make()
    ask(app, "/item/1", "GET", times=5)
    ask(app, times=5)
    gone = weakref.ref(app)
    del app, om
    gc.collect()
    assert gone() is None

"""The monitoring of an application as a whole: jobs, picture, alerts, monitors."""

from __future__ import annotations

import json
import threading

import pytest
from flask import Flask

from om_plugins import OpenManager, OpenManagerMiddleware, Settings, hookimpl, signals
from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.monitoring.alert_rules import RULES
from om_plugins.monitoring.monitoring import ALERTS_TOPIC, Monitoring
from om_plugins.runtime import Runtime
from om_plugins.types import CacheStats, EngineHealth, Health
from om_plugins.workers.scheduler import BackgroundScheduler


class House:
    """A monitoring with the parts around it, several of which may share a hub."""

    def __init__(self, clock, hub=None, **options):
        self.clock = clock
        self.hub = hub or MemoryHub("memory://", clock)
        self.scheduler = BackgroundScheduler(2, 99, clock, self.hub, synchronous=True)
        self.emitted = []
        self.notified = []
        self.engines = []
        self.stats = CacheStats()
        self.monitoring = Monitoring(
            clock=clock,
            hub=self.hub,
            scheduler=self.scheduler,
            emit=lambda signal, **details: self.emitted.append((signal, details)),
            notify=self.notified.append,
            monitors=list,
            guarded=lambda plugin, function, *args: (True, function(*args)),
            engines=lambda: self.engines,
            cache_stats=lambda: self.stats,
            **options,
        )

    def request(self, status="200 OK", duration=0.05, count=1):
        collector = self.monitoring.collector
        for _ in range(count):
            collector.enter()
            collector.leave(("/", "GET", status, duration, 9, self.clock.monotonic(), False))

    def pass_time(self, seconds, **traffic):
        for _ in range(seconds):
            if traffic:
                self.request(**traffic)
            self.clock.advance(1)
            self.scheduler.run_due()
            self.scheduler.run_pending()

    def close(self):
        self.monitoring.close()
        self.scheduler.close()
        self.hub.close()


@pytest.fixture
def house(clock):
    made = House(clock)
    made.monitoring.start()
    yield made
    made.close()


def test_the_picture_is_json_and_says_what_happened(house):
    house.engines = [EngineHealth("e", "c", 1, Health.HEALTHY, 0.0, 0.0, 5, 0.0)]
    house.stats = CacheStats(fresh=3, misses=1)
    house.pass_time(30, count=4)
    house.request("500 X", 0.5)
    house.monitoring.collector.enter()
    seen = json.loads(json.dumps(house.monitoring.overview()))
    assert seen["requests"] == 121
    assert seen["requests_per_s"] == 4.0
    assert seen["p50_ms"] == pytest.approx(50, rel=0.02)
    assert seen["p99_ms"] == pytest.approx(50, rel=0.02)
    assert seen["success_rate"] == pytest.approx(120 / 121, abs=1e-5)
    assert seen["in_flight"] == 1
    assert seen["cpu_percent"] > 0
    assert seen["rss_bytes"] > 1_000_000
    assert 0 < seen["memory"] < 1
    assert [(r["route"], r["status"], r["requests"]) for r in seen["routes"]] == [
        ("/", "2xx", 120),
        ("/", "5xx", 1),
    ]
    assert seen["engines"][0]["state"] == "healthy"
    assert (seen["cache"]["hits"], seen["cache"]["hit_rate"]) == (3, 0.75)
    assert [p["requests"] for p in seen["history"]["10s"]][:2] == [40, 40]
    assert len(seen["workers"]) == 1
    assert seen["trends"]["response_time"]["verdict"] == "no data"


def test_the_present_can_be_had_without_the_past(house):
    house.pass_time(30, count=4)
    whole, present = house.monitoring.overview(), house.monitoring.overview(history=False)
    del whole["history"]
    assert present == whole


def test_nothing_runs_before_start_and_start_is_idempotent(clock):
    house = House(clock)
    assert house.scheduler.run_due() == 0
    house.monitoring.start()
    house.monitoring.start()
    clock.advance(10)
    assert house.scheduler.run_due() == 2
    house.close()
    assert house.hub.scan("monitor/now/") == {}


def test_a_picture_can_be_had_without_any_job(clock):
    house = House(clock)
    house.request(count=3)
    assert house.monitoring.overview()["requests"] == 3
    house.close()


def test_an_hour_of_history_has_more_than_a_hundred_points(house):
    house.pass_time(1300, count=1)
    assert len(house.monitoring.overview()["history"]["10s"]) >= 100


def test_workers_are_one_picture_in_each_of_them(clock):
    hub = MemoryHub("memory://", clock)
    houses = [House(clock, hub) for _ in range(3)]
    for number, one in enumerate(houses, 1):
        one.request(count=10 * number)
        one.monitoring.tick()
    for one in houses:
        seen = one.monitoring.overview()
        assert seen["requests"] == 60
        assert len({w["id"] for w in seen["workers"]}) == 3
        assert sum(p["requests"] for p in seen["seconds"]) == 60
        assert seen["routes"][0]["requests"] == 60
    clock.advance(26)
    houses[0].monitoring.tick()
    assert houses[0].monitoring.overview()["requests"] == 10, "the silent ones ran out"
    for one in houses:
        one.close()


def test_snapshots_come_every_ten_seconds_and_every_second_while_watched(house):
    puts = []
    put = house.hub.put
    house.hub.put = lambda key, value, ttl: (puts.append(key), put(key, value, ttl))
    house.pass_time(30)
    assert len([key for key in puts if key.startswith("monitor/now/")]) == 3
    puts.clear()
    house.monitoring.overview()
    house.pass_time(10)
    assert len([key for key in puts if key.startswith("monitor/now/")]) == 10
    house.pass_time(20)
    puts.clear()
    house.pass_time(20)
    assert len([key for key in puts if key.startswith("monitor/now/")]) == 2


def test_a_damaged_snapshot_of_another_is_left_out(house):
    house.request()
    for number, value in enumerate([1, {}, {"pid": -1}, [b"\xff"]]):
        house.hub.put(f"monitor/now/evil{number}", value, 60)
    house.hub.put("monitor/state", {"alerts": [1], "trends": b"x", "by": 3}, 60)
    house.pass_time(20)
    seen = house.monitoring.overview()
    json.dumps(seen)
    assert len(seen["workers"]) == 1


def test_errors_fire_an_alert_that_is_told_once_and_resolves(house):
    house.pass_time(60, count=5)
    assert house.emitted == []
    house.pass_time(150, status="500 X", count=5)
    ((signal, details),) = house.emitted
    assert signal is signals.alert_fired
    assert details["alert"].name == "error_rate"
    (note,) = house.notified
    assert (note.kind, note.to, note.key) == ("error", "operators", "alert:error_rate:")
    (active,) = house.monitoring.overview()["alerts"]["active"]
    assert (active["state"], active["threshold"]) == ("firing", 0.05)
    house.pass_time(200, count=5)
    assert [s.name for s, _ in house.emitted] == ["alert_fired", "alert_resolved"]
    assert [n.kind for n in house.notified] == ["error", "success"]
    assert house.notified[1].message.startswith("Over: ")
    assert [m.data["event"] for m in house.hub.read(ALERTS_TOPIC)] == ["fired", "resolved"]
    alerts = house.monitoring.overview()["alerts"]
    assert alerts["active"] == []
    assert [past["state"] for past in alerts["history"]] == ["resolved"]


def test_slow_requests_and_offline_engines_fire_theirs(house):
    house.engines = [EngineHealth("gpt", "chat", 1, Health.OFFLINE, 1.0, 0.0, 20, 0.0)]
    house.pass_time(150, count=5, duration=3.0)
    fired = {details["alert"].name: details["alert"] for _, details in house.emitted}
    assert set(fired) == {"response_time", "engine_offline"}
    assert fired["engine_offline"].message == "The engine chat/gpt is offline"
    assert "take longer than 3.0 s" in fired["response_time"].message


def test_a_silenced_alert_is_listed_and_signalled_but_nobody_is_told(house):
    house.monitoring.alerts.silence("error_rate", 3600)
    house.pass_time(200, status="500 X", count=5)
    assert house.notified == []
    assert house.emitted[0][1]["alert"].silenced
    with pytest.raises(ValueError, match="known are response_time"):
        house.monitoring.alerts.silence("nothing", 1)


def test_only_the_elected_worker_judges_and_another_takes_over(clock):
    hub = MemoryHub("memory://", clock)
    first, second = House(clock, hub), House(clock, hub)
    for one in (first, second):
        one.monitoring.start()

    def both(seconds, **traffic):
        for _ in range(seconds):
            for one in (first, second):
                one.request(**traffic)
            clock.advance(1)
            for one in (first, second):
                one.scheduler.run_due()
                one.scheduler.run_pending()

    both(200, status="500 X", count=3)
    assert len(first.emitted) + len(second.emitted) == 1
    judge, heir = (first, second) if first.emitted else (second, first)
    judge.monitoring.close()
    heir.pass_time(300, count=3)
    assert [s.name for s, _ in heir.emitted] == ["alert_resolved"], "not fired a second time"
    first.close()
    second.close()


def test_a_drift_of_the_response_time_is_a_trend_with_a_forecast(house):
    for step in range(900):
        house.pass_time(1, count=3, duration=0.2 + 0.001 * step)
    found = house.monitoring.overview()["trends"]["response_time"]
    assert found["verdict"] == "degrading"
    soonest, expected, latest = found["crosses_min"]
    # 1.1 s now, 0.06 s a minute more: 2 s in 15 minutes
    assert soonest <= expected <= latest
    assert expected == pytest.approx(15, rel=0.15)
    steady = house.monitoring.overview()["trends"]["error_rate"]
    assert steady["verdict"] == "stable"


def test_a_collapse_of_the_caches_hit_rate_fires(house):
    for _ in range(600):
        house.stats.fresh += 9
        house.stats.misses += 1
        house.pass_time(1)
    assert house.emitted == []
    for _ in range(180):
        house.stats.fresh += 1
        house.stats.misses += 9
        house.pass_time(1)
    assert [d["alert"].name for _, d in house.emitted] == ["cache_hits"]


def test_rules_are_the_designs(house):
    limits = {rule.name: rule.limit for rule in RULES}
    assert limits == {
        "response_time": 2.0,
        "error_rate": 0.05,
        "memory": 0.90,
        "engine_offline": 0.5,
        "fallback_rate": 0.10,
        "cache_hits": 0.5,
    }


# --- in an application ----------------------------------------------------------------------------


def hello(**config):
    app = Flask(__name__)
    app.config.update(TESTING=True, **config)

    @app.get("/hello/<name>")
    def index(name):
        return name

    return app


def test_a_flask_app_is_watched_with_one_line_and_monitors_get_its_samples():
    class Plugin:
        def __init__(self):
            self.samples = []

        @hookimpl
        def om_monitors(self, context):
            return [self]

        def record(self, samples):
            self.samples += samples

    plugin = Plugin()
    app = hello()
    om = OpenManager()
    om.register_plugin(plugin, "plugin")
    om.init_app(app)
    with app.test_client() as client:
        for name in ("a", "b"):
            client.get(f"/hello/{name}").close()
        client.get("/nowhere").close()
        client.get("/_om/static/none").close()
    runtime = om.runtime
    seen = runtime.part_of("monitoring").overview()
    assert {(r["route"], r["status"]): r["requests"] for r in seen["routes"]} == {
        ("/hello/<name>", "2xx"): 2,
        ("<unmatched>", "4xx"): 1,
        ("/_om/*", "4xx"): 1,
    }
    runtime.part_of("monitoring").tick()
    with app.test_client() as client:
        client.get("/hello/c").close()
    runtime.part_of("monitoring").tick()
    runtime.scheduler.run_pending()
    assert [(s.route, s.status) for s in plugin.samples] == [("/hello/<name>", 200)]
    runtime.close()


def test_switched_off_it_is_not_composed_and_starts_nothing():
    app = hello(OM_MONITORING=False)
    om = OpenManager(app)
    with app.test_client() as client:
        client.get("/hello/a").close()
    assert om.runtime.part_of("monitoring").overview()["requests"] == 0
    assert om.runtime.scheduler.run_due() == 0
    om.runtime.close()


def test_binding_begins_no_thread_and_closing_ends_all():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    before = set(threading.enumerate())
    runtime = Runtime(Settings(hub_url="memory://"))
    middleware = OpenManagerMiddleware(app, runtime=runtime)
    assert set(threading.enumerate()) <= before
    environ = {"PATH_INFO": "/", "REQUEST_METHOD": "GET"}
    middleware(environ, lambda *a: lambda d: None).close()
    begun = {t.name for t in set(threading.enumerate()) - before}
    assert begun <= {"om-timer"}  # an application that was not collected yet may have begun it
    assert "om-timer" in {t.name for t in threading.enumerate()}
    runtime.close()
    assert set(threading.enumerate()) <= before

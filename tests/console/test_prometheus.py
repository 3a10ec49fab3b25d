"""``/_om/metrics``: what Prometheus reads there, and who may."""

from __future__ import annotations

import sys

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from om_plugins import (
    Feature,
    FeatureSpec,
    Metric,
    OpenManagerMiddleware,
    Settings,
    hookimpl,
)
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing import FakeClock
from om_plugins.types import EngineSpec, EngineTraits

families = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families
open_metrics = pytest.importorskip(
    "prometheus_client.openmetrics.parser"
).text_string_to_metric_families

TOKEN = "Kq7vR2mX9pL4nB8wZ3tY"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Engine:
    name = 'a "quoted"\nname'
    traits = EngineTraits(local=True)

    def call(self, call):
        raise ConnectionError("away")


def made(**settings):
    given = {"hub_url": "memory://", "console_auth": TOKEN, "metrics": True, **settings}
    return Runtime(Settings(**given), clock=FakeClock(1_700_000_000.0), host=Host(testing=True))


def client_of(runtime):
    return Client(OpenManagerMiddleware(Response("the host's page"), runtime=runtime))


@pytest.fixture
def runtime():
    runtime = made()
    yield runtime
    runtime.close()


@pytest.fixture
def client(runtime):
    return client_of(runtime)


def scraped(client, parse=families, **headers):
    answer = client.get("/_om/metrics", headers={**BEARER, **headers})
    assert answer.status_code == 200, answer.text
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in parse(answer.text)
        for one in family.samples
    }


def test_it_is_not_there_until_it_is_asked_for():
    runtime = made(metrics=False)
    assert client_of(runtime).get("/_om/metrics", headers=BEARER).status_code == 404
    runtime.close()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_only_who_may_open_the_console_may_read_it(client, headers):
    answer = client.get("/_om/metrics", headers=headers)
    assert answer.status_code == 401
    assert "om_" not in answer.text


def test_without_a_token_or_callback_nobody_may():
    runtime = made(console_auth=None)
    assert client_of(runtime).get("/_om/metrics").status_code == 404
    runtime.close()


def test_other_sites_pages_may_not_read_it(client):
    answer = client.get("/_om/metrics", headers={**BEARER, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


def test_requests_are_counted_with_their_durations(client):
    client.get("/a/secret/path").close()
    client.post("/another").close()
    found = scraped(client)
    labels = [("method", "GET"), ("route", "<unmatched>"), ("status", "2xx")]
    assert found["om_http_requests_total", *labels] == 1
    assert found["om_http_response_bytes_total", *labels] == len("the host's page")
    assert found["om_http_request_duration_seconds_count", *labels] == 1
    last = sorted([*labels, ("le", "+Inf")])
    assert found["om_http_request_duration_seconds_bucket", *last] == 1
    assert found["om_http_requests_active",] == 1  # the one that asks
    assert found["om_workers",] == 1
    assert found["om_hub_reachable",] == 1
    assert "secret" not in str(found)


def test_engines_tell_what_they_did_and_how_they_are(runtime, client):
    runtime.add_engine(EngineSpec(Engine(), "c"))
    with pytest.raises(Exception, match="engine"):
        runtime.part_of("chains").get("c").call({})
    found = scraped(client)
    engine = [("chain", "c"), ("engine", Engine.name)]
    assert found["om_engine_failures_total", *engine] >= 1
    assert ("om_engine_outages_total", *engine) not in found
    states = {
        dict(labels)["state"]: value
        for (name, *labels), value in found.items()
        if name == "om_engine_health"
    }
    assert sum(states.values()) == 1
    assert set(states) == {"healthy", "degraded", "offline", "no data"}


def test_an_engine_that_goes_offline_is_an_outage():
    runtime = made(chain_defaults={"breaker_min_calls": 2, "retries": 0})
    client = client_of(runtime)
    runtime.add_engine(EngineSpec(Engine(), "c"))
    for _ in range(5):
        with pytest.raises(Exception, match="engine"):
            runtime.part_of("chains").get("c").call({})
    found = scraped(client)
    engine = [("chain", "c"), ("engine", Engine.name)]
    assert found["om_engine_outages_total", *engine] == 1
    assert found["om_engine_health", *engine, ("state", "offline"), ("tier", "1")] == 1
    runtime.close()


def test_fallback_answers_are_told_by_kind():
    runtime = made(fallback={"/": {"answers": []}})

    def app(environ, start_response):
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        return [b"oops"]

    client = Client(OpenManagerMiddleware(app, runtime=runtime))
    for _ in range(2):
        client.get("/broken").close()
    found = scraped(client)
    assert found["om_fallback_answers_total", ("kind", "page")] == 2
    assert ("om_fallback_answers_total", ("kind", "stale")) not in found
    runtime.close()


def test_both_caches_are_told_by_kind_and_by_group(tmp_path):
    runtime = made(
        http_cache=True, trusted_hosts=("localhost",), cache_url=f"file://{tmp_path}/store"
    )
    page = Response("page", headers={"Cache-Control": "public, max-age=60"})
    client = Client(OpenManagerMiddleware(page, runtime=runtime))
    for _ in range(3):
        client.get("/page").close()
        runtime.part_of("cache").query(("users", 1), lambda: "value", stale_time=60)
    found = scraped(client)
    assert found["om_cache_lookups_total", ("kind", "fresh")] == 2
    assert found["om_cache_lookups_total", ("kind", "miss")] == 1
    assert found["om_cache_group_lookups_total", ("group", "users"), ("kind", "fresh")] == 2
    assert found["om_cache_group_entries", ("group", "users")] == 1
    assert found["om_cache_store_writes_total",] == 2  # a value and a page
    assert found["om_cache_entries",] == 1
    assert found["om_http_cache_lookups_total", ("kind", "fresh")] == 2
    assert found["om_http_cache_stored_total",] == 1
    assert found["om_http_cache_saved_bytes_total",] == 2 * len("page")
    runtime.close()


class Visits(Feature):
    """A third party's feature with a counter and a gauge."""

    name = "visits"

    def build(self, kit, keys):
        return {"count": 0, "open": 0}

    def metrics(self, kit, part):
        yield Metric("om_visits", "Visits of pages", part["count"], {"page": "/"})
        yield Metric("om_visits_open", "Visits under way", part["open"], kind="gauge")


class VisitsPlugin:
    @hookimpl
    def om_features(self):
        return [FeatureSpec(Visits())]


def test_metrics_of_any_feature_are_sent():
    settings = Settings(hub_url="memory://", console_auth=TOKEN, metrics=True)
    runtime = Runtime(
        settings,
        clock=FakeClock(1_700_000_000.0),
        host=Host(testing=True),
        plugins=[(VisitsPlugin(), "visits")],
    )
    client = client_of(runtime)
    runtime.part_of("visits").update(count=3, open=2)
    found = scraped(client)
    assert found["om_visits_total", ("page", "/")] == 3
    assert found["om_visits_open",] == 2
    runtime.part_of("visits").update(count=4, open=1)
    found = scraped(client)
    assert found["om_visits_total", ("page", "/")] == 4
    assert found["om_visits_open",] == 1
    accept = "application/openmetrics-text;version=1.0.0"
    assert scraped(client, open_metrics, Accept=accept)["om_visits_open",] == 1
    runtime.close()


def test_openmetrics_is_sent_where_it_is_asked_for(client):
    client.get("/").close()
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = client.get("/_om/metrics", headers={**BEARER, "Accept": accept})
    assert answer.content_type.startswith("application/openmetrics-text; version=")
    assert answer.text.endswith("# EOF\n")
    assert scraped(client, open_metrics, Accept=accept).keys() >= {("om_workers",)}
    plain = client.get("/_om/metrics", headers=BEARER)
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    assert plain.headers["Cache-Control"] == "no-store"


def test_what_somebody_planted_in_the_hub_is_passed_by(runtime, client):
    rows = [
        [["request", "GET"], [1]],
        [["request", "GET", "/planted", "2xx"], [1, 2]],
        [["counter", "planted"], [1]],
        [["counter", "om_x", "planted", "label"], [1]],
        [["counter", "a planted name", "about"], [1]],
        [["counter", "om_x", "about", "a label", "planted"], [1]],
        [["counter", "om_http_requests", "planted"], [1]],
        [["gauge", "om_workers", "planted"], [1]],
        [["planted"], [1]],
        [["counter", "om_x", "about", "group", 'a"\n'], [7]],
    ]
    runtime.hub.put("monitor/totals2/x", {"at": runtime.clock.time(), "rows": rows}, 60)
    found = scraped(client)
    assert "planted" not in str(found)
    assert found["om_x_total", ("group", 'a"\n')] == 7


def test_while_the_hub_is_away_no_counter_is_told(runtime, client, monkeypatch):
    client.get("/").close()
    monkeypatch.setattr(type(runtime.hub), "alone", property(lambda hub: True))
    found = scraped(client)
    assert found["om_hub_reachable",] == 0
    assert not [name for name, *_ in found if name.endswith(("_total", "_bucket"))]


def test_without_the_library_it_says_what_to_install(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)
    answer = client.get("/_om/metrics", headers=BEARER)
    assert answer.status_code == 404
    assert "pip install 'om-plugins[prometheus]'" in answer.json["detail"]


def test_without_monitoring_there_is_nothing_to_tell():
    runtime = made(monitoring=False)
    answer = client_of(runtime).get("/_om/metrics", headers=BEARER)
    assert answer.status_code == 404
    assert "OM_MONITORING" in answer.json["detail"]
    runtime.close()

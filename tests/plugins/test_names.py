"""Names in settings that name nothing: the doctor shows them, and the first request logs them."""

from __future__ import annotations

import logging

import pytest
from flask import Flask

from om_plugins import EngineSpec, OpenManager, Settings, StaticEngine
from om_plugins.plugins.kit import Host
from om_plugins.plugins.names import check_paths, nearest
from om_plugins.runtime import Runtime


def shop(*, late=False, **config):
    """An app with a chain ``assistant``, whose views are added before or after the extension."""
    app = Flask("shop")
    app.config.update(TESTING=True, SECRET_KEY="x" * 32, OM_HUB_URL="memory://", **config)

    def add_views():
        app.add_url_rule("/api/x", "x", lambda: "the view", methods=["GET", "POST"])
        app.add_url_rule("/reports/<int:number>", "report", lambda number: "a report")
        app.add_url_rule("/proxy/health", "health", lambda: "well")
        app.add_url_rule("/_om/own", "own", lambda: "the app's own")

    if not late:
        add_views()
    om = OpenManager(app)
    om.add_engine(StaticEngine("model", "engine"), chain="assistant")
    om.add_engine(StaticEngine("fallback", "engine"), chain="assistant", tier=2)
    if late:
        add_views()
    return app, om


OPEN = {"auth": lambda request: True, "chain": "assistant"}

WRONG = [
    ({"OM_CHAINS": {"assistant": {"engines": {"modle": {"tier": 3}}}}}, "Did you mean 'model'"),
    ({"OM_CHAINS": {"assistant": {"engines": {"zzz": {"tier": 3}}}}}, "are fallback, model"),
    ({"OM_CHAINS": {"asistant": {"timeout": 3}}}, "Did you mean 'assistant'"),
    ({"OM_CHAIN_DEFAULTS": {"engines": {"modle": {"weight": 2}}}}, "Did you mean 'model'"),
    ({"OM_DISPLAY_NAMES": {"asistant": "The assistant"}}, "Did you mean 'assistant'"),
    ({"OM_DISPLAY_NAMES": {"/reports/<number>": "Reports"}}, "'/reports/<int:number>'"),
    ({"OM_DISPLAY_NAMES": {"chain:asistant": "The assistant"}}, "'chain:assistant'"),
    ({"OM_ROUTES": {"/ask": {**OPEN, "chain": "asistant"}}}, "Did you mean 'assistant'"),
    ({"OM_FALLBACK": {"/": ["stale", "asistant"]}}, "Did you mean 'assistant'"),
    ({"OM_FALLBACK": {"/repots/": ["stale"]}}, "Did you mean '/reports/'"),
    ({"OM_CSP_PATHS": {"/api/xx": {"exempt": True}}}, "Did you mean '/api/x'"),
    ({"OM_HTTP_CACHE": {"routes": {"/proxi/health": {"max_age": 5}}}}, "'/proxy/health'"),
    ({"OM_ROUTES": {"/api/x": OPEN}}, "view of its own at '/api/x'"),
    ({"OM_ROUTES": {"/proxy/": {**OPEN, "raw": True}}}, "view of its own at '/proxy/health'"),
    ({"OM_PREFIX": "/api"}, "view of its own at '/api/x'"),
    ({}, "view of its own at '/_om/own'"),
]  # fmt: skip


def read_warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name == "om_plugins"
    ]


@pytest.mark.parametrize("late", [False, True], ids=["views first", "views later"])
@pytest.mark.parametrize(("config", "said"), WRONG)
def test_a_name_that_names_nothing_is_said_by_doctor_and_log(caplog, config, said, late):
    app, om = shop(late=late, **config)
    found = [one for one in om.runtime.kit.findings() if said in one.message + one.way_out]
    assert len(found) == 1
    assert found[0].level in ("warn", "fail")
    for key in config:
        assert found[0].subject.startswith(key)
    assert read_warnings(caplog) == []
    app.test_client().get("/reports/1").close()
    app.test_client().get("/reports/1").close()
    assert sum(said in line for line in read_warnings(caplog)) == 1


def test_names_that_are_there_are_no_finding(caplog):
    app, om = shop(
        OM_PREFIX="/console",
        OM_CHAINS={"assistant": {"engines": {"model": {"weight": 2}}}},
        OM_CHAIN_DEFAULTS={"engines": {"fallback": {"tier": 3}}},
        OM_DISPLAY_NAMES={
            "assistant": "The assistant",
            "chain:assistant": "The assistant",
            "/reports/<int:number>": "Reports",
            "route:/api/x": "X",
            "/ask": "Questions",
        },
        OM_ROUTES={"/ask": OPEN, "/reports/latest": OPEN},
        OM_FALLBACK={"/": ["stale", "assistant"], "/reports/": ["stale"], "/mounted/": ["stale"]},
        OM_CSP_PATHS={"/reports/*": {"exempt": True}, "/reports/5": {"exempt": True}},
    )
    assert [one for one in om.runtime.kit._find("name_findings") if one.level != "ok"] == []
    app.test_client().get("/reports/1").close()
    assert read_warnings(caplog) == []


def test_a_host_that_tells_no_rules_is_asked_for_none():
    names = {"/page": "A page", "asistant": "x"}
    settings = Settings(display_names=names, fallback={"/repot": []})
    runtime = Runtime(settings, host=Host(testing=True))
    runtime.add_engine(EngineSpec(StaticEngine("model", "x"), "assistant"))
    found = runtime.kit._find("name_findings")
    subjects = [one.subject for one in found if one.level != "ok"]
    runtime.close()
    assert subjects == ["OM_DISPLAY_NAMES['asistant']"]


def test_the_nearest_name_is_told_as_a_question():
    assert nearest("chta", ["chat", "other"]) == "Did you mean 'chat'?"
    assert nearest("xyz", ["chat"]) == ""


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/a", "/a"),
        ("/a/", "/a/b"),
        ("/a/*", "/a/b"),
        ("/a/5", "/a/<int:b>"),
        ("/a/5/c", "/a/<path:b>"),
        ("/*", "/anything"),
    ],
)
def test_a_path_with_a_route_at_or_below_it_is_right(path, rule):
    assert list(check_paths("X[{!r}]", [path], lambda: [rule])) == []

"""Apps of real extensions in Chromium: ``OpenManager(app)`` changes nothing that anybody sees.

Each app is visited without the line, then with it in ``adopt`` and in ``enforce``, written before
and after the extension. Under ``enforce`` an app has the settings that ``flask om doctor`` names,
and those that ``flask om csp suggest`` prints for what browsers reported in ``adopt``.
"""

from __future__ import annotations

import re
from ast import literal_eval
from importlib import import_module

import pytest
from werkzeug.test import Client

for name in (
    *("dash", "flask_admin", "flask_babel", "flask_caching", "flask_debugtoolbar", "flask_login"),
    *(
        "flask_socketio",
        "flask_sqlalchemy",
        "flask_wtf",
        "playwright",
        "plotly",
        "simple_websocket",
        "whitenoise",
    ),
):
    pytest.importorskip(name)

from tests.proof.real_apps.running import Line, build, visit  # noqa: E402

pytestmark = [pytest.mark.proof, pytest.mark.browser]

APPS = ("admin", "caching", "charts", "dashboard", "files", "login", "sockets", "toolbar")
UNSAMPLED = {"OM_CSP_REPORT_SAMPLE": 0.0}  # what a page outside of the sample is
SAMPLED = {"OM_CSP_REPORT_SAMPLE": 1.0}
VARYING = frozenset({"date", "set-cookie"})  # headers


@pytest.fixture(scope="module", params=APPS)
def app(request):
    return import_module(f"tests.proof.real_apps.{request.param}")


@pytest.fixture(scope="module")
def before(app, browser):
    """The visit without the line."""
    visited = visit(app, Line(), browser)
    assert not visited.violations
    assert not visited.failures
    return visited


@pytest.fixture(params=[True, False], ids=["line-first", "line-last"])
def first(request):
    return request.param


@pytest.fixture(scope="module")
def reported(app, browser):
    """The visit in ``adopt``, with the settings that the doctor names, while all pages report."""
    line = Line("adopt", first=False, settings={**app.SETTINGS, **SAMPLED})
    return visit(app, line, browser, app.RISK)


def test_adopt_changes_nothing_that_a_visitor_sees(app, before, browser):
    visited = visit(app, Line("adopt", settings=UNSAMPLED), browser)
    assert visited.violations == []
    assert visited.console == before.console
    compare(visited, before)


def test_nothing_changes_while_pages_ask_for_reports(app, before, reported):
    assert [one for one in reported.violations if not one.startswith("report ")] == []
    compare(reported, before)
    assert bool(reported.violations) is (app.RISK != "none")


def test_enforce_lets_the_app_do_what_it_does(app, before, reported, browser, first):
    settings = {**app.SETTINGS, **reported.suggested}
    visited = visit(app, Line("enforce", first, settings), browser)
    assert visited.violations == []
    assert visited.console == before.console
    compare(visited, before)


def test_the_doctor_names_the_settings(app):
    assert ask_doctor(app, {})[0] == app.SETTINGS


def test_the_doctor_finds_nothing_to_stop_once_they_are_there(app, reported):
    assert ask_doctor(app, {**app.SETTINGS, **reported.suggested}) == ({}, [])


def ask_doctor(app, settings):
    """What ``flask om doctor`` asks for in ``enforce``, and its failures."""
    made = build(app, Line("enforce", settings=settings))
    said = made.test_cli_runner().invoke(args=["om", "doctor"], catch_exceptions=False).output
    asked = [literal_eval(one) for one in re.findall(r"OM_CSP_HTML_NONCES = (\[.*?\]|'\w+')", said)]
    failures = [line for line in said.splitlines() if line.startswith("fail")]
    if not asked:
        return {}, failures
    texts = [one for one in asked if isinstance(one, str)]
    paths = sorted({path for one in asked if not isinstance(one, str) for path in one})
    return {"OM_CSP_HTML_NONCES": texts[0] if texts else paths}, failures


def compare(visited, before):
    assert visited.seen == before.seen
    assert visited.failures == []
    assert visited.answers == before.answers


def test_adopt_leaves_pages_and_files_byte_for_byte(app, first):
    plain = list(ask(app, Line()))
    assert list(ask(app, Line("adopt", first, UNSAMPLED))) == plain


def ask(app, line):
    """What the app answers, less what is another one each time."""
    client = Client(build(app, line))
    for path in app.PAGES:
        with client.get(path) as response:
            headers = drop_varying(response.headers)
            if hasattr(app, "scrub"):
                headers = [one for one in headers if one[0] != "Content-Length"]
                yield path, response.status, app.scrub(response.text), headers
            else:
                yield path, response.status, response.get_data(), headers
    for path in app.FILES:
        tag = ""
        for headers in ({}, {"Range": "bytes=0-3"}, {"Accept-Encoding": "gzip"}):
            with client.get(path, headers=headers) as response:
                yield path, response.status, response.get_data(), drop_varying(response.headers)
                tag = response.headers.get("ETag", "")
        with client.get(path, headers={"If-None-Match": tag}) as response:
            yield path, response.status, drop_varying(response.headers)


def drop_varying(headers):
    return sorted(one for one in headers if one[0].lower() not in VARYING)

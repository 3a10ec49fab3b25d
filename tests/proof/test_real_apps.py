"""Apps of real extensions in Chromium: ``OpenManager(app)`` changes nothing that anybody sees.

Each app is visited without the line, then with it in ``adopt`` and in ``enforce``, written before
and after the extension. Under ``enforce`` an app has the settings that ``flask om doctor`` names.
"""

from __future__ import annotations

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
        "simple_websocket",
        "whitenoise",
    ),
):
    pytest.importorskip(name)

from tests.proof.real_apps.running import Line, build, visit  # noqa: E402

pytestmark = [pytest.mark.proof, pytest.mark.browser]

APPS = ("admin", "caching", "dashboard", "files", "login", "sockets", "toolbar")
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


@pytest.mark.parametrize(
    ("first", "sample"),
    [(True, UNSAMPLED), (False, SAMPLED)],
    ids=["line-first-unsampled", "line-last-sampled"],
)
def test_adopt_changes_nothing_that_a_visitor_sees(app, before, browser, first, sample):
    visited = visit(app, Line("adopt", first, sample), browser)
    assert visited.seen == before.seen
    assert visited.answers == before.answers
    assert visited.failures == []
    assert [one for one in visited.violations if not one.startswith("report ")] == []
    if sample is UNSAMPLED:
        assert visited.violations == []
        assert visited.console == before.console


def test_enforce_lets_the_app_do_what_it_does(app, before, browser, first):
    if app.__name__.endswith(".admin"):
        pytest.skip("its settings are not there yet")
    visited = visit(app, Line("enforce", first, app.ENFORCE), browser)
    assert visited.violations == []
    assert visited.failures == []
    assert visited.seen == before.seen
    assert visited.console == before.console
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

"""Fallbacks in a Flask app, its report form, and both in a real browser."""

from __future__ import annotations

import threading

import flask
import pytest
from werkzeug.serving import make_server

from om_plugins import OpenManager, OpenManagerMiddleware, Settings, signals
from om_plugins.errors import RateLimited

BROWSER = {"Accept": "text/html,*/*;q=0.8"}


def made(late=False, **config):
    app = flask.Flask("fallbacks")
    app.config.update(TESTING=True, PROPAGATE_EXCEPTIONS=False, **config)
    app.logger.disabled = True
    om = OpenManager() if late else OpenManager(app)
    app.broken = True

    @app.get("/reports/day")
    def day():
        if app.broken:
            raise KeyError("user 17")
        return "<p>the day</p>"

    @app.get("/api/data")
    def data():
        return {"own": "word"}, 503

    @om.engine("archive", chain="reports", local=True, idempotent=True)
    def archive(call):
        return {"for": call.payload["path"]}

    @app.get("/view")
    @om.fallback(chain="reports")
    def view():
        flask.abort(502)

    if late:
        om.init_app(app)
    return app, om


@pytest.mark.parametrize("late", [False, True], ids=["before the views", "after the views"])
def test_a_view_and_a_path_have_fallbacks(late):
    app, _ = made(late, OM_FALLBACK={"/reports/": ["stale"]})
    client = app.test_client()
    reply = client.get("/view")
    assert (reply.status_code, reply.json) == (200, {"for": "/view"})
    assert reply.headers["OM-Engine"] == "archive"
    app.broken = False
    assert client.get("/reports/day", buffered=True).text == "<p>the day</p>"
    app.broken = True
    reply = client.get("/reports/day")
    assert (reply.status_code, reply.text) == (200, "<p>the day</p>")
    assert reply.headers["OM-Stale"] == "?1"
    reply = app.test_client().get("/reports/day?other", headers=BROWSER)
    assert reply.status_code == 503
    assert "Report problem" in reply.text


def test_a_chain_that_nobody_answered_says_when_to_come_back():
    app, om = made(OM_FALLBACK={"/": []}, OM_CHAIN_DEFAULTS={"retries": 0, "timeout": 0.2})

    @om.engine("busy", chain="busy")
    def busy(call):
        raise RateLimited("slow down", retry_after=42)

    @app.get("/asks")
    def asks():
        return om.chain("busy").call().payload

    reply = app.test_client().get("/asks")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "42")


def test_a_view_has_a_fallback_without_any_setting():
    app, _ = made()
    assert app.test_client().get("/view").json == {"for": "/view"}
    assert app.test_client().get("/api/data").json == {"own": "word"}
    assert app.test_client().get("/reports/day").status_code == 500


def test_what_answered_is_signalled_and_counted_by_kind():
    app, om = made(OM_FALLBACK={"/reports/": ["stale"]}, OM_METRICS=True)
    told = []

    def hear(sender, **details):
        told.append(details)

    client = app.test_client()
    app.broken = False
    client.get("/reports/day", buffered=True)
    app.broken = True
    with signals.fallback_answered.connected_to(hear, sender=app):
        for path in ("/reports/day", "/reports/day?other", "/view", "/api/data"):
            client.get(path).close()
    common = {"engine": "", "chain": ""}
    assert told == [
        {"kind": "stale", "route": "/reports/day", "status": 200, "failed": 500, **common},
        {"kind": "page", "route": "/reports/day", "status": 503, "failed": 500, **common},
        {"kind": "engine", "route": "/view", "status": 200, "failed": 502,
         "engine": "archive", "chain": "reports"},
    ]  # fmt: skip
    metrics = om.runtime.part_of("monitoring").read_metrics()
    counts = [one for one in metrics if one.name == "om_fallback_answers"]
    assert {one.labels["kind"]: one.value for one in counts} == {
        "stale": 1, "page": 1, "engine": 1,
    }  # fmt: skip


def test_the_kill_switch_switches_fallbacks_off():
    app, _ = made(OM_ENABLED=False, OM_FALLBACK={"/": ["stale"]})
    assert app.test_client().get("/reports/day").status_code == 500
    assert app.test_client().get("/view").status_code == 502


@pytest.mark.parametrize("switch", [{"PROPAGATE_EXCEPTIONS": True}, {"PROPAGATE_EXCEPTIONS": None}])
def test_tests_of_an_app_see_its_exceptions(switch):
    app, _ = made(OM_FALLBACK={"/": ["stale"]})
    app.config.update(switch)
    with pytest.raises(KeyError, match="user 17"):
        app.test_client().get("/reports/day")


def test_what_is_told_of_errors_goes_on():
    app, om = made(OM_FALLBACK={"/": ["stale"]})
    for _ in range(3):
        app.test_client().get("/reports/day").close()
    (pattern,) = om.runtime.part_of("recovery").recovery.patterns()
    assert (pattern.subject, pattern.count) == ("route:/reports/day", 3)
    page = app.test_client().get("/reports/day", headers=BROWSER).text
    assert f'name="reference" value="{pattern.fingerprint}"' in page


def test_a_plain_wsgi_app_that_raises_is_counted_too():
    def app(environ, start_response):
        raise ValueError("boom")

    wsgi = OpenManagerMiddleware(app, Settings(fallback={"/": ["stale"]}, hub_url="memory://"))
    started = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/x",
        "HTTP_HOST": "a",
        "wsgi.url_scheme": "http",
    }
    body = wsgi(environ, lambda status, headers, exc=None: started.append(status))
    b"".join(body)
    body.close()
    assert started == ["503 Service Unavailable"]
    wsgi.runtime.close()


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture
def served():
    app, om = made(OM_FALLBACK={"/": []}, OM_CSP_MODE="enforce")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield app, om, f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.browser
@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_person_reports_and_refreshes(browser, served, scripts):
    app, om, url = served
    context = browser.new_context(java_script_enabled=scripts, color_scheme="dark")
    page = context.new_page()
    said = []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    assert page.goto(url + "/reports/day?a=1").status == 503
    assert page.get_by_role("heading").inner_text() == "This page cannot be shown right now"
    page.get_by_role("button", name="Report problem").click()
    if scripts:
        page.get_by_role("status").filter(has_text="Thank you: report 1 was sent.").wait_for()
        assert page.url.endswith("/reports/day?a=1")
        assert page.get_by_role("button", name="Report problem").is_disabled()
    else:
        page.get_by_text("Its number is 1.").wait_for()
        page.get_by_role("link", name="Back to the page").click()
    (report,) = om.runtime.part_of("notifications").problem_reports.read()
    assert (report.id, report.route) == ("1", "/reports/day")
    assert len(report.fingerprint) == 16
    app.broken = False
    page.get_by_role("link", name="Refresh").click()
    page.get_by_text("the day").wait_for()
    assert page.url.endswith("/reports/day?a=1")
    context.close()
    assert [text for text in said if "503" not in text and "404" not in text] == []


@pytest.mark.browser
@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_page_fits_a_narrow_screen(browser, served, language):
    _, _, url = served
    context = browser.new_context(viewport={"width": 320, "height": 640}, locale=language)
    page = context.new_page()
    page.goto(url + "/reports/day")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for role in ("link", "button"):
        assert page.get_by_role(role).bounding_box()["height"] >= 44
    context.close()


@pytest.mark.parametrize("failure", [lambda: flask.abort(503), lambda: 1 / 0])
def test_a_page_kept_in_front_survives_an_outage_that_the_fallback_covers(failure):
    app = flask.Flask("outage")
    app.config.update(
        TESTING=True, PROPAGATE_EXCEPTIONS=False, OM_HTTP_CACHE=True, OM_FALLBACK={"/": ["stale"]}
    )
    app.logger.disabled = True
    om = OpenManager(app)
    runs = []

    @app.get("/page")
    def page():
        runs.append(1)
        if len(runs) > 1:
            failure()
        return "good", {"Cache-Control": "max-age=1, stale-while-revalidate=600"}

    client = app.test_client()
    client.get("/page", buffered=True)
    om.http_cache.purge("/page", soft=True)
    for _ in range(3):
        reply = client.get("/page", buffered=True)
        assert (reply.text, reply.headers["Cache-Control"]) == (
            "good",
            "max-age=1, stale-while-revalidate=600",
        )
    assert len(runs) >= 2
    assert om.http_cache.stats().entries == 1


@pytest.mark.parametrize("answer", [("", 403), ("", 404), ("", 410), flask.redirect("/login")])
def test_a_page_that_was_withdrawn_does_not_come_back_in_an_outage(answer):
    app = flask.Flask("withdrawn")
    app.config.update(
        TESTING=True, PROPAGATE_EXCEPTIONS=False, SECRET_KEY="k", OM_FALLBACK={"/": ["stale"]}
    )
    app.logger.disabled = True
    OpenManager(app)
    now = {"/a": "open", "/b": "open"}

    @app.get("/<name>")
    def page(name):
        match now[f"/{name}"]:
            case "open":
                return f"the page {name}"
            case "withdrawn":
                return answer
        raise KeyError(name)

    client = app.test_client()
    for path in now:
        client.get(path, buffered=True)
    now["/a"] = "withdrawn"
    client.get("/a", buffered=True)
    now.update({"/a": "broken", "/b": "broken"})
    assert client.get("/a", buffered=True).status_code == 503
    assert client.get("/b", buffered=True).text == "the page b"

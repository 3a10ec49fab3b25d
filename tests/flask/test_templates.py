"""Templates by default: byte for byte what the application made of them, wherever it renders."""

from __future__ import annotations

import threading

import pytest
from flask import (
    Flask,
    Response,
    after_this_request,
    copy_current_request_context,
    get_template_attribute,
    render_template,
    render_template_string,
    stream_template,
    stream_with_context,
    url_for,
)
from jinja2 import DictLoader

from om_plugins import OpenManager
from om_plugins.headers.report_turns import ReportTurns

TAGS = "<!doctype html><style>p{}</style><script>start()</script><link rel=stylesheet href=/a.css>"
FILES = {
    "page.html": TAGS + "<p>{{ text }}</p>",
    "base.html": TAGS + "{% block body %}{% endblock %}<script>end()</script>",
    "child.html": "{% extends 'base.html' %}{% block body %}<script>own()</script>{% endblock %}",
    "macros.html": "{% macro tag() %}<script>macro()</script>{% endmacro %}",
    "user.html": "{% from 'macros.html' import tag %}{{ tag() }}{% include 'page.html' %}",
}


def make_app(**config):
    app = Flask("byte for byte")
    app.config.update({"OM_HUB_URL": "memory://", "OM_CSP_REPORT_SAMPLE": 0, **config})
    app.jinja_loader = DictLoader(FILES)

    @app.get("/view")
    def view():
        return render_template("user.html", text=1)

    @app.get("/late")
    def late():
        def parts():
            yield "<!doctype html>"
            for number in range(3):
                yield render_template("user.html", text=number)

        return Response(stream_with_context(parts()), mimetype="text/html")

    @app.get("/streamed")
    def streamed():
        return stream_template("child.html")

    @app.get("/mail")
    def mail():
        text = render_template("page.html", text="mail")
        return {"sent": text, "again": render_template_string(TAGS)}

    @app.get("/afterwards")
    def afterwards():
        @after_this_request
        def add(response):
            response.set_data(response.get_data() + render_template("child.html").encode())
            return response

        return "<!doctype html>"

    @app.get("/thread")
    def thread():
        made = []

        @copy_current_request_context
        def job():
            made.append(render_template("child.html"))

        runner = threading.Thread(target=job)
        runner.start()
        runner.join()
        return made[0]

    @app.errorhandler(404)
    def missing(error):
        return render_template("child.html"), 404

    @app.cli.command("mails")
    def mails():
        with app.test_request_context(base_url="https://shop.example"):
            print(render_template("page.html", text=url_for("view", _external=True)))

    return app


def pair(**config):
    """Return the application without the line, and with it."""
    bare, bound = make_app(**config), make_app(**config)
    OpenManager(bound)
    return bare, bound


PATHS = ["/view", "/late", "/streamed", "/mail", "/afterwards", "/thread", "/missing"]


@pytest.mark.parametrize("config", [{}, {"TESTING": True}], ids=["serving", "testing"])
@pytest.mark.parametrize("path", PATHS)
def test_responses_are_those_of_the_application(path, config):
    bare, bound = (app.test_client().get(path) for app in pair(**config))
    assert bound.data == bare.data
    assert bound.status == bare.status
    assert list(bound.headers) == list(bare.headers)
    assert b"<script>" in bare.data


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"TESTING": True},
        {"DEBUG": True},
        {"OM_CSP_REPORT_SAMPLE": 1},
        {"OM_CSP_MODE": "learn"},
        {"OM_CSP_MODE": "off"},
    ],
    ids=str,
)
def test_mails_and_jobs_have_no_nonces_where_nothing_is_enforced(config):
    def render(app):
        found = []
        with app.app_context():
            found.append(render_template_string(TAGS))
        with app.test_request_context():
            found += [
                render_template("user.html", text="a"),
                render_template("child.html"),
                get_template_attribute("macros.html", "tag")(),
                "".join(stream_template("child.html")),
                render_template_string(TAGS),
            ]
        return [*found, app.test_cli_runner().invoke(args=["mails"]).output]

    bare, bound = map(render, pair(**config))
    assert bound == bare
    assert "<script>" in bare[0]


def test_om_head_outside_of_a_response_has_no_nonce_where_nothing_is_enforced():
    _, app = pair(DEBUG=True)
    with app.test_request_context():
        assert "nonce" not in render_template_string("{{ om_head() }}")


def test_a_nonce_that_the_author_asks_for_is_given_everywhere():
    _, app = pair()
    with app.test_request_context():
        tag = "<script nonce={{ csp_nonce() }}></script>"
        assert len(render_template_string(tag)) == len("<script nonce=></script>") + 32


@pytest.mark.parametrize("path", PATHS[:3])
def test_a_page_that_asks_for_reports_has_its_nonces(path):
    _, app = pair()
    app.config["OM_CSP_REPORT_SAMPLE"] = 1
    answer = app.test_client().get(path)
    number = answer.headers["Content-Security-Policy-Report-Only"].split("'nonce-")[1][:32]
    assert f'<script nonce="{number}">'.encode() in answer.data
    assert b"<script>" not in answer.data


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"public": True}], ids=str)
def test_what_is_stored_has_no_nonces_and_one_response_a_minute_asks_for_reports(options):
    app = make_app(OM_CSP_REPORT_SAMPLE=0.5)
    om = OpenManager(app)
    runs = []

    @app.get("/kept")
    @om.cached(stale_time=600, **options)
    def kept():
        runs.append(1)
        return render_template("child.html")

    client = app.test_client()
    chosen = [False]
    client.get("/view")  # the policy is that of the first request
    policy = om.runtime.part_of("headers").policy
    policy.draw = lambda: chosen[0]
    seconds = [1000.0]
    policy.report_turns = ReportTurns(lambda: seconds[0])
    plain = client.get("/kept")
    assert b"nonce" not in plain.data
    for turn in (2, 3):
        chosen[0] = True
        reported = client.get("/kept")
        assert b"nonce" in reported.data
        assert "Content-Security-Policy-Report-Only" in reported.headers
        for chosen[0] in (True, False, True):
            again = client.get("/kept")
            assert again.data == plain.data
            assert "Content-Security-Policy-Report-Only" not in again.headers
        assert len(runs) == turn
        seconds[0] += 60

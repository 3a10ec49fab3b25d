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
    request,
    send_file,
    stream_template,
    stream_with_context,
    url_for,
)
from jinja2 import DictLoader

from om_plugins import OpenManager
from om_plugins.headers.report_turns import ReportTurns
from tests.opening import NEW_FLASK, OpeningClient

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
    app.test_client_class = OpeningClient
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

    @app.route("/mail", methods=["GET", "POST"])
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


def bind_choosing_all(app):
    """Add the line, and let chance choose each response that it can."""
    app.config["OM_CSP_REPORT_SAMPLE"] = 0.5
    om = OpenManager(app)
    app.test_client().get("/view")  # the policy is that of the first request
    om.runtime.part_of("headers").policy.draw = lambda: True
    assert b"nonce" in app.test_client().get("/view").data
    return app


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {}),
        ("POST", {"Sec-Fetch-Dest": "document", "Accept": "text/html"}),
        ("GET", {"Sec-Fetch-Dest": "empty"}),
        ("GET", {"Accept": "*/*"}),
        ("HEAD", {"Accept": "text/html"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/mail", "/late", "/missing"])
def test_mails_that_a_form_sends_and_pages_that_scripts_fetch_are_never_chosen(
    method, headers, path
):
    bare, bound = (
        app.test_client().open(path, method=method, headers=headers, buffered=not NEW_FLASK)
        for app in (make_app(), bind_choosing_all(make_app()))
    )
    assert bound.data == bare.data
    assert list(bound.headers) == list(bare.headers)


KEPT = {
    "fragment.html": "<p>{% cache 9 %}<script>1</script>{% include 'page.html' %}{% endcache %}",
    "import.html": "{% cache 9 %}{% import 'kept.html' as k %}{{ k.tag }}{% endcache %}",
    "head.html": "{% cache 60 %}{{ om_head() }}{% endcache %}",
}


def make_caching_app():
    """Build an application whose own cache keeps what templates render."""
    caching = pytest.importorskip("flask_caching")
    app = make_app(CACHE_TYPE="SimpleCache")
    cache = caching.Cache(app)
    app.jinja_loader.mapping.update(
        {"kept.html": "{% set tag %}<script>kept()</script>{% endset %}", **KEPT}
    )
    app.jinja_env.globals.setdefault("om_head", lambda: "")

    @cache.memoize(60)
    def sidebar(number):
        return render_template("user.html", text=number)

    @app.get("/memoized")
    def memoized():
        return "<!doctype html>" + sidebar(1)

    @app.get("/whole")
    @cache.cached(60)
    def whole():
        return render_template("user.html", text="kept")

    @app.get("/part/<name>")
    def part(name):
        return render_template(name)

    return app


KEPT_PATHS = ["/memoized", "/whole", *(f"/part/{name}" for name in KEPT)]


@pytest.mark.parametrize("path", KEPT_PATHS)
def test_what_another_cache_keeps_has_no_nonce_of_the_response_that_was_chosen(path):
    app = bind_choosing_all(make_caching_app())
    client = app.test_client()
    first = client.get(path)
    assert first.headers["Content-Security-Policy-Report-Only"]
    assert b"<script" in first.data
    assert b" nonce=" not in first.data
    app.extensions["om_plugins"].part_of("headers").policy.draw = lambda: False
    if path != "/part/head.html":  # only the line brings this one
        bare = make_caching_app().test_client().get(path)
        again = client.get(path)
        assert again.data == first.data == bare.data
        assert list(again.headers) == list(bare.headers)


def test_around_a_part_that_another_cache_keeps_the_chosen_response_has_its_nonces():
    app = make_caching_app()
    app.jinja_loader.mapping["around.html"] = (
        "<script>one()</script>{% cache 9 %}<script>kept()</script>{% endcache %}<style></style>"
    )
    text = bind_choosing_all(app).test_client().get("/part/around.html").text
    assert "<script>kept()</script>" in text
    assert text.count(" nonce=") == 2


def test_a_template_that_was_imported_for_another_cache_has_its_nonces_elsewhere():
    app = make_caching_app()
    app.jinja_loader.mapping["importer.html"] = "{% import 'kept.html' as k %}{{ k.tag }}"
    app.jinja_loader.mapping["again.html"] = KEPT["import.html"].replace("9", "9, 'again'")
    client = bind_choosing_all(app).test_client()
    for path in ("/part/import.html", "/part/again.html"):  # Jinja keeps what is imported again
        assert " nonce=" not in client.get(path).text
    assert "<script nonce=" in client.get("/part/importer.html").text


def test_what_our_own_cache_keeps_for_functions_has_no_nonce_of_the_response_that_was_chosen():
    app = make_app(OM_CSP_REPORT_SAMPLE=0.5)
    om = OpenManager(app)

    @om.memoize(stale_time=60)
    def sidebar(number):
        return render_template("user.html", text=number)

    @app.get("/memoized")
    def memoized():
        return "<!doctype html>" + sidebar(1) + render_template_string("<script>own()</script>")

    app.test_client().get("/view")
    om.runtime.part_of("headers").policy.draw = lambda: True
    chosen = app.test_client().get("/memoized")
    assert chosen.text.count(" nonce=") == 1
    om.runtime.part_of("headers").policy.draw = lambda: False
    assert b" nonce=" not in app.test_client().get("/memoized").data


def test_a_part_that_is_kept_has_its_nonces_where_its_view_is_enforced():
    app = make_caching_app()
    om = OpenManager(app)

    @app.get("/enforced")
    @om.csp(report_only=False)
    def enforced():
        return render_template("fragment.html")

    app.test_client().get("/view")
    om.runtime.part_of("headers").policy.draw = lambda: True
    answer = app.test_client().get("/enforced")
    assert b"<script>" not in answer.data
    assert "'nonce-" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/file", "/tagged", "/view", "/late"])
@pytest.mark.parametrize(
    "ask",
    ["none", "HEAD", "If-None-Match", "If-Modified-Since", "Range", "If-Range", "If-Match"],
)
def test_conditions_and_ranges_are_answered_as_the_application_does(tmp_path, path, ask):
    (tmp_path / "page.html").write_text(TAGS * 50)

    def make():
        app = make_app()

        @app.get("/file")
        def file():
            return send_file(tmp_path / "page.html")

        @app.get("/tagged")
        def tagged():
            response = Response(render_template("user.html", text=1))
            response.add_etag()
            response.last_modified = 1_000_000_000
            return response.make_conditional(request, accept_ranges=True, complete_length=500)

        return app

    bare, bound = make(), make()
    OpenManager(bound)
    known = bare.test_client().get(path, buffered=True)
    etag = known.headers.get("ETag", '"none"')
    headers = {
        "If-None-Match": {"If-None-Match": etag},
        "If-Modified-Since": {"If-Modified-Since": known.headers.get("Last-Modified", "")},
        "Range": {"Range": "bytes=10-19"},
        "If-Range": {"Range": "bytes=-5", "If-Range": etag},
        "If-Match": {"If-Match": '"another"'},
    }.get(ask, {})
    method = "HEAD" if ask == "HEAD" else "GET"
    first, second = (
        app.test_client().open(path, method=method, headers=headers, buffered=True)
        for app in (bare, bound)
    )
    assert (second.status, second.data) == (first.status, first.data)
    assert [one for one in second.headers if one[0] != "Date"] == [
        one for one in first.headers if one[0] != "Date"
    ]


@pytest.mark.parametrize("forced", [{}, {"OM_CSP_REPORT_SAMPLE": 1}], ids=str)
@pytest.mark.parametrize(
    "own",
    [
        {"Content-Security-Policy": "default-src 'self'; report-to mine"},
        {"Content-Security-Policy-Report-Only": "default-src 'self'; report-uri /mine"},
        {"Reporting-Endpoints": 'mine="https://reports.example/"', "NEL": "{}"},
        {"Report-To": '{"group": "mine", "max_age": 1, "endpoints": []}'},
        {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff"},
        {"Referrer-Policy": "origin", "Cross-Origin-Opener-Policy": "unsafe-none"},
        {"Permissions-Policy": "camera=()", "Strict-Transport-Security": "max-age=1"},
        {"Cache-Control": "no-store, max-age=0", "Server": "own", "X-Download-Options": "noopen"},
    ],
    ids=lambda own: next(iter(own)) if isinstance(own, dict) else own,
)
def test_security_headers_of_the_application_stay_as_they_are(own, forced):
    def make():
        app = make_app(**forced)
        app.after_request(lambda response: response.headers.extend(own) or response)
        return app

    bare, bound = make(), make()
    OpenManager(bound)
    for path in PATHS:
        before, after = (
            app.test_client().get(path, base_url="https://shop.example", buffered=True)
            for app in (bare, bound)
        )
        if not forced:
            assert list(after.headers) == list(before.headers)
        for name, value in own.items():
            assert after.headers[name] == value
        assert "Content-Security-Policy" in own or "Content-Security-Policy" not in after.headers


GUARDED = [
    """<script{% if csp_nonce %} nonce="{{ csp_nonce }}"{% endif %}>1</script>""",
    """<script{% if csp_nonce %} nonce="{{ csp_nonce() }}"{% endif %}>1</script>""",
    """<script{{ ' nonce=' ~ csp_nonce if csp_nonce else '' }}>1</script>""",
    """<script nonce="{{ csp_nonce|default('', true) }}">1</script>""",
    """<script nonce="{{ csp_nonce or '' }}">1</script>""",
    """<style nonce="{{ csp_nonce }}">p {}</style>""",
    """<meta name=csp-nonce content="{{ csp_nonce }}"><script>1</script>""",
    """{% set n = csp_nonce or nonce %}<style{% if n %} nonce="{{ n }}"{% endif %}>p {}</style>""",
    """{% import 'guarded.html' as g %}{{ g.tag }}<p>""",
]


@pytest.mark.parametrize("source", GUARDED)
def test_a_variable_of_another_package_is_empty_where_the_page_stays_as_it_is(source):
    guarded = {"guarded.html": "{% set tag %}" + GUARDED[0] + "{% endset %}"}

    def build(**config):
        app = make_app(**config)
        app.jinja_loader.mapping.update(guarded)
        app.add_url_rule("/guarded", "guarded", lambda: render_template_string(source))
        return app

    bare, bound, enforcing = build(), build(), build(OM_CSP_MODE="enforce")
    OpenManager(bound)
    OpenManager(enforcing)
    for _ in range(2):
        before, after = (app.test_client().get("/guarded") for app in (bare, bound))
        assert after.data == before.data
        assert list(after.headers) == list(before.headers)
        answer = enforcing.test_client().get("/guarded")
        number = answer.headers["Content-Security-Policy"].split("'nonce-")[1][:32]
        assert number in answer.text
    with bare.test_request_context():
        mail = render_template_string(source)
    with bound.test_request_context():
        assert render_template_string(source) == mail
    chosen = bind_choosing_all(build()).test_client().get("/guarded")
    number = chosen.headers["Content-Security-Policy-Report-Only"].split("'nonce-")[1][:32]
    assert number in chosen.text

"""What users of flask-talisman rely on, in our words; and its bugs, which are not here."""

from __future__ import annotations

import re

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    jsonify,
    render_template_string,
    request,
    session,
)

from om_plugins import OpenManager
from om_plugins.errors import ConfigError

CSP = "Content-Security-Policy"
NONCE = re.compile(r"'nonce-([^']+)'")


def make_app(om=None, **config):
    app = Flask(__name__)
    defaults = {"TESTING": True, "SECRET_KEY": "for tests only", "OM_CSP_MODE": "enforce"}
    app.config.update(defaults | config)
    om = om or OpenManager()
    om.init_app(app)
    app.om = om

    @app.get("/")
    def index():
        return render_template_string('<p>{{ csp_nonce() }}</p><script nonce="{{ csp_nonce() }}">')

    @app.get("/set")
    def own():
        return Response("<p>", headers={CSP: "default-src 'self'", "Referrer-Policy": "origin"})

    return app


def get(app, path="/", base="https://shop.example", **options):
    return app.test_client().get(path, base_url=base, **options)


# --- what they rely on --------------------------------------------------------------------------


def test_the_usual_headers_are_there_on_pages_data_and_errors():
    app = make_app(OM_HEADERS={"X-Frame-Options": "SAMEORIGIN"})

    @app.get("/json")
    def data():
        return jsonify(a=1)

    @app.get("/500")
    def broken():
        abort(500)

    for path in ("/", "/json", "/500", "/404"):
        headers = get(app, path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
        assert headers["X-Frame-Options"] == "SAMEORIGIN"
        assert CSP in headers


@pytest.mark.parametrize(
    "policy",
    [
        {"default-src": "'self'", "img-src": "'self' data:"},
        {"default-src": ["'self'"], "img-src": ["'self'", "data:"]},
        "default-src 'self'; img-src 'self' data:",
        '{"default-src": "\'self\'", "img-src": "\'self\' data:"}',
    ],
)
def test_a_policy_is_a_dict_of_texts_or_lists_or_a_text(policy):
    headers = get(make_app(OM_CSP=policy)).headers
    assert "; default-src 'self'; img-src 'self' data:" in headers[CSP]


def test_the_nonce_of_the_template_is_the_header_s_and_new_each_time():
    app = make_app()
    first, second = get(app), get(app)
    assert NONCE.search(first.headers[CSP])[1] == re.search("<p>(.*?)</p>", first.text)[1]
    assert first.text.count(NONCE.search(first.headers[CSP])[1]) == 2
    assert first.text != second.text


def test_a_policy_may_be_brought_along_whole():
    policy = {"default-src": "'self' *.gstatic.com", "object-src": "'none'"}
    headers = get(make_app(OM_CSP_PRESET="own", OM_CSP=policy)).headers
    assert headers[CSP] == "default-src 'self' *.gstatic.com; object-src 'none'"
    with pytest.raises(ConfigError, match="OM_CSP_PRESET 'own': OM_CSP is empty"):
        make_app(OM_CSP_PRESET="own")


@pytest.mark.parametrize(("value", "sources"), [("DENY", "'none'"), ("SAMEORIGIN", "'self'")])
def test_a_view_that_says_who_may_frame_it_is_heard_by_new_and_old_browsers(value, sources):
    om = OpenManager()
    for mode in ("learn", "enforce"):
        sent = f"{CSP}-Report-Only" if mode == "learn" else CSP
        app = make_app(om, OM_CSP_MODE=mode, OM_CSP={"frame-ancestors": ["https://a.example"]})

        @app.get("/framed")
        @om.headers({"x-frame-options": value})
        def framed():
            return "<p>"

        @app.get("/own-word")
        @om.headers({"X-Frame-Options": value})
        def own_word():
            return Response("<p>", headers={"X-Frame-Options": "its own"})

        kept = get(app, "/own-word").headers
        assert kept["X-Frame-Options"] == "its own"
        assert "frame-ancestors https://a.example" in kept[sent]
        headers = get(app, "/framed").headers
        assert headers["X-Frame-Options"] == value
        assert f"frame-ancestors {sources}" in headers[sent]
        assert "frame-ancestors https://a.example" in get(app).headers[sent]


def test_report_only_and_an_address_of_one_s_own():
    app = make_app()
    app.config.update(OM_CSP_MODE="learn", OM_CSP="report-uri https://reports.example/csp")
    headers = get(app).headers
    assert CSP not in headers
    assert "report-uri https://reports.example/csp" in headers[f"{CSP}-Report-Only"]


def test_a_view_may_have_a_policy_of_its_own_or_none():
    app = make_app()

    @app.get("/strictest")
    @app.om.csp(replace={"script-src": ["'none'"], "img-src": ["'self'"]})
    def strictest():
        return "<p>"

    @app.get("/none")
    @app.om.csp(exempt=True)
    def none():
        return "<p>"

    assert "script-src 'none'; " in get(app, "/strictest").headers[CSP]
    assert CSP not in get(app, "/none").headers
    assert "script-src 'none'" not in get(app).headers[CSP]


@pytest.mark.parametrize(("permanent", "code"), [(False, 302), (True, 301)])
def test_plain_http_is_redirected_with_its_query(permanent, code):
    app = make_app(OM_FORCE_HTTPS={"permanent": permanent})
    response = get(app, "/?a=1", base="http://shop.example")
    assert response.status_code == code
    assert response.headers["Location"] == "https://shop.example/?a=1"
    assert get(app).status_code == 200


def test_in_debug_mode_nothing_is_redirected():
    app = make_app(OM_FORCE_HTTPS=True)
    app.debug = True
    assert get(app, base="http://shop.example").status_code == 200


def test_hsts_goes_over_https_alone():
    app = make_app(OM_HSTS={"max_age": 300, "include_subdomains": True})
    value = "max-age=300; includeSubDomains"
    assert get(app).headers["Strict-Transport-Security"] == value
    assert "Strict-Transport-Security" not in get(app, base="http://shop.example").headers


def test_the_session_cookie_has_its_flags():
    app = make_app(OM_SECURE_COOKIES=True, OM_HUB_URL="memory://")
    app.config["TESTING"] = False

    @app.get("/in")
    def sign_in():
        session["user"] = 1
        return "in"

    cookie = get(app, "/in").headers["Set-Cookie"]
    assert all(flag in cookie for flag in ("Secure", "HttpOnly", "SameSite=Lax"))
    app.extensions["om_plugins"].close()


# --- its bugs -------------------------------------------------------------------------------------


def test_one_object_serves_two_apps_that_differ():
    om = OpenManager()
    one = make_app(om, OM_CSP={"img-src": ["'self'"]}, OM_FORCE_HTTPS=True)
    two = make_app(om, OM_CSP={"img-src": ["https://two.example"]}, OM_SECURE_COOKIES=True)
    assert "img-src 'self'" in get(one).headers[CSP]
    assert "img-src https://two.example" in get(two).headers[CSP]
    assert get(one, base="http://shop.example").status_code == 302
    assert get(two, base="http://shop.example").status_code == 200
    assert one.config["SESSION_COOKIE_SAMESITE"] is None


@pytest.mark.parametrize(
    "value",
    ["'self'; script-src *", "'self'\r\nSet-Cookie: a=b", "'self'\n", "a, b", "münchen.example"],
)
def test_a_value_that_would_be_more_than_one_stops_the_start(value):
    with pytest.raises(ConfigError, match="OM_CSP"):
        make_app(OM_CSP={"img-src": [value]})
    with pytest.raises(ConfigError):
        make_app(OM_HEADERS={"X-Own": f"a\r\n{value}"})


def test_no_nonce_goes_with_a_304():
    app = make_app()

    @app.get("/conditional")
    def conditional():
        response = app.make_response("<p>")
        response.set_etag("v1")
        return response.make_conditional(request)

    response = get(app, "/conditional", headers={"If-None-Match": '"v1"'})
    assert response.status_code == 304
    assert CSP not in response.headers


def test_no_nonce_goes_with_static_files(tmp_path):
    for name in ("a.css", "a.js", "a.png", "a.svg", "a.txt"):
        (tmp_path / name).write_text("x")
    app = make_app()
    files = Blueprint("files", __name__, static_folder=str(tmp_path), static_url_path="/files")
    app.register_blueprint(files)
    for name in ("a.css", "a.js", "a.png", "a.svg", "a.txt"):
        with get(app, f"/files/{name}") as response:
            assert response.status_code == 200
            assert "nonce" not in response.headers.get(CSP, "")


def test_nobody_can_say_that_he_came_over_https():
    app = make_app(OM_FORCE_HTTPS=True, OM_HSTS={})
    forged = {"X-Forwarded-Proto": "https"}
    response = get(app, base="http://shop.example", headers=forged)
    assert response.status_code == 302
    assert "Strict-Transport-Security" not in response.headers
    trusted = make_app(OM_FORCE_HTTPS=True, OM_HSTS={}, OM_PROXIES=1)
    response = get(trusted, base="http://shop.example", headers=forged)
    assert response.status_code == 200
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_what_a_view_set_itself_is_kept():
    headers = get(make_app(), "/set").headers
    assert headers.getlist(CSP) == ["default-src 'self'"]
    assert headers["Referrer-Policy"] == "origin"


# --- an application that still uses it ------------------------------------------------------------

RANDOM = re.compile("(?<=session=)[^;]+|nonce-[^']+|(?<=<p>)[^<]+|(?<=nonce=.)[^\"]+")


@pytest.mark.parametrize("sample", [0, 1])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"content_security_policy_nonce_in": ["script-src", "style-src"]},
        {
            "content_security_policy_report_only": True,
            "content_security_policy_report_uri": "/reports",
        },
        {"content_security_policy": None},
        {"frame_options": "DENY", "permissions_policy": {"camera": "()"}},
        {"strict_transport_security_include_subdomains": False, "session_cookie_secure": False},
        {"force_https": True},
        {"referrer_policy": "no-referrer", "x_content_type_options": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("talisman_first", [True, False])
def test_the_headers_of_an_application_with_talisman_stay_as_they_are_in_mode_adopt(
    arguments, sample, talisman_first
):
    talisman = pytest.importorskip("flask_talisman").Talisman

    def build(bound):
        app = Flask(__name__)
        app.config.update(
            SECRET_KEY="for tests only", OM_HUB_URL="memory://", OM_CSP_REPORT_SAMPLE=sample
        )
        if bound and not talisman_first:
            OpenManager(app)
        talisman(app, **arguments)
        if bound and talisman_first:
            OpenManager(app)

        @app.get("/")
        def index():
            session["seen"] = 1
            return render_template_string(
                '<p>{{ csp_nonce() }}</p><script nonce="{{ csp_nonce() }}">1</script>'
            )

        @app.get("/data")
        def data():
            return jsonify(a=1)

        return app

    for base in ("http://shop.example", "https://shop.example"):
        for path in ("/", "/data", "/missing"):
            bare, bound = (get(build(one), path, base) for one in (False, True))
            assert bound.status == bare.status
            before, after = (
                [(name, RANDOM.sub("N", value)) for name, value in answer.headers]
                for answer in (bare, bound)
            )
            if sample == 0:
                assert after == before
                assert RANDOM.sub("N", bound.text) == RANDOM.sub("N", bare.text)
            else:  # the page is private and asks for reports; nothing else
                more = {"Cache-Control", f"{CSP}-Report-Only", "Reporting-Endpoints"}
                # of another length: a tag whose nonce is empty gets ours
                assert before[:1] + before[2:] == after[:1] + after[2 : len(before)]
                assert {name for name, _ in after[len(before) :]} <= more

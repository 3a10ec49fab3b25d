"""The layer on applications of every shape."""

import io
import re
import sys
from types import MappingProxyType
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from om_plugins import Settings
from om_plugins.core.request_state import KEY, state_of
from om_plugins.csp.nonce import nonce, tag_nonce
from om_plugins.csp.override import override
from om_plugins.errors import ConfigError
from om_plugins.headers.feature import policy_from
from om_plugins.headers.layer import HeaderPolicy, HeadersLayer

NONCED = re.compile(r"'nonce-([0-9a-f]{32})'")
HTML = [("Content-Type", "text/html; charset=utf-8")]
CSP = "Content-Security-Policy"
ENDPOINTS = "Reporting-Endpoints"


def answer(body=b"<p>", status="200 OK", headers=MappingProxyType({"Content-Type": "text/html"})):
    def app(environ, start_response):
        start_response(status, list(dict(headers).items()))
        return [body] if environ["REQUEST_METHOD"] != "HEAD" else []

    return app


def policy(mode="enforce", **settings):
    debug = settings.pop("debug", False)
    settings = {"csp_report_sample": 0, **settings}  # nothing is left to chance
    return policy_from(Settings(csp_mode=mode, **settings), debug=debug)


# --- what each mode sends ---------------------------------------------------------------------


def test_enforce_sends_the_strict_policy_with_a_nonce(serve):
    seen = serve(HeadersLayer(answer(), policy(csp_report_sample=0)))
    assert NONCED.sub("'nonce-N'", seen.csp) == (
        "script-src 'nonce-N' 'strict-dynamic' https: 'unsafe-inline' 'report-sample'; "
        "style-src 'self' 'nonce-N' 'report-sample'; style-src-attr 'unsafe-inline'; "
        "object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
    )
    assert len(set(NONCED.findall(seen.csp))) == 1
    assert seen.reported is None


KINDS = ("text/html", "text/javascript", "application/json", "image/svg+xml", "text/css", "")


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "304 Not Modified", "404 Not Found"])
@pytest.mark.parametrize("content_type", KINDS)
def test_adopt_adds_nothing_where_it_asks_for_no_reports(serve, content_type, status):
    headers = {"Content-Type": content_type} if content_type else {}
    app = answer(status=status, headers=headers)
    for method in ("GET", "HEAD", "POST"):
        seen = serve(HeadersLayer(app, policy("adopt")), method=method)
        assert seen.headers == list(headers.items())
        assert seen.environ[KEY].header_nonce is None


@pytest.mark.parametrize(
    "settings",
    [
        {"csp_preset": "compatible", "csp_script_hosts": ["https://cdn.example"]},
        {"csp_preset": "hash"},
        {"csp_preset": "api"},
        {"csp_hash_attributes": True},
        {"csp_report_also": ["require-trusted-types-for 'script'"]},
        {"csp_api": "default-src 'none'; sandbox"},
        {"csp": {"frame-ancestors": ["'none'"], "upgrade-insecure-requests": []}},
        {"csp_paths": {"/*": {"update": {"img-src": ["'self'"]}}}},
        {"csp_paths": {"/*": {"replace": {"object-src": ["'none'"]}}}},
        {"headers": {"Referrer-Policy": None}},
    ],
    ids=str,
)
def test_what_settings_say_about_the_policy_changes_nothing_until_it_is_enforced(serve, settings):
    for kind in KINDS[:-1]:
        app = answer(headers={"Content-Type": kind})
        assert serve(HeadersLayer(app, policy("adopt", **settings))).headers == [
            ("Content-Type", kind)
        ]


def test_adopt_reports_on_strict_where_it_asks_for_reports(serve):
    seen = serve(HeadersLayer(answer(), policy("adopt", csp_report_sample=1)))
    assert seen.csp is None
    assert "'strict-dynamic'" in seen.reported
    assert NONCED.search(seen.reported)
    assert "report-uri /_om/csp" in seen.reported


def test_what_the_owner_asks_for_by_name_is_sent_in_every_mode(serve):
    also = {
        "csp_enforce_also": ["frame-ancestors 'self'"],
        "headers": {"X-Content-Type-Options": "nosniff"},
        "hsts": {"max_age": 60},
        "permissions_policy": {"camera": []},
    }
    seen = serve(HeadersLayer(answer(), policy("adopt", **also)))
    assert seen.csp == "frame-ancestors 'self'"
    assert sorted(name for name, _ in seen.headers) == [
        CSP,
        "Content-Type",
        "Permissions-Policy",
        "Strict-Transport-Security",
        "X-Content-Type-Options",
    ]


def test_learn_only_reports_and_asks_for_all_reports(serve):
    seen = serve(HeadersLayer(answer(), policy("learn", csp_report_sample=0)))
    assert seen.csp is None
    assert seen.get("Cross-Origin-Opener-Policy") is None
    assert seen.reported.endswith("; report-uri /_om/csp; report-to om-csp")
    assert seen.get("Reporting-Endpoints") == 'om-csp="/_om/csp"'


def test_off_sends_no_policy_and_keeps_the_companions(serve):
    seen = serve(HeadersLayer(answer(), policy("off")))
    assert seen.csp is None
    assert seen.reported is None
    assert seen.get("Cross-Origin-Opener-Policy") == "same-origin-allow-popups"
    assert seen.environ[KEY].page_nonce is None


def test_the_names_of_headers_count_however_they_are_spelt(serve):
    own = {
        "CONTENT-type": "text/html",
        "content-Security-policy": "img-src *",
        "x-FRAME-options": "DENY",
    }
    layer = HeadersLayer(answer(headers=own), policy())
    for _ in range(2):
        seen = serve(layer)
        assert seen.csp == "img-src *"
        assert seen.get("Cross-Origin-Opener-Policy") == "same-origin-allow-popups"


@pytest.mark.parametrize("mode", ["adopt", "enforce"])
def test_reports_are_asked_for_on_a_share_of_responses(serve, mode):
    layer = HeadersLayer(answer(), policy(mode, csp_report_sample=0.5))
    asked = sum(bool(serve(layer).all("Reporting-Endpoints")) for _ in range(200))
    assert 50 < asked < 150


@pytest.mark.parametrize("mode", ["adopt", "enforce"])
def test_reports_are_asked_for_on_all_responses_in_debug_mode(serve, mode):
    layer = HeadersLayer(answer(), policy(mode, csp_report_sample=0, debug=True))
    assert all(serve(layer).all("Reporting-Endpoints") for _ in range(20))


def test_under_test_nothing_is_left_to_chance(serve):
    for sample, testing, asks in ((0.5, True, 0), (1, True, 20), (0.5, False, None)):
        rules = policy_from(Settings(csp_report_sample=sample), debug=testing, testing=testing)
        asked = sum(bool(serve(HeadersLayer(answer(), rules)).all(ENDPOINTS)) for _ in range(20))
        assert asked == asks if asks is not None else 0 < asked < 20


def tagged(environ, start_response):
    value = tag_nonce(state_of(environ))
    start_response("200 OK", HTML)
    return [b"<script>" if value is None else f"<script nonce={value}>".encode()]


def test_a_page_that_asks_for_no_reports_stays_as_it_is_and_is_not_blamed(serve):
    seen = serve(HeadersLayer(tagged, policy("adopt", csp_report_sample=0)))
    assert (seen.body, seen.csp, seen.reported) == (b"<script>", None, None)


@pytest.mark.parametrize("settings", [{"csp_report_sample": 1}, {"debug": True}])
def test_a_page_that_asks_for_reports_has_its_nonces(serve, settings):
    seen = serve(HeadersLayer(tagged, policy("adopt", **settings)))
    assert seen.body == f"<script nonce={NONCED.search(seen.reported)[1]}>".encode()
    assert "report-uri" in seen.reported


def test_a_page_has_its_nonces_when_reports_go_elsewhere(serve):
    own = {"report-uri": ("https://reports.example/csp",)}
    seen = serve(HeadersLayer(tagged, policy("adopt", csp=own, csp_report_sample=0)))
    assert seen.body == f"<script nonce={NONCED.search(seen.reported)[1]}>".encode()


def test_a_page_has_its_nonces_when_one_more_policy_is_enforced(serve):
    rules = policy("adopt", csp_enforce_also="script-src 'nonce'", csp_report_sample=0)
    seen = serve(HeadersLayer(tagged, rules))
    assert seen.body == f"<script nonce={NONCED.search(seen.csp)[1]}>".encode()


def test_a_view_that_is_enforced_has_its_nonces_in_mode_adopt(serve):
    def view(environ, start_response):
        override(environ, report_only=False)
        return tagged(environ, start_response)

    seen = serve(HeadersLayer(view, policy("adopt", csp_report_sample=0)))
    assert seen.body == f"<script nonce={NONCED.search(seen.csp)[1]}>".encode()


def test_a_strict_layer_inside_a_lenient_one_has_its_nonces(serve):
    inner = HeadersLayer(tagged, policy("enforce"))
    seen = serve(HeadersLayer(inner, policy("adopt", csp_report_sample=0)))
    assert seen.body == f"<script nonce={NONCED.search(seen.csp)[1]}>".encode()
    assert seen.environ[KEY].inner.plain is None


def test_over_plain_http_only_report_uri_is_sent(serve):
    # browsers take no endpoints there, and would ignore report-uri beside report-to
    layer = HeadersLayer(answer(), policy(debug=True))
    seen = serve(layer, environ={"wsgi.url_scheme": "http"})
    assert seen.csp.endswith("; report-uri /_om/csp")
    assert seen.get("Reporting-Endpoints") is None
    assert serve(layer).csp.endswith("; report-uri /_om/csp; report-to om-csp")


def test_own_report_address_is_kept(serve):
    own = {"report-uri": ("https://reports.example/csp",)}
    seen = serve(HeadersLayer(answer(), policy(csp=own, debug=True)))
    assert seen.csp.count("report-uri") == 1
    assert "report-to" not in seen.csp
    assert seen.get("Reporting-Endpoints") is None


@pytest.mark.parametrize(
    ("root", "endpoint"),
    [
        ("", "/_om/csp"),
        ("/app", "/app/_om/csp"),
        ("/app/", "/app/_om/csp"),
        ("//evil.example", "/evil.example/_om/csp"),
        ("/a;b,c\r\nd\"'é", "/a%3Bb%2Cc%0D%0Ad%22%27%E9/_om/csp"),
    ],
)
def test_report_address_follows_script_name_and_nothing_in_it_ends_a_value(serve, root, endpoint):
    seen = serve(HeadersLayer(answer(), policy(debug=True)), script_name=root)
    assert f"; report-uri {endpoint}; report-to om-csp" in seen.csp
    assert seen.get("Reporting-Endpoints") == f'om-csp="{endpoint}"'


def test_report_address_is_that_of_the_request_though_a_dispatcher_moves_script_name(serve):
    def app(environ, start_response):
        environ["SCRIPT_NAME"] = "/inner"
        return answer()(environ, start_response)

    seen = serve(HeadersLayer(app, policy(debug=True)), script_name="/outer")
    assert seen.get("Reporting-Endpoints") == 'om-csp="/outer/_om/csp"'


def test_many_script_names_do_not_fill_the_memory(serve):
    rules = policy()
    layer = HeadersLayer(answer(), rules)
    for number in range(600):
        serve(layer, script_name=f"/{number}")
    assert len(rules._default.plans) <= 256


def test_own_directives_replace_those_of_strict(serve):
    own = {"style-src": ("'self'", "https://fonts.example"), "frame-ancestors": ("'none'",)}
    csp = serve(HeadersLayer(answer(), policy(csp=own))).csp
    assert "style-src 'self' https://fonts.example;" in csp
    assert "frame-ancestors 'none'" in csp
    seen = serve(HeadersLayer(answer(), policy("adopt", csp=own)))
    assert seen.csp is None
    seen = serve(HeadersLayer(answer(), policy("adopt", csp=own, debug=True)))
    assert "style-src 'self' https://fonts.example;" in seen.reported


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"csp": {"script-src": ["self"]}}, "OM_CSP['script-src']"),
        ({"csp": {"scrpt-src": ["'self'"]}}, "OM_CSP['scrpt-src']"),
        ({"headers": {"content-security-policy": "x"}}, "OM_HEADERS['content-security-policy']"),
        ({"headers": {"Content-Type": "x"}}, "OM_HEADERS['Content-Type']"),
    ],
)
@pytest.mark.parametrize("mode", ["enforce", "off"])
def test_wrong_settings_fail_at_start(mode, settings, key):
    with pytest.raises(ConfigError) as caught:
        policy(mode, **settings)
    assert caught.value.key == key


# --- plugins ------------------------------------------------------------------------------------


def test_plugins_sources_are_added_and_never_forbid_anything(serve):
    extra = {"style-src": ["https://a.example", "https://a.example"], "frame-src": ["b.example"]}
    rules = policy_from(Settings(csp_mode="enforce"), debug=False, extra=extra)
    csp = serve(HeadersLayer(answer(), rules)).csp
    assert csp.count("https://a.example") == 1
    assert "frame-src" not in csp


def test_callable_is_asked_for_each_html_response(serve):
    asked = []

    def ask(environ):
        asked.append(environ["PATH_INFO"])
        return {"style-src": [f"https://{environ['PATH_INFO'].strip('/')}.example"]}

    rules = HeaderPolicy(mode="enforce", callables=[ask])
    assert "https://one.example" in serve(HeadersLayer(answer(), rules), "/one").csp
    assert "https://two.example" in serve(HeadersLayer(answer(), rules), "/two").csp
    serve(HeadersLayer(answer(headers={"Content-Type": "text/plain"}), rules), "/three")
    assert asked == ["/one", "/two"]


@pytest.mark.parametrize("wrong", [lambda environ: 1 / 0, lambda environ: {"style-src": ["a;b"]}])
def test_failing_callable_is_logged_once_and_left_out(serve, caplog, wrong):
    rules = HeaderPolicy(mode="enforce", callables=[wrong])
    for _ in range(3):
        assert "style-src 'self'" in serve(HeadersLayer(answer(), rules)).csp
    assert len(caplog.records) == 1


# --- which responses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "html"),
    [
        ("text/html", True),
        ("text/html; charset=utf-8", True),
        ("TEXT/HTML;charset=euc-kr", True),
        ("application/xhtml+xml", True),
        ("text/htmlx", False),
        ("text/plain", False),
        ("application/json", False),
        ("image/svg+xml", False),
        ("", False),
    ],
)
def test_the_strict_policy_goes_with_html_alone(serve, content_type, html):
    seen = serve(HeadersLayer(answer(headers={"Content-Type": content_type}), policy()))
    assert ("script-src" in (seen.csp or "")) is html
    assert (seen.get("Cross-Origin-Opener-Policy") is not None) is html
    assert seen.get("X-Content-Type-Options") == "nosniff"
    assert seen.get("Referrer-Policy") == "strict-origin-when-cross-origin"


API = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"


@pytest.mark.parametrize(
    ("content_type", "modes"),
    [
        ("application/json", {"enforce"}),
        ("application/problem+json; charset=utf-8", {"enforce"}),
        ("text/css; charset=utf-8", {"enforce"}),
        ("IMAGE/PNG", {"enforce"}),
        ("image/svg+xml", {"enforce"}),
        ("text/javascript", set()),  # a worker obeys the policy of its own file
        ("application/pdf", set()),
        ("text/xml; charset=utf-8", {"enforce"}),
        ("application/xml", {"enforce"}),
        ("application/rss+xml", set()),
    ],
)
@pytest.mark.parametrize("mode", ["adopt", "enforce", "learn", "off"])
def test_what_is_no_page_gets_a_small_constant_policy(serve, content_type, modes, mode):
    layer = HeadersLayer(answer(headers={"Content-Type": content_type}), policy(mode))
    for _ in range(2):
        seen = serve(layer)
        assert seen.csp == (API if mode in modes else None)
        assert (seen.reported, seen.get(ENDPOINTS)) == (None, None)
        assert seen.environ[KEY].header_nonce is None


def test_the_policy_of_data_is_the_owner_s(serve):
    data = answer(b"{}", headers={"Content-Type": "application/json"})
    assert serve(HeadersLayer(data, policy(csp_api={}))).csp is None
    sandbox = policy(csp_api="default-src 'none'; sandbox")
    assert serve(HeadersLayer(data, sandbox)).csp == "default-src 'none'; sandbox"
    own = answer(b"{}", headers={"Content-Type": "application/json", CSP: "img-src *"})
    assert serve(HeadersLayer(own, policy())).csp == "img-src *"
    assert serve(HeadersLayer(answer(b"", "304 Not Modified"), policy())).csp is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"exempt": True}, None),
        ({"replace": {"style-src": None}}, "default-src 'none'; frame-ancestors 'self'"),
        ({"update": {"script-src": ["'nonce'"]}}, API + "; script-src 'none'"),
        ({"report_only": True}, None),
    ],
)
def test_a_view_changes_the_policy_of_its_data(serve, change, expected):
    def view(environ, start_response):
        override(environ, **change)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]

    assert serve(HeadersLayer(view, policy())).csp == expected


def test_response_without_a_content_type_is_not_html(serve):
    assert serve(HeadersLayer(answer(headers={}), policy())).csp is None


@pytest.mark.parametrize("status", ["304 Not Modified", "204 No Content", "103 Early Hints"])
@pytest.mark.parametrize("mode", ["adopt", "enforce", "learn"])
def test_response_without_a_body_gets_no_policy(serve, status, mode):
    seen = serve(HeadersLayer(answer(b"", status), policy(mode, debug=True)))
    assert seen.csp is None
    assert seen.reported is None
    assert seen.get("Reporting-Endpoints") is None
    assert seen.get("X-Content-Type-Options") == ("nosniff" if mode == "enforce" else None)


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "201 Created"])
def test_error_pages_are_covered(serve, status):
    assert NONCED.search(serve(HeadersLayer(answer(b"", status), policy())).csp)


def test_head_gets_what_get_gets(serve):
    seen = serve(HeadersLayer(answer(), policy(csp_report_sample=0)), method="HEAD")
    assert NONCED.search(seen.csp)
    assert seen.body == b""


# --- the application's own headers ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["Content-Security-Policy", "content-security-policy"])
def test_application_s_own_policy_is_kept(serve, name):
    own = {"Content-Type": "text/html", name: "default-src 'self'"}
    seen = serve(HeadersLayer(answer(headers=own), policy("adopt", debug=True)))
    assert seen.csp == "default-src 'self'"
    assert seen.reported is not None
    assert serve(HeadersLayer(answer(headers=own), policy())).csp == "default-src 'self'"


def test_beside_the_application_s_own_report_only_policy_chance_chooses_no_more_pages(
    serve, caplog
):
    own = {"Content-Type": "text/html", "content-security-policy-report-only": "img-src *"}
    pages = [answer(headers=own), tagged]
    rules = policy("adopt", csp_report_sample=0.5)
    rules.draw = lambda: rules._sample > 0
    caplog.set_level("INFO", "om_plugins")
    assert b"nonce" in serve(HeadersLayer(tagged, rules)).body
    for page in pages * 3:
        seen = serve(HeadersLayer(page, rules), "/first")
        assert (b"nonce" in seen.body, seen.get(ENDPOINTS)) == (False, None)
        assert seen.reported in ("img-src *", None)
    assert [one.args[0] for one in caplog.records] == ["/first"]
    assert "OM_CSP_REPORT_SAMPLE" in caplog.text


def test_the_report_only_policy_of_an_application_inside_ends_no_reports(serve):
    inner = HeadersLayer(tagged, policy("adopt", csp_report_sample=1))
    rules = policy("adopt", csp_report_sample=0.5)
    rules.draw = lambda: True
    for _ in range(2):
        assert serve(HeadersLayer(inner, rules)).reported
    assert rules._sample == 0.5


def test_chance_chooses_only_what_a_browser_opens(serve):
    rules = policy("adopt", csp_report_sample=0.5)
    rules.draw = lambda: True
    layer = HeadersLayer(tagged, rules)
    assert serve(layer).reported
    fetched = {"HTTP_SEC_FETCH_DEST": "empty"}
    for ask in ({"method": "POST"}, {"method": "HEAD"}, {"environ": fetched}):
        assert serve(layer, **ask).headers == HTML


def test_application_s_own_report_only_policy_is_kept(serve):
    own = {"Content-Type": "text/html", "Content-Security-Policy-Report-Only": "img-src *"}
    seen = serve(HeadersLayer(answer(headers=own), policy("adopt", debug=True)))
    assert seen.reported == "img-src *"
    assert seen.csp is None
    assert seen.get("Reporting-Endpoints") is None


@pytest.mark.parametrize(
    "name",
    ["X-Content-Type-Options", "referrer-policy", "CROSS-ORIGIN-OPENER-POLICY"],
)
def test_companion_is_added_only_where_the_application_set_none(serve, name):
    own = {"Content-Type": "text/html", name: "own"}
    seen = serve(HeadersLayer(answer(headers=own), policy()))
    assert seen.get(name) == "own"


def test_application_s_x_frame_options_is_not_overruled(serve):
    own = {"Content-Type": "text/html", "X-Frame-Options": "DENY"}
    assert "frame-ancestors" not in serve(HeadersLayer(answer(headers=own), policy())).csp
    asked_for = policy(csp={"frame-ancestors": ["'self'"]}, debug=True)
    seen = serve(HeadersLayer(answer(headers=own), asked_for))
    assert "frame-ancestors 'self'" in seen.csp
    assert seen.get("Reporting-Endpoints")


@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
@pytest.mark.parametrize("headers", [{}, {"X-Frame-Options": "DENY"}])
def test_data_and_pages_with_an_x_frame_options_of_their_own_keep_it(serve, content_type, headers):
    own = {"Content-Type": content_type, "X-Frame-Options": "SAMEORIGIN"}
    seen = serve(HeadersLayer(answer(headers=own), policy(headers=headers)))
    assert seen.get("X-Frame-Options") == "SAMEORIGIN"
    assert "frame-ancestors" not in seen.csp


def test_x_frame_options_by_setting_is_said_of_data_too(serve):
    data = answer(headers={"Content-Type": "application/json"})
    seen = serve(HeadersLayer(data, policy(headers={"X-Frame-Options": "DENY"})))
    assert seen.csp.endswith("frame-ancestors 'none'")


@pytest.mark.parametrize("mode", ["adopt", "enforce"])
@pytest.mark.parametrize(("value", "source"), [("DENY", "'none'"), ("SAMEORIGIN", "'self'")])
def test_x_frame_options_by_setting_is_the_fallback_of_the_same_words(serve, mode, value, source):
    rules = policy(mode, headers={"X-Frame-Options": value}, debug=True)
    seen = serve(HeadersLayer(answer(), rules))
    assert f"frame-ancestors {source}" in (seen.csp or seen.reported)
    assert seen.get("X-Frame-Options") == value


def test_companions_can_be_changed_removed_and_added(serve):
    headers = {"referrer-policy": "no-referrer", "X-Content-Type-Options": None, "X-Own": "1"}
    for mode in ("enforce", "off"):
        seen = serve(HeadersLayer(answer(), policy(mode, headers=headers)))
        assert seen.get("Referrer-Policy") == "no-referrer"
        assert seen.get("X-Content-Type-Options") is None
        assert seen.get("X-Own") == "1"
        assert seen.get("Cross-Origin-Opener-Policy")


def test_application_s_list_is_not_changed(serve):
    kept = list(HTML)

    def app(environ, start_response):
        start_response("200 OK", kept)
        return [b""]

    layer = HeadersLayer(app, policy())
    assert serve(layer).csp != serve(layer).csp
    assert kept == HTML


# --- several policies, and what differs by path -------------------------------------------------


def test_policies_are_enforced_and_reported_on_side_by_side(serve):
    rules = policy(
        csp_enforce_also=["img-src 'self'", {"font-src": ["'self'"]}],
        csp_report_also=["script-src 'nonce'", "require-trusted-types-for 'script'"],
        csp_report_sample=1,
    )
    seen = serve(HeadersLayer(answer(), rules))
    enforced, reported = sorted(seen.all(CSP)), sorted(seen.all(CSP + "-Report-Only"))
    asking = "; report-uri /_om/csp; report-to om-csp"
    assert enforced[:2] == ["font-src 'self'" + asking, "img-src 'self'" + asking]
    value = NONCED.search(enforced[2])[1]
    assert reported == [
        "require-trusted-types-for 'script'" + asking,
        f"script-src 'nonce-{value}'" + asking,
    ]
    assert len(seen.all(ENDPOINTS)) == 1


def test_in_mode_learn_nothing_more_is_enforced_either(serve):
    seen = serve(HeadersLayer(answer(), policy("learn", csp_enforce_also="img-src 'self'")))
    assert seen.csp is None
    assert len(seen.all(CSP + "-Report-Only")) == 2


def test_an_application_s_own_policy_stands_for_all_of_ours(serve):
    own = {"Content-Type": "text/html", CSP: "default-src 'self'"}
    rules = policy(csp_enforce_also="img-src 'self'", csp_report_also="img-src 'none'")
    seen = serve(HeadersLayer(answer(headers=own), rules))
    assert seen.csp == "default-src 'self'"
    assert seen.reported == "img-src 'none'"


def test_requests_are_upgraded_over_https_alone(serve):
    layer = HeadersLayer(
        answer(),
        policy(csp={"upgrade-insecure-requests": []}, csp_enforce_also="upgrade-insecure-requests"),
    )
    assert [one.count("upgrade-insecure-requests") for one in serve(layer).all(CSP)] == [1, 1]
    plain = serve(layer, environ={"wsgi.url_scheme": "http"})
    assert "upgrade-insecure-requests" not in plain.csp


def test_a_path_may_differ(serve):
    paths = {
        "/admin/*": {"replace": {"style-src": ["'self'"]}},
        "/admin/reports/*": {"update": {"style-src": ["https://charts.example"]}},
        "/embed[1]": {"exempt": True},
        "*/draft": {"report_only": True},
        "/straße/*": {"exempt": True},
    }
    layer = HeadersLayer(answer(), policy(csp_paths=paths))
    assert serve(layer, "/straße/1").csp is None
    assert "style-src 'self';" in serve(layer, "/admin/").csp
    assert "style-src 'self' https://charts.example;" in serve(layer, "/admin/reports/1").csp
    assert "style-src 'self' 'nonce-" in serve(layer, "/admins").csp
    assert serve(layer, "/embed[1]").csp is None
    assert serve(layer, "/embed1").csp is not None
    assert serve(layer, "/a/b/draft").csp is None
    assert serve(layer, "/a/b/draft").reported is not None


def test_a_path_that_is_enforced_has_its_nonces_in_mode_adopt(serve):
    rules = policy("adopt", csp_paths={"/new": {"report_only": False}}, csp_report_sample=0)
    seen = serve(HeadersLayer(tagged, rules), "/new")
    assert seen.body == f"<script nonce={NONCED.search(seen.csp)[1]}>".encode()
    assert serve(HeadersLayer(tagged, rules), "/old").body == b"<script>"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"admin": {}}, "OM_CSP_PATHS['admin'] {}: a path begins with '/'"),
        ({"/a": {"relax": True}}, "known are update, replace, exempt and report_only"),
        ({"/a": {"update": {"img-src": ["self"]}}}, "write \"'self'\""),
    ],
)
def test_a_wrong_path_fails_at_start(paths, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        policy(csp_paths=paths)
    assert caught.value.key.startswith("OM_CSP_PATHS[")


def test_presets(serve):
    csp = serve(HeadersLayer(answer(), policy(csp_preset="api"))).csp
    assert csp == API
    hosts = ["https://cdn.example", "*.other.example"]
    rules = policy(csp_preset="compatible", csp_script_hosts=hosts)
    csp = NONCED.sub("'nonce-N'", serve(HeadersLayer(answer(), rules)).csp)
    assert csp.startswith(
        "script-src 'self' 'nonce-N' https://cdn.example *.other.example 'report-sample'; "
    )
    assert "strict-dynamic" not in csp


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"csp_script_hosts": ["https://cdn.example"]}, "set OM_CSP_PRESET = 'compatible'"),
        (
            {"csp_preset": "compatible", "csp_script_hosts": ["cdn.example;"]},
            "OM_CSP_SCRIPT_HOSTS['script-src'] 'cdn.example;': ';' would end the value",
        ),
        ({"csp_enforce_also": ["img-src self"]}, "OM_CSP_ENFORCE_ALSO[0]['img-src'] 'self'"),
        ({"csp_report_also": ["imgsrc 'self'"]}, "did you mean 'img-src'"),
        ({"csp_api": {"default-src": "none"}}, "OM_CSP_API['default-src'] 'none'"),
    ],
)
def test_wrong_policies_fail_at_start(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        policy(**settings)


# --- the nonce ------------------------------------------------------------------------------------


def test_page_and_header_have_the_same_nonce(serve):
    def app(environ, start_response):
        body = nonce(environ).encode()
        start_response("200 OK", list(HTML))
        return [body]

    layer = HeadersLayer(app, policy())
    first, second = serve(layer), serve(layer)
    assert NONCED.search(first.csp)[1].encode() == first.body
    assert first.body != second.body


def test_stream_that_asks_after_its_headers_gets_their_nonce(serve):
    def app(environ, start_response):
        start_response("200 OK", list(HTML))

        def stream():
            yield b"<p>"
            yield nonce(environ).encode()

        return stream()

    seen = serve(HeadersLayer(app, policy()))
    assert seen.body == b"<p>" + NONCED.search(seen.csp)[1].encode()


def test_header_has_a_nonce_though_the_page_did_not_ask(serve):
    # without one, browsers of CSP level 2 would fall back to 'unsafe-inline'
    layer = HeadersLayer(answer(), policy())
    first, second = serve(layer), serve(layer)
    assert NONCED.search(first.csp)[1] != NONCED.search(second.csp)[1]
    assert first.environ[KEY].page_nonce is None


# --- applications of every shape ------------------------------------------------------------------


class Closing:
    def __init__(self, *parts):
        self.parts = iter(parts)
        self.closed = 0

    def __iter__(self):
        return self.parts

    def close(self):
        self.closed += 1


def test_the_very_iterable_of_the_application_is_returned():
    body = Closing(b"x")

    def app(environ, start_response):
        start_response("200 OK", list(HTML))
        return body

    assert HeadersLayer(app, policy())({}, lambda *args: None) is body
    assert body.closed == 0


def test_file_wrapper_passes_through():
    wrapper = FileWrapper(io.BytesIO(b"x"))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png")])
        return wrapper

    assert HeadersLayer(app, policy())({}, lambda *args: None) is wrapper


def test_generator_application_that_starts_late(serve, through):
    def app(environ, start_response):
        start_response("200 OK", list(HTML))
        yield b"a"
        yield b"b"

    seen = serve(HeadersLayer(app, policy()))
    assert seen.body == b"ab"
    assert seen.csp


def test_write_passes_through(serve, through):
    def app(environ, start_response):
        write = start_response("200 OK", list(HTML))
        write(b"a")
        return [b"b"]

    seen = serve(through(app, policy()))
    assert seen.body == b"ab"
    assert NONCED.search(seen.csp)


def test_second_start_with_exc_info_gets_headers_of_its_own(serve, through):
    given = []

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Internal Server Error", list(HTML), sys.exc_info())
        return [b"sorry"]

    def outer(environ, start_response):
        def start(status, headers, exc_info=None):
            given.append(exc_info)
            return start_response(status, headers, exc_info)

        return HeadersLayer(app, policy())(environ, start)

    seen = serve(outer)
    assert seen.status == "500 Internal Server Error"
    assert NONCED.search(seen.csp)
    assert given[0] is None
    assert given[1][0] is ValueError
    assert serve(through(app, policy())).csp


def test_raising_application_raises(serve):
    def app(environ, start_response):
        raise KeyError("host")

    with pytest.raises(KeyError, match="host"):
        serve(HeadersLayer(app, policy()))


COMPLIANT = {
    "html": (answer(), "GET"),
    "json": (answer(b"{}", headers={"Content-Type": "application/json"}), "GET"),
    "head": (answer(), "HEAD"),
    "204": (answer(b"", "204 No Content", {}), "GET"),
    "304": (answer(b"", "304 Not Modified", {}), "GET"),
    "404": (answer(b"no", "404 Not Found"), "POST"),
}


@pytest.mark.parametrize("mode", ["adopt", "enforce", "learn", "off"])
@pytest.mark.parametrize("name", COMPLIANT)
def test_layer_is_compliant_on_both_sides(serve, through, mode, name):
    app, method = COMPLIANT[name]
    seen = serve(through(app, policy(mode, debug=True)), method=method)
    bare = serve(validator(app), method=method)
    assert (seen.status, seen.body) == (bare.status, bare.body)
    assert seen.headers[: len(bare.headers)] == bare.headers


def test_what_a_plugin_adds_in_vain_is_said_once(serve, caplog):
    rules = HeaderPolicy(
        mode="enforce", callables=[lambda environ: {"style-src": ["'unsafe-inline'"]}]
    )
    for _ in range(3):
        seen = serve(HeadersLayer(answer(), rules))
    assert "'nonce-" in seen.csp
    (said,) = [one.message for one in caplog.records]
    assert "adds sources in vain: 'unsafe-inline' has no effect in style-src" in said

import re

import pytest

from om_plugins import Settings
from om_plugins.core.request_state import state_of
from om_plugins.errors import ConfigError
from om_plugins.headers.companions import DEFAULTS, merge_with_defaults
from om_plugins.headers.feature import policy_from
from om_plugins.headers.layer import HeadersLayer


def sent(serve, environ=None, content_type="text/html", own=(), changes=None, **settings):
    def app(environ, start_response):
        if changes is not None:
            state_of(environ).header_changes = changes
        start_response("200 OK", [("Content-Type", content_type), *own])
        return [b""]

    policy = policy_from(Settings(**{"csp_mode": "enforce", **settings}), debug=False)
    return serve(HeadersLayer(app, policy), environ=environ)


PLAIN_HTTP = {"wsgi.url_scheme": "http"}


def test_nothing_but_the_defaults_is_sent_unasked():
    assert merge_with_defaults({}, "enforce") == dict(DEFAULTS)


@pytest.mark.parametrize(
    ("mode", "sent_unasked"), [("adopt", 0), ("learn", 0), ("enforce", 3), ("off", 3)]
)
def test_a_mode_that_only_reports_sends_no_header_unasked(mode, sent_unasked):
    assert len(merge_with_defaults({}, mode)) == sent_unasked
    asked = merge_with_defaults({"Referrer-Policy": "origin"}, mode)
    assert asked["Referrer-Policy"] == "origin"


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, "max-age=31536000"),
        ({"max_age": 0}, "max-age=0"),
        ({"include_subdomains": True}, "max-age=31536000; includeSubDomains"),
        (
            {"include_subdomains": True, "preload": True, "max_age": 63072000},
            "max-age=63072000; includeSubDomains; preload",
        ),
    ],
)
def test_hsts_goes_with_https_alone(serve, options, value):
    name = "Strict-Transport-Security"
    for kind in ("text/html", "application/json", "text/plain"):
        assert sent(serve, content_type=kind, hsts=options).get(name) == value
        assert sent(serve, PLAIN_HTTP, content_type=kind, hsts=options).get(name) is None


@pytest.mark.parametrize(
    "options", [{"preload": True}, {"preload": True, "include_subdomains": True, "max_age": 300}]
)
def test_the_preload_list_s_own_rules_are_kept(options):
    with pytest.raises(ConfigError, match="hstspreload") as caught:
        policy_from(Settings(hsts=options), debug=False)
    assert caught.value.key == "OM_HSTS['preload']"


def test_permissions_policy_goes_with_pages(serve):
    settings = {"permissions_policy": {"camera": [], "geolocation": "self https://maps.example"}}
    value = 'camera=(), geolocation=(self "https://maps.example")'
    assert sent(serve, **settings).get("Permissions-Policy") == value
    assert sent(serve, content_type="text/css", **settings).get("Permissions-Policy") is None


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X-Frame-Options": "ALLOWALL"}, "unknown value 'ALLOWALL'"),
        ({"X-Frame-Options": "deny"}, "did you mean 'DENY'"),
        ({"Referrer-Policy": "strict-orgin"}, "did you mean 'strict-origin'"),
        ({"Cross-Origin-Embedder-Policy": "require-cors"}, "did you mean 'require-corp'"),
        ({"Cross-Origin-Resource-Policy": "none"}, "known are cross-origin, same-origin"),
        ({"Strict-Transport-Security": "max-age=1"}, "set OM_HSTS instead"),
        ({"permissions-policy": "usb=()"}, "set OM_PERMISSIONS_POLICY instead"),
        ({"Permissions-Policy": None}, "set OM_PERMISSIONS_POLICY instead"),
        ({"Cache-Control": "no-store"}, "the application sets it"),
        ({"Document-Policy": "document write"}, "is not like 'document-write=?0'"),
    ],
)
def test_wrong_headers_fail_at_start(headers, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        policy_from(Settings(headers=headers), debug=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Referrer-Policy", "no-referrer, strict-origin-when-cross-origin"),
        ("Cross-Origin-Opener-Policy", 'same-origin; report-to="coop"'),
        ("Cross-Origin-Embedder-Policy", "credentialless"),
        ("Cross-Origin-Resource-Policy", "same-site"),
        ("Document-Policy", "document-write=?0, js-profiling"),
        ("X-Anything", "goes"),
    ],
)
def test_headers_that_were_asked_for_are_sent(serve, name, value):
    assert sent(serve, headers={name: value}).get(name) == value
    assert sent(serve, headers={name: value}, own=[(name, "own")]).get(name) == "own"


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "text/plain"])
def test_a_view_may_change_its_headers(serve, content_type):
    changes = (("referrer-policy", "no-referrer"), ("X-Content-Type-Options", None), ("X-A", "b"))
    seen = sent(serve, content_type=content_type, changes=changes)
    assert seen.get("Referrer-Policy") == "no-referrer"
    assert seen.get("X-Content-Type-Options") is None
    assert seen.get("X-A") == "b"
    own = [("Referrer-Policy", "origin")]
    assert sent(serve, changes=changes, own=own).get("Referrer-Policy") == "origin"
    assert sent(serve).get("Referrer-Policy") == DEFAULTS["Referrer-Policy"]

import pytest
from flask import Flask

from om_plugins import OpenManager
from om_plugins.errors import ConfigError
from om_plugins.settings.paths import PathPatterns, explain_placeholder


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("/up", True), ("/up/", False), ("/upper", False), ("/status", False), ("/status/", True),
        ("/status/a/b", True), ("/caf\u00c3\u00a9", True), ("/", False), ("", False),
    ],
)  # fmt: skip
def test_a_pattern_is_a_path_or_all_that_begin_so(path, matches):
    assert PathPatterns(["/up", "/status/*", "/café"]).match(path) is matches


def test_all_paths_and_none():
    assert PathPatterns(["/*"]).match("/a")
    assert not PathPatterns([]).match("/a")


@pytest.mark.parametrize(
    ("path", "found", "instead"),
    [
        ("/a/<int:x>", "<int:x>", "/a/*"),
        ("/<name>", "<name>", "/*"),
        ("/u/<string(length=2):code>/edit", "<string(length=2):code>", "/u/*"),
        ("/x-<path:rest>", "<path:rest>", "/x-*"),
    ],
)
def test_a_variable_of_a_route_is_named_with_what_to_write(path, found, instead):
    explained = explain_placeholder(path)
    assert repr(found) in explained
    assert f"write {instead!r} " in explained


def test_a_path_without_variables_needs_no_explanation():
    assert not any(explain_placeholder(path) for path in ("/a", "/a/*", "/a<b", "/a/<>", "/a/<1>"))
    assert "write '/a/' for" in explain_placeholder("/a/<b>", "")


@pytest.mark.parametrize(
    "settings",
    [
        {"OM_FALLBACK": {"/a/<b>": ["stale"]}},
        {"OM_CSP_PATHS": {"/a/<b>": {"exempt": True}}},
        {"OM_CSP_HTML_NONCES": ["/a/<b>"]},
        {"OM_CSP_DOCTOR_EXCEPT": "/a/<b>"},
        {"OM_FORCE_HTTPS": {"exempt": ["/a/<b>"]}},
        {"OM_HTTP_CACHE": {"routes": {"/a/<b>": {"max_age": 5}}}},
    ],
)
def test_every_setting_with_paths_refuses_variables_of_routes(settings):
    app = Flask("paths")
    app.config.update(settings, TESTING=True)
    with pytest.raises(ConfigError, match=r"'<b>' is a variable of a route; write '/a/\*?' "):
        OpenManager(app)

"""Settings: unknown keys, bad values, environment text, nested tables, the reference page.

Covers ``om_plugins.settings.table``, ``om_plugins.settings.signatures`` and
``om_plugins.settings.reference``.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from om_plugins import ChaosOptions, Settings
from om_plugins.chains.options import ChainPolicy, EngineOptions
from om_plugins.csp.feature import CspKeys
from om_plugins.errors import ConfigError
from om_plugins.fallback.options import FallbackOptions
from om_plugins.features import shipped, tables
from om_plugins.gateway.options import RouteOptions
from om_plugins.headers.feature import ForceHttpsOptions
from om_plugins.headers.hsts import HstsOptions
from om_plugins.http_cache.feature import HttpCacheOptions, HttpCachePathOptions
from om_plugins.monitoring.feature import AlertOptions
from om_plugins.settings.reference import as_markdown
from om_plugins.settings.signatures import SettingsKeywords
from om_plugins.settings.table import Table

KEYS = {name: field for table in tables(shipped()) for name, field in table.keys().items()}
PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def read(**values: Any) -> Settings:
    return Settings.from_mapping(values)


def refusal(**values: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(**values)
    return caught.value


def test_nothing_set_gives_the_defaults() -> None:
    assert Settings.from_mapping({}) == Settings()


def test_keys_of_others_are_ignored() -> None:
    assert Settings.from_mapping({"SECRET_KEY": "x", "DEBUG": True, "om_prefix": 3, 5: 6}) == (  # type: ignore[dict-item]
        Settings()
    )


@pytest.mark.parametrize("written", KEYS)
def test_every_key_is_upper_case_documented_and_grouped(written: str) -> None:
    field = KEYS[written]
    assert written == f"OM_{field.name.upper()}"
    assert field.metadata["doc"]
    assert field.metadata["group"]
    assert field.metadata["check"].allowed


@pytest.mark.parametrize("written", KEYS)
def test_every_default_passes_its_own_check(written: str) -> None:
    value = getattr(Settings(), KEYS[written].name)
    if value is not None:
        assert read(**{written: value}) == Settings()


# --- unknown keys -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("OM_CSP_MOD", "OM_CSP_MODE"),
        ("OM_CACHE_STALETIME", "OM_CACHE_STALE_TIME"),
        ("OM_PLUGIN_DISABLED", "OM_PLUGINS_DISABLED"),
        ("OM_CHAIN_DEFUALTS", "OM_CHAIN_DEFAULTS"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(written: str, nearest: str) -> None:
    error = refusal(**{written: 1})
    assert error.key == written
    assert error.reason == f"unknown key; did you mean {nearest!r}?"


def test_a_key_that_is_near_to_none_lists_them_all() -> None:
    reason = refusal(OM_XYZZY=1).reason
    assert reason.startswith("unknown key; known are OM_")
    assert "OM_CSP_MODE" in reason


def test_known_keys_in_small_letters_are_listed_as_ignored() -> None:
    written = {"om_csp_mode": "enforce", "Om_Prefix": 1, "OM_HSTS": {}}
    found = read(**written, om_nothing_of_ours=1, csp_mode=3)
    assert found.list_ignored() == ["om_csp_mode", "Om_Prefix"]
    assert found.of(CspKeys).csp_mode == "adopt"
    assert not read(om_nothing_of_ours=1, OM_HSTS={}).list_ignored()


@pytest.mark.parametrize(
    "written",
    ["OM_SECRETKEY", "OM_CONSOLE_AUT", "OM_CONSOLE_auth", "OM_API_TOKEN"],
)
def test_an_unknown_key_that_may_hold_a_secret_does_not_show_it(written: str) -> None:
    error = refusal(**{written: "hunter2-hunter2-hunter2"})
    assert "hunter2" not in str(error)
    assert error.value == "…"


# --- bad values ---------------------------------------------------------------------------------

BAD: list[tuple[str, Any, str]] = [
    ("OM_ENABLED", "maybe", "true or false"),
    ("OM_ENABLED", 2, "true or false"),
    ("OM_PREFIX", "_om", "a path such as '/_om'"),
    ("OM_PREFIX", "/", "a path such as '/_om'"),
    ("OM_PREFIX", "/_om/", "without a slash at its end"),
    ("OM_PREFIX", "/a\nb", "a path such as"),
    ("OM_PROXIES", -1, "a number of proxies from 0 to 16"),
    ("OM_PROXIES", True, "a number of proxies"),
    ("OM_PROXIES", {"x_four": 1}, "unknown 'x_four'; known are x_for, x_proto"),
    ("OM_PROXIES", {"x_for": 99}, "a number of proxies"),
    ("OM_TRUSTED_HOSTS", 5, "a list of texts"),
    ("OM_TRUSTED_HOSTS", ["a", 5], "every item must be text"),
    ("OM_SECRET_KEY", "short", "at least 8 characters"),
    ("OM_HUB_URL", "sqlite", "'auto', 'memory://', 'sqlite:///path' or 'redis://host'"),
    ("OM_WORKERS", 0, "a whole number from 1 to 64"),
    ("OM_WORKERS", 1.5, "a whole number"),
    ("OM_WORKERS", "four", "a whole number"),
    ("OM_PLUGIN_CONFIG", "{", "as text it must be a JSON object"),
    ("OM_PLUGIN_CONFIG", [1], "a dict with text keys"),
    ("OM_PLUGIN_CONFIG", {1: 2}, "a dict with text keys"),
    ("OM_PROBE_INTERVAL", -1, "a number of seconds from 0 to 86400"),
    ("OM_PROBE_INTERVAL", "soon", "a number of seconds"),
    ("OM_PROBE_INTERVAL", float("nan"), "a number of seconds"),
    ("OM_PROBE_INTERVAL", "inf", "a number of seconds"),
    ("OM_PROBE_INTERVAL", None, "a number of seconds"),
    ("OM_WORKERS", 65, "a whole number from 1 to 64"),
    ("OM_WORKERS", 10**400, "a whole number from 1 to 64"),
    ("OM_CACHE_URL", "memory", "a URL such as 'memory://'"),
    ("OM_CSP_MODE", "enforced", "did you mean 'enforce'?"),
    ("OM_CSP_MODE", None, "'adopt', 'enforce', 'learn' or 'off'"),
    ("OM_CSP_REPORT_SAMPLE", 2, "a number from 0 to 1"),
    ("OM_HEADERS", {"X Y": "z"}, "'X Y' is not a header name"),
    ("OM_HEADERS", {"X-Y": "a\r\nSet-Cookie: b"}, "one line of ASCII text"),
    ("OM_HEADERS", {"X-Y": 5}, "one line of ASCII text"),
    ("OM_HEADERS", {"X-Y": " "}, "None leaves the header out"),
    ("OM_HEADERS", {"X-Y": "a", "x-y": "b"}, "stands there twice"),
    ("OM_FORCE_HTTPS", "maybe", "must be true, false, or a dict with the keys all, permanent, e"),
    ("OM_HTTP_CACHE", 2, "must be true, false, or a dict with the keys all, l1_bytes, max_body, "),
    ("OM_ROUTES", ["/api"], "a dict from a name to a dict"),
]


@pytest.mark.parametrize(("written", "value", "reason"), BAD)
def test_a_bad_value_names_the_key_and_what_is_allowed(
    written: str, value: Any, reason: str
) -> None:
    error = refusal(**{written: value})
    assert error.key == written
    assert reason in error.reason
    assert str(error).startswith(written)


def test_the_check_holds_for_keywords_too() -> None:
    with pytest.raises(ConfigError, match="OM_CSP_MODE 'loud': must be 'adopt'"):
        Settings(csp_mode="loud")


def test_an_unknown_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="csp_mod"):
        Settings(csp_mod="off")  # type: ignore[call-arg]


def test_a_console_token_is_long_and_never_in_the_error() -> None:
    assert "hunter2" not in str(refusal(OM_CONSOLE_AUTH="hunter2"))
    assert "at least 16" in str(refusal(OM_CONSOLE_AUTH="hunter2"))
    refusal(OM_CONSOLE_AUTH="a token with white space")
    refusal(OM_CONSOLE_AUTH=17)


def test_a_secret_is_never_in_the_error() -> None:
    assert "hunter2" not in str(refusal(OM_SECRET_KEY="hunter2"))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().csp_mode = "off"  # type: ignore[misc]


# --- text, as from the environment --------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "text", "value"),
    [
        ("OM_ENABLED", "off", False),
        ("OM_ENABLED", " TRUE ", True),
        ("OM_ENABLED", "0", False),
        ("OM_WORKERS", "8", 8),
        ("OM_PROBE_INTERVAL", "2.5", 2.5),
        ("OM_PROXIES", "2", {"x_for": 2, "x_proto": 2, "x_host": 2}),
        ("OM_PROXIES", "0", {}),
        ("OM_TRUSTED_HOSTS", "a.example, b.example,", ("a.example", "b.example")),
        ("OM_PLUGINS", "", ()),
        ("OM_PLUGIN_CONFIG", '{"wiki": {"limit": 3}}', {"wiki": {"limit": 3}}),
        ("OM_SECRET_KEY", "a long secret", b"a long secret"),
        ("OM_CSP", "img-src 'self' https:; font-src *", {
            "img-src": ("'self'", "https:"), "font-src": ("*",)
        }),
        ("OM_CSP", '{"img-src": ["*"]}', {"img-src": ("*",)}),
        ("OM_HEADERS", '{"X-Content-Type-Options": null}', {"X-Content-Type-Options": None}),
    ],
)  # fmt: skip
def test_text_is_read_as_the_keys_type(written: str, text: str, value: object) -> None:
    assert getattr(read(**{written: text}), KEYS[written].name) == value


def test_flask_reads_them_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_OM_CSP_MODE", "enforce")
    monkeypatch.setenv("FLASK_OM_ENABLED", "false")
    monkeypatch.setenv("FLASK_OM_MONITORING", "0")
    monkeypatch.setenv("FLASK_OM_METRICS", "1")
    monkeypatch.setenv("FLASK_OM_PROBE_INTERVAL", "3")
    monkeypatch.setenv("FLASK_OM_ROUTES", '{"/api": {"chain": "c", "rate": "5/s"}}')
    app = Flask(__name__)
    app.config.from_prefixed_env()
    settings = Settings.from_mapping(app.config)
    assert (settings.csp_mode, settings.enabled, settings.probe_interval) == ("enforce", False, 3.0)
    assert (settings.monitoring, settings.metrics) == (False, True)
    assert settings.routes == {"/api": RouteOptions(chain="c", rate=(5, 1))}


# --- nested tables ------------------------------------------------------------------------------


def allow(request: object) -> bool:
    return True


def test_a_route_is_read_with_its_defaults() -> None:
    route = read(OM_ROUTES={"/api": {"chain": "assistant", "auth": allow}}).routes["/api"]
    assert (route.chain, route.auth, route.rate, route.max_body) == (
        "assistant",
        allow,
        (60, 60),
        1_000_000,
    )


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("5/s", (5, 1)),
        ("60/min", (60, 60)),
        ("100 / hour", (100, 3600)),
        (None, None),
        ("off", None),
        ((7, 30), (7, 30)),
    ],
)
def test_a_rate_is_calls_per_seconds(rate: object, expected: tuple[int, int] | None) -> None:
    assert read(OM_ROUTES={"/api": {"chain": "c", "rate": rate}}).routes["/api"].rate == expected


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [
        ({"chian": "c"}, "OM_ROUTES['/api'].chian", "unknown key; did you mean 'chain'?"),
        ({"chain": ""}, "OM_ROUTES['/api'].chain", "must be the name of a chain"),
        ({"chain": "c", "rate": "lots"}, "OM_ROUTES['/api'].rate", "a rate such as '60/min'"),
        ({"chain": "c", "auth": "yes"}, "OM_ROUTES['/api'].auth", "a function that takes"),
        ({"chain": "c", "cors": "app.example"}, "OM_ROUTES['/api'].cors", "is not an origin"),
        ({"chain": "c", "cors": ["https://a/b"]}, "OM_ROUTES['/api'].cors", "is not an origin"),
        ({"chain": "c", "max_body": 0}, "OM_ROUTES['/api'].max_body", "a whole number of bytes"),
    ],
)
def test_an_error_in_a_route_names_the_route_and_its_key(
    options: Mapping[str, object], key: str, reason: str
) -> None:
    error = refusal(OM_ROUTES={"/api": options})
    assert error.key == key
    assert reason in error.reason


def test_an_error_in_a_chain_names_the_chain_and_its_key() -> None:
    error = refusal(OM_CHAINS={"assistant": {"retries": -1}})
    assert error.key == "OM_CHAINS['assistant'].retries"
    error = refusal(OM_CHAINS={"assistant": {"engines": {"model": {"tier": 0}}}})
    assert error.key == "OM_CHAINS['assistant'].engines['model'].tier"


def test_ready_made_tables_are_taken_as_they_are() -> None:
    route = RouteOptions(chain="c")
    assert Settings(routes={"/api": route}).routes["/api"] is route


# --- the reference page -------------------------------------------------------------------------


def test_the_reference_page_and_the_keywords_are_up_to_date() -> None:
    written = runpy.run_path(str(PAGE.with_name("generate_settings.py")))["FILES"]
    assert len(written) == 2
    for path, text in written.items():
        assert path.read_text("utf-8") == text, "run: python docs/generate_settings.py"


def test_every_key_is_a_keyword_of_settings() -> None:
    assert SettingsKeywords.__annotations__.keys() == {field.name for field in KEYS.values()}


def test_a_keyword_has_the_type_of_what_may_be_written() -> None:
    types = {name: one.__forward_arg__ for name, one in SettingsKeywords.__annotations__.items()}
    assert types["workers"] == "int"
    assert types["csp_mode"].startswith("Literal['adopt', ")
    assert types["trusted_hosts"] == "Collection[str] | None"
    assert "object" not in types.values()


def test_the_reference_page_has_a_row_for_every_key() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", as_markdown(tables(shipped())), re.MULTILINE)
    inner = (
        ChainPolicy, EngineOptions, RouteOptions, FallbackOptions, AlertOptions, HstsOptions,
        HttpCacheOptions,
        HttpCachePathOptions,
        ForceHttpsOptions,
    )  # fmt: skip
    assert sorted(rows) == sorted([*KEYS, *(key for table in inner for key in table.keys())])  # noqa: SIM118


def test_the_reference_page_is_a_table_that_renders() -> None:
    for line in as_markdown(tables(shipped())).splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_a_renamed_key_names_the_new_one():
    with pytest.raises(ConfigError, match=r"OM_SHIELD .*: renamed to OM_FALLBACK"):
        Settings.from_mapping({"OM_SHIELD": {"/": ["stale"]}})


@pytest.mark.parametrize(
    "table",
    [AlertOptions, ChainPolicy, ChaosOptions, FallbackOptions, RouteOptions],
)
def test_a_renamed_option_names_the_new_one(table: type[Table]) -> None:
    assert table.RENAMED
    for old, new in table.RENAMED.items():
        assert new in table.keys()  # noqa: SIM118
        with pytest.raises(ConfigError, match=f"renamed to {new}$"):
            table.from_mapping({old: 1})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("OM_TIMEOUT", r"OM_CHAIN_DEFAULTS = {'timeout': …}"),
        ("OM_BREAKER_SLOW_S", r"OM_CHAIN_DEFAULTS = {'breaker_slow': …}"),
        ("OM_HTTP_CACHE_MAX_BODY", r"OM_HTTP_CACHE = {'max_body': …}"),
        ("OM_HTTP_CACHE_ROUTES", r"OM_HTTP_CACHE = {'routes': …}"),
        ("OM_FORCE_HTTPS_EXEMPT", r"OM_FORCE_HTTPS = {'exempt': …}"),
        ("OM_FORCE_HTTPS_PERMANENT", r"OM_FORCE_HTTPS = {'permanent': …}"),
    ],
)
def test_an_option_that_was_a_key_names_the_key_that_it_is_in_now(old: str, new: str) -> None:
    assert refusal(**{old: 1}).reason == f"renamed to {new}"
    with pytest.raises(TypeError, match=re.escape(f"renamed to {new}")):
        Settings(**{old.removeprefix("OM_").lower(): 1})


def test_a_key_that_was_removed_says_so() -> None:
    reason = "removed: it was for measurements only, and there is no other key for it"
    assert refusal(OM_HTTP_CACHE_COMPLIANCE=True).reason == reason
    with pytest.raises(TypeError, match=reason):
        Settings(http_cache_compliance=True)  # type: ignore[call-arg]


def test_an_old_setting_that_is_read_says_the_new_one() -> None:
    with pytest.raises(AttributeError, match=r"no setting 'timeout': renamed to OM_CHAIN_DEFAULTS"):
        Settings().timeout  # noqa: B018 - the error is the test


@pytest.mark.parametrize(
    ("value", "everything", "permanent"),
    [
        (True, True, False),
        ("on", True, False),
        (1, True, False),
        (0, False, False),
        (False, False, False),
        ({}, True, False),
        ({"permanent": True}, True, True),
        ('{"permanent": true, "all": false}', False, True),
        (ForceHttpsOptions(permanent=True), True, True),
    ],
)
def test_true_or_false_stands_for_the_switch_of_a_table(
    value: object, everything: bool, permanent: bool
) -> None:
    options = read(OM_FORCE_HTTPS=value).force_https
    assert (options.all, options.permanent) == (everything, permanent)


def test_an_error_in_a_table_with_a_switch_names_the_table_and_its_key() -> None:
    assert refusal(OM_FORCE_HTTPS={"exempt": ["up"]}).key == "OM_FORCE_HTTPS.exempt"
    assert "'up' does not begin with '/'" in refusal(OM_FORCE_HTTPS={"exempt": ["up"]}).reason
    assert "a '*' before its end" in refusal(OM_FORCE_HTTPS={"exempt": ["/a*/b"]}).reason
    wrong = {"routes": {"/news": {"max_age": -1}}}
    assert refusal(OM_HTTP_CACHE=wrong).key == "OM_HTTP_CACHE.routes['/news'].max_age"


def test_the_environment_may_set_one_option_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_OM_HTTP_CACHE__max_body", "1000")
    monkeypatch.setenv("FLASK_OM_HTTP_CACHE__all", "false")
    app = Flask(__name__)
    app.config.from_prefixed_env()
    http_cache = Settings.from_mapping(app.config).http_cache
    assert (http_cache.all, http_cache.max_body, http_cache.variants) == (False, 1000, 20)


def test_a_list_stands_for_the_answers_of_a_fallback():
    settings = Settings.from_mapping({"OM_FALLBACK": {"/a": ["stale", "x"], "/b": {"page": False}}})
    assert settings.fallback["/a"].answers == ("stale", "x")
    assert settings.fallback["/b"].answers == ("stale",)
    assert settings.fallback["/b"].page is False


def test_the_methods_of_a_fallback_may_be_written_small():
    settings = Settings.from_mapping({"OM_FALLBACK": {"/a": {"methods": ["get", "Post"]}}})
    assert settings.fallback["/a"].methods == ("GET", "POST")


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        (
            {"/a": "stale"},
            r"OM_FALLBACK\['/a'\] 'stale': must be a list of answers, or a dict with",
        ),
        ({"/a": {"methods": ["PSOT"]}}, r"OM_FALLBACK\['/a'\]\.methods .*there is no 'PSOT'"),
        ({"/a": {"answer": []}}, r"OM_FALLBACK\['/a'\]\.answer"),
        ({"/a": {"statuses": [404]}}, r"OM_FALLBACK\['/a'\]\.statuses"),
        ({"/a": {"statuses": 500}}, r"OM_FALLBACK\['/a'\]\.statuses"),
        ({"/a": {"own_body": "html"}}, r"OM_FALLBACK\['/a'\]\.own_body"),
    ],
)
def test_a_wrong_fallback_stops_the_start(wrong, key):
    with pytest.raises(ConfigError, match=key):
        Settings.from_mapping({"OM_FALLBACK": wrong})

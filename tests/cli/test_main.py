"""``flask om``: what it prints, and what the doctor finds.

Covers ``om_plugins.console.doctor`` and ``om_plugins.plugins.commands``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from flask import Flask, current_app
from flask.cli import FlaskGroup
from werkzeug.middleware.proxy_fix import ProxyFix

from om_plugins import (
    EngineSpec,
    EngineTraits,
    Feature,
    FeatureSpec,
    OpenManager,
    Settings,
    hookimpl,
)
from om_plugins.cli.output import MASK
from om_plugins.console.doctor import examine
from om_plugins.errors import ConfigError, MissingExtra
from om_plugins.fallback.options import FallbackOptions
from om_plugins.plugins.kit import Finding, Host, Kit
from om_plugins.runtime import Runtime
from om_plugins.settings.extras import EXTRAS


class Echo:
    traits = EngineTraits(idempotent=True, local=True, max_concurrency=4)

    def __init__(self, name: str = "echo") -> None:
        self.name = name

    def call(self, call: Any) -> object:
        return call.payload


class Broken:
    """A plugin whose hook raises; its name and its words try to steer the terminal."""

    @hookimpl
    def om_engines(self) -> list[Any]:
        raise RuntimeError("no luck\x1b[2J\nforged line")


def make_app(*plugins: object, **config: Any) -> tuple[Flask, OpenManager]:
    app = Flask("shop")
    app.config.update(TESTING=True, OM_STRICT=False, SECRET_KEY="x" * 32, OM_PLUGINS=())
    app.config.update(config)
    om = OpenManager()
    for plugin in plugins:
        om.register_plugin(plugin)
    om.init_app(app)
    return app, om


def run(app: Flask, *arguments: str) -> Result:
    """As the ``flask`` command runs it: the group is found by its entry point."""
    group = FlaskGroup(create_app=lambda: app)
    return CliRunner().invoke(group, ["om", *arguments], catch_exceptions=False)


def run_json(app: Flask, *arguments: str) -> Any:
    return json.loads(run(app, *arguments, "--json").stdout)


def found(app: Flask, subject: str) -> dict[str, str]:
    """The doctor's finding about one subject."""
    (one,) = [f for f in run_json(app, "doctor") if f["subject"] == subject]
    return one


# --- every command ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plugins", "doctor", "settings", "engines"])
def test_an_app_without_openmanager_is_told_so(command: str) -> None:
    result = run(Flask("bare"), command)
    assert result.exit_code == 1
    assert "the app 'bare' has no OpenManager: add OpenManager(app)" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["plugins", "doctor", "settings", "engines"])
def test_every_command_prints_text_and_json(command: str) -> None:
    app, om = make_app()
    om.add_engine(Echo(), chain="assistant")
    result = run(app, command)
    assert result.exit_code == 0
    assert result.output.strip()
    assert run_json(app, command)


def test_the_commands_are_described() -> None:
    app, _ = make_app()
    output = run(app, "--help").output
    for command in ("plugins", "doctor", "settings", "engines", "csp", "cache"):
        assert f"  {command} " in output


def test_help_needs_no_app() -> None:
    def fail() -> Flask:
        raise RuntimeError("no database")

    group = FlaskGroup(create_app=fail)
    result = CliRunner().invoke(group, ["om", "--help"])
    assert result.exit_code == 0
    assert "  engines " in result.output
    assert "The commands of the app's plugins are missing: no database" in result.output
    result = CliRunner().invoke(group, ["om", "csp", "lint", "--help"])
    assert result.exit_code == 0
    assert "FOLDERS" in result.output


def bring(name: str, make_commands: Any) -> object:
    """A plugin with a feature that has these commands."""

    class Brought(Feature[object, Any]):
        def build(self, kit: Kit, keys: Any) -> object:
            return object()

        def commands(self) -> Any:
            return make_commands()

    Brought.name = name

    class Plugin:
        @hookimpl
        def om_features(self) -> list[FeatureSpec]:
            return [FeatureSpec(Brought())]

    Plugin.__name__ = name
    return Plugin()


def make_command(name: str) -> click.Command:
    @click.command(name, help="Brought.")
    @click.pass_obj
    def command(kit: Kit) -> None:
        click.echo(f"prefix {kit.keys.prefix}, app {current_app.name}")

    return command


def test_a_command_of_a_plugins_feature_gets_the_kit_within_the_app() -> None:
    app, _ = make_app(bring("tours", lambda: [make_command("tours")]))
    assert "  tours " in run(app, "--help").output
    assert run(app, "tours").output == "prefix /_om, app shop\n"


def test_a_plugins_command_does_not_replace_one_of_this_package() -> None:
    app, _ = make_app(bring("tours", lambda: [make_command("engines"), make_command("doctor")]))
    assert "Brought." not in run(app, "--help").output


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("broken", [lambda: 1 / 0, lambda: ["tours"]])
def test_a_feature_with_broken_commands_takes_none_of_the_others_away(
    broken: Any, strict: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    app, _ = make_app(
        bring("broken", broken),
        bring("tours", lambda: [make_command("tours")]),
        OM_STRICT=strict,
    )
    assert "  engines " in run(app, "--help").output
    assert run(app, "engines").exit_code == 0
    if not strict:
        assert run(app, "tours").exit_code == 0


# --- plugins ------------------------------------------------------------------------------------


def test_plugins_lists_built_in_ones_with_their_state() -> None:
    app, _ = make_app(OM_PLUGINS_DISABLED=["notifier-log"])
    rows = {row["name"]: row for row in run_json(app, "plugins")}
    assert rows["hub-memory"]["state"] == "active"
    assert rows["hub-memory"]["source"] == "built-in"
    assert rows["notifier-log"]["state"] == "disabled"


def test_a_broken_plugin_is_named_and_stays_on_its_line() -> None:
    app, _ = make_app(Broken())
    output = run(app, "plugins").output
    (line,) = [line for line in output.splitlines() if line.startswith("Broken")]
    assert "om_engines raised RuntimeError: no luck [2J forged line" in line


@pytest.mark.parametrize("strict", [True, False])
def test_a_command_that_is_taken_is_shown_in_the_name_of_its_plugin(strict: bool) -> None:
    app, _ = make_app(bring("tours", lambda: [make_command("doctor")]), OM_STRICT=strict)
    words = "the feature 'tours': commands returned 'doctor', which another command is named"
    shown = [row["reason"] for row in run_json(app, "plugins") if words in row["reason"]]
    assert len(shown) == 1
    done = run(app, "doctor")
    assert words in done.output
    assert done.exit_code == 1


# --- settings -----------------------------------------------------------------------------------


def test_settings_shows_what_is_in_force_and_masks_secrets() -> None:
    app, _ = make_app(
        OM_CSP_MODE="enforce",
        OM_SECRET_KEY="hunter2-hunter2",
        OM_CONSOLE_AUTH="hunter2-hunter2-hunter2",
        OM_PLUGIN_CONFIG={"wiki": {"api_key": "sk-123456", "limit": 3}},
        OM_ROUTES={"/api/ask": {"chain": "c", "auth": make_app}},
    )
    result = run(app, "settings")
    values = run_json(app, "settings")
    for output in (result.output, json.dumps(values)):
        assert "hunter2" not in output
        assert "sk-123456" not in output
    assert values["OM_CSP_MODE"] == "enforce"
    assert values["OM_SECRET_KEY"] == MASK
    assert values["OM_CONSOLE_AUTH"] == MASK
    assert values["OM_PLUGIN_CONFIG"] == {"wiki": {"api_key": MASK, "limit": 3}}
    assert values["OM_ROUTES"]["/api/ask"]["auth"].endswith(".make_app")
    assert values["OM_STRICT"] is False
    assert values["OM_HSTS"] is None
    assert list(values) == list(dict.fromkeys(written for written, _, _ in Settings().rows()))


# --- the doctor, with Flask ---------------------------------------------------------------------


def test_the_doctor_exits_with_1_when_something_fails() -> None:
    app, _ = make_app(OM_ROUTES={"/api": {"chain": "gone"}})
    result = run(app, "doctor")
    assert result.exit_code == 1
    assert result.output.startswith("fail  OM_ROUTES['/api']: The chain 'gone' has no engine")
    assert run(app, "doctor", "--json").exit_code == 1


def test_the_doctor_tells_failures_first() -> None:
    app, _ = make_app(Broken(), OM_CSP_MODE="off")
    levels = [finding["level"] for finding in run_json(app, "doctor")]
    assert levels == sorted(levels, key=["fail", "warn", "ok"].index)


@pytest.mark.parametrize(
    ("key", "named", "corrected"),
    [("OM_PLUGIN_CONFIG", {"ghost": {}}, {}), ("OM_PLUGINS", ["ghost"], [])],
)
def test_a_setting_that_names_a_plugin_that_is_not_there_is_what_to_correct(
    key: str, named: object, corrected: object
) -> None:
    finding = found(make_app(**{key: named})[0], "plugin ghost")
    assert finding["level"] == "fail"
    assert finding["way_out"] == f"Install it, or take 'ghost' out of {key}."
    findings = run_json(make_app(**{key: corrected})[0], "doctor")
    assert not [one for one in findings if "ghost" in str(one)]


def test_the_console_is_off_by_default_which_is_no_fault() -> None:
    assert found(make_app()[0], "OM_CONSOLE_AUTH")["level"] == "ok"


@pytest.mark.parametrize(
    ("token", "level"),
    [("kX2v-9QmZt7Lr4Wb", "ok"), ("aaaaaaaaaaaaaaaa", "warn"), ("my-admin-password", "warn")],
)
def test_a_console_token_that_can_be_guessed_is_a_warning(token: str, level: str) -> None:
    told = found(make_app(OM_CONSOLE_AUTH=token)[0], "OM_CONSOLE_AUTH")
    assert told["level"] == level
    assert token not in str(told)


def test_a_missing_secret_key_is_a_warning() -> None:
    assert found(make_app()[0], "OM_SECRET_KEY")["level"] == "ok"
    assert found(make_app(SECRET_KEY=None)[0], "OM_SECRET_KEY")["level"] == "warn"
    own = make_app(SECRET_KEY=None, OM_SECRET_KEY="y" * 32)[0]
    assert found(own, "OM_SECRET_KEY")["level"] == "ok"


def test_sources_that_a_plugin_adds_in_vain_are_a_warning() -> None:
    class Charts:
        sources = {"style-src": ["'unsafe-inline'"]}

        @hookimpl
        def om_csp(self) -> dict[str, list[str]]:
            return self.sources

    told = found(make_app(Charts(), OM_CSP_MODE="enforce")[0], "om_csp")
    assert told["level"] == "warn"
    assert "'unsafe-inline' has no effect in style-src" in told["message"]
    Charts.sources = {"style-src": ["https://charts.example"]}
    findings = run_json(make_app(Charts(), OM_CSP_MODE="enforce")[0], "doctor")
    assert not [one for one in findings if one["subject"] == "om_csp"]


def test_a_setting_in_small_letters_is_a_warning_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, _ = make_app(om_csp_mode="enforce", om_of_others=1)
    told = found(app, "om_csp_mode")
    assert (told["level"], told["way_out"]) == ("warn", "Write 'OM_CSP_MODE', in capitals.")
    app.test_client().get("/")
    assert "om_csp_mode: Nobody reads this key. Write 'OM_CSP_MODE', in capitals." in caplog.text
    assert "om_of_others" not in caplog.text


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("hook", ["om_notifiers", "om_monitors", "om_recovery_steps"])
def test_parts_that_nobody_has_asked_for_yet_are_looked_at(hook: str, strict: bool) -> None:
    class Wrong:
        pass

    setattr(Wrong, hook, hookimpl(specname=hook)(lambda self: "x"))
    app, _ = make_app(Wrong(), OM_STRICT=strict)
    (told,) = [one for one in run_json(app, "doctor") if f"{hook} returned" in one["message"]]
    assert told["level"] == "fail"
    assert "returned a str; return a list" in told["message"]


def test_a_proxyfix_inside_is_a_warning() -> None:
    app = Flask("shop")
    app.config.update(TESTING=True, OM_STRICT=False, OM_PLUGINS=())
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    OpenManager(app)
    assert "ProxyFix is inside OpenManager" in found(app, "OM_PROXIES")["message"]


def test_a_proxyfix_outside_is_fine_until_proxies_are_counted_too() -> None:
    app, _ = make_app()
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    assert found(app, "OM_PROXIES")["level"] == "ok"
    app, _ = make_app(OM_PROXIES=1)
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    assert found(app, "OM_PROXIES")["level"] == "fail"


def test_https_without_a_trusted_proxy_is_a_warning() -> None:
    assert found(make_app()[0], "OM_PROXIES")["level"] == "ok"
    app, _ = make_app(PREFERRED_URL_SCHEME="https")
    assert found(app, "OM_PROXIES")["level"] == "warn"
    app, _ = make_app(PREFERRED_URL_SCHEME="https", OM_PROXIES=1)
    assert found(app, "OM_PROXIES")["level"] == "ok"


@pytest.mark.parametrize(("mode", "warned"), [("enforce", True), ("adopt", False)])
def test_the_doctor_warns_of_whole_pages_that_are_cached_under_an_enforced_policy(
    mode: str, warned: bool
) -> None:
    app = Flask("cached")
    app.config.update(TESTING=True, OM_CSP_MODE=mode)
    app.extensions["cache"] = {}
    OpenManager(app)
    subjects = [finding["subject"] for finding in run_json(app, "doctor")]
    assert ("Flask-Caching" in subjects) is warned


# --- the doctor, without ------------------------------------------------------------------------


def make_kit(
    settings: Settings | None = None,
    *engines: EngineSpec,
    fallbacks: Sequence[FallbackOptions] = (),
    url: str = "sqlite:////srv/hub.sqlite3",
    testing: bool = False,
    namespace: str = "shop",
) -> Kit:
    """An application's parts, without a web framework; nothing of it is opened."""
    host = Host(testing=testing, name=namespace, declared={"fallback": list(fallbacks)})
    runtime = Runtime(settings or Settings(), host=host)
    for engine in engines:
        runtime.add_engine(engine)

    def hub_url() -> str:
        if not url:
            raise ConfigError("OM_HUB_URL", "redsi://h", "unknown scheme 'redsi'")
        return url

    runtime.kit.hub_url = hub_url
    return runtime.kit


def in_chain(name: str, tier: int = 1) -> EngineSpec:
    return EngineSpec(Echo(f"echo {tier}"), name, tier)


def about(kit: Kit, subject: str) -> list[Finding]:
    return [finding for finding in examine(kit) if finding.subject == subject]


def test_a_plain_set_up_has_nothing_to_warn_of() -> None:
    kit = make_kit(Settings(csp_mode="enforce"))
    assert [f for f in examine(kit) if f.level != "ok" and f.subject != "uWSGI"] == []


def test_every_finding_is_a_sentence_and_every_warning_has_a_way_out() -> None:
    settings = Settings(
        enabled=False,
        csp_mode="off",
        routes={"/a": {"chain": "chat", "rate": None, "cors": "*"}},
        chains={"caht": {}},
    )
    findings = examine(make_kit(settings, in_chain("chat"), url="memory://"))
    assert len([f for f in findings if f.level == "warn"]) >= 8
    for one in findings:
        assert one.message.endswith((".", "?"))
        assert one.level == "ok" or one.way_out


def test_the_kill_switch_is_told() -> None:
    (one,) = about(make_kit(Settings(enabled=False)), "OM_ENABLED")
    assert one.level == "warn"
    assert about(make_kit(), "OM_ENABLED") == []


def test_a_route_without_auth_is_a_warning() -> None:
    engines = in_chain("c"), in_chain("c", 2)
    route: Any = {"/a": {"chain": "c"}}
    (one,) = about(make_kit(Settings(routes=route), *engines), "OM_ROUTES['/a']")
    assert (one.level, "anybody may call it" in one.message) == ("warn", True)
    route = {"/a": {"chain": "c", "auth": bool}}
    (one,) = about(make_kit(Settings(routes=route), *engines), "OM_ROUTES['/a']")
    assert one.level == "ok"


def test_a_route_to_a_chain_without_engine_fails_with_the_nearest() -> None:
    route: Any = {"/a": {"chain": "caht", "auth": bool}}
    kit = make_kit(Settings(routes=route), in_chain("chat"))
    (one,) = about(kit, "OM_ROUTES['/a']")
    assert (one.level, one.way_out) == ("fail", "Did you mean 'chat'?")


def test_a_fallback_that_asks_a_chain_without_engine_fails_with_the_nearest() -> None:
    fallbacks: Any = {"/a": ["stale", "raports"], "/b": ["stael"], "/c": ["stale", "reports"]}
    kit = make_kit(
        Settings(fallback=fallbacks),
        in_chain("reports"),
        fallbacks=[FallbackOptions(answers=("other",)), FallbackOptions(answers=("reports",))],
    )
    (one,) = about(kit, "OM_FALLBACK['/a']")
    assert (one.level, one.way_out) == ("fail", "Did you mean 'reports'?")
    assert "the chain 'raports'" in one.message
    assert about(kit, "OM_FALLBACK['/b']")[0].way_out == "Did you mean 'stale'?"
    assert about(kit, "OM_FALLBACK['/c']")[0].level == "ok"
    (one,) = about(kit, "@om.fallback('other')")
    assert one.way_out == "Add an engine to it: om.engine(…, chain='other')."
    assert about(kit, "@om.fallback('reports')")[0].level == "ok"


def test_the_doctor_sees_the_fallbacks_of_views() -> None:
    app, om = make_app()
    om.fallback(chain="gone")  # after the app was bound, too
    assert found(app, "@om.fallback('gone')")["level"] == "fail"


def test_a_chain_with_one_engine_is_a_warning() -> None:
    kit = make_kit(None, in_chain("c"))
    assert [f.level for f in about(kit, "chain c")] == ["warn"]
    kit.part_of("chains").add(in_chain("c", 2))
    assert [f.level for f in about(kit, "chain c")] == ["ok"]


@pytest.mark.parametrize(
    ("url", "testing", "level"),
    [
        ("memory://", False, "warn"),
        ("memory://", True, "ok"),
        ("sqlite:///x", False, "ok"),
        ("", False, "fail"),
    ],
)
def test_a_hub_in_memory_is_a_warning_unless_testing(url: str, testing: bool, level: str) -> None:
    assert [f.level for f in about(make_kit(url=url, testing=testing), "OM_HUB_URL")] == [level]


@pytest.mark.parametrize(
    ("mode", "level"), [("enforce", "ok"), ("adopt", "warn"), ("learn", "warn"), ("off", "warn")]
)
def test_a_policy_that_is_not_enforced_is_a_warning(mode: str, level: str) -> None:
    kit = make_kit(Settings(csp_mode=mode))
    assert [f.level for f in about(kit, "OM_CSP_MODE")] == [level]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, []),
        ({"csp_preset": "compatible", "csp_script_hosts": ["https://cdn.example"]}, []),
        ({"csp_preset": "hash"}, []),
        ({"csp_preset": "api"}, []),
        ({"csp": {"script-src": ["'self'", "'unsafe-inline'"]}}, ["'unsafe-inline'"]),
        ({"csp": {"script-src": ["'nonce'", "'unsafe-eval'"]}}, ["eval"]),
        ({"csp": {"script-src": ["'nonce'", "https:", "data:"]}}, ["anywhere: https: data:"]),
        ({"csp": {"frame-ancestors": None}}, ["Every site may show the pages in a frame"]),
        (
            {"csp": {"frame-ancestors": None}, "headers": {"x-frame-options": "DENY"}},
            [],
        ),
        ({"csp": {"script-src": ["*"]}, "csp_mode": "off"}, []),
    ],
)
def test_what_makes_a_policy_weak_is_told(settings: dict[str, Any], words: list[str]) -> None:
    found = about(make_kit(Settings(**settings)), "OM_CSP")
    assert len(found) == len(words)
    for finding, said in zip(found, words, strict=True):
        assert finding.level == "warn"
        assert said in finding.message
        assert finding.way_out


def test_plugin_failures_fail_and_notes_warn() -> None:
    kit = make_kit(Settings(strict=False))
    kit.plugins.register(object(), "nothing")
    kit.plugins.register(Echo("half"), "half")
    levels = {f.subject: f.level for f in examine(kit) if f.subject.startswith("plugin ")}
    assert levels == {"plugin nothing": "fail", "plugin half": "fail"}


def test_uwsgi_without_threads_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uwsgi:
        opt: dict[str, bytes] = {}

    monkeypatch.setitem(sys.modules, "uwsgi", Uwsgi())  # type: ignore[arg-type]
    assert [f.level for f in about(make_kit(), "uWSGI")] == ["fail"]
    Uwsgi.opt = {"enable-threads": b"true"}
    assert [f.level for f in about(make_kit(), "uWSGI")] == ["ok"]


def test_missing_extras_are_told_with_their_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in EXTRAS:
        monkeypatch.setitem(EXTRAS, extra, "json" if extra != "redis" else "no_such_package")
    (one,) = about(make_kit(), "extras")
    assert (one.level, one.way_out) == ("ok", "pip install 'om-plugins[redis]' brings them.")
    (one,) = about(make_kit(Settings(cache_url="redis://h")), "OM_CACHE_URL")
    assert (one.level, one.way_out) == ("fail", "pip install 'om-plugins[redis]'")
    for extra in EXTRAS:
        monkeypatch.setitem(EXTRAS, extra, "no_such_package")
    (one,) = about(make_kit(Settings(cache_url="memcached://h")), "OM_CACHE_URL")
    assert (one.level, one.way_out) == ("fail", "pip install 'om-plugins[memcached]'")
    with pytest.raises(MissingExtra, match=r"pip install 'om-plugins\[prometheus\]'"):
        make_kit(Settings(metrics=True)).part_of("monitoring")


def test_a_common_name_on_a_server_that_others_may_use_is_a_warning() -> None:
    shared = Settings(cache_url="redis://h")
    assert [f.level for f in about(make_kit(shared, namespace="app"), "OM_NAMESPACE")] == ["warn"]
    assert about(make_kit(shared), "OM_NAMESPACE") == []
    assert about(make_kit(namespace="app"), "OM_NAMESPACE") == []
    chosen = Settings(hub_url="redis://h", namespace="app")
    assert about(make_kit(chosen, namespace="app"), "OM_NAMESPACE") == []


# --- as an operator types it --------------------------------------------------------------------

APP = """
from flask import Flask
from om_plugins import OpenManager

app = Flask(__name__)
app.config["OM_CSP_MODE"] = "enforce"
om = OpenManager(app)

@om.engine("local", chain="assistant", tier=1, local=True)
def local_answer(call):
    return "resting"
"""


def test_the_real_command_finds_the_group_and_opens_nothing(tmp_path: Path) -> None:
    tmp_path.joinpath("shop.py").write_text(APP)
    flask = [sys.executable, "-m", "flask", "--app", "shop", "om"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*flask, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = ask("engines", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["engine"] for row in json.loads(done.stdout)] == ["local"]
    done = ask("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warn  OM_SECRET_KEY: There is no secret key" in done.stdout
    assert not list(tmp_path.rglob("*.sqlite3*"))

"""The plugin host: with plugins made here, and with real ones that are really installed.

Covers ``om_plugins.plugins.checks``, ``om_plugins.plugins.config``, ``om_plugins.plugins.loading``
and ``om_plugins.plugins.parts``.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from om_plugins import EngineSpec, EngineTraits, PluginInfo, hookimpl
from om_plugins.errors import PluginError
from om_plugins.hookspecs import GROUP
from om_plugins.plugins.host import PluginHost
from om_plugins.plugins.loading import find_installed_plugins
from om_plugins.protocols import PluginContext
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import PluginStatus

THIRD_PARTY = Path(__file__).parents[1] / "third_party"


class Seen:
    """What a host emitted."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, signal: Any, **details: Any) -> None:
        self.events.append((signal.name, details))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [details for event, details in self.events if event == name]


def context_of(name: str, config: object, logger: logging.Logger) -> PluginContext:
    nothing: Any = None
    return PluginContext(
        name=name,
        config=config,
        clock=FakeClock(),
        hub=nothing,
        cache=nothing,
        scheduler=nothing,
        notify=nothing,
        logger=logger,
    )


def host(
    plugins: dict[str, object] | None = None, seen: Seen | None = None, **options: Any
) -> PluginHost:
    """A host with plugin objects registered, and nothing else unless asked for."""
    options = {"builtins": {}, "entry_points": list, "emit": seen or Seen(), **options}
    made = PluginHost(context=context_of, **options)
    made.load()
    for name, plugin in (plugins or {}).items():
        made.register(plugin, name)
    return made


def marked(function: Any, **options: Any) -> Any:
    """A copy of a function as a hook; the mark would stay on the function itself."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, None, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return hookimpl(copy, **options)


def plugin(*functions: Callable[..., Any], **named: Callable[..., Any]) -> types.ModuleType:
    """A module with those functions, those without a name of their own marked as hooks."""
    module = types.ModuleType("made_here")
    for function in functions:
        setattr(module, function.__name__, marked(function))
    for name, function in named.items():
        setattr(module, name, function)
    return module


def about(**details: Any) -> Callable[[], PluginInfo]:
    def om_plugin_info() -> PluginInfo:
        return PluginInfo(**details)

    return om_plugin_info


def om_csp() -> dict[str, list[str]]:
    return {"img-src": ["https://a.example"]}


def status(made: PluginHost, name: str) -> PluginStatus:
    (found,) = [one for one in made.get_statuses() if one.name == name]
    return found


@pytest.fixture
def modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], Callable[[], Iterable[EntryPoint]]]:
    """Write real modules and get entry points to them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points: list[EntryPoint] = []

    def write(name: str, source: str) -> Callable[[], Iterable[EntryPoint]]:
        module = f"plugin_{tmp_path.name.replace('-', '_')}_{name}"
        tmp_path.joinpath(f"{module}.py").write_text(source)
        entry_points.append(EntryPoint(name, module, GROUP))
        return lambda: entry_points

    return write


WORKS = "from om_plugins import hookimpl\n@hookimpl\ndef om_csp():\n    return {'img-src': ['*']}\n"
EXPLODES = "raise RuntimeError('must not be imported')\n"


# --- finding and filtering ----------------------------------------------------------------------


def test_builtin_and_installed_plugins_take_the_same_path(modules: Any) -> None:
    installed = modules("theirs", WORKS)
    modules("ours", WORKS)
    builtins = {entry.name: entry.value for entry in installed() if entry.name == "ours"}
    seen = Seen()
    made = host(
        seen=seen,
        builtins=builtins,
        entry_points=lambda: [e for e in installed() if e.name == "theirs"],
    )
    assert [name for name, _ in made.collect("om_csp")] == ["theirs", "ours"]
    assert status(made, "ours").source == "built-in"
    assert [event["name"] for event in seen.of("plugin_loaded")] == ["ours", "theirs"]


def test_a_disabled_plugin_is_never_imported(modules: Any) -> None:
    made = host(entry_points=modules("bad", EXPLODES), disabled=["bad"])
    found = status(made, "bad")
    assert (found.state, found.reason) == ("disabled", "named in OM_PLUGINS_DISABLED")


def test_a_disabled_builtin_is_never_imported(modules: Any) -> None:
    builtins = {entry.name: entry.value for entry in modules("bad", EXPLODES)()}
    assert status(host(builtins=builtins, disabled=["bad"]), "bad").state == "disabled"


def test_a_plugin_that_is_not_listed_is_never_imported(modules: Any) -> None:
    modules("bad", EXPLODES)
    made = host(entry_points=modules("good", WORKS), only=["good"])
    assert status(made, "good").state == "active"
    assert status(made, "bad").reason == "not listed in OM_PLUGINS"


def test_the_list_of_plugins_leaves_builtins_alone(modules: Any) -> None:
    builtins = {entry.name: entry.value for entry in modules("ours", WORKS)()}
    assert status(host(builtins=builtins, only=[]), "ours").state == "active"


def test_a_registered_object_can_be_disabled_by_name() -> None:
    made = host({"mine": plugin(om_csp)}, disabled=["mine"])
    assert status(made, "mine").state == "disabled"
    assert made.collect("om_csp") == []


@pytest.mark.parametrize(
    ("option", "key", "state"),
    [
        ({"only": ["greter"]}, "OM_PLUGINS", "failed"),
        ({"disabled": ["greter"]}, "OM_PLUGINS_DISABLED", "disabled"),
        ({"configs": {"greter": {}}}, "OM_PLUGIN_CONFIG", "failed"),
    ],
)
def test_a_name_that_matches_no_plugin_is_reported_with_the_nearest(
    option: dict[str, Any], key: str, state: str
) -> None:
    found = status(host({"greeter": plugin(om_csp)}, **option), "greter")
    assert (found.state, found.source) == (state, key)
    assert found.reason == f"{key} names 'greter', and no plugin has this name; " + (
        "did you mean 'greeter'?"
    )


def test_a_strict_host_raises_for_a_listed_plugin_that_is_not_installed() -> None:
    with pytest.raises(PluginError, match=r"OM_PLUGINS names 'gone'.*install it"):
        host(only=["gone"], strict=True)


def test_statuses_stand_in_order() -> None:
    made = host({"off": plugin(om_csp), "bad": plugin(), "good": plugin(om_csp)}, disabled=["off"])
    assert [(s.name, s.state) for s in made.get_statuses()] == [
        ("good", "active"),
        ("bad", "failed"),
        ("off", "disabled"),
    ]


def test_loading_twice_loads_once(modules: Any) -> None:
    made = host(entry_points=modules("once", WORKS))
    made.load()
    assert len(made.get_statuses()) == 1


def test_two_hosts_share_no_plugin() -> None:
    one, other = host({"mine": plugin(om_csp)}), host()
    assert one.collect("om_csp")
    assert other.collect("om_csp") == []


def distribution(site: Path, name: str, entry_points: bytes) -> None:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    folder.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    folder.joinpath("entry_points.txt").write_bytes(entry_points)


@pytest.mark.parametrize("damage", [b"[om_plugins]\nno value\n", b"\xff\xfe"])
def test_a_damaged_distribution_does_not_hide_the_others(
    damage: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    distribution(tmp_path, "a_damaged", damage)
    distribution(tmp_path, "sound", b"[om_plugins]\nsound = sound_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "sound" in [entry_point.name for entry_point in find_installed_plugins()]
    assert f"a distribution in {tmp_path} has damaged metadata" in caplog.text


def test_of_two_installations_of_a_distribution_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for site, module in (("second", "old"), ("first", "new")):
        distribution(tmp_path / site, "twice", f"[om_plugins]\ntwice = {module}\n".encode())
        monkeypatch.syspath_prepend(str(tmp_path / site))
    assert [e.value for e in find_installed_plugins() if e.name == "twice"] == ["new"]


# --- importing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package_here", "its import failed: ModuleNotFoundError: No module named"),
        ("def (", "its import failed: SyntaxError"),
        ("raise RuntimeError('no luck')", "its import failed: RuntimeError: no luck"),
        ("import sys; sys.exit(3)", "its import called sys.exit(3)"),
        ("from om_plugins.types import Teleporter", "it asks for another om-plugins, this is 0."),
    ],
)
def test_a_failing_import_is_reported_and_the_rest_goes_on(
    modules: Any, source: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    modules("bad", source)
    seen = Seen()
    made = host(seen=seen, entry_points=modules("good", WORKS))
    assert status(made, "bad").state == "failed"
    assert reason in status(made, "bad").reason
    assert [name for name, _ in made.collect("om_csp")] == ["good"]
    assert seen.of("plugin_failed") == [{"name": "bad", "reason": status(made, "bad").reason}]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.name for record in errors] == ["om_plugins"]
    assert errors[0].getMessage().startswith("plugin bad: its import ")


def test_a_keyboard_interrupt_passes_through(modules: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        host(entry_points=modules("bad", "raise KeyboardInterrupt"))


def test_a_strict_host_raises_with_the_cause(modules: Any) -> None:
    with pytest.raises(PluginError, match="plugin 'bad': its import failed: ") as caught:
        host(entry_points=modules("bad", "raise RuntimeError('no luck')"), strict=True)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_the_second_plugin_of_a_name_fails_and_the_first_stays() -> None:
    made = host({"one": plugin(om_csp)})
    made.register(plugin(om_csp), "one")
    first, second = made.get_statuses()
    assert (first.state, second.state) == ("active", "failed")
    assert "another plugin has this name already (from the application)" in second.reason
    assert len(made.collect("om_csp")) == 1


def test_one_object_under_two_names_fails_the_second_time() -> None:
    same = plugin(om_csp)
    made = host({"one": same, "two": same})
    assert status(made, "two").state == "failed"
    assert len(made.collect("om_csp")) == 1


# --- checking -----------------------------------------------------------------------------------


async def _async_engines(context: Any) -> list[Any]:
    return []


async def _async_generator(context: Any) -> Any:
    yield None


def _yielding(context: Any) -> Any:
    yield None


def _wrong_argument(contxt: Any) -> None: ...


def _keyword_only(context: Any, *, flavour: str) -> None: ...


def _wrapper() -> Any:
    yield


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ({"om_engine": marked(om_csp)}, "om_engine is not a hook; did you mean 'om_engines'?"),
        ({"paint": marked(om_csp)}, "paint is not a hook; known are om_plugin_info, om_features"),
        (
            {"paint": marked(om_csp, specname="om_cps")},
            "om_cps (specname of paint) is not a hook; did you mean 'om_csp'?",
        ),
        ({"om_engines": marked(_async_engines)}, "om_engines is an async def; "),
        ({"om_engines": marked(_async_generator)}, "om_engines is an async def; "),
        ({"om_startup": marked(_yielding)}, "om_startup cannot be used: a generator function"),
        ({"om_shutdown": marked(_yielding)}, "om_shutdown cannot be used: a generator function"),
        ({"om_caches": marked(_yielding)}, "om_caches cannot be used: a generator function"),
        ({"om_hubs": marked(_yielding)}, "om_hubs cannot be used: a generator function"),
        ({"om_csp": marked(_yielding)}, "om_csp cannot be used: a generator function"),
        (
            {"om_engines": marked(_wrong_argument)},
            "om_engines asks for an argument 'contxt' that the hook does not give; "
            "did you mean 'context'?",
        ),
        (
            {"om_engines": marked(_keyword_only)},
            "om_engines asks for an argument 'flavour' that the hook does not give; "
            "it gets context",
        ),
        (
            {"om_plugin_info": marked(_wrong_argument)},
            "om_plugin_info asks for an argument 'contxt' that the hook does not give; "
            "it gets nothing",
        ),
        ({"om_csp": marked(_wrapper, wrapper=True)}, "om_csp is a hook wrapper; "),
        ({"om_csp": marked(_wrapper, hookwrapper=True)}, "om_csp is a hook wrapper; "),
        (
            {"om_csp": om_csp},
            "has no function that is marked @hookimpl; om_csp is named like a hook and is not "
            "marked @hookimpl",
        ),
        ({}, "has no function that is marked @hookimpl"),
        (
            {"om_plugin_info": hookimpl(lambda: {"summary": "x"})},
            "om_plugin_info returned a dict; return a PluginInfo",
        ),
        (
            {"om_plugin_info": hookimpl(lambda: 1 / 0)},
            "om_plugin_info raised ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_broken_plugin_is_refused_in_words(
    functions: dict[str, Callable[..., Any]], reason: str
) -> None:
    made = host({"broken": plugin(**functions), "good": plugin(om_csp)})
    found = status(made, "broken")
    assert found.state == "failed"
    assert found.reason.startswith(reason)
    assert [name for name, _ in made.collect("om_csp")] == ["good"]


def test_every_problem_of_a_plugin_is_told_at_once() -> None:
    broken = plugin(om_engine=marked(om_csp), om_caches=marked(_async_engines))
    reason = status(host({"broken": broken}), "broken").reason
    assert "om_engine is not a hook" in reason
    assert "om_caches is an async def" in reason


def test_an_unmarked_function_named_like_a_hook_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = host({"half": plugin(om_csp, om_engines=lambda context: [])})
    found = status(made, "half")
    assert found.state == "active"
    assert found.reason == "om_engines is named like a hook and is not marked @hookimpl"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_hook_that_may_be_missing_is_left_alone() -> None:
    made = host({"modern": plugin(om_csp, om_teleport=hookimpl(lambda: 1, optionalhook=True))})
    assert status(made, "modern").hooks == ("om_csp",)


def test_a_newer_hook_api_is_told_before_unknown_hooks() -> None:
    newer = plugin(about(hook_api=99), om_teleport=hookimpl(lambda: 1))
    reason = status(host({"newer": newer}), "newer").reason
    assert reason.startswith("was written for hook API 99, this om-plugins 0.")
    assert "om_teleport" not in reason


def test_a_class_is_refused_with_the_way_out() -> None:
    class Plugin:
        @hookimpl
        def om_csp(self) -> dict[str, list[str]]:
            return {"img-src": ["*"]}

    assert "name an instance of it" in status(host({"cls": Plugin}), "cls").reason
    made = host({"object": Plugin()})
    assert made.collect("om_csp") == [("object", {"img-src": ["*"]})]


def test_a_plugin_whose_attributes_raise_is_refused() -> None:
    class Hostile:
        @hookimpl
        def om_csp(self) -> None: ...

        def __dir__(self) -> list[str]:
            raise RuntimeError("do not look")

    assert status(host({"hostile": Hostile()}), "hostile").reason == "RuntimeError: do not look"


def test_a_plugin_without_a_name_gets_its_own() -> None:
    class Plugin:
        @hookimpl
        def om_csp(self) -> None: ...

    named = Plugin()
    named.name = "chosen"  # type: ignore[attr-defined]
    made = host()
    for one in (Plugin(), named, plugin(om_csp)):
        made.register(one)
    assert [s.name for s in made.get_statuses()] == ["Plugin", "chosen", "made_here"]


def test_what_a_plugin_says_of_itself_is_shown() -> None:
    made = host({"wiki": plugin(about(summary="Answers from a wiki", version="3.1"), om_csp)})
    found = status(made, "wiki")
    assert (found.summary, found.version) == ("Answers from a wiki", "3.1")
    assert found.hooks == ("om_csp", "om_plugin_info")


# --- settings of plugins ------------------------------------------------------------------------


@dataclass
class WikiConfig:
    url: str
    limit: int = 10
    tags: tuple[str, ...] = ()
    on_error: Callable[..., object] | None = None

    def __post_init__(self) -> None:
        if self.limit > 100:
            raise ValueError("limit must be 100 at most")


def configured(config: Any, config_class: Any = WikiConfig) -> tuple[PluginStatus, Any]:
    """The plugin's status, and the config that its hook got."""
    got: list[Any] = []

    def om_startup(context: PluginContext) -> None:
        got.append(context.config)

    made = host(
        {"wiki": plugin(about(config_class=config_class), om_startup)}, configs={"wiki": config}
    )
    made.startup()
    return status(made, "wiki"), got[0] if got else None


def test_settings_reach_the_hook_as_the_plugins_own_object() -> None:
    handler = print
    _, config = configured({"url": "/w", "limit": "20", "tags": ["a"], "on_error": handler})
    assert config == WikiConfig("/w", 20, ("a",), handler)


def test_a_plugin_without_settings_gets_none() -> None:
    found, config = configured({}, config_class=None)
    assert (found.state, config) == ("active", None)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"url": "/w", "limt": 3},
            "OM_PLUGIN_CONFIG['wiki']['limt']: unknown key; did you mean 'limit'?",
        ),
        (
            {"url": "/w", "colour": 3},
            "OM_PLUGIN_CONFIG['wiki']['colour']: unknown key; known are url, limit, tags, on_error",
        ),
        ({}, "OM_PLUGIN_CONFIG['wiki']['url']: is required; set it"),
        (
            {"url": "/w", "limit": "many"},
            "OM_PLUGIN_CONFIG['wiki']['limit']: expected `int`, got `str`",
        ),
        (
            {"url": "/w", "limit": 500},
            "OM_PLUGIN_CONFIG['wiki']['limit']: limit must be 100 at most",
        ),
        (["url"], "OM_PLUGIN_CONFIG['wiki'] must be a dict with text keys, not list"),
        ({1: 2}, "OM_PLUGIN_CONFIG['wiki'] must be a dict with text keys, not dict"),
    ],
)
def test_bad_settings_name_the_key(config: Any, reason: str) -> None:
    found, _ = configured(config)
    assert (found.state, found.reason) == ("failed", reason)


def test_a_bad_value_is_not_repeated_for_it_may_be_a_secret() -> None:
    found, _ = configured({"url": "/w", "limit": "hunter2"})
    assert "hunter2" not in found.reason


def test_settings_for_a_plugin_that_has_none_are_refused() -> None:
    found, _ = configured({"url": "/w"}, config_class=None)
    assert found.reason == "OM_PLUGIN_CONFIG['wiki']: this plugin has no settings; take it out"


def test_a_settings_table_of_this_package_may_be_the_config_class() -> None:
    from om_plugins.chains.options import ChainPolicy

    _, config = configured({"retries": "2"}, config_class=ChainPolicy)
    assert config == ChainPolicy(retries=2)
    found, _ = configured({"retries": "no"}, config_class=ChainPolicy)
    assert found.reason.startswith("OM_PLUGIN_CONFIG['wiki']['retries']: must be a whole number")


def test_a_function_may_be_the_config_class() -> None:
    def make(*, limit: int = 1, **rest: object) -> tuple[int, dict[str, object]]:
        return limit, rest

    _, config = configured({"limit": "4", "other": "x"}, config_class=make)
    assert config == (4, {"other": "x"})


def test_an_error_that_names_no_key_names_the_table() -> None:
    def make(*, low: int, high: int) -> object:
        raise ValueError("the wrong way round")

    found, _ = configured({"low": 2, "high": 1}, config_class=make)
    assert found.reason == "OM_PLUGIN_CONFIG['wiki']: the wrong way round"


# --- calling ------------------------------------------------------------------------------------


class Echo:
    name = "echo"
    traits = EngineTraits()

    def call(self, call: Any) -> object:
        return call.payload


def test_each_plugin_gets_its_own_context() -> None:
    got: list[tuple[str, str]] = []

    def om_startup(context: PluginContext) -> None:
        got.append((context.name, context.logger.name))

    made = host({"one": plugin(om_startup), "two": plugin(om_startup)})
    made.startup()
    assert sorted(got) == [("one", "om_plugins.plugin.one"), ("two", "om_plugins.plugin.two")]


def test_pluggys_order_holds_across_plugins() -> None:
    def numbered(n: int, **options: bool) -> types.ModuleType:
        return plugin(om_csp=hookimpl(lambda: {"img-src": [str(n)]}, **options))

    made = host(
        {
            "first": numbered(1, trylast=True),
            "second": numbered(2, tryfirst=True),
            "third": numbered(3),
            "fourth": numbered(4),
        }
    )
    assert [name for name, _ in made.collect("om_csp")] == ["second", "fourth", "third", "first"]


def test_results_of_none_are_left_out() -> None:
    assert host({"quiet": plugin(om_csp=hookimpl(lambda: None))}).collect("om_csp") == []


def test_a_generator_runs_under_guard_to_its_end() -> None:
    def om_engines(context: PluginContext) -> Iterable[EngineSpec]:
        yield EngineSpec(Echo(), chain="c")
        raise RuntimeError("half way")

    made = host({"half": plugin(om_engines)})
    assert made.collect("om_engines") == []
    assert status(made, "half").reason == "om_engines raised RuntimeError: half way"


@pytest.mark.parametrize(
    ("hook", "result", "reason"),
    [
        ("om_engines", EngineSpec(Echo(), chain="c"), "returned an EngineSpec; return a list"),
        ("om_engines", [Echo()], "returned an Echo in its list; return EngineSpec objects"),
        (
            "om_engines",
            [EngineSpec(object(), chain="c")],
            "returned an object, which has no name and no traits and no call",
        ),
        ("om_caches", ["x"], "returned a list; return a dict from URL scheme to factory"),
        ("om_hubs", {"x": "y"}, "returned 'x': a str; a factory is a function"),
        ("om_csp", "img-src *", "returned a str; return a dict or a function"),
        ("om_notifiers", [object()], "returned an object, which has no name and no send"),
        ("om_monitors", [object()], "returned an object, which has no record"),
        ("om_notifiers", "log", "returned a str; return a list"),
    ],
)
def test_a_result_that_is_not_what_the_hook_returns_is_a_failure(
    hook: str, result: object, reason: str
) -> None:
    made = host({"odd": plugin(**{hook: hookimpl(lambda: result)})})
    assert made.collect(hook) == []
    assert status(made, "odd").reason == f"{hook} {reason}"


def test_a_hook_that_returns_a_coroutine_is_a_failure_and_leaves_none_open() -> None:
    made = host({"odd": plugin(om_engines=hookimpl(lambda: _async_engines(None)))})
    assert made.collect("om_engines") == []
    assert "returned something to await" in status(made, "odd").reason


@pytest.mark.parametrize("error", [RuntimeError("flooded"), SystemExit(1)])
def test_a_raising_hook_is_reported_and_the_others_are_called(error: BaseException) -> None:
    def fail() -> None:
        raise error

    seen = Seen()
    made = host({"bad": plugin(om_csp=hookimpl(fail)), "good": plugin(om_csp)}, seen=seen)
    assert [name for name, _ in made.collect("om_csp")] == ["good"]
    found = status(made, "bad")
    assert (found.state, found.failures) == ("active", 1)
    assert found.reason.startswith(f"om_csp raised {type(error).__name__}")
    assert [event["name"] for event in seen.of("plugin_failed")] == ["bad"]


def test_a_strict_host_raises_for_a_raising_hook() -> None:
    made = host({"bad": plugin(om_csp=hookimpl(lambda: 1 / 0))}, strict=True)
    with pytest.raises(PluginError, match="'bad': om_csp raised ZeroDivisionError"):
        made.collect("om_csp")


# --- guard and quarantine -----------------------------------------------------------------------


def fail() -> None:
    raise RuntimeError("again")


@pytest.mark.parametrize(
    "function", [_async_engines, _yielding, lambda context: _async_engines(context)]
)
def test_a_part_that_has_not_run_has_failed(function: Any) -> None:
    made = host({"bad": plugin(om_csp)})
    assert made.call_guarded("bad", function, None) == (False, None)
    assert "raised TypeError: it returned a " in status(made, "bad").reason


def test_a_plugin_is_quarantined_after_so_many_failures_in_a_row() -> None:
    seen = Seen()
    made = host({"bad": plugin(om_csp)}, seen=seen, max_failures=3)
    assert [made.call_guarded("bad", fail) for _ in range(3)] == [(False, None)] * 3
    found = status(made, "bad")
    assert (found.state, found.failures) == ("quarantined", 3)
    assert found.reason == "failed 3 times in a row; the last: fail raised RuntimeError: again"
    assert seen.of("plugin_quarantined") == [{"name": "bad", "failures": 3}]
    assert made.call_guarded("bad", lambda: "never called") == (False, None)
    assert made.collect("om_csp") == []


def test_a_success_forgets_the_failures_before_it() -> None:
    made = host({"flaky": plugin(om_csp)}, max_failures=2)
    for _ in range(5):
        made.call_guarded("flaky", fail)
        assert made.call_guarded("flaky", lambda a, b=0: a + b, 1, b=2) == (True, 3)
    assert status(made, "flaky").state == "active"
    assert status(made, "flaky").failures == 5


def test_a_quarantined_plugin_leaves_the_others_alone() -> None:
    made = host({"bad": plugin(om_csp), "good": plugin(om_csp)}, max_failures=1)
    made.call_guarded("bad", fail)
    assert [name for name, _ in made.collect("om_csp")] == ["good"]


def test_a_guarded_call_never_raises_even_when_strict(caplog: pytest.LogCaptureFixture) -> None:
    made = host({"bad": plugin(om_csp)}, strict=True)
    assert made.call_guarded("bad", fail) == (False, None)
    assert "plugin bad: fail raised RuntimeError: again" in caplog.text


def test_a_guarded_call_lets_what_stops_the_process_through() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host().call_guarded("anyone", stop)


def test_a_name_that_is_no_plugin_is_still_called_under_guard() -> None:
    assert host().call_guarded("the application", lambda: 1) == (True, 1)
    assert host().call_guarded("the application", fail) == (False, None)


def test_a_network_that_is_away_is_called_again_and_never_quarantined() -> None:
    seen = Seen()
    made = host({"chat": plugin(om_csp)}, seen=seen, max_failures=3)
    left: list[Exception] = [TimeoutError()] * 20 + [ConnectionRefusedError(111, "refused")] * 20

    def send() -> str:
        if left:
            raise left.pop()
        return "sent"

    answers = [made.call_guarded("chat", send) for _ in range(41)]
    assert answers == [(False, None)] * 40 + [(True, "sent")]
    found = status(made, "chat")
    assert (found.state, found.failures, found.reason) == ("active", 0, "")
    assert seen.of("plugin_quarantined") == []


def test_a_hook_that_finds_a_service_away_does_not_count() -> None:
    def connect() -> None:
        raise ConnectionError("the database is away")

    made = host({"chat": plugin(om_csp=hookimpl(connect))}, max_failures=1)
    assert made.collect("om_csp") == []
    assert status(made, "chat").state == "active"
    assert status(made, "chat").reason == "om_csp raised ConnectionError: the database is away"


# --- startup and shutdown -----------------------------------------------------------------------


def test_startup_and_shutdown_are_called_once() -> None:
    calls: list[str] = []
    functions = {
        "om_startup": hookimpl(lambda: calls.append("up")),
        "om_shutdown": hookimpl(lambda: calls.append("down")),
    }
    made = host({"one": plugin(**functions)})
    made.shutdown()
    made.startup()
    made.startup()
    made.shutdown()
    made.shutdown()
    assert calls == ["up", "down"]


def test_a_raising_shutdown_does_not_keep_the_others_from_theirs() -> None:
    calls: list[str] = []
    made = host(
        {
            "last": plugin(om_shutdown=hookimpl(lambda: calls.append("down"))),
            "bad": plugin(om_shutdown=hookimpl(fail)),
        },
        strict=True,
    )
    made.startup()
    made.shutdown()
    assert calls == ["down"]


def test_a_quarantined_plugin_may_give_its_resources_back() -> None:
    calls: list[str] = []
    made = host({"bad": plugin(om_shutdown=hookimpl(lambda: calls.append("down")))}, max_failures=1)
    made.startup()
    made.call_guarded("bad", fail)
    made.shutdown()
    assert calls == ["down"]


def test_startup_is_called_again_in_a_forked_process() -> None:
    calls: list[int] = []
    made = host({"one": plugin(om_startup=hookimpl(lambda: calls.append(os.getpid())))})
    made.startup()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        made.startup()
        made.startup()
        os.write(writer, bytes([len(calls)]))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert os.read(reader, 10) == b"\x02"
    os.close(reader)


# --- real distributions, really installed -------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both distributions of tests/third_party, installed by pip into a folder of their own."""
    work = tmp_path_factory.mktemp("third_party")
    target = work / "site"
    sources = []
    for name in ("greeter", "broken"):
        sources.append(str(work / name))
        shutil.copytree(
            THIRD_PARTY / name, work / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*install, "--no-build-isolation", "--target", str(target), *sources],
        check=True,
        timeout=120,
    )
    return target


BROKEN = {
    "broken-async": "om_engines is an async def",
    "broken-exit": "its import called sys.exit('no licence')",
    "broken-import": "No module named 'a_package_that_nobody_has'",
    "broken-info": "om_plugin_info raised RuntimeError: who am I?",
    "broken-misspelt": "om_engine is not a hook; did you mean 'om_engines'?",
    "broken-missing": "No module named 'om_plugins_broken.not_there'",
    "broken-newer": "install om-plugins>=99",
}

SCRIPT = """
import dataclasses, json, logging, sys
from om_plugins.plugins.host import PluginHost
from om_plugins.protocols import PluginContext

made = PluginHost(
    context=lambda name, config, logger: PluginContext(
        name=name, config=config, clock=None, hub=None, cache=None, scheduler=None, notify=None,
        logger=logger),
    builtins={}, configs={"greeter": {"greeting": "Hi"}}, emit=lambda *args, **details: None)
made.load()
from om_plugins import Call
answers = [
    spec.engine.call(Call({"name": "Ada"}, chain=spec.chain))
    for name, specs in made.collect("om_engines") for spec in specs
]
csp = made.collect("om_csp")
json.dump({"answers": answers, "csp": csp, "flask": "flask" in sys.modules,
           "statuses": [dataclasses.asdict(s) for s in made.get_statuses()]}, sys.stdout)
"""


def test_installed_distributions_are_found_in_a_new_process(
    installed: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = json.loads(done.stdout)
    states = {one["name"]: one for one in said["statuses"]}
    assert states["greeter"]["state"] == "active"
    assert states["greeter"]["source"] == "om-plugins-greeter"
    assert states["greeter"]["version"] == "1.2.0"
    assert said["answers"] == [{"answer": "Hi, Ada"}]
    assert [name for name, _ in said["csp"]] == ["greeter", "broken-raising"]
    assert states["broken-raising"]["reason"].endswith("the engine room is flooded")
    for name, reason in BROKEN.items():
        assert states[name]["state"] == "failed"
        assert reason in states[name]["reason"]
        assert f"plugin {name}: " in done.stderr
    assert said["flask"] is False


def test_installed_distributions_are_found_in_this_process(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    made = PluginHost(context=context_of, builtins={}, only=["greeter"], emit=Seen())
    made.load()
    found = status(made, "greeter")
    assert (found.state, found.version) == ("active", "1.2.0")
    assert status(made, "broken-exit").state == "disabled"
    assert "om_plugins_broken" not in sys.modules
    ((name, stores),) = made.collect("om_caches")
    assert (name, list(stores)) == ("greeter", ["folder"])
    for module in [m for m in sys.modules if m.startswith("om_plugins_greeter")]:
        monkeypatch.delitem(sys.modules, module)


APP = """
from flask import Flask
from om_plugins import OpenManager

app = Flask(__name__)
app.config["OM_PLUGIN_CONFIG"] = {"greeter": {"tier": 1}}
app.config["OM_PLUGINS_DISABLED"] = ["broken-exit"]
om = OpenManager(app)

@app.get("/")
def greet():
    return om.chain("assistant").call({"name": "Ada"}).payload
"""


def test_flask_om_plugins_names_every_broken_one_and_the_app_answers(
    installed: Path, tmp_path: Path
) -> None:
    tmp_path.joinpath("shop.py").write_text(APP)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(installed), str(tmp_path)))

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    rows = json.loads(run("-m", "flask", "--app", "shop", "om", "plugins", "--json").stdout)
    states = {row["name"]: (row["state"], row["reason"]) for row in rows}
    assert states["greeter"] == ("active", "")
    assert states["broken-exit"] == ("disabled", "named in OM_PLUGINS_DISABLED")
    table = run("-m", "flask", "--app", "shop", "om", "plugins").stdout
    for name in BROKEN.keys() - {"broken-exit"}:
        assert states[name][0] == "failed"
        assert BROKEN[name] in states[name][1]
        assert BROKEN[name] in table
    assert "the engine room is flooded" in states["broken-raising"][1]
    doctor = run("-m", "flask", "--app", "shop", "om", "doctor")
    assert doctor.returncode == 1
    assert "fail  plugin broken-misspelt: It is not used: om_engine is not a hook" in doctor.stdout
    answered = run("-c", "from shop import app; print(app.test_client().get('/').json)")
    assert answered.stdout == "{'answer': 'Hello, Ada'}\n", answered.stderr


def test_a_startup_that_raises_takes_it_from_no_other() -> None:
    started = []

    def fail() -> None:
        raise RuntimeError("no luck")

    def start() -> None:
        started.append("started")

    for first, last in ((fail, start), (start, fail)):
        plugins = {
            "one": plugin(om_startup=marked(first)),
            "two": plugin(om_startup=marked(last)),
        }
        with pytest.raises(PluginError, match="no luck"):
            host(plugins, strict=True).startup()
    assert started == ["started", "started"]

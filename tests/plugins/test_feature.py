"""Features: what is refused at registration, and how the kit builds and asks them.

Covers ``om_plugins.plugins.kit``, ``om_plugins.plugins.feature_kit`` and
``om_plugins.plugins.feature_checks`` as well.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import threading
import warnings
from dataclasses import FrozenInstanceError, dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar

import msgspec
import pytest
from click import Command
from werkzeug.test import Client

from om_plugins import (
    Card,
    Feature,
    FeatureSpec,
    Finding,
    Metric,
    OpenManagerMiddleware,
    Settings,
    Table,
    hookimpl,
    key,
    signals,
)
from om_plugins.console.dashboard import Dashboard
from om_plugins.console.doctor import examine
from om_plugins.errors import ConfigError, PluginError
from om_plugins.features import shipped
from om_plugins.plugins.feature import check_feature
from om_plugins.plugins.feature_checks import OWN_METRICS
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.settings.kinds import integer
from om_plugins.wsgi import compose


class Plain(Feature):
    name = "plain"

    def build(self, kit, keys):
        return "part"


def answer(environ, start_response):
    start_response("200 OK", [])
    return [b"answer"]


class Bringer:
    """A plugin that brings features."""

    def __init__(self, *specs):
        self.specs = specs

    @hookimpl
    def om_features(self):
        return self.specs


def make_runtime(*features, strict=None, **settings):
    specs = [one if isinstance(one, FeatureSpec) else FeatureSpec(one) for one in features]
    values = {f"OM_{name.upper()}": value for name, value in settings.items()}
    return Runtime(
        Settings.read({"OM_STRICT": strict, **values}),
        host=Host(testing=True),
        plugins=[(Bringer(*specs), "bringer")],
    )


# --- what is refused ----------------------------------------------------------------------------


def test_a_public_name_that_the_base_does_not_have_is_refused_with_the_nearest_one():
    class Wrong(Plain):
        def endpoint(self, kit, part):
            return {}

    with pytest.raises(TypeError, match=r"no 'endpoint' .*did you mean 'endpoints'"):
        check_feature(Wrong())


def test_a_public_name_that_is_near_none_is_told_to_begin_with_an_underscore():
    class Wrong(Plain):
        def xyzzy(self):
            return 1

    with pytest.raises(TypeError, match="begin it with '_': '_xyzzy'"):
        check_feature(Wrong())


@pytest.mark.parametrize("name", ["", "Plain", "a b", "1a", "a-b", "x" * 65])
def test_a_name_is_lower_case_letters_digits_and_underscores(name):
    wrong = type("Wrong", (Plain,), {"name": name})
    with pytest.raises(TypeError, match="name is"):
        check_feature(wrong())


def test_what_is_no_feature_is_refused():
    with pytest.raises(TypeError, match=r"no om_plugins\.Feature"):
        check_feature(object())
    with pytest.raises(TypeError, match="class of Table"):
        check_feature(type("Wrong", (Plain,), {"keys": dict})())


def test_a_feature_without_build_says_so():
    with pytest.raises(PluginError, match=r"Unbuilt\.build\(kit, keys\) is missing"):
        make_runtime(type("Unbuilt", (Feature,), {"name": "unbuilt"})())


# --- parts --------------------------------------------------------------------------------------


def test_a_part_that_another_one_needs_is_built_first_whatever_the_order():
    built = []

    class First(Plain):
        name = "first"

        def build(self, kit, keys):
            built.append(("first", kit.part_of("second")))
            return "1"

    class Second(Plain):
        name = "second"

        def build(self, kit, keys):
            built.append(("second", None))
            return "2"

    runtime = make_runtime(First(), Second())
    assert built == [("second", None), ("first", "2")]
    assert runtime.part_of("first") == "1"
    runtime.close()


def test_features_that_need_each_other_are_an_error_that_names_both():
    class Left(Plain):
        name = "left"

        def build(self, kit, keys):
            return kit.part_of("right")

    class Right(Plain):
        name = "right"

        def build(self, kit, keys):
            return kit.part_of("left")

    with pytest.raises(PluginError, match=r"left → right → left|right → left → right"):
        make_runtime(Left(), Right())


def test_a_part_of_an_unknown_feature_is_an_error_that_names_the_known_ones():
    runtime = make_runtime()
    with pytest.raises(ConfigError, match="Did you mean 'monitoring'"):
        runtime.part_of("monitorign")
    with pytest.raises(ConfigError, match=r"Known are .*monitoring"):
        runtime.part_of("xyzzy")
    runtime.close()


def test_a_feature_that_builds_nothing_is_off():
    asked = []

    class Off(Plain):
        def build(self, kit, keys):
            return None

        def endpoints(self, kit, part):
            asked.append(part)
            return {}

    runtime = make_runtime(Off())
    assert runtime.part_of("plain") is None
    runtime.kit.endpoints()
    assert asked == []
    runtime.close()


def test_start_and_close_are_called_once_for_each_part():
    called = []

    class Starting(Plain):
        def start(self, kit, part):
            called.append(("start", part))

        def close(self, kit, part):
            called.append(("close", part))

    runtime = make_runtime(Starting())
    assert called == []
    runtime.start()
    runtime.start()
    runtime.close()
    assert called == [("start", "part"), ("close", "part")]


# --- parts that are built when they are asked for ------------------------------------------------


class Late(Plain):
    name = "late"

    def __init__(self):
        self.calls = []

    def is_needed(self, kit, keys):
        return bool(kit.host.declared.get("late"))

    def build(self, kit, keys):
        self.calls.append("build")
        return self.calls

    def layer(self, kit, part, app):
        self.calls.append("layer")

    def start(self, kit, part):
        self.calls.append("start")

    def close(self, kit, part):
        self.calls.append("close")


def use_late(host=None):
    """A kit of the shipped features and a late one, which no plugin brought."""
    runtime = Runtime(Settings(), host=host or Host(testing=True))
    late = Late()
    runtime.kit.use([*shipped(), late])
    return runtime, late


def test_a_part_that_is_not_needed_is_built_when_it_is_asked_for():
    runtime, late = use_late()
    assert runtime.kit.find_built("late") is None
    compose(answer, runtime)
    assert late.calls == []
    assert runtime.part_of("late") is runtime.kit.find_built("late") is late.calls
    assert runtime.part_of("late") == ["build"]
    runtime.start()
    runtime.close()
    assert late.calls == ["build", "start", "close"]


def test_a_part_that_is_built_after_the_start_is_started_once_and_closed():
    runtime, late = use_late()
    runtime.start()
    assert late.calls == []
    runtime.part_of("late")
    runtime.part_of("late")
    runtime.start()
    assert late.calls == ["build", "start"]
    runtime.close()
    assert late.calls == ["build", "start", "close"]


def test_a_part_that_is_built_after_the_end_is_not_started():
    runtime, late = use_late()
    runtime.start()
    runtime.close()
    runtime.part_of("late")
    assert late.calls == ["build"]


def test_one_that_nobody_asked_for_is_neither_started_nor_closed():
    runtime, late = use_late()
    runtime.start()
    runtime.close()
    assert late.calls == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.parametrize("built", ["before", "after"])
def test_a_part_is_started_once_in_each_process_also_one_that_a_child_builds(built):
    runtime, late = use_late()
    runtime.start()
    if built == "before":
        runtime.part_of("late")
    before = list(late.calls)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, in a new Python
        child = os.fork()
    if not child:
        try:
            runtime.part_of("late")
            early = list(late.calls)
            runtime.start()
            runtime.part_of("late")
            runtime.kit.close()
            os.write(writing, json.dumps([early, late.calls]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    early, calls = json.loads(os.read(reading, 65_536))
    os.close(reading)
    built_calls = ["build", "start"] if built == "before" else ["build"]
    assert early == built_calls  # a child starts with its own first request
    assert calls == [*built_calls, "start", "close"]
    assert late.calls == before
    runtime.close()


def test_a_child_does_not_wait_for_a_thread_of_its_parent():
    runtime, _ = use_late()
    runtime.kit._building.append("late")
    runtime.kit.after_fork()
    assert runtime.part_of("late") == ["build"]
    runtime.close()


def test_two_threads_get_one_part():
    runtime, late = use_late()
    runtime.start()
    building, go_on, found = threading.Event(), threading.Event(), []
    build = late.build

    def build_slowly(kit, keys):
        building.set()
        assert go_on.wait(20)
        return build(kit, keys)

    late.build = build_slowly
    threads = [
        threading.Thread(target=lambda: found.append(runtime.part_of("late"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert building.wait(20)
    assert runtime.kit.find_built("late") is None
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert [one is late.calls for one in found] == [True] * 4
    assert late.calls == ["build", "start"]
    runtime.close()


def test_what_views_declare_makes_a_part_needed_when_the_layers_are_composed_again():
    declared = {}
    runtime, late = use_late(Host(testing=True, declared=declared))
    compose(answer, runtime)
    assert late.calls == []
    declared["late"] = [True]
    compose(answer, runtime)
    assert late.calls == ["build", "layer"]


def test_the_context_of_a_plugin_builds_the_parts_that_the_plugin_reads():
    runtime, _ = use_late()
    find = runtime.kit.find_built
    context = runtime.kit.plugin_context("mine", {"a": 1}, logging.getLogger("mine"))
    assert (context.name, context.config, context.hub) == ("mine", {"a": 1}, runtime.hub)
    assert [find(name) for name in ("cache", "notifications", "recovery")] == [None] * 3
    assert context.notify is context.notify is runtime.part_of("notifications")
    assert find("recovery") is None
    assert context.cache is runtime.part_of("cache")
    other = replace(context, name="other")
    assert (other.name, other.cache) == ("other", context.cache)
    assert other.prober is runtime.part_of("recovery").recovery.probes
    with pytest.raises(AttributeError, match="no attribute 'chains'"):
        context.chains  # noqa: B018
    with pytest.raises(FrozenInstanceError):
        context.cache = None


@pytest.mark.parametrize("method", ["metrics", "findings", "endpoints", "commands", "cards"])
def test_who_asks_all_features_gets_the_answers_of_all(method):
    runtime, late = use_late()
    getattr(runtime.kit, method)()
    assert late.calls == ["build"]


@pytest.mark.parametrize("strict", [True, False])
def test_a_late_part_of_a_plugin_that_fails_is_none_and_raises_into_no_request(strict, caplog):
    def fail(self, kit, keys):
        raise RuntimeError("no luck")

    broken = feature_of("broken", build=fail, is_needed=lambda self, kit, keys: False)
    runtime = make_runtime(strict=strict)
    runtime.start()
    runtime.kit._features["broken"] = broken
    runtime.kit._plugins["broken"] = "bringer"
    assert runtime.part_of("broken") is None
    assert "plugin bringer: the feature 'broken': build raised RuntimeError" in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alerts": {"response_tiem": {"limit": 1}}}, "OM_ALERTS"),
        ({"alerts": {"memory": {"limit": 0.5, "clear": 0.9}}}, "OM_ALERTS"),
        ({"http_cache": {"all": False, "routes": {"news": {"max_age": 1}}}}, "OM_HTTP_CACHE"),
        ({"http_cache": {"wait": -1}}, "OM_HTTP_CACHE"),
        ({"chains": {"a": {"timeout": -1}}}, "OM_CHAINS"),
        ({"chain_defaults": {"timeout": 1, "attempt_timeout": 2}}, "OM_CHAIN_DEFAULTS"),
        ({"display_names": {"a": 1}}, "OM_DISPLAY_NAMES"),
        ({"notify_audience": lambda one, two: []}, "OM_NOTIFY_AUDIENCE"),
        ({"cache_stale_time": 2, "cache_time": 1}, "OM_CACHE_STALE_TIME"),
        ({"cache_url": "redsi://h"}, "OM_CACHE_URL"),
        ({"cache_url": "file:///tmp/x?size=1"}, "OM_CACHE_URL"),
        ({"hub_url": "sqlite://hub"}, "OM_HUB_URL"),
        ({"routes": {"/_om/ask": {"chain": "a"}}}, "OM_ROUTES"),
        ({"fallback": {"/a": {"answer": ["stale"]}}}, "OM_FALLBACK"),
        ({"csp_script_hosts": ["https://a.example"]}, "OM_CSP_SCRIPT_HOSTS"),
        ({"hsts": {"max_age": -1}}, "OM_HSTS"),
        ({"console_auth": lambda: True}, "OM_CONSOLE_AUTH"),
    ],
)
def test_a_setting_that_cannot_work_stops_the_start(settings, words):
    with pytest.raises(ConfigError, match=words):
        make_runtime(**settings)


def test_metrics_without_their_package_stop_the_start(monkeypatch):
    monkeypatch.setattr("om_plugins.settings.extras.is_installed", lambda extra: False)
    with pytest.raises(ConfigError, match="OM_METRICS"):
        make_runtime(metrics=True)


# --- what all are asked -------------------------------------------------------------------------


class Asked(Plain):
    def card(self, kit, part):
        return Card("Plain", [("asked", 1)])

    def metrics(self, kit, part):
        return [Metric("om_plain", "How often", 1)]

    def findings(self, kit, part):
        return [Finding("ok", "plain", "It is there.")]


def test_cards_metrics_and_findings_are_asked_of_each():
    runtime = make_runtime(Asked())
    assert runtime.kit.cards()["plain"].rows == [("asked", 1)]
    assert [one.value for one in runtime.kit.metrics() if one.name == "om_plain"] == [1]
    assert "plain" in [one.subject for one in runtime.kit.findings()]
    runtime.close()


def test_one_that_raises_takes_nothing_from_the_others(caplog):
    class Raising(Asked):
        name = "raising"

        def _raise(self, kit, part):
            raise RuntimeError("no luck")

        card = metrics = findings = _raise

    runtime = make_runtime(Raising(), Asked())
    cards = runtime.kit.cards()
    assert "plain" in cards and "raising" not in cards
    assert "om_plain" in [one.name for one in runtime.kit.metrics()]
    (told,) = [one for one in runtime.kit.findings() if one.subject == "feature raising"]
    assert (told.level, bool(told.way_out)) == ("fail", True)
    assert "no luck" in caplog.text
    runtime.close()


@pytest.mark.parametrize("strict", [True, False])
def test_a_path_that_another_feature_has_is_the_plugins_failure(strict, caplog):
    class Second(Plain):
        name = "second"

        def endpoints(self, kit, part):
            return {"/csp": answer, "/second": answer}

    feature = FeatureSpec(Second(), before="monitoring")
    if strict:
        with pytest.raises(PluginError, match="returned the path '/csp', as another feature does"):
            make_runtime(feature, strict=True)
        return
    runtime = make_runtime(feature, strict=False)
    endpoints = runtime.kit.endpoints()
    assert endpoints["/csp"] is not answer
    assert endpoints["/second"] is answer
    assert "as another feature does" in caplog.text
    runtime.close()


# --- a third party's ----------------------------------------------------------------------------


def test_the_settings_of_a_third_partys_feature_are_read_and_checked():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class PlainKeys(Table):
        PREFIX: ClassVar[str] = "OM_"

        plain_limit: int = key(3, integer(1, 9), "how many", "Plain")

    class Limited(Plain):
        keys = PlainKeys

        def build(self, kit, keys):
            return keys.plain_limit

    assert make_runtime(Limited()).part_of("plain") == 3
    assert make_runtime(Limited(), plain_limit="5").part_of("plain") == 5
    with pytest.raises(ConfigError, match=r"OM_PLAIN_LIMIT 10: must be a whole number"):
        make_runtime(Limited(), plain_limit=10)
    with pytest.raises(ConfigError, match=r"OM_PLAIN_LIMTI .*did you mean 'OM_PLAIN_LIMIT'"):
        make_runtime(Limited(), plain_limti=1)
    with pytest.raises(ConfigError, match=r"OM_PLAIN_LIMIT 5: unknown key"):
        make_runtime(plain_limit=5)


def test_a_broken_feature_stops_the_start_only_under_strict(caplog):
    class Raising(Plain):
        name = "raising"

        def build(self, kit, keys):
            raise RuntimeError("no luck")

    with pytest.raises(PluginError, match="no luck"):
        make_runtime(Raising(), strict=True)
    runtime = make_runtime(Raising(), Asked(), strict=False)
    assert "no luck" in caplog.text
    assert runtime.part_of("cache") is not None
    runtime.close()


def test_a_feature_is_switched_off_by_its_name():
    runtime = make_runtime(Plain(), plugins_disabled=["plain"])
    assert "plain" not in dict(runtime.kit.built())
    assert runtime.part_of("plain") is None
    runtime.close()


def test_what_is_no_spec_is_the_plugins_failure():
    with pytest.raises(PluginError, match=r"no om_plugins\.FeatureSpec"):
        Runtime(host=Host(testing=True), plugins=[(Bringer(Plain()), "bringer")])


# --- what a third party's feature returns wrong ---------------------------------------------------


def feature_of(name="guest", **methods):
    return type("Guest", (Plain,), {"name": name, **methods})()


def reason_of(runtime):
    (found,) = [one for one in runtime.plugins.get_statuses() if one.name == "bringer"]
    return found.reason


class Sound(Asked):
    name = "sound"

    def endpoints(self, kit, part):
        return {"/sound": answer}


def refuse(feature, words, **settings):
    """Under strict it stops the start, else it is reported and the others work."""
    with pytest.raises(PluginError, match=words) as raised:
        make_runtime(feature, Sound(), strict=True, **settings)
    assert raised.value.plugin == "bringer"
    failed = []

    def told(sender, **details):
        failed.append(details)

    with signals.plugin_failed.connected_to(told):
        runtime = make_runtime(feature, Sound(), strict=False, **settings)
    assert [one["name"] for one in failed] == ["bringer"]
    assert re.search(words, failed[0]["reason"])
    assert re.search(words, reason_of(runtime))
    assert "/sound" in runtime.kit.endpoints()
    return runtime


async def an_asgi_app(scope, receive, send):
    pass


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"x": answer}, "'guest': endpoints .*'x': a path is text that begins with '/'"),
        ({5: answer}, "5: a path is text"),
        ({"/\ud800": answer}, "a path is text"),
        ({"/<a": answer}, "'/<a': is no rule"),
        ({"/<nothing:a>": answer}, "is no rule"),
        ({"/x": 5}, "'/x': 5 is no WSGI app"),
        ({"/x": an_asgi_app}, "'/x': .* is no WSGI app .an async function"),
        ({"/x": lambda environ: []}, "'/x': .* is no WSGI app .must take 2 arguments"),
        ([("/x", answer)], "is no mapping: return a dict"),
        ("/x", "is no mapping"),
        ({"/health": answer}, "the path '/health', as another feature does"),
        ({"/health/": answer}, "the path '/health/', as another feature does"),
    ],
)
def test_endpoints_that_cannot_be_served_are_left_out(found, words):
    runtime = refuse(feature_of(endpoints=lambda self, kit, part: found), words)
    assert set(runtime.kit.endpoints()) & {"x", 5, "/x", "/health", "/health/"} == set()
    runtime.close()


def test_a_generator_of_endpoints_is_refused():
    def endpoints(self, kit, part):
        yield "/x", answer

    refuse(feature_of(endpoints=endpoints), "is no mapping").close()


def test_endpoints_that_fail_later_take_nothing_from_the_others(caplog):
    asked = []

    def endpoints(self, kit, part):
        asked.append(1)
        if len(asked) > 1:
            raise RuntimeError("no luck")
        return {"/x": answer}

    runtime = make_runtime(feature_of(endpoints=endpoints), Sound(), strict=True)
    assert "/sound" in runtime.kit.endpoints()
    assert "plugin bringer: the feature 'guest': endpoints raised RuntimeError: no" in caplog.text
    runtime.close()


@pytest.mark.parametrize("layer", [5, "app"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_layer_that_is_no_app_is_left_out(layer, strict, caplog):
    feature = feature_of(layer=lambda self, kit, part, app: layer)
    runtime = make_runtime(feature, strict=strict)
    if strict:
        with pytest.raises(PluginError, match=r"'guest': layer returned .* is no WSGI app"):
            compose(answer, runtime)
    else:
        compose(answer, runtime)
        assert "guest" not in runtime.kit.layers
        assert "is no WSGI app" in caplog.text
    runtime.close()


async def a_coroutine(*_):
    return None


async def an_async_generator(*_):
    yield None


METHODS = [
    "build", "layer", "endpoints", "commands", "start", "close", "card", "metrics", "findings"
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("function", [a_coroutine, an_async_generator])
def test_an_async_method_is_refused(method, function):
    with pytest.raises(TypeError, match=rf"Guest\.{method} is an async def"):
        check_feature(feature_of(**{method: function}))


@pytest.mark.parametrize("method", ["build", "start", "close"])
def test_a_method_that_would_not_run_is_refused(method):
    def yielding(self, *args):
        yield

    with pytest.raises(TypeError, match=rf"Guest\.{method} cannot be called: a generator function"):
        check_feature(feature_of(**{method: yielding}))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_with_other_arguments_is_refused(method):
    def strange(self, one, two, three, four):
        pass

    with pytest.raises(TypeError, match=rf"Guest\.{method} cannot be called: must take"):
        check_feature(feature_of(**{method: strange}))


@pytest.mark.parametrize("said", [None, 1, "yes", 0, [], object()])
def test_whether_a_feature_is_needed_is_true_or_false(said):
    feature = feature_of(is_needed=lambda self, kit, keys: said)
    refuse(feature, "is_needed raised TypeError: it returned .*: return True or False").close()


class SaysItIsBool:
    @property
    def __class__(self):
        return bool


@pytest.mark.parametrize("said", [None, 1, "yes", object, SaysItIsBool, ZeroDivisionError])
def test_a_feature_that_does_not_say_whether_it_is_needed_is_left_out(said):
    def is_needed(self, kit, keys):
        if said is ZeroDivisionError:
            raise said
        return said() if isinstance(said, type) else said

    built = []
    feature = feature_of(
        is_needed=is_needed,
        build=lambda self, kit, keys: built.append(1) or "part",
        layer=lambda self, kit, part, app: built.append(2) or app,
    )
    runtime = make_runtime(feature, strict=False)
    compose(answer, runtime)
    assert runtime.part_of("guest") is None
    assert built == []
    runtime.close()


def test_a_third_partys_feature_that_is_not_needed_has_no_layer_and_is_built_when_asked_for():
    built = []
    feature = feature_of(
        is_needed=lambda self, kit, keys: False,
        build=lambda self, kit, keys: built.append("part") or "part",
        layer=lambda self, kit, part, app: built.append("layer"),
        endpoints=lambda self, kit, part: {"/guest": answer},
    )
    runtime = make_runtime(feature)
    compose(answer, runtime)
    assert built == []
    assert "/guest" in runtime.kit.endpoints()
    assert runtime.part_of("guest") == "part"
    assert built == ["part"]
    runtime.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_is_none_is_refused(method):
    with pytest.raises(TypeError, match=rf"Guest\.{method} is 5: it must be a method"):
        check_feature(feature_of(**{method: 5}))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["build", "endpoints"])
def test_a_coroutine_is_no_answer(method):
    feature = feature_of(**{method: lambda self, *args: a_coroutine()})
    refuse(feature, f"{method} raised TypeError: it returned a coroutine").close()


@pytest.mark.parametrize("name", [None, 5, b"plain"])
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(TypeError, match="it must be 1 to 64 lower-case letters"):
        check_feature(feature_of(name=name))


# --- findings, cards and metrics ------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        5,
        Finding("bad", "x", "y"),
        Finding(["ok"], "x", "y"),
        Finding("ok", 5, "y"),
        Finding("ok", "x", None),
        Finding("ok", "x", "\ud800"),
    ],
)
def test_a_wrong_finding_is_a_failure_that_names_the_feature(wrong):
    good = Finding("ok", "good", "It is there.")
    runtime = make_runtime(feature_of(findings=lambda self, kit, part: [wrong, good]))
    found = runtime.kit.findings()
    assert good in found
    (told,) = [one for one in found if one.subject == "feature guest"]
    assert told.level == "fail"
    assert all(isinstance(one, Finding) for one in found)
    runtime.close()


@pytest.mark.parametrize("found", [None, 5])
def test_findings_that_are_no_list_are_a_failure(found):
    runtime = make_runtime(feature_of(findings=lambda self, kit, part: found))
    assert "feature guest" in [one.subject for one in runtime.kit.findings()]
    runtime.close()


def test_what_is_no_card_is_left_out_in_the_plugins_name(caplog):
    runtime = make_runtime(feature_of(card=lambda self, kit, part: {"title": "x"}), Sound())
    assert set(runtime.kit.cards()) >= {"sound"}
    assert "guest" not in runtime.kit.cards()
    assert "plugin bringer: the feature 'guest': card raised TypeError" in caplog.text
    runtime.close()


def test_failures_in_a_row_put_the_plugin_in_quarantine():
    def fail(self, kit, part):
        raise RuntimeError("no luck")

    runtime = make_runtime(feature_of(card=fail), plugin_failures=3)
    for _ in range(4):
        runtime.kit.cards()
    (found,) = [one for one in runtime.plugins.get_statuses() if one.name == "bringer"]
    assert (found.state, found.failures) == ("quarantined", 3)
    assert "the feature 'guest': card raised RuntimeError: no luck" in found.reason
    assert "feature guest" in [one.subject for one in runtime.kit.findings()]
    runtime.close()


class Half(float):
    """As numpy's numbers are."""


@pytest.mark.parametrize("value", [Half(0.5), 0.5, Fraction(1, 2), Decimal("0.5")])
def test_the_value_of_a_metric_is_any_real_number(value):
    metric = Metric("guest_halves", "Halves", value)
    runtime = make_runtime(feature_of(metrics=lambda self, kit, part: [metric]))
    (found,) = [one for one in runtime.kit.metrics() if one.name == "guest_halves"]
    assert (type(found.value), found.value) == (float, 0.5)
    runtime.close()


LABEL = {"a": "b"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (5, "5 is no om_plugins.Metric"),
        (Metric("a b", "x", 1), "'a b': a name is letters"),
        (Metric(5, "x", 1), "5: a name is letters"),
        (Metric("x" * 301, "x", 1), "a name is letters"),
        (Metric("x", "x", 1, None, "histogram"), "'histogram' is no counter or gauge"),
        (Metric("x_total", "x", 1), "leave out '_total'"),
        (Metric("om_cache_lookups", "x", 1), "om_plugins has metrics of such names"),
        (Metric("om_http_requests", "x", 1), "om_plugins has metrics of such names"),
        (Metric("x", 5, 1), "the help 5 is no text"),
        (Metric("x", "x", True), "True is no number"),
        (Metric("x", "x", "1"), "'1' is no number"),
        (Metric("x", "x", None), "None is no number"),
        (Metric("x", "x", 1j), "is no number"),
        (Metric("x", "x", float("nan")), "is not between 0"),
        (Metric("x", "x", float("inf")), "is not between 0"),
        (Metric("x", "x", 10**400), "is not between 0"),
        (Metric("x", "x", -1), "is not between 0"),
        (Metric("x", "x", 1, ["a"]), "are no mapping"),
        (Metric("x", "x", 1, {"a": 5}), "are no mapping"),
        (Metric("x", "x", 1, {5: "a"}), "are no mapping"),
        (Metric("x", "x", 1, {"a b": "c"}), "are no mapping"),
        (Metric("x", "x", 1, {"a": "\ud800"}), "are no mapping"),
        (Metric("x", "x", 1, {f"a{n}": "b" for n in range(5)}), "are no mapping of at most 4"),
    ],
)
def test_a_wrong_metric_is_left_out_and_reported_once(wrong, words, caplog):
    good = Metric("guest_good", "Good", 1)
    feature = feature_of(metrics=lambda self, kit, part: [wrong, good])
    runtime = make_runtime(feature, strict=True)
    for _ in range(3):
        assert [one for one in runtime.kit.metrics() if one.name == "guest_good"]
    assert wrong not in runtime.kit.metrics()
    assert len(re.findall(words, caplog.text)) == 1
    assert "plugin bringer: the feature 'guest': metrics returned a wrong value" in caplog.text
    assert re.search(words, reason_of(runtime))
    runtime.close()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Metric("x", "about", 1), Metric("x", "another", 1)),
        (Metric("x", "about", 1), Metric("x", "about", 1, None, "gauge")),
        (Metric("x", "about", 1), Metric("x_total", "about", 1, None, "gauge")),
        (Metric("x_total", "about", 1, None, "gauge"), Metric("x", "about", 1)),
    ],
)
def test_a_name_has_one_kind_and_one_help(first, second, caplog):
    runtime = make_runtime(feature_of(metrics=lambda self, kit, part: [first, second]))
    names = [(one.name, one.kind, one.about) for one in runtime.kit.metrics()]
    assert (first.name, first.kind, first.about) in names
    assert (second.name, second.kind, second.about) not in names
    assert "a name has one kind and one help" in caplog.text
    runtime.close()


def test_a_metric_of_another_feature_is_not_taken(caplog):
    def metrics(self, kit, part):
        return [Metric("x", "about", 1, {"of": self.name})]

    runtime = make_runtime(feature_of("one", metrics=metrics), feature_of("two", metrics=metrics))
    assert [one.labels for one in runtime.kit.metrics() if one.name == "x"] == [{"of": "one"}]
    assert "the feature 'one' has the counter x" in caplog.text
    runtime.close()


def test_all_shipped_metrics_have_names_that_are_kept_for_them():
    runtime = make_runtime(metrics=True, http_cache=True)
    runtime.start()
    engine_counts = ["om_engine_answers", "om_fallback_answers", "om_process_cpu_seconds"]
    for name in [*(one.name for one in runtime.kit.metrics()), *engine_counts]:
        assert OWN_METRICS.fullmatch(name), name
    runtime.close()


# --- start and close ------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
def test_a_start_that_raises_takes_it_from_no_other(strict, caplog):
    started = []

    def fail(self, kit, part):
        raise RuntimeError("no luck")

    last = feature_of("last", start=lambda self, kit, part: started.append(self.name))
    runtime = make_runtime(feature_of("first", start=fail), last, strict=strict)
    middleware = OpenManagerMiddleware(answer, runtime=runtime)
    client = Client(middleware)
    if strict:
        with pytest.raises(PluginError, match="'first': start raised RuntimeError: no luck"):
            client.get("/")
    else:
        assert client.get("/").text == "answer"
        assert "no luck" in caplog.text
    assert started == ["last"]
    assert client.get("/").text == "answer"
    assert started == ["last"]
    runtime.close()


@pytest.mark.parametrize("strict", [True, False])
def test_a_close_that_raises_takes_it_from_no_other(strict, caplog):
    closed = []

    def fail(self, kit, part):
        raise SystemExit(1)

    last = feature_of("last", close=lambda self, kit, part: closed.append(self.name))
    runtime = make_runtime(feature_of("first", close=fail), last, strict=strict)
    runtime.start()
    runtime.hub.close = lambda: closed.append("hub")
    runtime.close()
    assert closed == ["last", "hub"]
    assert "plugin bringer: the feature 'first': close raised SystemExit" in caplog.text


# --- parts and places -----------------------------------------------------------------------------


def test_a_part_of_an_unknown_feature_is_the_plugins_failure():
    feature = feature_of(build=lambda self, kit, keys: kit.part_of("chache"))
    runtime = refuse(feature, "'guest' asks for the part of 'chache'.* Did you mean 'cache'")
    assert runtime.part_of("guest") is None
    runtime.close()


def test_the_part_of_one_that_failed_is_none_for_those_that_need_it():
    def fail(self, kit, keys):
        raise RuntimeError("no luck")

    needs = feature_of("needs", build=lambda self, kit, keys: [kit.part_of("broken")])
    runtime = make_runtime(needs, feature_of("broken", build=fail), strict=False)
    assert runtime.part_of("needs") == [None]
    assert "'broken': build raised RuntimeError: no luck" in reason_of(runtime)
    runtime.close()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (FeatureSpec(feature_of(), after="haeders"), "'guest' has no place.*mean 'headers'"),
        (FeatureSpec(feature_of(), after="gateway", before="headers"), "is outside of 'gateway'"),
        (FeatureSpec(feature_of("headers")), "'headers' has no place: .*has this name; rename it"),
        (FeatureSpec(feature_of("sound")), "'sound' has no place|another feature has this name"),
    ],
)
def test_a_feature_without_a_place_is_the_plugins_failure(spec, words):
    if spec.feature.name == "sound":
        with pytest.raises(PluginError, match=words):
            make_runtime(spec, Sound(), strict=True)
        return
    runtime = refuse(spec, words)
    assert spec.feature not in [feature for feature, _ in runtime.kit.built()]
    runtime.close()


def test_a_place_that_is_no_text_is_refused():
    with pytest.raises(PluginError, match="'guest' has after=5: it must be the name"):
        make_runtime(FeatureSpec(feature_of(), after=5))


@pytest.mark.parametrize("turned", [True, False])
def test_one_is_placed_beside_another_plugins_whatever_the_order(turned):
    plugins = [
        (Bringer(FeatureSpec(feature_of("one"), after="headers")), "one"),
        (Bringer(FeatureSpec(feature_of("two"), after="one")), "two"),
    ]
    runtime = Runtime(host=Host(testing=True), plugins=plugins[::-1] if turned else plugins)
    names = [feature.name for feature, _ in runtime.kit.built()]
    at = names.index("headers")
    assert names[at + 1 : at + 3] == ["one", "two"]
    runtime.close()


# --- settings -------------------------------------------------------------------------------------


def table_of(*, prefix="OM_", default=3, value=None):
    value = key(default, integer(1, 9), "how many", "Guest") if value is None else value
    body = {"__annotations__": {"guest_limit": "int"}, "guest_limit": value}
    cls = type("GuestKeys", (Table,), {"PREFIX": prefix, **body})
    return dataclass(frozen=True, kw_only=True)(cls)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (type("GuestKeys", (Table,), {"PREFIX": "OM_"}), ": mark it with @dataclass"),
        (table_of(value=3), "whose field 'guest_limit' has no check"),
        (table_of(default=10), "'guest_limit' has the default 10: it must be a whole number"),
        (table_of(prefix=""), "'guest_limit'.*set its PREFIX to 'OM_'"),
        (table_of(prefix="GUEST_"), "GUEST_GUEST_LIMIT.*set its PREFIX to 'OM_'"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(table, words):
    with pytest.raises(TypeError, match=rf"Guest\.keys is GuestKeys.*{words}"):
        check_feature(feature_of(keys=table))
    with pytest.raises(PluginError, match=words):
        make_runtime(feature_of(keys=table), strict=True)


def test_a_key_of_another_table_is_the_plugins_failure():
    cls = type(
        "GuestKeys",
        (Table,),
        {
            "PREFIX": "OM_",
            "__annotations__": {"csp_mode": "int"},
            "csp_mode": key(3, integer(1, 9), "", ""),
        },
    )
    table = dataclass(frozen=True, kw_only=True)(cls)
    runtime = refuse(feature_of(keys=table), r"'guest' \(Guest\): GuestKeys declares OM_CSP_MODE")
    assert runtime.part_of("guest") is None
    runtime.close()


def test_the_settings_of_one_that_is_left_out_stop_nothing(caplog):
    bad = FeatureSpec(feature_of("bad name", keys=table_of()))
    runtime = make_runtime(bad, strict=False, guest_limit=5)
    assert "OM_GUEST_LIMIT 5: unknown key" in caplog.text
    assert "of a plugin that failed" in caplog.text
    runtime.close()


def test_a_name_of_a_feature_in_plugins_disabled_is_known(caplog):
    runtime = make_runtime(feature_of(), plugins_disabled=["guest"])
    runtime.start()
    assert "no plugin has this name" not in caplog.text
    assert "guest" not in [one.name for one in runtime.plugins.get_statuses()]
    runtime.close()


def test_a_shipped_feature_is_switched_off_by_its_own_settings():
    with pytest.raises(ConfigError, match=r"OM_PLUGINS_DISABLED .*cache.*its own settings"):
        make_runtime(plugins_disabled=["cache"])


# --- commands -------------------------------------------------------------------------------------


async def answer_later():
    pass


cached_later = functools.lru_cache(answer_later)


def test_commands_that_are_wrong_or_taken_are_reported(caplog):
    def commands(self):
        named = ["", "doctor", "cache", "guest"]
        later = [Command("later", callback=answer_later), Command("cached", callback=cached_later)]
        return [5, *later, *(Command(name) for name in named)]

    runtime = make_runtime(feature_of(commands=commands), strict=False)
    found = runtime.kit.commands(["doctor"])
    assert "guest" in found
    assert not {"", "doctor", "later", "cached"} & set(found)
    for words in (
        "5 is no click.Command",
        "a command has the name ''",
        "the command 'later' would run nothing: an async function",
        "the command 'cached' would run nothing: lru_cache keeps",
        "returned 'doctor', which another command is named",
    ):
        assert "plugin bringer: the feature 'guest': commands returned" in caplog.text
        assert words in caplog.text
    runtime.close()


@pytest.mark.parametrize(
    "card",
    [
        Card("\ud800", [("asked", 1)]),
        Card("Guest", [("\ud800", 1)]),
        Card("Guest", 5),
        Card("Guest", data={"guest": "\ud800"}),
        Card("Guest", data={"guest": {1: object()}}),
    ],
)
def test_a_card_that_is_no_json_is_left_out_of_the_overview(card, caplog):
    runtime = make_runtime(feature_of(card=lambda self, kit, part: card), Sound())
    overview = json.loads(msgspec.json.encode(Dashboard(runtime.kit).read("minutes")))
    assert overview["cards"]["sound"]["title"] == "Plain"
    assert "guest" not in overview["cards"]
    assert "guest" not in overview
    assert "plugin bringer: the feature 'guest': card raised" in caplog.text
    runtime.close()


def test_the_data_of_a_card_replaces_nothing_of_the_others():
    plain = make_runtime()
    expected = set(plain.kit.cards())
    shipped = {key for card in plain.kit.cards().values() for key in card.data or {}}
    plain.close()
    data = dict.fromkeys([*shipped, "at", "guest"], "taken")
    card = Card("Guest", data=data)
    feature = FeatureSpec(feature_of(card=lambda self, kit, part: card), before="deadline")
    runtime = make_runtime(feature)
    overview = Dashboard(runtime.kit).read("minutes")
    assert [key for key, value in overview.items() if value == "taken"] == ["guest"]
    assert set(runtime.kit.cards()) == {*expected, "guest"}
    runtime.close()


def test_an_error_that_is_no_unicode_takes_the_overview_from_nobody(caplog):
    caplog.set_level("CRITICAL", "om_plugins")  # pytest-xdist cannot send its traceback

    def fail(self, kit, part):
        raise RuntimeError("\ud800")

    runtime = make_runtime(feature_of(card=fail, endpoints=fail), strict=False)
    runtime.kit.cards()
    overview = json.loads(msgspec.json.encode(Dashboard(runtime.kit).read("minutes")))
    (about,) = [one["about"] for one in overview["plugins"] if one["name"] == "bringer"]
    assert "card raised RuntimeError: \\ud800" in about
    runtime.close()


def test_the_doctor_names_the_plugin_of_a_broken_feature():
    runtime = make_runtime(feature_of(endpoints=lambda self, kit, part: 5), strict=False)
    (found,) = [one for one in examine(runtime.kit) if one.subject == "plugin bringer"]
    assert found.level == "fail"
    assert "the feature 'guest': endpoints returned a wrong value" in found.message
    assert found.way_out
    runtime.close()


def test_the_status_of_a_plugin_has_all_its_failures():
    found = {"x": answer, "/y": 5}
    runtime = make_runtime(feature_of(endpoints=lambda self, kit, part: found), strict=False)
    assert "'x': a path is text" in reason_of(runtime)
    assert "'/y': 5 is no WSGI app" in reason_of(runtime)
    runtime.close()


def test_of_many_failures_the_status_has_the_last_ones():
    found = {f"/x{number}": 5 for number in range(100)}
    runtime = make_runtime(feature_of(endpoints=lambda self, kit, part: found), strict=False)
    assert "'/x99': 5 is no WSGI app" in reason_of(runtime)
    assert len(reason_of(runtime)) <= 600
    runtime.close()


@pytest.mark.parametrize("method", ["metrics", "findings"])
@pytest.mark.parametrize("found", [None, 5])
def test_what_is_no_list_is_reported_with_the_way_out(method, found, caplog):
    runtime = make_runtime(feature_of(**{method: lambda self, kit, part: found}), Sound())
    assert "om_plain" in [one.name for one in runtime.kit.metrics()]
    assert "plain" in [one.subject for one in runtime.kit.findings()]
    assert f"{method} raised TypeError: it returned {found!r}: return a list" in caplog.text
    runtime.close()

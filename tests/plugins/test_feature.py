"""Features: what is refused at registration, and how the kit builds and asks them.

Covers ``om_plugins.plugins.kit``, ``om_plugins.plugins.feature_kit`` and
``om_plugins.plugins.feature_checks`` as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from om_plugins import Card, Feature, FeatureSpec, Finding, Metric, Settings, Table, hookimpl, key
from om_plugins.errors import ConfigError, PluginError
from om_plugins.plugins.feature import check_feature
from om_plugins.plugins.feature_checks import nearest
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.settings.kinds import integer


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


def test_the_nearest_name_is_told_as_a_question():
    assert nearest("chta", ["chat", "other"]) == "Did you mean 'chat'?"
    assert nearest("xyz", ["chat"]) == ""

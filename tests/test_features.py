"""The table of features: its order, where others are placed, and the settings that it declares.

Each shipped feature is tested through what it brings, in its folder. This covers the modules
``om_plugins.browser.feature``, ``om_plugins.cache.feature``, ``om_plugins.chains.feature``,
``om_plugins.chains.options``, ``om_plugins.console.feature``, ``om_plugins.csp.feature``,
``om_plugins.fallback.feature``, ``om_plugins.fallback.options``, ``om_plugins.gateway.feature``,
``om_plugins.gateway.options``, ``om_plugins.headers.feature``, ``om_plugins.http_cache.feature``,
``om_plugins.monitoring.feature``, ``om_plugins.notifications.feature``,
``om_plugins.recovery.feature``, ``om_plugins.settings.compose``, ``om_plugins.settings.extras``,
``om_plugins.settings.general`` and ``om_plugins.settings.table``.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from om_plugins import Feature, FeatureSpec, OpenManagerMiddleware, Settings
from om_plugins.errors import ConfigError
from om_plugins.features import ROWS, in_order, shipped, tables


class Mine(Feature):
    name = "mine"

    def build(self, kit, keys):
        return 1


def names(*specs):
    return [feature.name for feature in in_order(specs)]


def test_each_row_names_its_feature():
    assert [feature.name for feature in shipped()] == [name for name, _ in ROWS]


def test_no_key_is_declared_twice():
    keys = [key for table in tables(shipped()) for key in table.keys()]  # noqa: SIM118
    assert len(keys) == len(set(keys))


def test_the_layers_are_composed_in_the_order_of_the_rows():
    app = OpenManagerMiddleware(
        lambda environ, start: [], Settings(http_cache=True, fallback={"/": ["stale"]}, proxies=1)
    )
    order = [name for name, _ in ROWS if name in app.runtime.kit.layers]
    assert order == [
        "deadline", "fast_path", "monitoring", "headers", "console", "http_cache", "fallback"
    ]  # fmt: skip
    assert list(reversed(app.runtime.kit.layers)) == order
    app.runtime.close()


def test_another_feature_is_placed_before_after_or_innermost():
    shipped_names = [name for name, _ in ROWS]
    assert [n for n in names(FeatureSpec(Mine())) if n != "mine"] == shipped_names
    order = names(FeatureSpec(Mine(), after="headers"))
    assert order.index("mine") == order.index("headers") + 1
    order = names(FeatureSpec(Mine(), before="monitoring"))
    assert order.index("mine") == order.index("monitoring") - 1
    order = names(FeatureSpec(Mine(), after="monitoring", before="gateway"))
    assert order.index("monitoring") < order.index("mine") < order.index("gateway")
    order = names(FeatureSpec(Mine()))
    assert order.index("mine") == order.index("csp") + 1


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (FeatureSpec(Mine(), after="haeders"), "no feature has this name"),
        (FeatureSpec(Mine(), before="xyzzy"), "Features are .*headers"),
        (FeatureSpec(Mine(), after="gateway", before="headers"), "is outside of 'gateway'"),
    ],
)
def test_a_place_that_cannot_be_is_refused(spec, words):
    with pytest.raises(ConfigError, match=words):
        in_order([spec])


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ConfigError, match="another feature has this name"):
        in_order([FeatureSpec(type("Other", (Mine,), {"name": "headers"})())])


def test_a_feature_of_another_ones_may_stand_beside_it():
    second = type("Second", (Mine,), {"name": "second"})()
    order = names(FeatureSpec(Mine()), FeatureSpec(second, after="mine"))
    assert order.index("second") == order.index("mine") + 1


def test_one_may_be_placed_beside_another_one_that_comes_later():
    second = type("Second", (Mine,), {"name": "second"})()
    third = type("Third", (Mine,), {"name": "third"})()
    order = names(
        FeatureSpec(third, before="second"),
        FeatureSpec(second, after="mine"),
        FeatureSpec(Mine(), after="headers"),
    )
    at = order.index("headers")
    assert order[at + 1 : at + 4] == ["mine", "third", "second"]


def test_those_without_a_place_are_refused_and_take_nothing_from_the_others():
    second = type("Second", (Mine,), {"name": "second"})()
    refused = []
    features = in_order(
        [
            FeatureSpec(Mine(), after="second"),
            FeatureSpec(second, after="haeders"),
            FeatureSpec(type("Third", (Mine,), {"name": "third"})()),
        ],
        lambda spec, error: refused.append((spec.feature.name, str(error))),
    )
    assert [one.name for one in features if one.name in ("mine", "second", "third")] == ["third"]
    told = dict(refused)
    assert "has no place itself" in told["mine"]
    assert "Did you mean 'headers'?" in told["second"]


def imported_by(code):
    """The modules of the package that a new process has imported after running ``code``."""
    code += (
        "\nimport sys; print(*[m.removeprefix('om_plugins.') for m in sys.modules "
        "if m.startswith('om_plugins.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def test_features_that_are_off_are_not_imported():
    found = imported_by("import om_plugins; om_plugins.OpenManagerMiddleware(lambda e, s: [])")
    assert "wsgi" in found
    off = {"gateway.layer", "http_cache.layer", "http_cache.fast_path", "fallback.layer"}
    off |= {"gateway.deadline", "headers.https", "flask.extension"}
    assert off.isdisjoint(found)


def test_the_flask_extension_imports_no_feature_before_it_has_an_app():
    found = imported_by("import om_plugins; om_plugins.OpenManager")
    assert "flask.extension" in found
    features = {"http_cache", "console", "monitoring", "notifications", "gateway"}
    assert not [name for name in found if name.partition(".")[0] in features]
    assert {"chains.chain", "chains.live_settings", "recovery.recovery"}.isdisjoint(found)


UNUSED = {
    "browser.static_files", "builtin.engines", "builtin.hubs.redis", "builtin.hubs.sqlite",
    "builtin.recovery_steps", "builtin.stores", "cache.cache", "cache.keys", "cache.memoize",
    "cache.memory", "cache.responses", "chains.chain", "chains.health_checks",
    "chains.live_settings", "chains.sharing", "console.app", "core.observed", "csp.html",
    "csp.reports", "fallback.layer", "fallback.last_good", "flask.observation", "flask.observed",
    "flask.view_lookup", "flask.views", "gateway.layer", "gateway.deadline",
    "monitoring.alert_rules", "monitoring.alerts", "monitoring.overview", "monitoring.trend",
    "headers.cached_pages", "headers.https", "http_cache.cache", "http_cache.fast_path",
    "http_cache.layer", "http_cache.rfc9111", "http_cache.store", "notifications.notifications",
    "notifications.problem_reports", "policies.breaker", "recovery.messages",
    "recovery.recovery", "recovery.wrong_methods", "workers.invalidation_bus",
}  # fmt: skip
"""What an application does not import before something of it is used."""

APP = """
from flask import Flask
from om_plugins import OpenManager
app = Flask("bare")
app.testing = {testing}
app.config["OM_HUB_URL"] = "memory://"
app.add_url_rule("/", view_func=lambda: "hi")
om = OpenManager(app)
assert app.test_client().get("/").text == "hi"
{then}
"""


@pytest.mark.parametrize("testing", [True, False])
def test_an_app_with_the_bare_line_imports_by_its_first_request_what_it_uses(testing):
    found = imported_by(APP.format(testing=testing, then=""))
    assert "headers.layer" in found
    assert not [name for name in found for part in UNUSED if (name + ".").startswith(part + ".")]
    assert len(found) < 126, len(found)


@pytest.mark.parametrize(
    ("then", "module"),
    [
        ("om.cache", "cache.cache"),
        ("om.alerts", "monitoring.alerts"),
        ("om.monitoring.overview()", "monitoring.overview"),
        ("om.notify", "notifications.notifications"),
        ("om.recovery", "recovery.recovery"),
        ("om.http_cache", "http_cache.store"),
        ("om.memoize(len)", "cache.memoize.memoized"),
        ("om.engine('e', chain='c')(print)", "chains.chain"),
        ("app.test_client().post('/')", "recovery.wrong_methods"),
        ("app.test_client().get('/_om/')", "console.app"),
    ],
)
def test_what_an_app_uses_is_imported_then(then, module):
    assert module in UNUSED or module.rpartition(".")[0] in UNUSED
    assert module in imported_by(APP.format(testing=True, then=then))

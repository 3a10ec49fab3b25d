"""The features of an application, outermost layer first, and the settings that they declare.

A row names a feature and where its class is. The file reads as a request goes: each layer hands it
to the one below, the last one to the host app. Features without a layer come after them; their
order does not matter.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self, Unpack

from .errors import ConfigError
from .plugins.feature import Feature, FeatureSpec, check_feature, check_specs
from .plugins.host import PluginHost
from .settings.compose import PREFIX, ComposedSettings
from .settings.general import GeneralKeys
from .settings.signatures import SettingsKeywords
from .settings.table import Table, explain_unknown_key

__all__ = ["ROWS", "Settings", "features_of", "in_order", "shipped", "tables"]

logger = logging.getLogger("om_plugins")

ROWS: tuple[tuple[str, str], ...] = (
    ("deadline", "om_plugins.gateway.feature:DeadlineFeature"),
    ("fast_path", "om_plugins.http_cache.feature:FastPathFeature"),
    ("monitoring", "om_plugins.monitoring.feature:MonitoringFeature"),
    ("headers", "om_plugins.headers.feature:HeadersFeature"),
    ("https", "om_plugins.headers.feature:HttpsFeature"),
    ("console", "om_plugins.console.feature:ConsoleFeature"),
    ("gateway", "om_plugins.gateway.feature:GatewayFeature"),
    ("http_cache", "om_plugins.http_cache.feature:HttpCacheFeature"),
    ("fallback", "om_plugins.fallback.feature:FallbackFeature"),
    # without a layer
    ("browser", "om_plugins.browser.feature:BrowserFeature"),
    ("cache", "om_plugins.cache.feature:CacheFeature"),
    ("chains", "om_plugins.chains.feature:ChainsFeature"),
    ("csp", "om_plugins.csp.feature:CspFeature"),
    ("notifications", "om_plugins.notifications.feature:NotificationsFeature"),
    ("recovery", "om_plugins.recovery.feature:RecoveryFeature"),
)


@functools.cache
def shipped() -> tuple[Feature[Any, Any], ...]:
    """The shipped features in the order of :data:`ROWS`. They keep no state of an application."""
    found = []
    for name, where in ROWS:
        module, _, cls = where.partition(":")
        feature = check_feature(getattr(importlib.import_module(module), cls)())
        assert feature.name == name, f"{where} is named {feature.name!r}"  # noqa: S101
        found.append(feature)
    return tuple(found)


def tables(features: Iterable[Feature[Any, Any]]) -> list[type[Table]]:
    """The tables of settings: the general one, then the features' own."""
    return [GeneralKeys, *dict.fromkeys(feature.keys for feature in features)]


def in_order(specs: Iterable[FeatureSpec]) -> tuple[Feature[Any, Any], ...]:
    """The shipped features and others, outermost layer first.

    Args:
        specs: the others; each is placed by its ``before`` or ``after``, else innermost.

    Raises:
        ConfigError: a name is taken, or ``before`` or ``after`` names no feature.
    """
    order = list(shipped())
    for spec in specs:
        names = [feature.name for feature in order]
        if spec.feature.name in names:
            raise ConfigError("feature", spec.feature.name, "another feature has this name")
        for place in filter(None, (spec.before, spec.after)):
            if place not in names:
                raise ConfigError(
                    f"feature {spec.feature.name!r}",
                    place,
                    f"no feature has this name; known are {', '.join(names)}",
                )
        if spec.after:
            at = names.index(spec.after) + 1
            if spec.before and names.index(spec.before) < at:
                raise ConfigError(
                    f"feature {spec.feature.name!r}",
                    spec.before,
                    f"is outside of {spec.after!r}: nothing is before the one and after the other",
                )
        else:
            at = names.index(spec.before) if spec.before else names.index("browser")
        order.insert(at, spec.feature)
    return tuple(order)


def features_of(plugins: PluginHost, disabled: Collection[str]) -> list[tuple[str, FeatureSpec]]:
    """What the hook ``om_features`` brings, each with the name of its plugin.

    Args:
        plugins: loaded and registered.
        disabled: names of features to leave out.
    """
    found = []
    for plugin, specs in plugins.collect("om_features", check_specs):
        for spec in specs:
            if spec.feature.name in disabled:
                logger.info("feature %s of %s is switched off", spec.feature.name, plugin)
            else:
                found.append((plugin, spec))
    return found


def _explain_old_name(name: str) -> str:
    written = PREFIX + name.upper()
    return next(filter(None, (one.explain_old_key(written) for one in tables(shipped()))), "")


class Settings(ComposedSettings):
    """Every setting, as keywords and attributes: ``Settings(csp_mode="enforce").csp_mode``.

    Raises:
        ConfigError: a value is not allowed.
        TypeError: no setting has this name.
    """

    def __init__(self, **values: Unpack[SettingsKeywords]) -> None:
        known = {one.name for table in tables(shipped()) for one in table.keys().values()}
        for name in values.keys() - known:
            why = _explain_old_name(name) or explain_unknown_key(name, known)
            raise TypeError(f"Settings() has no {name!r}: {why}")
        super().__init__(
            tables(shipped()), {PREFIX + name.upper(): value for name, value in values.items()}
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Self:
        """Read ``OM_…`` keys, such as those of ``app.config``; other keys are ignored.

        Raises:
            ConfigError: a key is unknown or its value is not allowed.
        """
        return cls.read(values).check()

    @classmethod
    def read(cls, values: Mapping[str, object]) -> Self:
        """The same without the refusal of unknown keys: features of others may declare them."""
        self = cls.__new__(cls)
        ComposedSettings.__init__(self, tables(shipped()), values)
        return self

    def __getattr__(self, name: str) -> Any:
        # for users; a feature reads its own table
        for _, declared, value in self.rows() if not name.startswith("_") else ():
            if declared.name == name:
                return value
        old = _explain_old_name(name)
        raise AttributeError(f"there is no setting {name!r}" + (old and f": {old}"))

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"settings do not change: make Settings({name}=…)")
        super().__setattr__(name, value)

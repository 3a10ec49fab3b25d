"""The features of an application, outermost layer first, and the settings that they declare.

A row names a feature and where its class is. The file reads as a request goes: each layer hands it
to the one below, the last one to the host app. Features without a layer come after them; their
order does not matter.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack

from .errors import ConfigError
from .plugins.feature import Feature, FeatureSpec, check_feature, check_specs
from .plugins.host import PluginHost
from .plugins.names import nearest
from .settings.compose import PREFIX, ComposedSettings
from .settings.general import GeneralKeys
from .settings.table import Table, explain_unknown_key

if TYPE_CHECKING:
    from .settings.signatures import SettingsKeywords

__all__ = ["ROWS", "Settings", "add_brought", "in_order", "shipped", "tables"]

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
    ("csp", "om_plugins.csp.feature:CspFeature"),
    # without a layer
    ("browser", "om_plugins.browser.feature:BrowserFeature"),
    ("cache", "om_plugins.cache.feature:CacheFeature"),
    ("chains", "om_plugins.chains.feature:ChainsFeature"),
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


def _raise(spec: FeatureSpec, error: ConfigError) -> None:
    raise error


def in_order(
    specs: Iterable[FeatureSpec],
    refuse: Callable[[FeatureSpec, ConfigError], None] = _raise,
) -> tuple[Feature[Any, Any], ...]:
    """The shipped features and others, outermost layer first.

    Args:
        specs: the others; each is placed by its ``before`` or ``after``, else innermost. One may
            name another one that comes later here.
        refuse: called for one that has no place, with the reason; it is left out.

    Raises:
        ConfigError: a name is taken, or ``before`` or ``after`` names no feature, unless ``refuse``
            is given.
    """
    order = list(shipped())
    waiting = list(specs)
    while waiting:
        names = {feature.name for feature in order}
        ready = [spec for spec in waiting if {spec.before, spec.after} - {""} <= names]
        if not ready:
            break
        for spec in ready:
            waiting.remove(spec)
            try:
                _place(order, spec)
            except ConfigError as error:
                refuse(spec, error)
    known = [feature.name for feature in order]
    rest = {spec.feature.name for spec in waiting}
    for spec in waiting:
        place = next(p for p in (spec.after, spec.before) if p and p not in known)
        why = (
            "this feature has no place itself: see the places that they name"
            if place in rest
            else "no feature has this name, or it is off. "
            + (nearest(place, known) or f"Features are {', '.join(known)}")
        )
        refuse(spec, ConfigError(f"feature {spec.feature.name!r}", place, why))
    return tuple(order)


def _place(order: list[Feature[Any, Any]], spec: FeatureSpec) -> None:
    names = [feature.name for feature in order]
    name = spec.feature.name
    if name in names:
        raise ConfigError("feature", name, "another feature has this name; rename it")
    at = names.index("browser")
    if spec.after:
        at = names.index(spec.after) + 1
        if spec.before and names.index(spec.before) < at:
            raise ConfigError(
                f"feature {name!r}",
                spec.before,
                f"is outside of {spec.after!r}: nothing is before the one and after the other",
            )
    elif spec.before:
        at = names.index(spec.before)
    order.insert(at, spec.feature)


class Brought(NamedTuple):
    """The features of an application with plugins.

    Attributes:
        features: all of them, outermost layer first.
        plugins: from the name of a third party's feature to its plugin.
        off: names of those that are left out.
    """

    features: tuple[Feature[Any, Any], ...]
    plugins: dict[str, str]
    off: frozenset[str]


def add_brought(
    plugins: PluginHost, settings: ComposedSettings, disabled: Collection[str]
) -> Brought:
    """Place what the hook ``om_features`` brings, and read the settings of all features.

    Args:
        plugins: loaded and registered.
        settings: get the tables of the features.
        disabled: names of features to leave out.

    Raises:
        ConfigError: a setting is wrong or unknown, or ``disabled`` has a shipped feature.
        PluginError: a third party's feature has no place, or declares a setting that another one
            has, and the host is strict.
    """
    own = shipped()
    for feature in own:
        if feature.name in disabled:
            raise ConfigError(
                "OM_PLUGINS_DISABLED",
                feature.name,
                "this is a shipped feature, and no plugin: its own settings switch it off; see "
                "docs/settings.md",
            )
        settings.add(feature.keys)
    found = [
        (plugin, spec)
        for plugin, specs in plugins.collect("om_features", check_specs)
        for spec in specs
    ]
    plugins.features = frozenset(spec.feature.name for _, spec in found)
    off = {name for name in plugins.features if name in disabled}
    wanted = []
    for plugin, spec in found:
        name = spec.feature.name
        if name in off:
            logger.info("feature %s of %s is switched off", name, plugin)
            continue
        try:
            settings.add(spec.feature.keys)
        except ConfigError:
            raise
        except ValueError as error:
            off.add(name)
            reason = f"the feature {name!r} ({type(spec.feature).__name__}): {error}; rename it"
            plugins.report(plugin, reason, error)
        else:
            wanted.append((plugin, spec))
    of_spec = {id(spec): plugin for plugin, spec in wanted}

    def refuse(spec: FeatureSpec, error: ConfigError) -> None:
        off.add(spec.feature.name)
        reason = f"the feature {spec.feature.name!r} has no place: {error}"
        plugins.report(of_spec[id(spec)], reason, error)

    features = in_order((spec for _, spec in wanted), refuse)
    try:
        settings.check()
    except ConfigError as error:
        # it may be a setting of the plugin that is left out, which must not stop the others
        if not any(one.state == "failed" or one.failures for one in plugins.get_statuses()):
            raise
        logger.warning("%s, or it is a setting of a plugin that failed", error)
    by_feature = {id(spec.feature): plugin for plugin, spec in reversed(wanted)}
    return Brought(
        features,
        {one.name: by_feature[id(one)] for one in features if id(one) in by_feature},
        frozenset(off) - {one.name for one in features},
    )


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

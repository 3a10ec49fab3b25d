"""The kit of one application: it builds the parts of the features, and asks the features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ConfigError, PluginError
from .feature import Feature
from .kit import Card, Finding, Kit, Metric
from .loading import FAILURES, describe_error

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from click import Command

_Answer = TypeVar("_Answer")


class FeatureKit(Kit):
    """The kit of one application, with the parts of its features."""

    def __init__(self) -> None:
        self.layers: dict[str, WSGIApplication] = {}
        self._features: dict[str, Feature[Any, Any]] = {}
        self._plugins: dict[str, str] = {}
        self._parts: dict[str, Any] = {}
        self._building: list[str] = []

    def use(
        self, features: Sequence[Feature[Any, Any]], plugins: Mapping[str, str] | None = None
    ) -> None:
        """Build the parts of these features; each builds those that it needs before.

        Args:
            features: the one with the outermost layer first.
            plugins: from the name of a third party's feature to the plugin that brought it. What
                such a feature raises is its plugin's failure.

        Raises:
            ConfigError: a setting cannot work.
            PluginError: a third party's feature is broken and ``OM_STRICT`` is on.
        """
        self._features = {feature.name: feature for feature in features}
        self._plugins = dict(plugins or {})
        for name in self._features:
            self.ask(name, self.part_of, name)
            self._parts.setdefault(name, None)
        if self._plugins:  # two with the same path are found when the application starts
            self.endpoints()

    def ask(self, name: str, method: Callable[..., _Answer], *args: Any) -> _Answer | None:
        """Call a method of a feature; ``None`` when it is a third party's and raised.

        Raises:
            PluginError: a third party's feature is broken and ``OM_STRICT`` is on.
        """
        plugin = self._plugins.get(name)
        if plugin is None:
            return method(*args)
        try:
            return method(*args)
        except ConfigError:
            raise
        except FAILURES as error:
            self.plugins.report(
                plugin, f"the feature {name!r} raised {describe_error(error)}", error
            )
            return None

    def part_of(self, name: str) -> Any:
        if name in self._parts:
            return self._parts[name]
        feature = self._features.get(name)
        if feature is None:
            known = ", ".join(self._features)
            raise ConfigError("feature", name, f"no feature has this name; known are {known}")
        if name in self._building:
            circle = " → ".join([*self._building[self._building.index(name) :], name])
            raise PluginError(name, f"these features need each other: {circle}")
        self._building.append(name)
        try:
            part = self._parts[name] = feature.build(self, self.settings.of(feature.keys))
        finally:
            self._building.pop()
        return part

    def built(self) -> Iterator[tuple[Feature[Any, Any], Any]]:
        """Each feature that is on, with its part; the one with the outermost layer first."""
        for name, feature in self._features.items():
            part = self._parts.get(name)
            if part is not None:
                yield feature, part

    def endpoints(self) -> dict[str, WSGIApplication]:
        found: dict[str, WSGIApplication] = {}
        # a third party's last: it never takes a shipped feature's path
        for feature, part in sorted(self.built(), key=lambda one: one[0].name in self._plugins):
            name = feature.name
            for path, app in (self.ask(name, feature.endpoints, self, part) or {}).items():
                if path not in found:
                    found[path] = app
                    continue
                reason = f"the feature {name!r} has the endpoint {path!r}, as another feature has"
                self.plugins.report(self._plugins.get(name, name), reason, None)
        return found

    def commands(self) -> dict[str, Command]:
        """The commands of all features by name; of two with one name the first feature's.

        Raises:
            PluginError: a third party's feature is broken and ``OM_STRICT`` is on.
        """
        found: dict[str, Command] = {}
        for feature, _ in self.built():
            for command in self.ask(feature.name, _check_commands, feature) or ():
                found.setdefault(command.name or "", command)
        return found

    def cards(self) -> dict[str, Card]:
        asked = self._ask_all(lambda feature, part: feature.card(self, part))
        return {name: card for name, card in asked if card is not None}

    def metrics(self) -> list[Metric]:
        asked = self._ask_all(lambda feature, part: _check_metrics(feature.metrics(self, part)))
        return [metric for _, metrics in asked for metric in metrics or ()]

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        for name, findings in self._ask_all(
            lambda feature, part: list(feature.findings(self, part))
        ):
            if findings is None:
                findings = [
                    Finding("fail", f"feature {name}", "Its findings raised.", "See the log.")
                ]
            found += findings
        return found

    def _ask_all(
        self, ask: Callable[[Feature[Any, Any], Any], _Answer]
    ) -> Iterator[tuple[str, _Answer | None]]:
        """Ask each feature under guard: one that raises must not take the console from all."""
        for feature, part in self.built():
            worked, answer = self.plugins.call_guarded(
                f"feature {feature.name}", ask, feature, part
            )
            yield feature.name, answer if worked else None


def _check_commands(feature: Feature[Any, Any]) -> list[Command]:
    from click import Command

    commands = list(feature.commands())
    for command in commands:
        if not isinstance(command, Command):
            raise TypeError(f"{command!r} is no click.Command")
    return commands


def _check_metrics(metrics: Iterable[object]) -> list[Metric]:
    found: list[Metric] = []
    for one in metrics:
        if not (isinstance(one, Metric) and isinstance(one.value, int | float)):
            raise TypeError(f"{one!r} is no Metric with a number")
        found.append(one)
    return found

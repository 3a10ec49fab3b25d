"""The kit of one application: it builds the parts of the features, and asks the features.

What a third party's feature raises or returns wrong is a failure of its plugin: it is reported by
the plugin's name, and it takes nothing from the others.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.fork import hold_forks, renew_after_fork
from ..errors import ConfigError, PluginError
from ..settings.callbacks import name_type
from .feature import Feature
from .feature_checks import (
    check_card,
    check_commands,
    check_endpoints,
    check_findings,
    check_layer,
    check_metrics,
)
from .kit import Card, Finding, Kit, Metric
from .loading import FAILURES, describe_error
from .names import nearest

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from click import Command

_Answer = TypeVar("_Answer")

logger = logging.getLogger("om_plugins")


class FeatureKit(Kit):
    """The kit of one application, with the parts of its features."""

    def __init__(self) -> None:
        self.layers: dict[str, WSGIApplication] = {}
        self._features: dict[str, Feature[Any, Any]] = {}
        self._plugins: dict[str, str] = {}
        self._off: frozenset[str] = frozenset()
        self._parts: dict[str, Any] = {}
        self._started_in = 0  # a process id
        self._reported: set[tuple[str, str]] = set()
        self._metric_owners: dict[str, tuple[str, str, str, str]] = {}
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget what a thread of the parent builds, if the fork came in the middle of it."""
        self._building: list[str] = []

    def use(
        self,
        features: Sequence[Feature[Any, Any]],
        plugins: Mapping[str, str] | None = None,
        off: Collection[str] = (),
    ) -> None:
        """Take these features, and build the parts that are needed from the start.

        Args:
            features: the one with the outermost layer first.
            plugins: from the name of a third party's feature to the plugin that brought it.
            off: names of features that are left out.

        Raises:
            ConfigError: a setting cannot work.
            PluginError: a third party's feature is broken and ``OM_STRICT`` is on.
        """
        self._features = {feature.name: feature for feature in features}
        self._plugins = dict(plugins or {})
        self._off = frozenset(off)
        self.build_needed()
        if self._plugins:  # a wrong path is found when the application starts
            self._collect_endpoints(running=False)

    def build_needed(self) -> None:
        """Build the parts that the application needs before somebody asks for them.

        Raises:
            ConfigError: a setting cannot work.
            PluginError: a third party's feature is broken and ``OM_STRICT`` is on.
        """
        for name, feature in self._features.items():
            if name in self._parts:
                continue
            needed = self.ask(name, "is_needed", self, self.settings.of(feature.keys))
            if needed is None and name in self._plugins:
                self._parts[name] = None  # it failed, so the feature is left out
            elif needed:
                self.part_of(name)

    def _build_all(self) -> None:
        for name in self._features:
            self.part_of(name)

    def ask(self, name: str, method: str, *args: Any, running: bool = False) -> Any:
        """Call a method of a feature; ``None`` when it is a third party's and failed.

        Args:
            name: the feature's.
            method: one of :class:`~om_plugins.plugins.feature.Feature`.
            running: requests are answered already, so that no failure of a plugin is raised.

        Raises:
            ConfigError: a setting cannot work.
            PluginError: a third party's feature is broken and ``OM_STRICT`` is on.
        """
        function = getattr(self._features[name], method)
        if name not in self._plugins:
            return function(*args)
        try:
            answer = _refuse_coroutine(function(*args))
            if method == "is_needed" and answer is not True and answer is not False:
                raise TypeError(f"it returned {name_type(answer)}: return True or False")
            return answer
        except ConfigError:
            raise
        except PluginError as error:
            if self.plugins.strict and not running:
                raise  # of this feature, or of one that it needs: it names its own plugin
            self._report(name, method, f"failed: {error.reason}", error, running=running)
        except FAILURES as error:
            reason = f"raised {describe_error(error)}"
            self._report(name, method, reason, error, running=running)
        return None

    def compose(self, name: str, part: Any, app: WSGIApplication) -> WSGIApplication | None:
        """The layer of a feature around ``app``; ``None`` for no layer.

        Raises:
            PluginError: a third party's feature is broken and ``OM_STRICT`` is on.
        """
        layer: WSGIApplication | None = self.ask(name, "layer", self, part, app)
        if name not in self._plugins:
            return layer
        return self._check(name, "layer", layer, check_layer)

    def start(self) -> None:
        """Start the features in this process; a part that is built later is started then.

        Raises:
            Exception: the first failure, once all others are started.
        """
        failures = []
        with hold_forks():
            self._started_in = os.getpid()
            built = list(self.built())
        for feature, part in built:
            try:
                self.ask(feature.name, "start", self, part)
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
        if failures:
            raise failures[0]
        for found in self._find_names():
            if found.level != "ok":
                logger.warning("%s: %s %s", found.subject, found.message, found.way_out)

    def close(self) -> None:
        """Close the features of this process; log what one raises, so that all are closed."""
        with hold_forks():
            self._started_in = 0
            built = list(self.built())
        for feature, part in built:
            try:
                feature.close(self, part)
            except FAILURES as error:
                name = feature.name
                logger.error(
                    "plugin %s: the feature %r: close raised %s",
                    self._plugins.get(name, name), name, describe_error(error), exc_info=error,
                )  # fmt: skip

    def find_built(self, name: str) -> Any:
        return self._parts.get(name)

    def part_of(self, name: str) -> Any:
        if name in self._parts:
            return self._parts[name]
        with hold_forks():  # two threads get the same part
            if name in self._parts:
                return self._parts[name]
            part = self._build(name)
            late = self._started_in == os.getpid()
        if late and part is not None:
            self.ask(name, "start", self, part, running=True)
        return part

    def _build(self, name: str) -> Any:
        feature = self._features.get(name)
        if feature is None:
            return self._find_absent(name)
        if name in self._building:
            circle = " → ".join([*self._building[self._building.index(name) :], name])
            raise PluginError(
                self._plugins.get(name, name), f"these features need each other: {circle}"
            )
        self._building.append(name)
        try:
            part = self.ask(
                name,
                "build",
                self,
                self.settings.of(feature.keys),
                running=self._started_in == os.getpid(),
            )
        finally:
            self._building.pop()
        self._parts[name] = part
        return part

    def _find_absent(self, name: str) -> None:
        if name in self._off:
            return
        known = ", ".join(self._features)
        near = nearest(name, self._features) if isinstance(name, str) else ""
        reason = f"no feature has this name. {near or f'Known are {known}.'}"
        asking = self._building[-1] if self._building else ""
        if asking in self._plugins:
            raise PluginError(
                self._plugins[asking],
                f"the feature {asking!r} asks for the part of {name!r}: {reason}",
            )
        raise ConfigError("feature", name, reason)

    def built(self) -> Iterator[tuple[Feature[Any, Any], Any]]:
        """Each feature whose part is built, with it; the one with the outermost layer first."""
        for name, feature in self._features.items():
            part = self._parts.get(name)
            if part is not None:
                yield feature, part

    def _all_ours_first(self, *, late: bool = True) -> list[tuple[Feature[Any, Any], Any]]:
        """All that are on, the third parties' last: they never take a name that is shipped.

        Args:
            late: somebody asks for what the application did not need at its start.
        """
        for name in self._features:
            if late or name not in self._plugins:
                self.part_of(name)
        return sorted(self.built(), key=lambda one: one[0].name in self._plugins)

    def endpoints(self) -> dict[str, WSGIApplication]:
        return self._collect_endpoints(running=True)

    def _collect_endpoints(self, *, running: bool) -> dict[str, WSGIApplication]:
        found: dict[str, WSGIApplication] = {}
        taken = {"/health"}  # a load balancer asks it: see console.prefix
        for feature, part in self._all_ours_first(late=running):
            name = feature.name
            brought = self.ask(name, "endpoints", self, part, running=running)
            if name in self._plugins and brought is not None:
                brought = self._check(name, "endpoints", brought, check_endpoints, running)
            for path, app in (brought or {}).items():
                if (path.rstrip("/") or "/") not in taken:
                    found[path] = app
                else:
                    reason = f"returned the path {path!r}, as another feature does; rename it"
                    self._report(name, "endpoints", reason, None, running=running)
            taken |= {path.rstrip("/") or "/" for path in brought or {}}
        return found

    def commands(self, taken: Collection[str] = ()) -> dict[str, Command]:
        found: dict[str, Command] = {}
        for feature, _ in self._all_ours_first():
            name = feature.name
            brought = self.ask(name, "commands")
            if name in self._plugins and brought is not None:
                brought = self._check(name, "commands", brought, check_commands)
            for command in brought or ():
                called = command.name or ""
                if called in found or called in taken:
                    reason = f"returned {called!r}, which another command is named; rename it"
                    self._report(name, "commands", reason, None)
                else:
                    found[called] = command
        return found

    def cards(self, read: Callable[[Card], Any] = lambda card: card) -> dict[str, Any]:
        found = {}
        for feature, part in self._all_ours_first():

            def ask(feature: Feature[Any, Any] = feature, part: Any = part) -> Any:
                card = check_card(_refuse_coroutine(feature.card(self, part)))
                return None if card is None else read(card)

            _, answer = self._guard(feature.name, "card", ask)
            if answer is not None:
                found[feature.name] = answer
        return found

    def metrics(self) -> list[Metric]:
        found: list[Metric] = []
        for feature, part in self._all_ours_first():
            name = feature.name
            problems: list[str] = []

            def ask(
                feature: Feature[Any, Any] = feature, part: Any = part, to: list[str] = problems
            ) -> list[Metric]:
                metrics = _refuse_coroutine(feature.metrics(self, part))
                if feature.name not in self._plugins:
                    return list(metrics)
                return check_metrics(metrics, to)

            _, metrics = self._guard(name, "metrics", ask)
            for one in metrics or ():
                if reason := self._find_metric_conflict(name, one):
                    problems.append(reason)
                else:
                    found.append(one)
            for problem in problems:
                reason = f"returned a wrong value: {problem}"
                self._report(name, "metrics", reason, None, running=True)
        return found

    def _find_metric_conflict(self, feature: str, metric: Metric) -> str:
        """Why the text format cannot show a metric beside others; "" when it can.

        A counter ``x`` is written as ``x_total``, so a gauge of that name would be a second one.
        """
        if not self._plugins:
            return ""
        own = (feature, metric.name, metric.kind, metric.about)
        names = [metric.name, *([metric.name + "_total"] if metric.kind == "counter" else ())]
        for name in names:
            other = self._metric_owners.get(name, own)
            if other != own and feature in self._plugins:
                return (
                    f"the metric {metric.name}: the feature {other[0]!r} has the {other[2]} "
                    f"{other[1]} with the help {other[3]!r}; a name has one kind and one help"
                )
        if len(self._metric_owners) > _MOST_METRICS and metric.name not in self._metric_owners:
            return f"there are more than {_MOST_METRICS} names of metrics; use labels"
        for name in names:
            self._metric_owners[name] = own
        return ""

    def findings(self) -> list[Finding]:
        self._build_all()
        return [*self._find("findings"), *self._find_names()]

    def _find_names(self) -> list[Finding]:
        ignored = [
            Finding("warn", name, "Nobody reads this key.", f"Write {name.upper()!r}, in capitals.")
            for name in self.settings.list_ignored()
        ]
        return [*ignored, *self._find("name_findings")]

    def _find(self, method: str) -> list[Finding]:
        found: list[Finding] = []
        for feature, part in self.built():
            name = feature.name
            problems: list[str] = []

            def ask(
                feature: Feature[Any, Any] = feature, part: Any = part, to: list[str] = problems
            ) -> list[Finding]:
                return check_findings(_refuse_coroutine(getattr(feature, method)(self, part)), to)

            worked, findings = self._guard(name, method, ask)
            found += findings or ()
            if not worked:
                found.append(_fail(name, "Its findings could not be read.", "See the log."))
            elif problems:
                reason = f"returned a wrong value: {problems[0]}"
                self._report(name, method, reason, None, running=True)
                text = problems[0].encode("utf-8", "backslashreplace").decode()
                found.append(_fail(name, f"A finding of its own is wrong: {text}.", "Repair it."))
        return found

    def _check(
        self,
        name: str,
        method: str,
        found: Any,
        check: Callable[[Any, list[str]], _Answer],
        running: bool = False,
    ) -> _Answer | None:
        """Keep what is sound of what a third party's feature returned, and report the rest."""
        problems: list[str] = []
        sound = None
        try:
            sound = check(found, problems)
        except FAILURES as error:
            problems.append(describe_error(error))
        for problem in problems:
            reason = f"returned a wrong value: {problem}"
            self._report(name, method, reason, None, running=running)
        return sound

    def _guard(
        self, name: str, method: str, function: Callable[[], _Answer]
    ) -> tuple[bool, _Answer | None]:
        """Ask a feature under guard: one that raises must not take the console from all."""
        # the guard writes the name of what it calls into the log
        function.__qualname__ = f"the feature {name!r}: {method}"
        worked, answer = self.plugins.call_guarded(
            self._plugins.get(name, f"feature {name}"), function
        )
        return worked, answer if worked else None

    def _report(
        self,
        name: str,
        method: str,
        reason: str,
        cause: BaseException | None,
        *,
        running: bool = False,
    ) -> None:
        """Report a failure of a feature once.

        Args:
            name: the feature's.
            method: what was asked.
            reason: what it did wrong.
            cause: what it raised.
            running: requests are answered already, so that nothing is raised, strict or not.
        """
        plugin = self._plugins.get(name, name)
        text = f"the feature {name!r}: {method} {reason}"
        if (plugin, text) in self._reported:
            return
        if len(self._reported) < _MOST_REPORTED:
            self._reported.add((plugin, text))
        elif running:
            return
        self.plugins.report(plugin, text, cause, running=running)


_MOST_REPORTED = 200
_MOST_METRICS = 10_000


def _fail(name: str, message: str, way_out: str) -> Finding:
    return Finding("fail", f"feature {name}", message, way_out)


def _refuse_coroutine(answer: _Answer) -> _Answer:
    if inspect.iscoroutine(answer):
        answer.close()  # else Python warns that nobody awaited it
        raise TypeError("it returned a coroutine: return the value itself")
    return answer

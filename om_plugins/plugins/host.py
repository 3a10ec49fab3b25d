"""The plugins of one application: loads them, calls them under guard and reports their state.

Built-in plugins and third parties' plugins take the same path. The host filters an entry point by
name *before* it imports the module, imports it under guard, checks it, and registers it with a
pluggy manager that belongs to this application alone. It reports a bad plugin by name; the others
go on.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any, Literal

from .. import signals
from ..errors import PluginError, suggest
from ..protocols import PluginContext
from ..settings.callbacks import refuse_unfinished
from ..types import PluginStatus
from .checks import BadResult, check_result
from .guard.record import PluginRecord
from .inspection import HookManager
from .loading import (
    FAILURES,
    Origin,
    PluginRefused,
    describe_error,
    find_installed_plugins,
    find_plugin_name,
    import_plugin,
    load_builtin,
    load_plugin,
    load_plugin_unset,
)

logger = logging.getLogger("om_plugins")

_SHIPPED = Origin("built-in")
_THE_APPLICATION = "the application"
"""The source of a plugin that is not installed."""
_LONGEST = 600
"""The longest text of several failures of one plugin; after it, the last one stands alone."""

MakeContext = Callable[[str, object, logging.Logger], PluginContext]


class PluginHost:
    """The plugins of one application.

    Args:
        context: makes a plugin's context from its name, its config object and its logger.
        builtins: the shipped plugins, from a name to a module path; ``None`` for those of
            :mod:`om_plugins.builtin`.
        only: names of third parties' plugins to load; ``None`` for all that are installed.
        disabled: names of plugins to leave out, built-in ones too.
        configs: settings of plugins by name.
        strict: raise on the first broken plugin instead of going on without it.
        max_failures: failures in a row of its own code after which a plugin is quarantined.
        emit: sends signals.
        entry_points: finds third parties' plugins.

    Attributes:
        strict: see above.
        features: names of third parties' features, which ``OM_PLUGINS_DISABLED`` takes as well.
    """

    def __init__(
        self,
        *,
        context: MakeContext,
        builtins: Mapping[str, str] | None = None,
        only: Sequence[str] | None = None,
        disabled: Sequence[str] = (),
        configs: Mapping[str, Mapping[str, Any]] | None = None,
        strict: bool = False,
        max_failures: int = 5,
        emit: signals.Emit,
        entry_points: Callable[[], Iterable[EntryPoint]] = find_installed_plugins,
    ) -> None:
        self._make_context = context
        self._builtins = builtins
        self._only = None if only is None else tuple(only)
        self._disabled = tuple(disabled)
        self._configs = dict(configs or {})
        self.strict = strict
        self._max_failures = max_failures
        self._emit = emit
        self._entry_points = entry_points
        self.features: frozenset[str] = frozenset()
        self._records: list[PluginRecord] = []
        self._registered: dict[str, PluginRecord] = {}
        self._loaded = False
        self._started_pid = 0
        self._manager = HookManager()

    # --- loading ------------------------------------------------------------------------------

    def load(self) -> None:
        """Find and load the built-in and the installed plugins. A second call does nothing.

        Raises:
            PluginError: a plugin is broken, or ``OM_PLUGINS`` names one that is not installed,
                and the host is strict.
        """
        if self._loaded:
            return
        self._loaded = True
        builtins = self._builtins
        if builtins is None:
            from ..builtin import BUILTINS

            builtins = BUILTINS
        for name, path in builtins.items():
            self._load_one(name, _SHIPPED, functools.partial(load_builtin, path))
        for entry_point in sorted(self._entry_points(), key=lambda e: (e.name, e.value)):
            filtered = self._only is not None and entry_point.name not in self._only
            self._load_one(
                entry_point.name,
                Origin.of(entry_point),
                entry_point.load,
                "not listed in OM_PLUGINS" if filtered else "",
            )
        for status in self._unmatched("OM_PLUGINS", self._only or (), "failed"):
            self.report(status.name, status.reason, None)

    def register(self, plugin: object, name: str | None = None) -> None:
        """Add a plugin object under the same checks and guard as an installed one.

        Args:
            plugin: a module, or any object with functions marked ``@hookimpl``.
            name: its name; by default its ``name`` attribute, or the name of the module or
                class.

        Raises:
            PluginError: the plugin is broken and the host is strict.
        """
        self._load_one(name or find_plugin_name(plugin), Origin(_THE_APPLICATION), lambda: plugin)

    def _load_one(
        self, name: str, origin: Origin, load: Callable[[], object], filtered: str = ""
    ) -> None:
        """Filter, import, check and register one plugin. Its status tells what went wrong."""
        status = PluginStatus(name, "active", origin.source, origin.version)
        record = PluginRecord(status)
        self._records.append(record)
        if name in self._disabled:
            filtered = "named in OM_PLUGINS_DISABLED"
        if filtered:
            status.state, status.reason = "disabled", filtered
            return
        try:
            other = self._registered.get(name)
            if other is not None:
                raise PluginRefused(
                    f"another plugin has this name already (from {other.status.source}); rename "
                    "one of them, or uninstall it"
                )
            plugin = import_plugin(load, origin)
            installed = origin.source != _THE_APPLICATION
            found = self._manager.inspect(plugin, keep=installed)
            if origin == _SHIPPED and found.kept and name not in self._configs:
                loaded = load_plugin_unset(name, found, origin)
            else:
                loaded = load_plugin(name, plugin, found, origin, self._configs.get(name))
            self._manager.add(name, found)
        except FAILURES as error:
            known = isinstance(error, PluginRefused)
            status.state = "failed"
            status.reason = str(error) if known else describe_error(error)
            self.report(name, status.reason, error.__cause__ if known else error)
            return
        status.version = loaded.info.version or status.version
        status.summary = loaded.info.summary
        status.hooks = loaded.hooks
        status.reason = "; ".join(loaded.notes)
        record.config = loaded.config
        self._registered[name] = record
        for note in loaded.notes:
            logger.warning("plugin %s: %s", name, note)
        self._emit(signals.plugin_loaded, name=name, version=status.version)

    # --- calling ------------------------------------------------------------------------------

    def collect(
        self, hook: str, check: Callable[[Any], Any] | None = None
    ) -> list[tuple[str, Any]]:
        """Call a hook of each plugin under guard, with that plugin's context.

        Args:
            hook: one of :mod:`om_plugins.hookspecs`.
            check: takes what a plugin returned and returns what is used. An error that it raises
                counts as the plugin's failure.

        Returns:
            (plugin name, result) in pluggy's order: ``tryfirst`` first, then the plugin that was
            loaded last, ``trylast`` last. So third parties' plugins come before built-in ones.
            Iterators are lists. Results of ``None`` are left out.

        Raises:
            PluginError: a plugin failed and the host is strict.
        """
        results = []
        for record, result, error in self._call(hook, ("active",), check):
            if error is not None:
                self.report(record.status.name, record.status.reason, error)
            elif result is not None:
                results.append((record.status.name, result))
        return results

    def _call(
        self,
        hook: str,
        states: tuple[str, ...],
        check: Callable[[Any], Any] | None = None,
    ) -> Iterator[tuple[PluginRecord, Any, BaseException | None]]:
        for implementation in self._manager.find(hook):
            record = self._registered[implementation.plugin_name]
            if record.status.state not in states:
                continue
            arguments = [self._context_of(record) for _ in implementation.argnames]
            try:
                result = check_result(hook, implementation.function(*arguments))
                if check is not None and result is not None:
                    result = check(result)
            except FAILURES as error:
                happened = (
                    str(error)
                    if isinstance(error, BadResult)
                    else f"raised {describe_error(error)}"
                )
                record.count(f"{hook} {happened}", error, self._max_failures, self._emit)
                yield record, None, error
            else:
                yield record, result, None

    def _context_of(self, record: PluginRecord) -> PluginContext:
        if record.context is None:
            name = record.status.name
            log = logging.getLogger(f"om_plugins.plugin.{name}")
            record.context = self._make_context(name, record.config, log)
        return record.context

    def call_guarded(
        self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> tuple[bool, Any]:
        """Call a part of a plugin, such as its notifier, its monitor or its engine.

        The host logs and counts a failure; a success sets the count back to zero. After
        ``max_failures`` failures in a row the plugin is in quarantine, and this calls it no more.
        A network that is away, or a service that refuses, is no failure of the plugin: it is not
        counted, and one that lasts is logged once (see :mod:`.guard.faults`). This never raises
        what the plugin raised, strict or not.

        Args:
            name: the plugin's name. For a name that the host does not know, nothing is counted.

        Returns:
            Whether the call worked, and its result.
        """
        record = self._registered.get(name)
        if record is not None and record.status.state != "active":
            return False, None
        try:
            result = refuse_unfinished(function(*args, **kwargs))
        except FAILURES as error:
            what = _find_name(function)
            reason = f"{what} raised {describe_error(error)}"
            if record is None or record.count(reason, error, self._max_failures, self._emit):
                logger.error("plugin %s: %s", name, reason, exc_info=error)
            else:
                record.log_away(what, reason)
            return False, None
        if record is not None:
            record.in_a_row = 0
            if record.away:
                record.log_back(_find_name(function))
        return True, result

    def startup(self) -> None:
        """Call ``om_startup`` once in each process.

        Raises:
            PluginError: a plugin failed and the host is strict.
        """
        if self._started_pid == os.getpid():
            return
        self._started_pid = os.getpid()
        for status in (
            *self._unmatched("OM_PLUGIN_CONFIG", self._configs, "failed"),
            *self._unmatched("OM_PLUGINS_DISABLED", self._disabled, "disabled"),
        ):
            logger.warning("plugin %s: %s", status.name, status.reason)
        failed: PluginError | None = None
        for record, _, error in self._call("om_startup", ("active",)):
            if error is not None:
                try:
                    self.report(record.status.name, record.status.reason, error)
                except PluginError as raised:
                    failed = failed or raised
        if failed is not None:  # once all others are started
            raise failed

    def shutdown(self) -> None:
        """Call ``om_shutdown`` in a process that was started, also for plugins in quarantine.

        This logs what a plugin raises, strict or not, so that the other plugins are called too.
        """
        if self._started_pid != os.getpid():
            return
        self._started_pid = 0
        for record, _, error in self._call("om_shutdown", ("active", "quarantined")):
            if error is not None:
                logger.error(
                    "plugin %s: %s", record.status.name, record.status.reason, exc_info=error
                )

    # --- reporting ------------------------------------------------------------------------------

    def get_statuses(self) -> list[PluginStatus]:
        """Return the status of each plugin, and of each name in the settings without a plugin.

        Active plugins come first, then those that failed, are in quarantine, or are disabled.
        """
        every = [
            *(record.status for record in self._records),
            *self._unmatched("OM_PLUGINS", self._only or (), "failed"),
            *self._unmatched("OM_PLUGIN_CONFIG", self._configs, "failed"),
            *self._unmatched("OM_PLUGINS_DISABLED", self._disabled, "disabled"),
        ]
        order = ("active", "failed", "quarantined", "disabled")
        return sorted(every, key=lambda status: order.index(status.state))

    def find_statuses(self, hook: str) -> list[PluginStatus]:
        """Return the statuses of the plugins that implement a hook."""
        return [record.status for record in self._records if hook in record.status.hooks]

    def _unmatched(
        self, key: str, names: Iterable[str], state: Literal["failed", "disabled"]
    ) -> Iterator[PluginStatus]:
        known = sorted({record.status.name for record in self._records})
        if key == "OM_PLUGINS_DISABLED":
            known = sorted({*known, *self.features})
        for name in names:
            if name not in known:
                hint = suggest(name, known, "install it, or take the name out")
                reason = f"{key} names {name!r}, and no plugin has this name; {hint}"
                yield PluginStatus(name, state, source=key, reason=reason)

    def report(
        self, name: str, reason: str, cause: BaseException | None, *, running: bool = False
    ) -> None:
        """Log that a plugin failed, send ``plugin_failed``, and write it into the plugin's status.

        Args:
            name: the plugin's.
            reason: what is wrong, and what to do.
            cause: what it raised.
            running: requests are answered already, so that nothing is raised, strict or not.

        Raises:
            PluginError: the host is strict.
        """
        record = self._registered.get(name)
        if record is not None and record.status.state == "active":
            status = record.status
            if status.reason != reason:  # else it is counted
                joined = f"{status.reason}; {reason}"
                status.reason = joined if status.failures and len(joined) < _LONGEST else reason
                status.failures += 1
        if self.strict and not running:
            raise PluginError(name, reason) from cause
        logger.error("plugin %s: %s", name, reason, exc_info=cause)
        self._emit(signals.plugin_failed, name=name, reason=reason)


def _find_name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))

"""How an entry point becomes a checked plugin: find it, import it, read its info, check it.

Each problem raises :class:`PluginRefused`, whose text is one sentence for the operator.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType

from ..errors import without_secrets
from ..hookspecs import GROUP, HOOK_API
from ..types import PluginInfo
from .checks import HookFunction
from .config import make_config
from .inspection import Inspection

logger = logging.getLogger("om_plugins")

FAILURES = (Exception, SystemExit)
"""What a plugin may raise without ending its caller. Only what stops the process gets through."""


def find_installed_plugins() -> Iterator[EntryPoint]:
    """Find the entry points of all installed distributions in the group ``om_plugins``.

    This reads each distribution separately and logs one with damaged metadata, where
    ``importlib.metadata.entry_points`` would raise for all. Of two distributions with one name, the
    first on ``sys.path`` counts, because Python imports that one.

    Reading all of them takes tens of milliseconds. A test suite may make an application a thousand
    times, so the result is cached until something is installed.
    """
    places = tuple((entry, _read_mtime(entry)) for entry in sys.path)
    yield from _read_entry_points(importlib.metadata.distributions, places)


def _read_mtime(place: str) -> int:
    try:
        return _as_path(place).stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=64)
def _as_path(place: str) -> Path:
    return Path(place or ".")


@functools.lru_cache(maxsize=4)
def _read_entry_points(
    distributions: Callable[[], Iterable[Distribution]], places: tuple[tuple[str, int], ...]
) -> tuple[EntryPoint, ...]:
    """Read the plugins' entry points. ``places`` is the cache key: the search path at one time."""
    del places
    seen = set()
    plugins: list[EntryPoint] = []
    for distribution in distributions():
        try:
            found = distribution.entry_points.select(group=GROUP)
            if not found or distribution.name in seen:
                continue
            seen.add(distribution.name)
        except FAILURES as error:
            place = distribution.locate_file("")
            logger.warning(
                "a distribution in %s has damaged metadata: %s", place, describe_error(error)
            )
        else:
            plugins += found
    return tuple(plugins)


@functools.cache
def load_builtin(where: str) -> object:
    """Import a shipped plugin; ``where`` is as in :data:`om_plugins.builtin.BUILTINS`."""
    return EntryPoint(name=where, value=where, group=GROUP).load()


class PluginRefused(Exception):
    """A plugin is not loaded; the text tells the operator why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a plugin comes from.

    Attributes:
        source: the distribution, ``built-in``, or the one who registered the plugin.
        version: the distribution's version.
        requires: the version of this package that the distribution requires, such as
            ``om-plugins>=2``.
    """

    source: str
    version: str = ""
    requires: str = ""

    @classmethod
    def of(cls, entry_point: EntryPoint) -> Origin:
        """Read the metadata of an installed plugin's distribution, as far as it is not damaged."""
        distribution = entry_point.dist
        if distribution is None:
            return cls(entry_point.value)
        try:
            return cls(
                distribution.name or entry_point.value,
                distribution.version or "",
                _find_requirement(distribution.requires or ()),
            )
        except FAILURES:
            return cls(entry_point.value)


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that passed every check.

    Attributes:
        hooks: the hooks that it implements.
        config: its config object.
        notes: what its author should look at, although the plugin works.
    """

    plugin: object
    info: PluginInfo
    hooks: tuple[str, ...]
    config: object
    notes: tuple[str, ...]


def import_plugin(load: Callable[[], object], origin: Origin) -> object:
    """Import a plugin under guard.

    Raises:
        PluginRefused: the import failed or called ``sys.exit``.
    """
    try:
        return load()
    except SystemExit as error:
        raise PluginRefused(f"its import called sys.exit({error.code!r})") from error
    except Exception as error:
        reason = f"its import failed: {describe_error(error)}"
        if isinstance(error, ImportError) and (error.name or "").split(".")[0] == "om_plugins":
            reason += (
                f"; it asks for {origin.requires or 'another om-plugins'}, this is {_get_version()}"
            )
        raise PluginRefused(reason) from error


def load_plugin(
    name: str, plugin: object, inspection: Inspection, origin: Origin, settings: object
) -> LoadedPlugin:
    """Check a plugin and make its config object. This registers nothing.

    Args:
        inspection: what was found in it.
        settings: what ``OM_PLUGIN_CONFIG`` has for it; ``None`` for nothing.

    Raises:
        PluginRefused: the plugin cannot be used.
    """
    found = inspection.functions
    # read the info first: a plugin for a newer hook API may use hooks that are unknown here
    info = PluginInfo()
    for one in found:
        if one.hook == "om_plugin_info":
            info = _read_info(plugin, one)
    if info.hook_api > HOOK_API:
        raise PluginRefused(
            f"was written for hook API {info.hook_api}, this om-plugins {_get_version()} has "
            f"{HOOK_API}; "
            f"install {origin.requires or 'a newer om-plugins (pip install -U om-plugins)'}"
        )
    problems = [one.problem for one in found if one.problem]
    if problems:
        raise PluginRefused("; ".join(problems))
    notes = [
        f"{forgotten} is named like a hook and is not marked @hookimpl"
        for forgotten in inspection.unmarked
    ]
    hooks = tuple(dict.fromkeys(one.hook for one in found if one.known))
    if not hooks:
        raise PluginRefused("; ".join(["has no function that is marked @hookimpl", *notes]))
    try:
        config = make_config(name, info.config_class, settings)
    except ValueError as error:
        raise PluginRefused(str(error)) from error
    return LoadedPlugin(plugin, info, hooks, config, tuple(notes))


@functools.lru_cache(maxsize=64)
def load_plugin_unset(name: str, inspection: Inspection, origin: Origin) -> LoadedPlugin:
    """Check a shipped plugin that has no settings: once in a process, for all applications.

    Raises:
        PluginRefused: the plugin cannot be used.
    """
    return load_plugin(name, inspection.plugin, inspection, origin, None)


def _read_info(plugin: object, function: HookFunction) -> PluginInfo:
    if function.problem:
        raise PluginRefused(function.problem)
    try:
        info = getattr(plugin, function.name)()
    except FAILURES as error:
        raise PluginRefused(f"om_plugin_info raised {describe_error(error)}") from error
    if not isinstance(info, PluginInfo):
        raise PluginRefused(f"om_plugin_info returned a {type(info).__name__}; return a PluginInfo")
    return info


def find_plugin_name(plugin: object) -> str:
    """Find a name for a plugin that was registered without one."""
    if isinstance(plugin, ModuleType | type):
        return plugin.__name__
    name = getattr(plugin, "name", None)
    return name if isinstance(name, str) and name else type(plugin).__name__


def describe_error(error: BaseException) -> str:
    """Return the class and the text of an error, without secrets, in text that can be encoded."""
    text = without_secrets(str(error).encode("utf-8", "backslashreplace").decode())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_OURS = re.compile(r"om[-_.]plugins(?![-_.\w])\s*(?:\[[^]]*\])?\s*\(?([^;)]*)", re.IGNORECASE)


def _find_requirement(requires: Iterable[str]) -> str:
    for one in requires:
        found = _OURS.match(one)
        if found and found[1].strip():
            return f"om-plugins{found[1].strip()}"
    return ""


def _get_version() -> str:
    from .. import __version__

    return __version__

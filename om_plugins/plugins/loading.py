"""From an entry point to a checked plugin: find it, import it, ask what it is, check it.

Whatever is wrong ends in :class:`Refused`, whose text is one sentence for the operator.
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

import pluggy

from ..hookspecs import GROUP, HOOK_API
from ..types import PluginInfo
from .checks import HookFunction, hook_functions, unmarked
from .config import make_config

__all__ = [
    "FAILURES",
    "LoadedPlugin",
    "Origin",
    "Refused",
    "import_plugin",
    "installed_plugins",
    "load_plugin",
    "name_of",
    "words",
]

logger = logging.getLogger("om_plugins")

FAILURES = (Exception, SystemExit)
"""What a plugin may raise without ending its caller: only what stops the process passes."""


def installed_plugins() -> Iterator[EntryPoint]:
    """The entry points of all installed distributions in the group ``om_plugins``.

    Each distribution is read by itself: one whose metadata is damaged is logged, where
    ``importlib.metadata.entry_points`` would raise for all. Of two with the same name the first
    on ``sys.path`` counts, which is the one that is imported.

    Reading them all takes tens of milliseconds, so it is done again only when something was
    installed: a test suite may make an application a thousand times.
    """
    places = tuple((entry, _changed_at(entry)) for entry in sys.path)
    yield from _found(importlib.metadata.distributions, places)


def _changed_at(place: str) -> int:
    try:
        return Path(place or ".").stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=4)
def _found(
    distributions: Callable[[], Iterable[Distribution]], places: tuple[tuple[str, int], ...]
) -> tuple[EntryPoint, ...]:
    """The plugins' entry points for a search path as it was at a time, which is the key."""
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
            logger.warning("a distribution in %s has damaged metadata: %s", place, words(error))
        else:
            plugins += found
    return tuple(plugins)


class Refused(Exception):
    """Why a plugin is not loaded, in words for the operator."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a plugin comes from.

    Attributes:
        source: the distribution, ``built-in``, or who registered it.
        version: the distribution's version.
        requires: the om-plugins that the distribution asks for, such as ``om-plugins>=2``.
    """

    source: str
    version: str = ""
    requires: str = ""

    @classmethod
    def of(cls, entry_point: EntryPoint) -> Origin:
        """Read the metadata of an installed plugin's distribution, damaged or not."""
        distribution = entry_point.dist
        if distribution is None:
            return cls(entry_point.value)
        try:
            return cls(
                distribution.name or entry_point.value,
                distribution.version or "",
                _our_requirement(distribution.requires or ()),
            )
        except FAILURES:
            return cls(entry_point.value)


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that passed every check.

    Attributes:
        hooks: the hooks that it implements.
        config: its settings as its own object.
        notes: what its author should look at, though it works.
    """

    plugin: object
    info: PluginInfo
    hooks: tuple[str, ...]
    config: object
    notes: tuple[str, ...]


def import_plugin(load: Callable[[], object], origin: Origin) -> object:
    """Import a plugin under guard.

    Raises:
        Refused: the import failed, or called ``sys.exit``.
    """
    try:
        return load()
    except SystemExit as error:
        raise Refused(f"its import called sys.exit({error.code!r})") from error
    except Exception as error:
        reason = f"its import failed: {words(error)}"
        if isinstance(error, ImportError) and (error.name or "").split(".")[0] == "om_plugins":
            reason += f"; it asks for {origin.requires or 'another om-plugins'}, this is {_ours()}"
        raise Refused(reason) from error


def load_plugin(
    name: str, plugin: object, manager: pluggy.PluginManager, origin: Origin, settings: object
) -> LoadedPlugin:
    """Check a plugin and make its config object; nothing is registered yet.

    Args:
        settings: what ``OM_PLUGIN_CONFIG`` has under its name, ``None`` for nothing.

    Raises:
        Refused: it cannot be used.
    """
    found = list(hook_functions(manager, plugin))
    # What the plugin is comes first: one for a newer hook API may use hooks unknown here.
    info = PluginInfo()
    for one in found:
        if one.hook == "om_plugin_info":
            info = _ask_info(plugin, one)
    if info.hook_api > HOOK_API:
        raise Refused(
            f"was written for hook API {info.hook_api}, this om-plugins {_ours()} has {HOOK_API}; "
            f"install {origin.requires or 'a newer om-plugins (pip install -U om-plugins)'}"
        )
    problems = [one.problem for one in found if one.problem]
    if problems:
        raise Refused("; ".join(problems))
    notes = [
        f"{forgotten} is named like a hook and is not marked @hookimpl"
        for forgotten in unmarked(plugin, {one.name for one in found})
    ]
    hooks = tuple(dict.fromkeys(one.hook for one in found if one.known))
    if not hooks:
        raise Refused("; ".join(["has no function that is marked @hookimpl", *notes]))
    try:
        config = make_config(name, info.config_class, settings)
    except ValueError as error:
        raise Refused(str(error)) from error
    return LoadedPlugin(plugin, info, hooks, config, tuple(notes))


def _ask_info(plugin: object, function: HookFunction) -> PluginInfo:
    if function.problem:
        raise Refused(function.problem)
    try:
        info = getattr(plugin, function.name)()
    except FAILURES as error:
        raise Refused(f"om_plugin_info raised {words(error)}") from error
    if not isinstance(info, PluginInfo):
        raise Refused(f"om_plugin_info returned a {type(info).__name__}; return a PluginInfo")
    return info


def name_of(plugin: object) -> str:
    """The name of a plugin that was registered without one."""
    if isinstance(plugin, ModuleType | type):
        return plugin.__name__
    name = getattr(plugin, "name", None)
    return name if isinstance(name, str) and name else type(plugin).__name__


def words(error: BaseException) -> str:
    """An error as its class and its text."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_OURS = re.compile(r"om[-_.]plugins(?![-_.\w])\s*(?:\[[^]]*\])?\s*\(?([^;)]*)", re.IGNORECASE)


def _our_requirement(requires: Iterable[str]) -> str:
    for one in requires:
        found = _OURS.match(one)
        if found and found[1].strip():
            return f"om-plugins{found[1].strip()}"
    return ""


def _ours() -> str:
    from .. import __version__

    return __version__

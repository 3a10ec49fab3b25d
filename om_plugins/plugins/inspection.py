"""Looks at a plugin's functions: which of them are hooks, and what is wrong with them.

To look takes longer than all else that an application does with a plugin. A test suite may make a
thousand applications, which load the same installed plugins, so these are looked at once in a
process, and again only when something in them was replaced.
"""

from __future__ import annotations

import functools
import operator
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pluggy

from .. import hookspecs
from .checks import HOOKS, HookFunction, check_hook_function, find_unmarked

_MOST_KEPT = 256
_SPEC = f"{hookspecs.PROJECT}_spec"


class HookFunctions:
    """The marked functions of a plugin, as pluggy registers them: it looks at all attributes.

    Args:
        functions: its marked functions by name.
    """

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self.__dict__.update(functions)
        self.__names = [*functions]

    def __dir__(self) -> list[str]:
        return self.__names


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What was found in a plugin.

    Attributes:
        plugin: the plugin.
        hooks: what pluggy registers.
        marks: what ``@hookimpl`` noted, by the name of the function.
        functions: the marked functions, each with its problem.
        unmarked: names of functions that are named like a hook and are not marked.
        kept: the next application may get this object.
    """

    plugin: object
    hooks: HookFunctions
    marks: Mapping[str, Any]
    functions: tuple[HookFunction, ...]
    unmarked: tuple[str, ...]
    kept: bool


class HookManager:
    """The hooks of one application's plugins, in pluggy's order."""

    def __init__(self) -> None:
        self._added: tuple[tuple[str, Inspection], ...] = ()
        self._names: dict[int, str] = {}  # by the identity of the plugin
        self._order: Mapping[str, tuple[pluggy.HookImpl, ...]] | None = None

    def inspect(self, plugin: object, *, keep: bool) -> Inspection:
        """Find the functions of a plugin.

        Args:
            plugin: a module, or any object.
            keep: it is there for the whole process, so the next application may use what was found.

        Raises:
            Exception: an attribute of the plugin raised it when it was read.
        """
        spaces = _list_namespaces(plugin) if keep else ()
        found = _find_kept(plugin, spaces) if spaces else None
        if found is None:
            found = self._inspect(plugin, keep=bool(spaces))
            if spaces:
                _keep(plugin, spaces, found)
        return found

    def _inspect(self, plugin: object, *, keep: bool) -> Inspection:
        parse = pluggy.PluginManager(hookspecs.PROJECT).parse_hookimpl_opts
        marks = {}
        for name in dir(plugin):
            options = parse(plugin, name)
            if options is not None:
                marks[name] = options
        functions = tuple(
            check_hook_function(plugin, name, options) for name, options in marks.items()
        )
        hooks = HookFunctions({name: getattr(plugin, name) for name in marks})
        unmarked = tuple(find_unmarked(plugin, marks))
        return Inspection(plugin, hooks, marks, functions, unmarked, keep)

    def add(self, name: str, inspection: Inspection) -> None:
        """Register a plugin that was inspected and has no problem.

        Raises:
            ValueError: it is registered already.
        """
        plugin = id(inspection.plugin)
        if plugin in self._names:
            other = self._names[plugin]
            raise ValueError(f"this plugin is registered already, as {other!r}; take one out")
        self._names[plugin] = name
        self._added += ((name, inspection),)
        self._order = None

    def find(self, hook: str) -> tuple[pluggy.HookImpl, ...]:
        """Return the implementations of a hook in the order in which pluggy calls them."""
        if self._order is None:
            kept = all(inspection.kept for _, inspection in self._added)
            self._order = (_order_kept if kept else _order)(self._added)
        return self._order[hook]


class _Registry(pluggy.PluginManager):
    """Registers plugins by what was found in them."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self._marks: Mapping[str, Any] = {}
        self.add_hookspecs(hookspecs)

    def parse_hookspec_opts(self, module_or_class: object, name: str) -> Any:
        """Return the options of one of our hooks; ``None`` for another name."""
        return getattr(vars(hookspecs)[name], _SPEC) if name in HOOKS else None

    def add(self, name: str, inspection: Inspection) -> None:
        """Register a plugin that was inspected."""
        self._marks = inspection.marks
        self.register(inspection.hooks, name)

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """Return what ``@hookimpl`` noted of a function of the plugin that is being registered."""
        return self._marks[name]


def _order(
    plugins: tuple[tuple[str, Inspection], ...],
) -> Mapping[str, tuple[pluggy.HookImpl, ...]]:
    registry = _Registry()
    for name, inspection in plugins:
        registry.add(name, inspection)
    return {hook: tuple(reversed(getattr(registry.hook, hook).get_hookimpls())) for hook in HOOKS}


# only of inspections that are kept anyway: another one may hold its application alive
_order_kept = functools.lru_cache(maxsize=16)(_order)


# by the identity of the plugin: an object may be unhashable, or equal to another one
_kept: OrderedDict[int, tuple[object, tuple[dict[str, Any], ...], Inspection]] = OrderedDict()


def _find_kept(plugin: object, spaces: tuple[Mapping[str, Any], ...]) -> Inspection | None:
    found = _kept.get(id(plugin))
    if found is None or found[0] is not plugin or not all(map(_same, spaces, found[1])):
        return None
    return found[2]


def _keep(plugin: object, spaces: tuple[Mapping[str, Any], ...], found: Inspection) -> None:
    _kept[id(plugin)] = (plugin, tuple(dict(space) for space in spaces), found)
    while len(_kept) > _MOST_KEPT:
        _kept.popitem(last=False)


def _same(space: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    values = map(operator.is_, space.values(), before.values())
    return space.keys() == before.keys() and all(values)


def _list_namespaces(plugin: object) -> tuple[Mapping[str, Any], ...]:
    """List where the attributes of a plugin are; () when it computes them."""
    if type(plugin) is ModuleType:
        names = vars(plugin)
        return () if "__dir__" in names else (names,)
    classes = plugin.__mro__ if isinstance(plugin, type) else type(plugin).__mro__
    spaces = [vars(one) for one in classes[:-1]]
    if type(plugin).__dir__ not in (object.__dir__, type.__dir__) or any(
        "__slots__" in space for space in spaces
    ):
        return ()
    return (*spaces, *([] if isinstance(plugin, type) else [vars(plugin)]))

"""Checks of a plugin's hook functions before any of them is called, and of what they return.

Pluggy ignores a hook that it does not know, and it calls an ``async def`` without awaiting it.
These checks find both when the plugin is loaded. Their messages tell what to write instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import hookspecs
from ..errors import suggest
from ..protocols import Engine
from ..settings.callbacks import explain_callback
from ..types import EngineSpec

HOOKS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(value).parameters)
    for name, value in vars(hookspecs).items()
    if hasattr(value, f"{hookspecs.PROJECT}_spec")
}
"""Every hook, with the arguments that pluggy passes to it."""


class BadResult(Exception):
    """A hook returned a wrong value; the text tells what to return."""


@dataclass(frozen=True, slots=True)
class HookFunction:
    """One function of a plugin that is marked ``@hookimpl``.

    Attributes:
        name: its name in the plugin.
        hook: the hook that it implements: its name, or the marker's ``specname``.
        problem: why it cannot be called, and what to do; "" when it can.
        known: False for an unknown hook that the plugin marked as optional.
    """

    name: str
    hook: str
    problem: str = ""
    known: bool = True


def check_hook_function(plugin: object, name: str, options: Mapping[str, Any]) -> HookFunction:
    """Check one marked function of a plugin.

    Args:
        plugin: the plugin.
        name: the function's name in it.
        options: what the marker noted.

    Raises:
        Exception: the attribute of the plugin raised it when it was read.
    """
    hook = options.get("specname") or name
    function = getattr(plugin, name)
    if hook not in HOOKS:
        problem = "" if options.get("optionalhook") else _explain_unknown_hook(name, hook)
    elif options.get("wrapper") or options.get("hookwrapper"):
        problem = (
            f"{name} is a hook wrapper; hooks are called plugin by plugin, so there is "
            "nothing to wrap: mark it with a plain @hookimpl"
        )
    elif inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        problem = (
            f"{name} is an async def; hooks are called once, when the application starts: "
            "write it with a plain def"
        )
    else:
        problem = _explain_bad_arguments(name, function, HOOKS[hook])
    return HookFunction(name, hook, problem, hook in HOOKS)


def find_unmarked(plugin: object, marked: Collection[str]) -> list[str]:
    """Find functions that are named like a hook and are not marked ``@hookimpl``."""
    own = getattr(plugin, "__dict__", {})
    return [
        name
        for name in HOOKS
        if name not in marked
        and inspect.isfunction(own.get(name, getattr(type(plugin), name, None)))
        and not hasattr(own.get(name), f"{hookspecs.PROJECT}_spec")
    ]


def _explain_unknown_hook(name: str, hook: str) -> str:
    shown = hook if hook == name else f"{hook} (specname of {name})"
    return f"{shown} is not a hook; {suggest(hook, HOOKS, cutoff=0.5)}"


def _explain_bad_arguments(
    name: str, function: Callable[..., object], given: tuple[str, ...]
) -> str:
    """Explain what is wrong with the arguments of a hook function; "" when nothing is.

    Pluggy passes arguments by position, and never those that have a default.
    """
    for one in inspect.signature(function).parameters.values():
        if one.name in given or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        if one.default is not one.empty:
            continue
        if one.name == "self":
            return f"{name} needs self: the plugin is a class; name an instance of it instead"
        hint = suggest(one.name, given, f"it gets {', '.join(given) or 'nothing'}", cutoff=0.5)
        return f"{name} asks for an argument {one.name!r} that the hook does not give; {hint}"
    return ""


def check_result(hook: str, result: Any) -> Any:
    """Check what a hook returned. Iterators become lists.

    Raises:
        BadResult: the hook must return something else.
        Exception: an iterator of the plugin raised it.
    """
    if inspect.isawaitable(result):
        close = getattr(result, "close", None)
        if close is not None:
            close()
        raise BadResult("returned something to await; return the value itself")
    if result is None:
        return None
    if hook == "om_csp":
        if not isinstance(result, Mapping) and not callable(result):
            raise BadResult(f"returned {_name_type(result)}; return a dict or a function")
        problem = explain_callback(result, 1) if callable(result) else ""
        if problem:
            raise BadResult(
                f"returned a function that cannot be called: {problem}; it gets the WSGI environ"
            )
        return result
    if hook in ("om_caches", "om_hubs"):
        if not isinstance(result, Mapping):
            raise BadResult(
                f"returned {_name_type(result)}; return a dict from URL scheme to factory"
            )
        for scheme, factory in result.items():
            if not isinstance(scheme, str) or not callable(factory):
                raise BadResult(
                    f"returned {scheme!r}: {_name_type(factory)}; a factory is a function"
                )
            arguments, given = _FACTORIES[hook]
            problem = explain_callback(factory, arguments)
            if problem:
                raise BadResult(
                    f"returned {scheme!r}: a factory that cannot be called: {problem}; it gets "
                    f"{given}"
                )
        return dict(result)
    wanted = _PARTS.get(hook)
    if wanted is None:
        return result
    if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
        raise BadResult(f"returned {_name_type(result)}; return a list")
    parts = list(result)
    for part in parts:
        if hook == "om_engines":
            if not isinstance(part, EngineSpec):
                raise BadResult(
                    f"returned {_name_type(part)} in its list; return EngineSpec objects"
                )
            if not isinstance(part.engine, Engine):
                part = part.engine
            else:
                continue
        missing = [name for name in wanted if not hasattr(part, name)]
        if missing:
            raise BadResult(f"returned {_name_type(part)}, which has no {' and no '.join(missing)}")
        if hook != "om_engines":  # a chain checks its engines
            problem = _explain_part(hook, part)
            if problem:
                raise BadResult(f"returned {_name_type(part)}, {problem}")
    return parts


def _explain_part(hook: str, part: Any) -> str:
    """Explain why nobody could use a part; "" when it can be used."""
    method, arguments, given = _CALLED[hook]
    problem = explain_callback(getattr(part, method), arguments)
    if problem:
        return f"whose {method} cannot be called: {problem}; it gets {given}"
    if "name" in _PARTS[hook] and not (isinstance(part.name, str) and part.name):
        return f"whose name is {part.name!r}: it must be a text that is not empty"
    if "percent" in _PARTS[hook]:
        percent = part.percent
        if isinstance(percent, bool) or not isinstance(percent, int | float):
            return f"whose percent is {percent!r}: it must be a number from 0 to 100"
        if not 0 <= percent <= 100:
            return f"whose percent is {percent!r}: it must be from 0 to 100"
    return ""


_PARTS = {
    "om_engines": ("name", "traits", "call"),
    "om_monitors": ("record",),
    "om_notifiers": ("name", "send"),
    "om_recovery_steps": ("name", "percent", "run"),
}
"""The attributes that every part in a hook's list must have."""

_CALLED = {
    "om_monitors": ("record", 1, "the samples"),
    "om_notifiers": ("send", 2, "the notification and the seconds that it may take"),
    "om_recovery_steps": ("run", 2, "the subject and the seconds that it may take"),
}
"""The method of each kind of part, how many arguments it gets, and which."""

_FACTORIES = {
    "om_caches": (1, "the URL"),
    "om_hubs": (2, "the URL and the clock"),
}


def _name_type(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"

"""Checks of what others give: the hook functions of plugins and their results, engines, answers.

Pluggy ignores a hook that it does not know, and it calls an ``async def`` without awaiting it.
These checks find both when the plugin is loaded. Their messages tell what to write instead. The
contracts of :mod:`om_plugins.testing` ask the same functions.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from types import GeneratorType
from typing import Any, cast

from .. import hookspecs
from ..errors import ConfigError, NoAnswer, suggest
from ..protocols import Engine
from ..settings.arguments import amount, check_value
from ..settings.callbacks import (
    describe_result,
    explain_arguments,
    explain_callback,
    explain_kind,
    explain_unfinished,
    name_type,
)
from ..types import Answer, EngineSpec, EngineTraits

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
    elif kind := explain_kind(function, may_yield=hook in _LISTS):
        problem = f"{name} cannot be used: {kind}"
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
    if result is None:
        return None
    if inspect.isawaitable(result):
        explain_unfinished(result)  # closes it
        raise BadResult("returned something to await; return the value itself")
    if hook not in _LISTS and (problem := explain_unfinished(result)):
        raise BadResult(problem)
    if hook == "om_csp":
        if not isinstance(result, Mapping) and not callable(result):
            raise BadResult(f"returned {name_type(result)}; return a dict or a function")
        problem = explain_callback(result, 1) if callable(result) else ""
        if problem:
            raise BadResult(
                f"returned a function that cannot be called: {problem}; it gets the WSGI environ"
            )
        return result
    if hook in ("om_caches", "om_hubs"):
        if not isinstance(result, Mapping):
            raise BadResult(
                f"returned {name_type(result)}; return a dict from URL scheme to factory"
            )
        for scheme, factory in result.items():
            if not isinstance(scheme, str) or not callable(factory):
                raise BadResult(
                    f"returned {scheme!r}: {name_type(factory)}; a factory is a function"
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
        raise BadResult(f"returned {name_type(result)}; return a list")
    parts = list(result)
    for part in parts:
        if hook == "om_engines":
            if not isinstance(part, EngineSpec):
                raise BadResult(
                    f"returned {name_type(part)} in its list; return EngineSpec objects"
                )
            if not isinstance(part.engine, Engine):
                part = part.engine
            else:
                continue
        missing = [name for name in wanted if not hasattr(part, name)]
        if missing:
            raise BadResult(f"returned {name_type(part)}, which has no {' and no '.join(missing)}")
        if hook != "om_engines":  # a chain checks its engines
            problem = _explain_part(hook, part)
            if problem:
                raise BadResult(f"returned {name_type(part)}, {problem}")
    return parts


def explain_sending(result: object) -> str:
    """Explain why a notifier has not sent a notification, although it raised nothing; "" if it has.

    What ``send`` returns, such as the id of a message, says nothing, but ``False`` says no.
    """
    if result is False:
        return "returned False; raise what is wrong"
    return explain_unfinished(result) if result is not None else ""


def explain_step_result(result: object) -> str:
    """Explain why what a step of recovery returned does not mean that it is done; "" when it does.

    A step that has nothing to say returns ``None``.
    """
    if result is None or isinstance(result, str):
        return ""
    said = describe_result(result)
    return (
        f"{said}; return what was done, in one line, or raise an OpenManagerError while the "
        "problem still exists"
    )


def _explain_part(hook: str, part: Any) -> str:
    """Explain why nobody could use a part; "" when it can be used."""
    method, arguments, given = _CALLED[hook]
    problem = explain_callback(getattr(part, method), arguments)
    if problem:
        return f"whose {method} cannot be called: {problem}; it gets {given}"
    if "name" in _PARTS[hook] and not (isinstance(part.name, str) and part.name):
        return f"whose name is {part.name!r}: it must be a text that is not empty"
    accepts = getattr(part, "accepts", None) if hook == "om_notifiers" else None
    if accepts is not None and (problem := explain_callback(accepts, 1)):
        return f"whose accepts cannot be called: {problem}; it gets the notification"
    if hook == "om_notifiers" and not isinstance(getattr(part, "durable", True), bool):
        return f"whose durable is {part.durable!r}: it must be True or False"
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

_LISTS = frozenset({*_PARTS, "om_features"})
"""The hooks that return a list, and so may yield."""

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


def check_engine(spec: EngineSpec, chain: str) -> Engine:
    """Refuse an object that is not an engine when it is registered, not when it is first called.

    Args:
        spec: the engine with its chain and tier.
        chain: the chain that it is for.

    Raises:
        ConfigError: it lacks a part of the contract, or its chain or tier is not valid.
        TypeError: a method is ``async``, or a generator function that nobody would read.
    """
    engine = spec.engine
    key = f"engine of chain {chain!r}"
    if not isinstance(chain, str) or not chain or chain == "*":
        raise ConfigError("chain", chain, "must be a name; '' is none, and '*' means every chain")
    if spec.chain != chain:
        raise ConfigError(key, engine, f"its spec names another chain, {spec.chain!r}")
    name = getattr(engine, "name", None)
    call = getattr(engine, "call", None)
    if inspect.isroutine(engine):
        made = f"@om.engine('name', chain={chain!r}) above it, or CallableEngine('name', function)"
        raise ConfigError(key, engine, f"is a function; write {made}")
    if isinstance(engine, type):
        made = f"{engine.__name__}(…)"
        raise ConfigError(key, engine, f"is a class; give an object that it makes: {made}")
    if not callable(call):
        raise ConfigError(key, engine, "must be an object with a method call(call)")
    if not isinstance(name, str) or not name:
        raise ConfigError(key, name, "must be an object with a name, a text that is not empty")
    if not isinstance(getattr(engine, "traits", None), EngineTraits):
        raise ConfigError(key, engine, "must have traits, an EngineTraits")
    _check_traits(name, cast(Engine, engine).traits)
    for method, arguments in _METHODS.items():
        _check_method(name, cast(Engine, engine), method, arguments)
    if isinstance(spec.tier, bool) or not isinstance(spec.tier, int) or spec.tier < 1:
        raise ConfigError(f"tier of engine {name!r}", spec.tier, "must be a whole number from 1")
    check_value(f"weight of engine {name!r}", spec.weight, _WEIGHT)
    return cast(Engine, engine)


_WEIGHT = amount(0.001, 1000)
_METHODS = {"call": 1, "probe": 1, "close": 0, "attach": 1, "learn": 2}
"""The methods that a chain calls, with the number of arguments that it gives."""
_GIVEN = {"attach": "the plugin context", "close": "nothing", "learn": "the call and the answer"}


def _check_method(name: str, engine: Engine, method: str, arguments: int) -> None:
    """Refuse a method that the chain could not call, or whose result it could not use.

    Raises:
        ConfigError: it takes other arguments, or it is no method.
        TypeError: a call would not run it.
    """
    function = getattr(engine, method, None)
    if function is None:
        return
    key = f"engine {name!r}: {method}"
    if not callable(function):
        raise ConfigError(key, function, "must be a method")
    problem = explain_kind(function, may_yield=method == "call")
    if problem:
        wrapped = ", or wrap the coroutine function in a CallableEngine" if method == "call" else ""
        raise TypeError(f"{key} cannot be used: {problem}{wrapped}")
    if explain_kind(function) and not engine.traits.streaming:
        raise TypeError(f"{key} yields, and {_NEEDS_TRAIT}")
    problem = explain_arguments(function, arguments)
    if problem:
        given = _GIVEN.get(method, "the call")
        raise ConfigError(key, function, f"{problem}; a chain gives it {given}")


def _check_traits(name: str, traits: EngineTraits) -> None:
    for trait in fields(traits):
        value = getattr(traits, trait.name)
        if trait.name == "max_concurrency":
            sound = value is None or (type(value) is int and 0 <= value <= 100_000)
            allowed = "a whole number from 0 to 100000, or None for no limit"
        elif trait.name == "breaker_key":
            sound, allowed = isinstance(value, str), "text"
        else:
            sound, allowed = isinstance(value, bool), "True or False"
        if not sound:
            raise ConfigError(f"{trait.name} of engine {name!r}", value, f"must be {allowed}")


_NEEDS_TRAIT = (
    "only an engine with EngineTraits(streaming=True) may answer in chunks: set it, or return the "
    "whole answer"
)


def explain_answer(result: Any) -> str:
    """Explain why what an engine returned is no answer; "" when it is one.

    Args:
        result: what ``call`` returned, unless a chain reads it in chunks: when nobody asked for
            them, of an engine with the trait ``streaming`` alone. Of an ``Answer`` without chunks,
            the payload counts, which may be ``None``.
    """
    if isinstance(result, Answer):
        result = result.payload
    elif result is None:
        return (
            "returned None: its function may lack a return; an engine whose answer is None returns "
            "Answer(None)"
        )
    cls: Any = type(result)
    if not _is_unfinished(cls):
        return ""
    if isinstance(result, GeneratorType):
        result.close()
        return f"returned a generator, and {_NEEDS_TRAIT}"
    return explain_unfinished(result)


def refuse_chunk(chunk: object) -> object:
    """Return a chunk of an answer, unless the function that made it has not run.

    Raises:
        NoAnswer: it is a coroutine, a generator or the like.
    """
    cls: Any = type(chunk)
    if _is_unfinished(cls):
        raise NoAnswer(f"a chunk is none: its function {explain_unfinished(chunk)}", sent="yes")
    return chunk


@functools.lru_cache(maxsize=256)  # each answer that is an object of a class asks this
def _is_unfinished(cls: type) -> bool:
    return cls is GeneratorType or hasattr(cls, "__await__") or hasattr(cls, "__anext__")

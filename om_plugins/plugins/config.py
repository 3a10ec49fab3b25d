"""A plugin's own settings: ``OM_PLUGIN_CONFIG["name"]``, read into its ``config_class``.

Errors name the key as the operator wrote it. They never repeat a value, which may be a secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import inspect
import re
import types
import typing
import uuid
from collections import abc
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from ..errors import ConfigError, suggest
from ..settings.kinds import BOOL, MAPPING, STRINGS
from ..settings.table import Table

_LISTS = {
    list, tuple, set, frozenset, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable,
    abc.Set, abc.MutableSet,
}  # fmt: skip
_DICTS = {dict, abc.Mapping, abc.MutableMapping}
_NATIVE = (
    bytes, bytearray, datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
    decimal.Decimal, uuid.UUID,
)  # fmt: skip


def make_config(
    plugin: str, config_class: Callable[..., object] | None, values: object
) -> object | None:
    """Make the plugin's config object from its settings.

    This checks values against the annotations of ``config_class`` and converts text to the
    annotated type, such as ``"3"`` to an int and ``"a,b"`` to a list. So a plain dataclass is
    enough.

    Args:
        plugin: the plugin's name.
        config_class: a dataclass or another callable with keywords; ``None`` for no settings.
        values: what the operator wrote; ``None`` for nothing.

    Returns:
        What ``config_class`` returned; ``None`` when there is no class.

    Raises:
        ValueError: a key is unknown or missing, or a value is not allowed. The text names the key.
    """
    where = f"OM_PLUGIN_CONFIG[{plugin!r}]"
    if values is None:
        values = {}
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{where} must be a dict with text keys, not {type(values).__name__}")
    if config_class is None:
        if values:
            raise ValueError(f"{where}: this plugin has no settings; take it out")
        return None
    parameters = _read_parameters(config_class)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [
        p.name for p in parameters.values() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    for name in values:
        if name not in known and not open_ended:
            raise ValueError(f"{where}[{name!r}]: unknown key; {suggest(name, known)}")
    for name in known:
        if name not in values and parameters[name].default is inspect.Parameter.empty:
            raise ValueError(f"{where}[{name!r}]: is required; set it")
    hints = _resolve_annotations(config_class) if values else {}
    read = {name: _read(f"{where}[{name!r}]", v, hints.get(name)) for name, v in values.items()}
    try:
        return config_class(**read)
    except ConfigError as error:
        raise ValueError(f"{where}[{error.key!r}]: {error.reason}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{_find_wrong_key(where, read, str(error))}: {error}") from error


_parameters: WeakKeyDictionary[type, Mapping[str, inspect.Parameter]] = WeakKeyDictionary()
"""The parameters of classes, which take longer to read than all else."""


def _read_parameters(config_class: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    if not isinstance(config_class, type):
        return inspect.signature(config_class).parameters
    found = _parameters.get(config_class)
    if found is None:
        found = _parameters[config_class] = inspect.signature(config_class).parameters
    return found


def _resolve_annotations(config_class: Callable[..., object]) -> dict[str, Any]:
    """Return the annotations of the keywords; {} when they cannot be resolved here."""
    source: Any = config_class
    if inspect.isclass(config_class):
        if issubclass(config_class, Table):  # a table checks its own values
            return {}
        source = config_class if dataclasses.is_dataclass(config_class) else config_class.__init__
    try:
        return typing.get_type_hints(source, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def _read(key: str, value: object, hint: Any) -> object:
    if hint is None:
        return value
    if isinstance(value, str):
        value = _read_text(key, value, hint)
    try:
        return msgspec.convert(value, hint, strict=False, builtin_types=_NATIVE)
    except msgspec.ValidationError as error:
        raise ValueError(f"{key}: {_in_python(str(error))}") from None
    except TypeError:  # an annotation that msgspec has no check for
        return value


def _read_text(key: str, text: str, hint: Any) -> object:
    """Read text as the shipped settings do: lists with commas, dicts as JSON, yes and no."""
    kinds = _kinds_of(hint)
    if str in kinds:
        return text
    if kinds & _LISTS:
        return STRINGS.read(text)
    if kinds & _DICTS:
        try:
            return MAPPING.read(text)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    if bool in kinds:
        with contextlib.suppress(ValueError):
            return BOOL.read(text)
    return text


def _kinds_of(hint: Any) -> set[object]:
    """Return the classes that an annotation allows, without what is inside of them."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _kinds_of(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(_kinds_of, typing.get_args(hint)))
    return {origin or hint}


def _in_python(message: str) -> str:
    """Return a message of msgspec's in the words of Python, where it has those of JSON."""
    for theirs, ours in (("array", "list"), ("object", "dict"), ("null", "None")):
        message = re.sub(rf"\b{theirs}\b", ours, message)
    return _lower_first(message)


def _find_wrong_key(where: str, read: Mapping[str, object], message: str) -> str:
    """Find the only key that the plugin's own error can mean, else name the whole table."""
    named = [name for name in read if re.search(rf"\b{re.escape(name)}\b", message)]
    keys = named or list(read)
    return f"{where}[{keys[0]!r}]" if len(keys) == 1 else where


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]

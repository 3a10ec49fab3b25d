"""What a function is made of: its code, and the values that it was made with.

Everything is read into digests that are the same in every process: no memory address is in them.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import Any

from ..keys import ATOMS, UnsupportedKey, encode, is_found_by_name

_FIRST = itemgetter(0)
_EMPTY = object()  # in place of the value of a closed-over variable that has none yet
_MUTABLE = frozenset({list, dict, set, bytearray, deque, Counter, defaultdict, OrderedDict})


class CachedFunction:
    """A callable that answers like the function in its attribute ``__wrapped__``."""

    __slots__ = ()

    __wrapped__: Any


_ANSWER_LIKE_WRAPPED = (CachedFunction, functools._lru_cache_wrapper)


@dataclass(frozen=True, slots=True, eq=False)
class FunctionParts:
    """What a function consists of, at one moment.

    Attributes:
        code: a digest of the code: names, positions, instructions.
        values: a digest of the values that a key can hold; "" without any.
        self_naming: objects that name themselves, in their order; members of the key.
        held: objects that can change, or that no key can hold, in their order.
        opaque: the first object that no key can hold, in words; "" for none.
        position: file and line of the code, as in ``shop.py:12``.
        cells: the closed-over variables, each with the value that was read.
    """

    code: str
    values: str
    self_naming: tuple[object, ...]
    held: tuple[object, ...]
    opaque: str
    position: str
    cells: tuple[tuple[CellType, object], ...]

    def is_current(self) -> bool:
        """Return whether no closed-over variable got another value since."""
        return all(_read_cell(cell) is value for cell, value in self.cells)


def read_function(function: object, own_defaults: bool) -> FunctionParts:
    """Read what a function is made of.

    Args:
        function: any callable.
        own_defaults: the defaults of a Python function's own parameters count.
    """
    reader = _FunctionReader()
    if type(function) is FunctionType:
        reader.read_python(function, own_defaults)
    else:
        reader.read(function, "the callable")
    return FunctionParts(
        digest(reader.code),
        digest(reader.values) if reader.values else "",
        tuple(reader.self_naming),
        tuple(reader.held),
        reader.opaque,
        reader.position,
        tuple(reader.cells),
    )


def digest(parts: Iterable[str | bytes]) -> str:
    return hashlib.blake2b(b"".join(map(encode, parts)), digest_size=16).hexdigest()


def _read_cell(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


class _FunctionReader:
    """Reads a function, and the functions and values that it was made with."""

    def __init__(self) -> None:
        self.code: list[bytes] = []
        self.values: list[bytes] = []
        self.self_naming: list[object] = []
        self.held: list[object] = []
        self.opaque = ""
        self.position = ""
        self.cells: list[tuple[CellType, object]] = []
        self.seen: dict[int, int] = {}

    def read(self, value: Any, where: str) -> None:
        """Read a value of any kind; ``where`` says in words where it stands."""
        kind = type(value)  # not isinstance(), which a proxy answers for its object
        if kind is FunctionType:
            self.read_python(value, own_defaults=True)
        elif kind is MethodType:
            self.read(value.__func__, where)
            self.read(value.__self__, "self")
        elif issubclass(kind, _ANSWER_LIKE_WRAPPED):
            self._write_code("cached")
            self.read(value.__wrapped__, where)
        elif kind is functools.partial:
            self._write_code("partial", str(len(value.args)), *sorted(value.keywords))
            self.read(value.func, where)
            for number, one in enumerate(value.args):
                self.read(one, f"argument {number + 1} of the partial")
            for name in sorted(value.keywords):
                self.read(value.keywords[name], f"{name}= of the partial")
        elif value is _EMPTY:
            self._write_code("empty")
        elif kind is ModuleType:
            self._write_code("module", value.__name__)
        elif (issubclass(kind, type) or kind is BuiltinFunctionType) and is_found_by_name(value):
            self._write_code("named", value.__module__, value.__qualname__)
        elif kind is BuiltinFunctionType and not isinstance(value.__self__, ModuleType | None):
            self._write_code("method", value.__qualname__)
            self.read(value.__self__, "self")
        else:
            self._read_data(value, where)

    def read_python(self, function: FunctionType, own_defaults: bool) -> None:
        if id(function) in self.seen:  # it calls itself
            self._write_code("again", str(self.seen[id(function)]))
            return
        self.seen[id(function)] = len(self.seen)
        code = function.__code__
        if not self.position:
            self.position = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
        self._write_code(function.__module__ or "", function.__qualname__)
        self.code.append(_write_instructions(code))
        if not _has_module(function):
            self._hold_opaque(function.__globals__, "global names that are of no imported module")
        if own_defaults:
            for default in function.__defaults__ or ():
                self.read(default, "a default")
            for name, default in sorted((function.__kwdefaults__ or {}).items()):
                self._write_code(name)
                self.read(default, f"the default of {name}=")
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            value = _read_cell(cell)
            if value is not _EMPTY and name in _find_assigned(code):
                self.held.append(cell)  # a call must not change the key of the next one
            else:
                self.cells.append((cell, value))
            self.read(value, repr(name))

    def _read_data(self, value: Any, where: str) -> None:
        """Read a value that is no function."""
        kind = type(value)
        if hasattr(kind, "__cache_key__") and kind not in ATOMS and not issubclass(kind, Enum):
            self.self_naming.append(value)
            self._read_call(value)
            return
        held_before = len(self.held)
        try:
            self.values.append(encode(self._freeze(value)))
        except (UnsupportedKey, RecursionError):
            del self.held[held_before:]
            if not self._read_callable(value):
                self._hold_opaque(value, where)

    def _freeze(self, value: Any) -> object:
        """Return the content of a value, as a value of a key."""
        kind = type(value)
        if kind is tuple:
            return ("tuple", *map(self._freeze, value))
        if kind not in _MUTABLE:
            return value
        self.held.append(value)
        content: Any = value
        if isinstance(value, dict):
            content = [item for pair in list(value.items()) for item in pair]
        elif kind is set:
            content = [frozenset(value)]
        elif kind is bytearray:
            content = [bytes(value)]
        return (kind.__name__, *map(self._freeze, list(content)))

    def _read_callable(self, value: object) -> bool:
        """Read an object with a ``__call__`` method; return whether all of its state could be."""
        kind = type(value)
        if (
            not callable(value)
            or type(kind.__call__) is not FunctionType
            or any(
                isinstance(cls.__dict__.get("__new__"), BuiltinFunctionType)
                for cls in kind.__mro__[:-1]
            )
        ):
            return False  # a class in C, which may have a state that nobody sees
        if id(value) in self.seen:  # it has itself among its attributes
            self._write_code("again", str(self.seen[id(value)]))
            return True
        state = object.__getstate__(value)
        pairs = state if isinstance(state, tuple) else (state,)
        inner = _FunctionReader()
        inner.seen = {**self.seen, id(value): len(self.seen)}
        for name, one in sorted(
            (item for some in pairs if some for item in some.items()), key=_FIRST
        ):
            inner._write_code(name)
            inner.read(one, f"its attribute {name!r}")
            if inner.opaque:
                return False
        inner._read_call(value)
        self.seen = inner.seen
        self.code += inner.code
        self.values += inner.values
        self.self_naming += inner.self_naming
        self.held += [value, *inner.held]
        self.cells += inner.cells
        return True

    def _read_call(self, value: object) -> None:
        kind = type(value)
        self._write_code("object of", kind.__module__, kind.__qualname__)
        if callable(value) and type(kind.__call__) is FunctionType:
            self.read_python(kind.__call__, own_defaults=True)

    def _hold_opaque(self, value: object, where: str) -> None:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        self._write_code("opaque", name)
        self.held.append(value)
        self.opaque = self.opaque or f"{where} ({name})"

    def _write_code(self, *texts: str) -> None:
        self.code.append(encode(texts))


def _has_module(function: FunctionType) -> bool:
    """Return whether the global names of a function are those of an imported module.

    They are not where :func:`exec` or :mod:`runpy` made it: each namespace may have other values
    under the names that the code uses.
    """
    names = function.__globals__  # not __module__, which functools.wraps copies
    return getattr(sys.modules.get(names.get("__name__", "")), "__dict__", None) is names


def _find_assigned(code: CodeType) -> Iterator[str]:
    """Yield the closed-over variables that the code itself assigns (``nonlocal``)."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_DEREF", "DELETE_DEREF"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _find_assigned(constant)


def _write_instructions(code: CodeType) -> bytes:
    """Write what a function's code does, and where it stands; the same in every process."""
    constants = b"".join(map(_write_constant, code.co_consts))
    return constants + encode(
        (
            Path(code.co_filename).name, code.co_firstlineno, code.co_flags,
            code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
            code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
        )
    )  # fmt: skip


def _write_constant(constant: object) -> bytes:
    if isinstance(constant, CodeType):
        return _write_instructions(constant)
    try:
        return encode(constant)
    except UnsupportedKey:  # an Ellipsis or a complex number, whose text is unique
        return encode((type(constant).__name__, repr(constant)))

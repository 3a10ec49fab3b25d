"""Tables of settings: dataclasses whose fields know what is allowed.

A :class:`Table` reads a mapping as users write it and raises
:class:`~om_plugins.errors.ConfigError` with the key, the value and the way out. What is allowed is
said by the checks of :mod:`om_plugins.settings.kinds`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Self

from ..errors import ConfigError

__all__ = ["Check", "NoKeys", "Table", "key", "unknown_key"]


@dataclass(frozen=True, slots=True)
class Check:
    """How one kind of value is read.

    Attributes:
        allowed: what is allowed, in words; used in errors and in the documentation.
        read: turns what was found into the value, or raises ``ValueError`` or ``TypeError``.
        accepts: the type annotation of what users may write, for :mod:`.keywords`.
        secret: a value that is no function is shown to nobody: not in an error, not in a list.
        table: the table of what is inside the value; ``None`` for no table.
    """

    allowed: str
    read: Callable[[Any], Any]
    accepts: str = "object"
    secret: bool = False
    table: type[Table] | None = None


class Table:
    """A frozen dataclass whose fields were made by :func:`key`."""

    PREFIX: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    """The heading of a table that is inside another one, on the reference page."""
    SHORT: ClassVar[str] = ""
    """The one key that a list stands for; "" where a table must be a dict."""
    SWITCH: ClassVar[str] = ""
    """The one key that a bare true or false stands for; "" where a table must be a dict."""
    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Keys that were renamed, as users write them: from the old name to the new one."""

    @classmethod
    def keys(cls) -> dict[str, Field[Any]]:
        """The fields by the names that users write."""
        return {cls._written(f.name): f for f in fields(cls)}  # type: ignore[arg-type]

    @classmethod
    def _written(cls, name: str) -> str:
        return cls.PREFIX + name.upper() if cls.PREFIX else name

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], where: str = "") -> Self:
        """Read and check ``values``.

        Args:
            values: keys as users write them; with a :attr:`PREFIX`, others are ignored.
            where: what stands before the key in errors, for nested tables.

        Raises:
            ConfigError: a key is unknown or a value is not allowed.
        """
        known = cls.keys()
        read: dict[str, Any] = {}
        for name, value in values.items():
            if not isinstance(name, str) or (cls.PREFIX and not name.startswith(cls.PREFIX)):
                continue
            found = known.get(name)
            if found is None:
                renamed = cls.RENAMED.get(name)
                reason = f"renamed to {renamed}" if renamed else unknown_key(name, known)
                raise ConfigError(where + name, value, reason)
            try:
                read[found.name] = _read(where + name, value, found)
            except ConfigError as error:
                if error.key.startswith(where):
                    raise
                # of a table inside this one, which does not know where it stands
                raise ConfigError(where + error.key, error.value, error.reason) from None
        return cls(**read)

    @classmethod
    def read_some(cls, values: Mapping[str, object], where: str = "") -> dict[str, Any]:
        """Read and check ``values`` that may leave keys out: the fields that were given.

        ``None`` is left out as well, unless it is the default.

        Raises:
            ConfigError: as for :meth:`from_mapping`.
        """
        known = cls.keys()
        given = {
            name: value
            for name, value in values.items()
            if value is not None or name not in known or known[name].default is None
        }
        read = cls.from_mapping(given, where)
        return {known[name].name: getattr(read, known[name].name) for name in given}

    def given(self) -> dict[str, Any]:
        """The values that differ from the defaults, by the names that users write."""
        default = type(self)()
        return {
            written: value
            for written, one in self.keys().items()
            if (value := getattr(self, one.name)) != getattr(default, one.name)
        }

    def as_written(self) -> bool | dict[str, Any]:
        """The shortest value that users can write for this table."""
        given = self.given()
        if self.SWITCH and not given:
            return True
        return False if given == {self.SWITCH: False} else given

    def __post_init__(self) -> None:
        for written, one in self.keys().items():
            value = getattr(self, one.name)
            if one.default is MISSING or value is not one.default:
                object.__setattr__(self, one.name, _read(written, value, one))


@dataclass(frozen=True, slots=True, kw_only=True)
class NoKeys(Table):
    """The table of a feature without settings."""


def _read(written: str, value: object, found: Field[Any]) -> Any:
    check: Check = found.metadata["check"]
    if value is None and found.default is None:
        return None
    try:
        return check.read(value)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        detail = str(error)
        reason = f"must be {check.allowed}" + (f" ({detail})" if detail else "")
        shown = "…" if check.secret else value  # a secret never reaches a log
        raise ConfigError(written, shown, reason) from None


def unknown_key(name: str, known: Iterable[str]) -> str:
    """Why a key is refused: the nearest known one, or all of them."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return (
        f"unknown key; did you mean {near[0]!r}?"
        if near
        else ("unknown key; known are " + ", ".join(sorted(known)))
    )


def key(default: Any, check: Check, doc: str, group: str = "") -> Any:
    """One row of a settings table."""
    metadata = {"check": check, "doc": doc, "group": group}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)

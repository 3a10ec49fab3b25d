"""Tables of settings: dataclasses whose fields check their values.

A :class:`Table` reads a mapping as users write it. For a wrong key or value it raises
:class:`~om_plugins.errors.ConfigError` with the key, the value and what to write instead. The
checks of :mod:`om_plugins.settings.kinds` define which values are allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Self

from ..errors import ConfigError, suggest


@dataclass(frozen=True, slots=True)
class Check:
    """How to read one kind of value.

    Attributes:
        allowed: describes the allowed values, for errors and for the documentation.
        read: converts what the user wrote to the value; raises ``ValueError`` or ``TypeError``.
        accepts: the type annotation of what users may write, for :mod:`.keywords`.
        secret: the value, unless it is a function, appears neither in errors nor in lists.
        table: the table that the value is or contains; ``None`` for no table.
        choices: the allowed words; () when other values are allowed, too.
    """

    allowed: str
    read: Callable[[Any], Any]
    accepts: str = "object"
    secret: bool = False
    table: type[Table] | None = None
    choices: tuple[str, ...] = ()


class Table:
    """Base class of frozen dataclasses whose fields :func:`key` made."""

    PREFIX: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    """The heading of a table that is inside another one, on the reference page."""
    SHORT: ClassVar[str] = ""
    """The key that a bare list sets; "" where the value must be a dict."""
    SWITCH: ClassVar[str] = ""
    """The key that a bare true or false sets; "" where the value must be a dict."""
    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Keys that were renamed, as users write them: from the old name to the new one."""
    REMOVED: ClassVar[Mapping[str, str]] = {}
    """Keys that were removed, as users write them, with the reason."""
    SHORTER: ClassVar[Mapping[str, str]] = {}
    """Times that contradict another one when they are longer, by the names of the fields."""
    _keys: ClassVar[dict[str, Field[Any]]]
    _defaults: ClassVar[Self | None]

    @classmethod
    def keys(cls) -> dict[str, Field[Any]]:
        """Return the fields by the names that users write; the same dict each time."""
        found: dict[str, Field[Any]] | None = cls.__dict__.get("_keys")
        if found is None:
            found = {cls._written(f.name): f for f in fields(cls)}  # type: ignore[arg-type]
            cls._keys = found
        return found

    @classmethod
    def _written(cls, name: str) -> str:
        return cls.PREFIX + name.upper() if cls.PREFIX else name

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], where: str = "") -> Self:
        """Read and check ``values``.

        Args:
            values: keys as users write them. With a :attr:`PREFIX`, keys without it are ignored.
            where: what errors write before the key, for nested tables.

        Raises:
            ConfigError: a key is unknown or a value is not allowed.
        """
        if not values:
            return cls._get_defaults()
        known = cls.keys()
        read: dict[str, Any] = {}
        for name, value in values.items():
            if not isinstance(name, str) or (cls.PREFIX and not name.startswith(cls.PREFIX)):
                continue
            found = known.get(name)
            if found is None:
                reason = cls.explain_old_key(name) or explain_unknown_key(name, known)
                raise ConfigError(where + name, value, reason)
            try:
                read[found.name] = _read(where + name, value, found)
            except ConfigError as error:
                if error.key.startswith(where):
                    raise
                # from a nested table, which does not know its own place
                raise ConfigError(where + error.key, error.value, error.reason) from None
        for short, long in cls.SHORTER.items():
            first, second = read.get(short), read.get(long)
            if first is not None and second is not None and first > second:
                raise ConfigError(
                    where + cls._written(short), first,
                    f"is longer than {where}{cls._written(long)} {second!r}, which ends it; "
                    "change one of them, or leave one out",
                )  # fmt: skip
        return cls(**read)

    @classmethod
    def _get_defaults(cls) -> Self:
        """Return the table without any key set: one for all applications if nothing in it can
        change.
        """
        if "_defaults" not in cls.__dict__:
            made = cls()
            try:
                hash(made)
            except TypeError:  # it has a dict or a list
                cls._defaults = None
            else:
                cls._defaults = made
        return cls._defaults or cls()

    @classmethod
    def explain_old_key(cls, name: str) -> str:
        """Say what became of a key that earlier versions had; "" for every other name."""
        if name in cls.RENAMED:
            return f"renamed to {cls.RENAMED[name]}"
        return f"removed: {cls.REMOVED[name]}" if name in cls.REMOVED else ""

    @classmethod
    def read_some(cls, values: Mapping[str, object], where: str = "") -> dict[str, Any]:
        """Read and check some keys of the table; return only the fields that were given.

        Values of ``None`` are left out, unless ``None`` is the default.

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

    def get_changed(self) -> dict[str, Any]:
        """Return the values that differ from the defaults, by the names that users write."""
        default = type(self)()
        return {
            written: value
            for written, one in self.keys().items()
            if (value := getattr(self, one.name)) != getattr(default, one.name)
        }

    def as_written(self) -> bool | dict[str, Any]:
        """Return the shortest value that users can write for this table."""
        given = self.get_changed()
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


def explain_unknown_key(name: str, known: Iterable[str]) -> str:
    """Explain why a key is refused: name the nearest known key, or list all of them."""
    return f"unknown key; {suggest(name, sorted(known))}"


def key(default: Any, check: Check, doc: str, group: str = "") -> Any:
    """Declare one key of a settings table.

    Args:
        default: the default; dicts and lists are copied for each table.
        check: which values are allowed.
        doc: describes the key on the reference page.
        group: the heading on the reference page; "" for keys of nested tables.
    """
    metadata = {"check": check, "doc": doc, "group": group}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)

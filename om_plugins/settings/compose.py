"""The settings of one application: the tables of all its features, read from one mapping.

A key is declared once, in the table of its feature. This module finds the table of every key. A key
that no table has is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field
from itertools import chain
from typing import Any, Self, TypeVar

from ..errors import ConfigError
from .table import Table, explain_unknown_key

PREFIX = "OM_"

T = TypeVar("T", bound=Table)

_SMALL_PREFIXES = frozenset({"om_", "Om_", "oM_"})
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CREDENTIAL", re.IGNORECASE)


class ComposedSettings:
    """The settings of one application, a table for each feature.

    Args:
        tables: classes whose keys begin with ``OM_``.
        values: keys as users write them. Keys that do not begin with ``OM_`` are ignored.

    Raises:
        ConfigError: a value is not allowed. :meth:`check` reports unknown keys.
    """

    def __init__(self, tables: Iterable[type[Table]], values: Mapping[str, object]) -> None:
        self._tables: dict[type[Table], Table] = {}
        self._owners: dict[str, type[Table]] = {}
        self._left = {
            name: value
            for name, value in values.items()
            if isinstance(name, str) and name.startswith(PREFIX)
        }
        self._small = [
            name for name in values if isinstance(name, str) and name[:3] in _SMALL_PREFIXES
        ]
        for table in tables:
            self.add(table)

    def add(self, table: type[Table]) -> None:
        """Read the keys of one more table.

        Raises:
            ConfigError: a value is not allowed.
            ValueError: another table has one of its keys.
        """
        if table in self._tables:
            return
        names = table.keys()
        twice = min(names.keys() & self._owners.keys(), default=None)
        if twice is not None:
            other = self._owners[twice]
            raise ValueError(f"{table.__name__} declares {twice}, as {other.__name__} does")
        own = {name: self._left.pop(name) for name in list(self._left) if name in names}
        self._tables[table] = table.from_mapping(own)
        self._owners.update(dict.fromkeys(names, table))

    def check(self) -> Self:
        """Refuse keys that no table has.

        Raises:
            ConfigError: names the first such key and the nearest known one.
        """
        for name, value in self._left.items():
            old = next(filter(None, (table.explain_old_key(name) for table in self._tables)), "")
            known = list(chain.from_iterable(table.keys() for table in self._tables))
            reason = old or explain_unknown_key(name, known)
            raise ConfigError(name, self._hide(name, value, reason), reason)
        return self

    def list_ignored(self) -> list[str]:
        """Return the keys that are a setting's but for their small letters: nobody reads them."""
        return [name for name in self._small if name.upper() in self._owners]

    def _hide(self, name: str, value: object, reason: str) -> object:
        """Return what an error may show of the value of an unknown key: it may be a secret."""
        meant = re.findall(r"'(OM_\w+)'", reason)
        secret = any(
            self._owners[key].keys()[key].metadata["check"].secret
            for key in meant
            if key in self._owners
        )
        return "…" if secret or _SECRET.search(name) else value

    def of(self, table: type[T]) -> T:
        """Return the settings of one feature."""
        found = self._tables[table]
        assert isinstance(found, table)  # noqa: S101 - for mypy; only ``add`` writes it
        return found

    def rows(self) -> Iterator[tuple[str, Field[Any], Any]]:
        """Yield each key as users write it, its declaration and its value."""
        for table in self._tables.values():
            for name, declared in table.keys().items():
                yield name, declared, getattr(table, declared.name)

    def get_changed(self) -> dict[str, Any]:
        """Return the values that differ from the defaults, by the names that users write."""
        return {
            name: value
            for table in self._tables.values()
            for name, value in table.get_changed().items()
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComposedSettings) and self._tables == other._tables

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self.get_changed()) or 'defaults'}>"

"""Matches the path patterns that settings hold: ``/up``, or ``/status/*`` for all below."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PLACEHOLDER = re.compile(r"<(?:[A-Za-z_]\w*(?:\([^<>]*\))?:)?[A-Za-z_]\w*>")
"""A variable of a url rule, such as ``<name>`` or ``<int(min=1):page>``."""


def explain_placeholder(path: str, ending: str = "*") -> str:
    """Explain that a path in a setting has no variables, as url rules have; "" when it has none.

    Args:
        path: as the setting has it.
        ending: what comes after a path to match all that begin as it does.
    """
    found = _PLACEHOLDER.search(path)
    if found is None:
        return ""
    return (
        f"a path is matched letter by letter, and {found[0]!r} is a variable of a route; "
        f"write {path[: found.start()] + ending!r} for all that begin so"
    )


class PathPatterns:
    """A set of patterns, as :data:`~.kinds.PATH_PATTERNS` reads them.

    Args:
        patterns: paths; one that ends in ``*`` stands for all that begin as it does.
    """

    __slots__ = ("_below", "_exact")

    def __init__(self, patterns: Iterable[str]) -> None:
        written = [path.encode().decode("latin-1") for path in patterns]  # as in PATH_INFO
        self._exact = frozenset(path for path in written if not path.endswith("*"))
        self._below = tuple(path[:-1] for path in written if path.endswith("*"))

    def match(self, path: str) -> bool:
        """Return whether one of the patterns matches a path, written as in ``PATH_INFO``."""
        return path in self._exact or path.startswith(self._below)

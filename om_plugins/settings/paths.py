"""Matches the path patterns that settings hold: ``/up``, or ``/status/*`` for all below."""

from __future__ import annotations

from collections.abc import Iterable


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

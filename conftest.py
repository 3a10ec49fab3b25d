"""Runs every python block of the README and the docs as a test."""

from __future__ import annotations

from typing import Any

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser


def as_main(namespace: dict[str, Any]) -> None:
    """A page's blocks run as a script would: Flask looks its root path up by ``__name__``."""
    namespace["__name__"] = "__main__"


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md"],
    setup=as_main,
).pytest()

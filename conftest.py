"""Runs every python block of the README and the docs as a test; keeps tests out of the home."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser


@pytest.fixture(scope="session", autouse=True)
def state_home() -> Iterator[str]:
    """A directory for the state of apps that are not under TESTING, in servers of tests as well."""
    made = os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="om-state-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


def as_main(namespace: dict[str, Any]) -> None:
    """A page's blocks run as a script would: Flask looks its root path up by ``__name__``."""
    namespace["__name__"] = "__main__"


def disconnect(namespace: dict[str, Any]) -> None:
    """What a page connected must not hear the tests that come after it in this process."""
    from om_plugins import signals  # the installed one: tests/conftest.py sees to that first

    namespace.clear()
    for signal in signals.SIGNALS.values():
        for receiver in list(signal.receivers_for(None)):
            signal.disconnect(receiver)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md"],
    setup=as_main,
    teardown=disconnect,
).pytest()

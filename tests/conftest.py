"""Shared by all tests: the package under test is the installed one, never the source folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# example_app is not in the wheel: found last, so that om_plugins still comes from site-packages.
sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]
sys.path.append(str(ROOT))


def needs(missing: str) -> None:
    """Skip a test for a missing tool, named with the reason; with ``CI=true`` fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing: {missing}")
    pytest.skip(f"missing: {missing}")

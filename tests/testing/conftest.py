"""The third party's plugin of tests/third_party, importable without being installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

GREETER = Path(__file__).parent.parent / "third_party" / "greeter"


@pytest.fixture
def greeter(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(GREETER))
    monkeypatch.delitem(sys.modules, "om_plugins_greeter", raising=False)
    module = importlib.import_module("om_plugins_greeter")
    monkeypatch.setitem(sys.modules, "om_plugins_greeter", module)
    return module

"""For authors of plugins: contract tests for a part, and fakes for tests.

A contract is a class of pytest tests. Inherit from it and make your part in its fixture; pytest
collects the tests. Contracts are imported lazily, so that the fakes work without pytest.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..plugins.config import make_config as make_config
    from .cache_store import CacheStoreContract as CacheStoreContract
    from .engine import EngineContract as EngineContract
    from .fakes import FakeClock as FakeClock
    from .hub import HubContract as HubContract
    from .hub import ProcessHubContract as ProcessHubContract
    from .monitor import MonitorContract as MonitorContract
    from .notifier import NotifierContract as NotifierContract
    from .plugin import PluginContract as PluginContract
    from .recovery_step import RecoveryStepContract as RecoveryStepContract

# pytest rewrites the assertions of these modules, so that a failing test shows the values.
_CONTRACTS = frozenset(
    {".cache_store", ".engine", ".hub", ".monitor", ".notifier", ".plugin", ".recovery_step"}
)

_HOMES = {
    "CacheStoreContract": ".cache_store",
    "EngineContract": ".engine",
    "FakeClock": ".fakes",
    "HubContract": ".hub",
    "MonitorContract": ".monitor",
    "NotifierContract": ".notifier",
    "PluginContract": ".plugin",
    "ProcessHubContract": ".hub",
    "RecoveryStepContract": ".recovery_step",
    "make_config": "..plugins.config",
}

__all__ = [  # noqa: PLE0604 - the table above is the list
    *sorted(_HOMES)
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.util.resolve_name(home, __name__)
    if home in _CONTRACTS and module not in sys.modules:
        import pytest

        pytest.register_assert_rewrite(module)
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value

"""For authors of plugins: contracts that prove a part, and stand-ins for tests.

The contracts are classes of pytest tests: inherit from one, say how your part is made, and pytest
finds the rest. They are imported lazily, so that the stand-ins work without pytest.
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
    from .notifier import NotifierContract as NotifierContract
    from .plugin import PluginContract as PluginContract

# Modules of tests, whose assertions pytest rewrites so that a failing contract shows the values.
_CONTRACTS = frozenset({".cache_store", ".engine", ".hub", ".notifier", ".plugin"})

_HOMES = {
    "CacheStoreContract": ".cache_store",
    "EngineContract": ".engine",
    "FakeClock": ".fakes",
    "HubContract": ".hub",
    "NotifierContract": ".notifier",
    "PluginContract": ".plugin",
    "ProcessHubContract": ".hub",
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

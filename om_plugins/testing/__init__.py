"""For authors of plugins: contracts that prove a part, and stand-ins for tests.

The contracts are classes of pytest tests: inherit from one, say how your part is made, and pytest
finds the rest. They are imported lazily, so that the stand-ins work without pytest.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache_store_contract import CacheStoreContract as CacheStoreContract
    from .engine_contract import EngineContract as EngineContract
    from .fakes import FakeClock as FakeClock
    from .hub_contract import HubContract as HubContract
    from .hub_contract import ProcessHubContract as ProcessHubContract
    from .notifier_contract import NotifierContract as NotifierContract
    from .plugin_contract import PluginContract as PluginContract

_HOMES = {
    "CacheStoreContract": "cache_store_contract",
    "EngineContract": "engine_contract",
    "FakeClock": "fakes",
    "HubContract": "hub_contract",
    "NotifierContract": "notifier_contract",
    "PluginContract": "plugin_contract",
    "ProcessHubContract": "hub_contract",
}

__all__ = [  # noqa: PLE0604 - the table above is the list
    *sorted(_HOMES)
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"{__name__}.{home}"
    if home.endswith("_contract") and module not in sys.modules:
        import pytest

        pytest.register_assert_rewrite(module)  # so that a failing contract shows the values
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value

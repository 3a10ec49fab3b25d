"""Old import paths that the documentation showed: an import of one says what to write instead.

A finder at the end of :data:`sys.meta_path` is asked only for what no other one finds, so imports
that succeed never reach it. It answers for the names of one table and for nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

PACKAGE: Final = __name__.partition(".")[0]

# Old module, or old name in a module that is a package of that name today: what to write now.
MOVED: Final[Mapping[str, str]] = {
    "background": "from om_plugins import BackgroundScheduler",
    "builtin.chaos": "from om_plugins import Chaos, ChaosOptions",
    "builtin.engine_callable": "from om_plugins import CallableEngine",
    "builtin.engine_http": "from om_plugins import HttpEngine",
    "builtin.engine_openai": "from om_plugins import OpenAIEngine",
    "builtin.hub_memory": "from om_plugins import MemoryHub",
    "builtin.hub_values": "max(last_id + 1, int(clock.time() * 1_000_000)) for the next id",
    "calls": "from om_plugins import caller_gone",
    "clock": "from om_plugins import SystemClock",
    "notifying.problems": "om.problem_reports.read(limit)",
    "notifying.words": "from om_plugins import load_translations",
    "plugin_config": "from om_plugins.testing import make_config",
    "resilience.chain": "from om_plugins import ChainPolicy, EngineChain",
    "resilience.fingerprint": "from om_plugins import error_kind",
    "routes": "from om_plugins import EngineRoutes",
    "security.headers": "from om_plugins import HeaderPolicy, HeadersLayer",
    "security.jinja_nonce": "from om_plugins import install_nonces",
    "security.nonce": "from om_plugins import nonce",
    "security.override": "from om_plugins import CspOverride, override_csp",
    "settings.RouteOptions": "from om_plugins import RouteOptions",
    "settings.Settings": "from om_plugins import Settings",
    "testing.hub_contract": "from om_plugins.testing import HubContract",
}

# Folders that hold nothing but old modules: the import of a module asks for its folder first.
_FOLDERS: Final = frozenset({"notifying", "resilience", "security"})


class MovedModules:
    """A finder that refuses the import of an old module with the new name of what it held."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find nothing.

        Raises:
            ImportError: ``fullname`` is in the table.
        """
        package, _, name = fullname.partition(".")
        if package != PACKAGE:
            return None
        if name in _FOLDERS:
            return ModuleSpec(fullname, None, is_package=True)
        refuse_moved(name)
        return None


def refuse_moved(name: str) -> None:
    """Do nothing unless ``name``, without the package's, is in the table.

    Raises:
        ImportError: it is. No ``ModuleNotFoundError``: ``from om_plugins import clock`` would
            replace that by an error of its own.
    """
    now = MOVED.get(name)
    if now is not None:
        old = f"{PACKAGE}.{name}"
        raise ImportError(f"{old} is no longer there; write: {now}", name=old)


def install() -> None:
    """Let old imports be answered; a second call changes nothing."""
    if MovedModules not in sys.meta_path:
        sys.meta_path.append(MovedModules)

"""Old names that the documentation showed: whoever uses one learns what to write instead.

Imports: a finder at the end of :data:`sys.meta_path` is asked only for what no other one finds, so
imports that succeed never reach it. Attributes: :func:`with_old_names` gives a class a descriptor
for each old name; a ``__getattr__`` would slow down every other attribute of the class in Python
3.11. Arguments: :func:`refuse_arguments`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final, NoReturn, TypeVar

from ..errors import suggest

C = TypeVar("C", bound=type)

PACKAGE: Final = __name__.partition(".")[0]

# Old module or folder, or old name in a module that still exists: what to write now.
MOVED: Final[Mapping[str, str]] = {
    "background": "from om_plugins import BackgroundScheduler",
    "builtin.chaos": "from om_plugins import Chaos, ChaosOptions",
    "builtin.engine_callable": "from om_plugins import CallableEngine",
    "builtin.engine_http": "from om_plugins import HttpEngine",
    "builtin.engine_openai": "from om_plugins import OpenAIEngine",
    "builtin.engines.openai": "from om_plugins import OpenAIEngine",
    "builtin.hub_memory": "from om_plugins import MemoryHub",
    "builtin.hub_values": "max(last_id + 1, int(clock.time() * 1_000_000)) for the next id",
    "caching": "om.cache and om.http_cache; om_plugins.errors and .types for their classes",
    "calls": "from om_plugins import caller_gone",
    "clock": "from om_plugins import SystemClock",
    "notifying": "from om_plugins import load_translations # or om.problem_reports.read(limit)",
    "plugin_config": "from om_plugins.testing import make_config",
    "resilience": "from om_plugins import ChainPolicy, EngineChain, error_kind",
    "routes": "from om_plugins import EngineRoutes",
    "security": (
        "from om_plugins import CspOverride, HeaderPolicy, HeadersLayer, install_nonces, nonce, "
        "override_csp"
    ),
    "settings.RouteOptions": "from om_plugins import RouteOptions",
    "settings.Settings": "from om_plugins import Settings",
    "shield": "@om.fallback and OM_FALLBACK",
    "signals.shield_answered": "from om_plugins.signals import fallback_answered",
    "testing.hub_contract": "from om_plugins.testing import HubContract",
}

# Old attribute of a class: what to write now; "" for one that is private now.
ATTRIBUTES: Final[Mapping[str, Mapping[str, str]]] = {
    "EngineChain": {"everyone": "chain.all_states", "places": "chain.states"},
    "HttpCache": dict.fromkeys(("close", "follow", "layer"), ""),
    "Monitoring": {"silence": "om.alerts.silence", "silences": "om.alerts.read_silences"},
    "OpenManager": {"shield": "@om.fallback"},
    "Runtime": {
        "cache": "om.cache",
        "chain": "om.chain(name)",
        "chains": "om.chain(name)",
        "http_cache": "om.http_cache",
        "live": "om.configure(chain, ...) and om.reset_chain(chain)",
        "monitoring": "om.monitoring, and om.alerts for silences",
        "notify": "om.notify",
        "recovery": "om.recovery",
        "wrong_methods": "om.wrong_methods",
    },
    "SmartCache": {
        "memoize": "@om.memoize",
        **dict.fromkeys(("after_fork", "close", "refuse", "sweep", "times"), ""),
    },
}


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
        if package == PACKAGE:
            refuse_moved(name)
        return None


def refuse_moved(name: str) -> None:
    """Do nothing unless ``name``, without the package's, is in the table.

    Raises:
        ImportError: it is. No ``ModuleNotFoundError``: ``from om_plugins import clock`` would
            replace that by an error of its own. No ``AttributeError`` either: ``from
            om_plugins.settings import Settings`` would lose its text.
    """
    now = MOVED.get(name)
    if now is not None:
        old = f"{PACKAGE}.{name}"
        raise ImportError(f"{old} is no longer there; write: {now}", name=old)


def install() -> None:
    """Let old imports be answered; a second call changes nothing."""
    if MovedModules not in sys.meta_path:
        sys.meta_path.append(MovedModules)


class _OldAttribute:
    """A descriptor that raises ``AttributeError``, so the attribute counts as absent."""

    def __init__(self, old: str, now: str) -> None:
        self._text = old + (f" is no longer there; write: {now}" if now else " is private now")

    def __get__(self, instance: object, owner: type | None = None) -> NoReturn:
        raise AttributeError(self._text)


def with_old_names(cls: C) -> C:
    """Let the old attributes of a class, those in :data:`ATTRIBUTES`, say what to write now."""
    for name, now in ATTRIBUTES[cls.__name__].items():
        setattr(cls, name, _OldAttribute(f"{cls.__name__}.{name}", now))
    return cls


def refuse_arguments(function: str, given: Iterable[str], instead: Mapping[str, str]) -> None:
    """Refuse keyword arguments that a function does not know.

    Args:
        function: what the error calls it.
        given: their names; none of them is no error.
        instead: what to write, by the names that earlier versions or other libraries have.

    Raises:
        TypeError: names the first argument, and what to write.
    """
    for name in given:
        raise TypeError(explain_keyword(function, name, (), instead))


def explain_keyword(
    function: str,
    given: str,
    known: Collection[str],
    instead: Mapping[str, str] | None = None,
    usage: str = "",
) -> str:
    """Explain that a function has no argument of a name, and name the one that is meant.

    Args:
        function: what the error calls it.
        given: the unknown keyword.
        known: its arguments; none to name none of them.
        instead: what to write, by the names that earlier versions or other libraries have.
        usage: how to write a call.
    """
    if instead and given in instead:
        hint = f"write {instead[given]}"
    else:
        hints = [suggest(given, known)] if known else []
        hint = "; ".join([*hints, *([f"write {usage}"] if usage else ())])
    return f"{function} has no argument {given!r}" + (f"; {hint}" if hint else "")

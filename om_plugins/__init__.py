"""Keeps Flask and WSGI apps answering: engines that fall back, a smart cache, a strict CSP.

The public names are exported lazily: ``from om_plugins import OpenManagerMiddleware`` never
imports Flask.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import errors as errors
    from . import signals as signals
    from .builtin.engines.callable import CallableEngine as CallableEngine
    from .builtin.engines.http import HttpEngine as HttpEngine
    from .builtin.engines.last_good import StaleEngine as StaleEngine
    from .builtin.engines.openai import OpenAIEngine as OpenAIEngine
    from .builtin.engines.proxy import ProxyEngine as ProxyEngine
    from .builtin.engines.proxy_app import ProxyApp as ProxyApp
    from .builtin.engines.static import StaticEngine as StaticEngine
    from .builtin.engines.wsgi import WsgiEngine as WsgiEngine
    from .csp.policy__builder import Csp as Csp
    from .flask.extension import OpenManager as OpenManager
    from .hookspecs import hookimpl as hookimpl
    from .settings.settings import Settings as Settings
    from .types import Answer as Answer
    from .types import Call as Call
    from .types import EngineSpec as EngineSpec
    from .types import EngineTraits as EngineTraits
    from .types import Notification as Notification
    from .types import PluginInfo as PluginInfo
    from .wsgi import OpenManagerMiddleware as OpenManagerMiddleware

_HOMES = {
    "Answer": "types",
    "Call": "types",
    "CallableEngine": "builtin.engines.callable",
    "Csp": "csp.policy__builder",
    "EngineSpec": "types",
    "EngineTraits": "types",
    "HttpEngine": "builtin.engines.http",
    "Notification": "types",
    "OpenAIEngine": "builtin.engines.openai",
    "OpenManager": "flask.extension",
    "OpenManagerMiddleware": "wsgi",
    "PluginInfo": "types",
    "ProxyApp": "builtin.engines.proxy_app",
    "ProxyEngine": "builtin.engines.proxy",
    "Settings": "settings.settings",
    "StaleEngine": "builtin.engines.last_good",
    "StaticEngine": "builtin.engines.static",
    "WsgiEngine": "builtin.engines.wsgi",
    "errors": "",
    "hookimpl": "hookspecs",
    "signals": "",
}

__all__ = [  # noqa: PLE0604 - the table above is the list
    *sorted(_HOMES),
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = (
        importlib.import_module(f".{home}", __name__).__dict__[name]
        if home
        else importlib.import_module(f".{name}", __name__)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

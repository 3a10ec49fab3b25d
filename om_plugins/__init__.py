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
    from .builtin.engine_callable import CallableEngine as CallableEngine
    from .builtin.engine_http import HttpEngine as HttpEngine
    from .builtin.engine_openai import OpenAIEngine as OpenAIEngine
    from .builtin.engine_proxy import ProxyEngine as ProxyEngine
    from .builtin.engine_stale import StaleEngine as StaleEngine
    from .builtin.engine_static import StaticEngine as StaticEngine
    from .builtin.engine_wsgi import WsgiEngine as WsgiEngine
    from .builtin.proxy_app import ProxyApp as ProxyApp
    from .extension import OpenManager as OpenManager
    from .hookspecs import hookimpl as hookimpl
    from .security.builder import Csp as Csp
    from .settings import Settings as Settings
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
    "CallableEngine": "builtin.engine_callable",
    "Csp": "security.builder",
    "EngineSpec": "types",
    "EngineTraits": "types",
    "HttpEngine": "builtin.engine_http",
    "Notification": "types",
    "OpenAIEngine": "builtin.engine_openai",
    "OpenManager": "extension",
    "OpenManagerMiddleware": "wsgi",
    "PluginInfo": "types",
    "ProxyApp": "builtin.proxy_app",
    "ProxyEngine": "builtin.engine_proxy",
    "Settings": "settings",
    "StaleEngine": "builtin.engine_stale",
    "StaticEngine": "builtin.engine_static",
    "WsgiEngine": "builtin.engine_wsgi",
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

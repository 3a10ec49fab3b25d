"""Keeps Flask and WSGI apps answering: engines that fall back, a smart cache, a strict CSP.

The public names are exported lazily: ``from om_plugins import OpenManagerMiddleware`` never
imports Flask.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .core import moved

__version__ = "0.1.0"

moved.install()

if TYPE_CHECKING:
    from . import errors as errors
    from . import signals as signals
    from .builtin.engines.callable import CallableEngine as CallableEngine
    from .builtin.engines.faults import Chaos as Chaos
    from .builtin.engines.faults import ChaosOptions as ChaosOptions
    from .builtin.engines.http import HttpEngine as HttpEngine
    from .builtin.engines.last_good import StaleEngine as StaleEngine
    from .builtin.engines.proxy import ProxyEngine as ProxyEngine
    from .builtin.engines.proxy_app import ProxyApp as ProxyApp
    from .builtin.engines.static import StaticEngine as StaticEngine
    from .builtin.engines.wsgi import WsgiEngine as WsgiEngine
    from .builtin.hubs.memory import MemoryHub as MemoryHub
    from .builtin.openai.engine import OpenAIEngine as OpenAIEngine
    from .chains.chain import EngineChain as EngineChain
    from .chains.options import ChainPolicy as ChainPolicy
    from .core.call import caller_gone as caller_gone
    from .core.clock import SystemClock as SystemClock
    from .core.translations import load_translations as load_translations
    from .csp.jinja.extension import install as _install
    from .csp.nonce import nonce as nonce
    from .csp.override import Override as _Override
    from .csp.override import override as _override
    from .csp.policy import Csp as Csp
    from .features import Settings as Settings
    from .flask.extension import OpenManager as OpenManager
    from .gateway.layer import EngineRoutes as EngineRoutes
    from .gateway.options import RouteOptions as RouteOptions
    from .headers.feature import policy_from as policy_from
    from .headers.layer import HeaderPolicy as HeaderPolicy
    from .headers.layer import HeadersLayer as HeadersLayer
    from .hookspecs import hookimpl as hookimpl
    from .plugins.feature import Feature as Feature
    from .plugins.feature import FeatureSpec as FeatureSpec
    from .plugins.kit import Card as Card
    from .plugins.kit import Finding as Finding
    from .plugins.kit import Metric as Metric
    from .policies.bulkhead import Bulkhead as Bulkhead
    from .recovery.fingerprint import describe_error as _describe_error
    from .settings import kinds as kinds
    from .settings.table import Table as Table
    from .settings.table import key as key
    from .types import Action as Action
    from .types import Answer as Answer
    from .types import Call as Call
    from .types import Caller as Caller
    from .types import EngineSpec as EngineSpec
    from .types import EngineTraits as EngineTraits
    from .types import ModelRefusal as ModelRefusal
    from .types import Notification as Notification
    from .types import PluginInfo as PluginInfo
    from .types import ToolCall as ToolCall
    from .types import ToolCalls as ToolCalls
    from .workers.scheduler import BackgroundScheduler as BackgroundScheduler
    from .wsgi import OpenManagerMiddleware as OpenManagerMiddleware

    CspOverride = _Override
    error_kind = _describe_error
    install_nonces = _install
    override_csp = _override

# Public name: the module that has it, and its name there if it is another one.
_HOMES = {
    "Action": "types",
    "Answer": "types",
    "BackgroundScheduler": "workers.scheduler",
    "Bulkhead": "policies.bulkhead",
    "Call": "types",
    "Caller": "types",
    "CallableEngine": "builtin.engines.callable",
    "Card": "plugins.kit",
    "ChainPolicy": "chains.options",
    "Chaos": "builtin.engines.faults",
    "ChaosOptions": "builtin.engines.faults",
    "Csp": "csp.policy",
    "CspOverride": "csp.override:Override",
    "EngineChain": "chains.chain",
    "EngineRoutes": "gateway.layer",
    "EngineSpec": "types",
    "EngineTraits": "types",
    "Feature": "plugins.feature",
    "FeatureSpec": "plugins.feature",
    "Finding": "plugins.kit",
    "HeaderPolicy": "headers.layer",
    "HeadersLayer": "headers.layer",
    "HttpEngine": "builtin.engines.http",
    "MemoryHub": "builtin.hubs.memory",
    "Metric": "plugins.kit",
    "ModelRefusal": "types",
    "Notification": "types",
    "OpenAIEngine": "builtin.openai.engine",
    "OpenManager": "flask.extension",
    "OpenManagerMiddleware": "wsgi",
    "PluginInfo": "types",
    "ProxyApp": "builtin.engines.proxy_app",
    "ProxyEngine": "builtin.engines.proxy",
    "RouteOptions": "gateway.options",
    "Settings": "features",
    "StaleEngine": "builtin.engines.last_good",
    "StaticEngine": "builtin.engines.static",
    "SystemClock": "core.clock",
    "Table": "settings.table",
    "ToolCall": "types",
    "ToolCalls": "types",
    "WsgiEngine": "builtin.engines.wsgi",
    "caller_gone": "core.call",
    "error_kind": "recovery.fingerprint:describe_error",
    "errors": "",
    "hookimpl": "hookspecs",
    "install_nonces": "csp.jinja.extension:install",
    "key": "settings.table",
    "kinds": "settings.kinds:*",
    "load_translations": "core.translations",
    "nonce": "csp.nonce",
    "override_csp": "csp.override:override",
    "policy_from": "headers.feature",
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
    module, _, inner = home.partition(":")
    value: Any = importlib.import_module(f".{module or name}", __name__)
    if module and inner != "*":
        value = vars(value)[inner or name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

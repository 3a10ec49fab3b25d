"""Greets: a small plugin that brings an engine, a cache store, a notifier and CSP sources."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from om_plugins import Call, EngineSpec, EngineTraits, Notification, PluginInfo, hookimpl


@dataclass(frozen=True)
class GreeterConfig:
    """``OM_PLUGIN_CONFIG["greeter"]``."""

    greeting: str = "Hello"
    tier: int = 2
    shout: bool = False
    outbox: str = ""

    def __post_init__(self) -> None:
        if self.tier < 1:
            raise ValueError("tier must be at least 1")


class GreeterEngine:
    """Answers every call with a greeting."""

    name = "greeter"
    traits = EngineTraits(idempotent=True, local=True, cancellable=True)

    def __init__(self, config: GreeterConfig) -> None:
        self._config = config

    def call(self, call: Call) -> dict[str, str]:
        who = call.payload.get("name", "you") if isinstance(call.payload, Mapping) else "you"
        text = f"{self._config.greeting}, {who}"
        return {"answer": text.upper() if self._config.shout else text}


class FolderStore:
    """Keeps values as files: ``folder:///var/cache/app``. Expiry is left to the cache."""

    def __init__(self, url: str) -> None:
        self._folder = Path(urlsplit(url).path)

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def get(self, key: str) -> bytes | None:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def set(self, key: str, value: bytes, ttl: float) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path(key).write_bytes(value)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)


class OutboxNotifier:
    """Appends every notification to a file."""

    name = "outbox"

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def send(self, notification: Notification, timeout: float) -> None:
        with self._path.open("a", encoding="utf-8") as outbox:
            outbox.write(f"{notification.kind} {notification.message}\n")


@hookimpl
def om_plugin_info() -> PluginInfo:
    return PluginInfo(summary="Greets people", config_class=GreeterConfig)


@hookimpl
def om_engines(context: Any) -> list[EngineSpec]:
    return [EngineSpec(GreeterEngine(context.config), chain="assistant", tier=context.config.tier)]


@hookimpl
def om_caches() -> dict[str, type[FolderStore]]:
    return {"folder": FolderStore}


@hookimpl
def om_notifiers(context: Any) -> list[OutboxNotifier]:
    return [OutboxNotifier(context.config.outbox)] if context.config.outbox else []


@hookimpl
def om_csp() -> dict[str, list[str]]:
    return {"img-src": ["https://greetings.example"]}

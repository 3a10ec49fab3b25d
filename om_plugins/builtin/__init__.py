"""The plugins that are shipped, found through the same path as any other plugin."""

from __future__ import annotations

BUILTINS: dict[str, str] = {
    "cache-file": "om_plugins.builtin.cache_file",
    "cache-memcached": "om_plugins.builtin.cache_memcached",
    "cache-redis": "om_plugins.builtin.cache_redis",
    "hub-memory": "om_plugins.builtin.hub_memory",
    "hub-redis": "om_plugins.builtin.hub_redis",
    "hub-sqlite": "om_plugins.builtin.hub_sqlite",
    "monitor-log": "om_plugins.builtin.monitor_log",
    "notifier-log": "om_plugins.builtin.notifier_log",
    "recovery-steps": "om_plugins.builtin.steps",
    "notifier-webhook": "om_plugins.builtin.notifier_webhook",
}
"""Name of each built-in plugin, and the module that is the plugin."""

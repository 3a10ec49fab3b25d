"""The shipped plugins. They are loaded in the same way as any other plugin."""

from __future__ import annotations

BUILTINS: dict[str, str] = {
    "cache-file": "om_plugins.builtin.shipped:cache_file",
    "cache-memcached": "om_plugins.builtin.shipped:cache_memcached",
    "cache-redis": "om_plugins.builtin.shipped:cache_redis",
    "hub-memory": "om_plugins.builtin.hubs.memory",
    "hub-redis": "om_plugins.builtin.shipped:hub_redis",
    "hub-sqlite": "om_plugins.builtin.shipped:hub_sqlite",
    "monitor-log": "om_plugins.builtin.logging:monitor_plugin",
    "notifier-log": "om_plugins.builtin.logging:notifier_plugin",
    "recovery-steps": "om_plugins.builtin.shipped:recovery_steps",
    "notifier-webhook": "om_plugins.builtin.webhook",
}
"""The name of each shipped plugin, and the module or the object (``module:object``) that it is."""

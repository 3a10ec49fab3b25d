"""The blinker signals, and a way to send them that no receiver can break.

A signal reports what happened; its sender is the application. Each receiver is called by itself: a
receiver that raises is logged by name, and the others still get the signal. Without a receiver,
nothing is built or sent::

    from om_plugins import signals

    @signals.engine_fell_back.connect
    def on_fallback(app, *, chain, engine, tier, **extra):
        print(chain, "was answered by", engine)

Blinker keeps receivers weakly by default: connect a function that lives as long as the app, or
pass ``weak=False``. Receivers should take ``**extra``: later versions may say more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from blinker import NamedSignal, Namespace

from .core.moved import refuse_moved

logger = logging.getLogger("om_plugins")

_namespace = Namespace()


def _signal(name: str, doc: str) -> NamedSignal:
    return _namespace.signal(name, doc)


plugin_loaded = _signal("plugin_loaded", "A plugin is active: ``name, version``.")
plugin_failed = _signal("plugin_failed", "A plugin could not be loaded: ``name, reason``.")
plugin_quarantined = _signal(
    "plugin_quarantined", "A plugin failed too often and is left out: ``name, failures``."
)
engine_called = _signal(
    "engine_called", "An engine answered: ``chain, engine, tier, attempt, duration_s, call``."
)
engine_failed = _signal(
    "engine_failed",
    "An attempt failed: ``chain, engine, tier, attempt, error, duration_s, call``.",
)
engine_fell_back = _signal(
    "engine_fell_back",
    "A lower tier answered: ``chain, engine, tier, attempts, history, call``.",
)
engine_health_changed = _signal(
    "engine_health_changed", "An engine's health changed: ``chain, engine, tier, before, after``."
)
retry_scheduled = _signal(
    "retry_scheduled", "The same engine is asked again: ``chain, engine, attempt, delay_s, error``."
)
fallback_answered = _signal(
    "fallback_answered",
    "A fallback answered for a view: ``kind, route, status, failed, engine, chain``.",
)
recovery_started = _signal("recovery_started", "Recovery began: ``subject, fingerprint``.")
recovery_finished = _signal("recovery_finished", "Recovery ended: ``report``.")
error_pattern_found = _signal("error_pattern_found", "Errors of a kind pile up: ``pattern``.")
cache_hit = _signal("cache_hit", "A fresh value was found: ``key``.")
cache_missed = _signal("cache_missed", "No value was found: ``key``.")
cache_stale_served = _signal("cache_stale_served", "A stale value was served: ``key, age_s``.")
cache_refreshed = _signal("cache_refreshed", "A value was fetched again: ``key, duration_s``.")
cache_refresh_failed = _signal("cache_refresh_failed", "A fetch failed: ``key, error``.")
cache_invalidated = _signal(
    "cache_invalidated", "Entries were marked stale or removed: ``prefix, tags, count``."
)
alert_fired = _signal("alert_fired", "A threshold was crossed: ``alert``.")
alert_resolved = _signal("alert_resolved", "An alert is over: ``alert``.")
csp_violation_received = _signal(
    "csp_violation_received", "A browser reported a violation: ``violation``."
)
notification_sent = _signal("notification_sent", "A notification was sent: ``notification``.")
notification_failed = _signal(
    "notification_failed", "A notifier failed: ``notification, notifier, error``."
)
problem_reported = _signal("problem_reported", "A person reported a problem: ``report``.")

SIGNALS: dict[str, NamedSignal] = {
    name: value for name, value in globals().items() if isinstance(value, NamedSignal)
}
"""Every signal by name."""


def __getattr__(name: str) -> Any:
    refuse_moved(f"signals.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


Emit = Callable[..., None]
"""``emit(signal, **details)`` sends a signal; the sender, the application, is filled in."""


def send(signal: NamedSignal, sender: object, **details: Any) -> None:
    """Send ``signal`` to each receiver; log a receiver that raises.

    Args:
        signal: one of this module's.
        sender: the application.
        details: what happened, as the signal's documentation names it.
    """
    if not signal.receivers:
        return
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, **details)
        except Exception:
            logger.exception(
                "a receiver of %s failed: %s",
                signal.name,
                getattr(receiver, "__qualname__", receiver),
            )


def emitter(sender: object) -> Emit:
    """Return :func:`send` with the sender filled in."""

    def emit(signal: NamedSignal, **details: Any) -> None:
        if signal.receivers:
            send(signal, sender, **details)

    return emit

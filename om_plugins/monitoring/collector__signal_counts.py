"""Counts, by the signals that tell of it, what engines and fallbacks did in this process."""

from __future__ import annotations

import threading
from collections import Counter

from .. import signals
from ..core.fork import renew_after_fork
from ..types import Health
from .counters import Totals

__all__ = ["SignalCounts"]


class SignalCounts:
    """A receiver of signals; it lives as long as whoever keeps it.

    Args:
        sender: the application.
    """

    def __init__(self, sender: object) -> None:
        self.after_fork()
        renew_after_fork(self)
        signals.engine_called.connect(self._called, sender=sender)
        signals.engine_failed.connect(self._failed, sender=sender)
        signals.engine_fell_back.connect(self._fell_back, sender=sender)
        signals.engine_health_changed.connect(self._changed, sender=sender)
        signals.fallback_answered.connect(self._fallback_answered, sender=sender)

    def after_fork(self) -> None:
        """A child counts for itself."""
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, ...]] = Counter()

    def totals(self) -> Totals:
        """Of engines: attempts answered and failed, answers of lower tiers, and times that one
        went offline; of fallbacks: answers by kind."""
        with self._lock:
            return {key: [count] for key, count in self._counts.items()}

    def _count(self, *key: str) -> None:
        with self._lock:
            self._counts[key] += 1

    def _of_engine(self, chain: str, engine: str, what: str) -> None:
        self._count("engine", chain[:200], engine[:200], what)

    def _called(self, _: object, *, chain: str, engine: str, **_more: object) -> None:
        self._of_engine(chain, engine, "answered")

    def _failed(self, _: object, *, chain: str, engine: str, **_more: object) -> None:
        self._of_engine(chain, engine, "failed")

    def _fell_back(self, _: object, *, chain: str, engine: str, **_more: object) -> None:
        self._of_engine(chain, engine, "fallbacks")

    def _fallback_answered(self, _: object, *, kind: str, **_more: object) -> None:
        self._count("fallback", kind)

    def _changed(
        self, _: object, *, chain: str, engine: str, after: Health, **_more: object
    ) -> None:
        if after is Health.OFFLINE:
            self._of_engine(chain, engine, "outages")

"""From readings to alerts: inactive → pending → firing → (kept firing) → resolved.

One alert exists for a rule and a subject at a time, so a value that stays bad is told once, then
again after the repeat interval. It is over only below a threshold of its own, and after a while
there: a value that hovers at the limit does not flap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import msgspec

from ..core.problem__conversion import converted
from ..types import Alert
from .alert_rules import Reading, Rule

__all__ = ["HISTORY", "REPEAT_S", "Alerts", "Event", "shown"]

REPEAT_S = 3600.0
"""How often people are told again of an alert that goes on."""
HISTORY = 100
"""How many alerts that are over, or have fired, are remembered."""
MAX_ACTIVE = 200

Event = tuple[Literal["fired", "repeated", "resolved"], Alert]

_NOTHING = Reading("", "", None, lambda limit: False)


class _State(msgspec.Struct):
    """One alert under way: what is told of it, and when things happened."""

    alert: Alert
    told_at: float = 0.0
    clear_since: float = 0.0


class _Wire(msgspec.Struct):
    """All alerts as they lie in the hub."""

    active: Annotated[list[_State], msgspec.Meta(max_length=MAX_ACTIVE)]
    history: Annotated[list[Alert], msgspec.Meta(max_length=HISTORY)]


class Alerts:
    """The state of all alerts. Not for several threads at once.

    Args:
        rules: the thresholds.
        repeat_s: how often people are told again.
    """

    def __init__(self, rules: Sequence[Rule], *, repeat_s: float = REPEAT_S) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._repeat_s = repeat_s
        self._active: dict[tuple[str, str], _State] = {}
        self._history: deque[Alert] = deque(maxlen=HISTORY)

    def update(
        self, readings: Iterable[Reading], now: float, silenced: Mapping[str, float] | None = None
    ) -> list[Event]:
        """Hold the readings against the rules.

        Args:
            readings: the newest of each rule and subject; a subject that is not among them is
                gone, so its alert clears.
            now: Unix time.
            silenced: rule names and until when nobody is to be told of them.

        Returns:
            What happened. A silenced alert has its states all the same, marked so.
        """
        quiet = {name for name, until in (silenced or {}).items() if now < until}
        found = {(r.rule, r.subject): r for r in readings if r.rule in self._rules}
        events: list[Event] = []
        for key in {**self._active, **found}:
            rule = self._rules.get(key[0])
            if rule is None:  # its rule was switched off
                del self._active[key]
                continue
            happened = self._turn(key, rule, found.get(key, _NOTHING), now)
            state = self._active.get(key)
            if happened is not None:
                happened[1].silenced = key[0] in quiet
                events.append(happened)
            elif state is not None and self._told_again(state, now, key[0] in quiet):
                events.append(("repeated", state.alert))
        return events

    def _turn(self, key: tuple[str, str], rule: Rule, reading: Reading, now: float) -> Event | None:
        state = self._active.get(key)
        crossed = reading.crossed(rule.limit)
        if state is None:
            if not crossed or len(self._active) >= MAX_ACTIVE:
                return None
            alert = Alert(
                key[0], "pending", reading.value, rule.limit, now, subject=key[1], kind=rule.kind
            )
            state = self._active[key] = _State(alert)
        alert = state.alert
        alert.value = reading.value
        if alert.state == "pending":
            if not crossed:
                del self._active[key]
                return None
            alert.message = _words(rule, alert)
            if now - alert.since < rule.for_s:
                return None
            alert.state, alert.fired_at, state.told_at = "firing", now, now
            self._history.append(alert)
            return "fired", alert
        if crossed or (reading.value is not None and reading.value >= rule.clear):
            state.clear_since = 0.0
            if reading.value is not None:
                alert.message = _words(rule, alert)
            return None
        state.clear_since = state.clear_since or now
        if now - state.clear_since < rule.keep_s:
            return None
        del self._active[key]
        alert.state, alert.resolved_at = "resolved", now
        return "resolved", alert

    def _told_again(self, state: _State, now: float, quiet: bool) -> bool:
        if state.alert.state != "firing" or now - state.told_at < self._repeat_s:
            return False
        state.told_at = now
        state.alert.silenced = quiet
        return True

    def encoded(self) -> dict[str, object]:
        """All alerts as hub data, for a worker that takes over and for those that show them."""
        return {
            "active": [
                {"alert": asdict(s.alert), "told_at": s.told_at, "clear_since": s.clear_since}
                for s in self._active.values()
            ],
            "history": [asdict(alert) for alert in self._history],
        }

    def load(self, data: object) -> None:
        """Go on from what :meth:`encoded` gave in another process.

        Raises:
            ValueError: it is not that.
        """
        wire = converted(data, _Wire)
        self._active = {(s.alert.name, s.alert.subject): s for s in wire.active}
        self._history = deque(wire.history, HISTORY)
        # an alert that still fires is one object in both places, so that its end shows in both
        for position, alert in enumerate(self._history):
            state = self._active.get((alert.name, alert.subject))
            if state is not None and state.alert.fired_at == alert.fired_at:
                self._history[position] = state.alert


def shown(data: object) -> dict[str, list[dict[str, Any]]]:
    """What :meth:`Alerts.encoded` gave, checked and made for JSON: active and past alerts."""
    try:
        wire = converted(data, _Wire)
    except ValueError:
        return {"active": [], "history": []}
    return {
        "active": [asdict(state.alert) for state in wire.active],
        "history": [asdict(alert) for alert in wire.history],
    }


def _words(rule: Rule, alert: Alert) -> str:
    return rule.words.format(value=alert.value or 0.0, limit=alert.threshold, subject=alert.subject)

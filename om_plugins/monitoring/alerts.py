"""Alerts: inactive → pending → firing → (kept firing) → resolved.

A rule has at most one alert for a subject at a time, so a value that stays bad is reported once,
and again after the repeat interval. An alert resolves only when the value has been below a second,
lower threshold for some time: a value that hovers at the limit does not make it flap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import msgspec

from ..core.body import convert
from ..protocols import Clock, Hub
from ..types import Alert
from .alert_rules import AlertRule, Reading

REPEAT_S = 3600.0
"""How often an alert that goes on is reported again."""
HISTORY = 100
"""How many alerts that fired are remembered."""
MAX_ACTIVE = 200

_SILENCE = "monitor/silence/"

AlertEvent = tuple[Literal["fired", "repeated", "resolved"], Alert]

_NOTHING = Reading("", "", None, lambda limit: False)


class _AlertState(msgspec.Struct):
    """An alert that is pending or firing, and the times that decide what happens next."""

    alert: Alert
    told_at: float = 0.0
    clear_since: float = 0.0


class _AlertsWire(msgspec.Struct):
    """All alerts as they are stored in the hub."""

    active: Annotated[list[_AlertState], msgspec.Meta(max_length=MAX_ACTIVE)]
    history: Annotated[list[Alert], msgspec.Meta(max_length=HISTORY)]


class Alerts:
    """Silences alerts: ``om.alerts``.

    Args:
        rules: the rules.
        hub: keeps silences for all workers.
        clock: time.
    """

    def __init__(self, rules: Sequence[AlertRule], *, hub: Hub, clock: Clock) -> None:
        self._names = [rule.name for rule in rules]
        self._hub = hub
        self._clock = clock

    def silence(self, rule: str, lasts: float) -> None:
        """Send no notifications of a rule's alerts for a while.

        The alerts are still listed, and their signals are still sent.

        Args:
            rule: the name of the rule, such as ``error_rate``.
            lasts: for how many seconds; 0 ends the silence.

        Raises:
            ValueError: there is no such rule.
        """
        if rule not in self._names:
            raise ValueError(f"no alert is named {rule!r}; known are {', '.join(self._names)}")
        until = self._clock.time() + lasts if lasts > 0 else None
        self._hub.put(_SILENCE + rule, until, max(1.0, lasts))

    def read_silences(self) -> dict[str, float]:
        """Return the silenced rules, and the Unix time when each silence ends."""
        now = self._clock.time()
        return {
            key.removeprefix(_SILENCE): float(until)
            for key, until in self._hub.scan(_SILENCE).items()
            if isinstance(until, int | float) and until > now
        }


class AlertStates:
    """The state machine of all alerts. Threads must not use it at the same time.

    Args:
        rules: the thresholds.
        repeat_s: how often an alert that goes on is reported again, in seconds.
    """

    def __init__(self, rules: Sequence[AlertRule], *, repeat_s: float = REPEAT_S) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._repeat_s = repeat_s
        self._active: dict[tuple[str, str], _AlertState] = {}
        self._history: deque[Alert] = deque(maxlen=HISTORY)

    def update(
        self, readings: Iterable[Reading], now: float, silenced: Mapping[str, float] | None = None
    ) -> list[AlertEvent]:
        """Compare the readings with the rules.

        Args:
            readings: the newest reading of each rule and subject. The alert of a subject that has
                no reading clears, because the subject is gone.
            now: Unix time.
            silenced: the silenced rules, and the Unix time when each silence ends.

        Returns:
            What happened. An alert of a silenced rule changes its state as usual, and is marked.
        """
        quiet = {name for name, until in (silenced or {}).items() if now < until}
        found = {(r.rule, r.subject): r for r in readings if r.rule in self._rules}
        events: list[AlertEvent] = []
        for key in {**self._active, **found}:
            rule = self._rules.get(key[0])
            if rule is None:  # the rule was switched off
                del self._active[key]
                continue
            happened = self._advance(key, rule, found.get(key, _NOTHING), now)
            state = self._active.get(key)
            if happened is not None:
                happened[1].silenced = key[0] in quiet
                events.append(happened)
            elif state is not None and self._is_repeat_due(state, now, key[0] in quiet):
                events.append(("repeated", state.alert))
        return events

    def _advance(
        self, key: tuple[str, str], rule: AlertRule, reading: Reading, now: float
    ) -> AlertEvent | None:
        state = self._active.get(key)
        crossed = reading.crossed(rule.limit)
        if state is None:
            if not crossed or len(self._active) >= MAX_ACTIVE:
                return None
            alert = Alert(
                key[0], "pending", reading.value, rule.limit, now, subject=key[1], kind=rule.kind
            )
            state = self._active[key] = _AlertState(alert)
        alert = state.alert
        alert.value = reading.value
        if alert.state == "pending":
            if not crossed:
                del self._active[key]
                return None
            alert.message = _format_message(rule, alert)
            if now - alert.since < rule.for_s:
                return None
            alert.state, alert.fired_at, state.told_at = "firing", now, now
            self._history.append(alert)
            return "fired", alert
        if crossed or (reading.value is not None and reading.value >= rule.clear):
            state.clear_since = 0.0
            if reading.value is not None:
                alert.message = _format_message(rule, alert)
            return None
        state.clear_since = state.clear_since or now
        if now - state.clear_since < rule.keep_s:
            return None
        del self._active[key]
        alert.state, alert.resolved_at = "resolved", now
        return "resolved", alert

    def _is_repeat_due(self, state: _AlertState, now: float, quiet: bool) -> bool:
        if state.alert.state != "firing" or now - state.told_at < self._repeat_s:
            return False
        state.told_at = now
        state.alert.silenced = quiet
        return True

    def encode(self) -> dict[str, object]:
        """Encode all alerts for the hub, where other workers show them or continue with them."""
        return {
            "active": msgspec.to_builtins(list(self._active.values())),
            "history": msgspec.to_builtins(list(self._history)),
        }

    def load(self, data: object) -> None:
        """Continue with the alerts that :meth:`encode` returned in another process.

        Raises:
            ValueError: the data is something else.
        """
        wire = convert(data, _AlertsWire)
        self._active = {(s.alert.name, s.alert.subject): s for s in wire.active}
        self._history = deque(wire.history, HISTORY)
        # a firing alert must be the same object in both places, so that both show how it ends
        for position, alert in enumerate(self._history):
            state = self._active.get((alert.name, alert.subject))
            if state is not None and state.alert.fired_at == alert.fired_at:
                self._history[position] = state.alert


def decode_alerts(data: object) -> dict[str, list[dict[str, Any]]]:
    """Decode the active and the past alerts from hub data, as data for JSON."""
    try:
        wire = convert(data, _AlertsWire)
    except ValueError:
        return {"active": [], "history": []}
    return {
        "active": [asdict(state.alert) for state in wire.active],
        "history": [asdict(alert) for alert in wire.history],
    }


def _format_message(rule: AlertRule, alert: Alert) -> str:
    return rule.message.format(
        value=alert.value or 0.0, limit=alert.threshold, subject=alert.subject
    )

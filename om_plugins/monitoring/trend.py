"""Trends: whether a measure gets better or worse, without false alarms from noise.

The last sixty points become twelve medians of five points each, which removes outliers. There is a
trend only when the Mann-Kendall test finds one (two-sided, 5 %), Sen's slope makes more than 10 %
over the window, and two evaluations in a row agree.

Sources: H. B. Mann, "Nonparametric tests against trend", Econometrica 13 (1945); P. K. Sen,
"Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968); R. O. Gilbert,
"Statistical Methods for Environmental Pollution Monitoring" (1987), ch. 16, for the variance with
ties and the interval of the slope.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..core.body import convert

Verdict = Literal["improving", "stable", "degrading", "no data"]

GROUP = 5
GROUPS = 12
POINTS = GROUP * GROUPS
"""How many points an evaluation needs."""

_FEWEST_GROUPS = 10
_Z = 1.96
_LEAST_CHANGE = 0.10
_FARTHEST_MIN = 24 * 60


@dataclass(slots=True, frozen=True)
class Trend:
    """The result of an evaluation, for measures of which less is better.

    Attributes:
        verdict: improving, stable, degrading or "no data".
        change: relative change over the window; ``None`` without data.
        crosses_min: in how many minutes the measure will reach its limit: soonest, expected and
            latest (``None`` for possibly never). ``None`` when it does not approach the limit.
    """

    verdict: Verdict
    change: float | None = None
    crosses_min: tuple[float, float, float | None] | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the trend as data for JSON."""
        return {
            "verdict": self.verdict,
            "change": None if self.change is None else round(self.change, 4),
            "crosses_min": None
            if self.crosses_min is None
            else [None if m is None else round(m, 1) for m in self.crosses_min],
        }


_NO_DATA = Trend("no data")


def decode_trends(data: object) -> dict[str, dict[str, object]]:
    """Decode trends by name from hub data, as data for JSON; none when the data is damaged."""
    try:
        found = convert(data, dict[str, Trend])
    except ValueError:
        return {}
    return {name: trend.as_dict() for name, trend in found.items()}


def evaluate_trend(
    points: Sequence[float | None], *, step_s: float, floor: float, limit: float | None = None
) -> Trend:
    """Evaluate a series of points.

    Args:
        points: :data:`POINTS` values, oldest first; ``None`` where nothing was measured.
        step_s: seconds from point to point.
        floor: the change is relative to the median or to this, whichever is greater, so that a
            rise from nearly nothing to nearly nothing does not count.
        limit: the limit for the forecast; no forecast when not given.
    """
    medians: list[tuple[float, float]] = []
    for group in range(GROUPS):
        part = points[group * GROUP : (group + 1) * GROUP]
        values = [value for value in part if value is not None]
        if values:
            medians.append((float(group), statistics.median(values)))
    if len(medians) < _FEWEST_GROUPS:
        return _NO_DATA
    slopes = sorted(
        (later - sooner) / (t1 - t0)
        for i, (t0, sooner) in enumerate(medians)
        for t1, later in medians[i + 1 :]
    )
    slope = statistics.median(slopes)
    level = statistics.median(value for _, value in medians)
    change = slope * (GROUPS - 1) / max(abs(level), floor)
    score, deviation = _mann_kendall([value for _, value in medians])
    if abs(score) <= _Z * deviation or abs(change) <= _LEAST_CHANGE:
        return Trend("stable", change)
    if slope < 0:
        return Trend("improving", change)
    crosses = None
    if limit is not None:
        now = statistics.median(value - slope * t for t, value in medians) + slope * (GROUPS - 1)
        crosses = _crossing(limit - now, slopes, slope, deviation, GROUP * step_s / 60)
    return Trend("degrading", change, crosses)


def _mann_kendall(values: Sequence[float]) -> tuple[float, float]:
    """Return the continuity-corrected score, and its standard deviation if there is no trend."""
    n = len(values)
    score = 0
    for i, sooner in enumerate(values):
        for later in values[i + 1 :]:
            score += (later > sooner) - (later < sooner)
    ties = sum(t * (t - 1) * (2 * t + 5) for t in Counter(values).values())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    return math.copysign(max(0, abs(score) - 1), score), math.sqrt(max(0.0, variance))


def _crossing(
    distance: float, slopes: Sequence[float], slope: float, deviation: float, group_min: float
) -> tuple[float, float, float | None] | None:
    if distance <= 0:
        return None
    expected = distance / slope * group_min
    if expected > _FARTHEST_MIN:
        return None
    reach = _Z * deviation
    gentlest = slopes[max(0, round((len(slopes) - reach) / 2) - 1)]
    steepest = slopes[min(len(slopes) - 1, round((len(slopes) + reach) / 2))]
    latest = distance / gentlest * group_min if gentlest > 0 else None
    if latest is not None and latest > _FARTHEST_MIN:
        latest = None
    return distance / steepest * group_min, expected, latest


class TrendGate:
    """Passes a verdict on when two evaluations in a row agree.

    Two evaluations within the time of one group see nearly the same points, so that their
    agreement would mean nothing: the second one is skipped.

    Attributes:
        shown: the trend to show.
    """

    def __init__(self) -> None:
        self.shown = _NO_DATA
        self._last = _NO_DATA
        self._at = -math.inf

    def update(
        self,
        points: Sequence[float | None],
        *,
        now: float,
        step_s: float,
        floor: float,
        limit: float | None = None,
    ) -> Trend:
        """Evaluate again when it is time, and return the trend to show.

        Args:
            now: time in seconds, on any clock.

        The others are those of :func:`evaluate_trend`.
        """
        if 0 <= now - self._at < GROUP * step_s:
            return self.shown
        self._at = now
        found = evaluate_trend(points, step_s=step_s, floor=floor, limit=limit)
        if found.verdict in ("no data", self._last.verdict, self.shown.verdict):
            self.shown = found
        elif self.shown.verdict == "no data":
            self.shown = Trend("stable", found.change)
        self._last = found
        return self.shown

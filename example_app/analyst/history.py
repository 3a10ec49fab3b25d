"""The last twenty minutes of this machine, sampled every few seconds."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from dataclasses import dataclass

import psutil

from ..system import Sampler, Snapshot

__all__ = ["History", "Point"]


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of one moment: percentages, bytes per second and plain numbers."""

    at: float
    memory: float
    swap: float
    cpu: float
    disk: float
    network: float
    load: float
    processes: float

    @classmethod
    def from_snapshot(cls, now: Snapshot) -> Point:
        """Make a point from a snapshot. ``disk`` is the percentage of the fullest disk."""
        return cls(
            at=now.at,
            memory=now.memory.percent,
            swap=now.swap.percent,
            cpu=now.cpu.percent,
            disk=max((d.percent for d in now.disks), default=0.0),
            network=now.network.received_rate + now.network.sent_rate,
            load=now.cpu.load[0] if now.cpu.load else 0.0,
            processes=float(len(now.processes)),
        )


class History:
    """A bounded list of points, the oldest first.

    Args:
        keep: the largest number of points.
    """

    def __init__(self, keep: int = 400) -> None:
        self._points: deque[Point] = deque(maxlen=keep)
        self._lock = threading.Lock()

    def add(self, point: Point) -> None:
        """Add a point."""
        with self._lock:
            self._points.append(point)

    def list_since(self, at: float) -> list[Point]:
        """Return the points since ``at`` (Unix time)."""
        with self._lock:
            return [p for p in self._points if p.at >= at]

    def find_nearest(self, at: float) -> Point | None:
        """Return the point closest to ``at`` (Unix time)."""
        with self._lock:
            return min(self._points, key=lambda p: abs(p.at - at), default=None)

    def watch(self, sampler: Sampler, stop: threading.Event, every_s: float = 3.0) -> None:
        """Add a point every ``every_s`` seconds until ``stop`` is set."""
        while not stop.is_set():
            with contextlib.suppress(psutil.Error, OSError):  # the next reading may work again
                self.add(Point.from_snapshot(sampler.snapshot()))
            stop.wait(every_s)

"""Hands samples to monitor plugins: in the background, in batches, each at its own pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..protocols import Monitor, Scheduler
from ..types import Sample

__all__ = ["QUEUE", "Delivery"]

QUEUE = 10_000
"""So many samples wait for a monitor at most; older ones are dropped, and counted."""

Guarded = Callable[..., tuple[bool, Any]]
"""``guarded(plugin, function, *args) -> (ok, result)``, as the plugin host gives it."""


class _Queue:
    """What waits for one monitor."""

    __slots__ = ("busy", "monitor", "plugin", "waiting")

    def __init__(self, plugin: str, monitor: Monitor) -> None:
        self.plugin = plugin
        self.monitor = monitor
        self.waiting: deque[Sample] = deque()
        self.busy = False


class Delivery:
    """The queues before the monitors. A slow monitor holds up no other, and no request.

    Args:
        monitors: the monitors with the names of their plugins.
        scheduler: runs the deliveries.
        guarded: calls into a plugin, counting its failures.

    Attributes:
        dropped: samples that no monitor's queue had room for, summed over monitors.
    """

    def __init__(
        self,
        monitors: Sequence[tuple[str, Monitor]],
        *,
        scheduler: Scheduler,
        guarded: Guarded,
        size: int = QUEUE,
    ) -> None:
        self._queues = [_Queue(plugin, monitor) for plugin, monitor in monitors]
        self._scheduler = scheduler
        self._guarded = guarded
        self._size = size
        self.dropped = 0

    def take(self, sample: Sample) -> None:
        """Queue a sample for every monitor."""
        for queue in self._queues:
            if len(queue.waiting) >= self._size:
                queue.waiting.popleft()
                self.dropped += 1
            queue.waiting.append(sample)

    def send(self) -> None:
        """Have every monitor that is not at work get what waits for it."""
        for queue in self._queues:
            if queue.waiting and not queue.busy:
                queue.busy = True
                if not self._scheduler.submit(partial(self._deliver, queue), name="monitor"):
                    queue.busy = False

    def _deliver(self, queue: _Queue) -> None:
        try:
            batch: list[Sample] = []
            while len(batch) < self._size and queue.waiting:
                batch.append(queue.waiting.popleft())
            self._guarded(queue.plugin, queue.monitor.record, batch)
        finally:
            queue.busy = False

"""Readings of this machine: what psutil says, as small values.

A :class:`Sampler` turns psutil's growing counters (CPU seconds, bytes on the network) into rates
since its previous reading. It uses its own previous counters, never psutil's hidden ones, so
two of them in one process do not shorten each other's window.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

__all__ = [
    "Cpu",
    "Disk",
    "Memory",
    "Network",
    "Process",
    "Sampler",
    "Snapshot",
    "Swap",
    "Temperature",
    "read_disks",
    "read_memory",
    "read_swap",
]

_MIN_WINDOW_S = 0.2
_MAX_WINDOW_S = 10.0
"""A rate over more than this says little about now; it is measured afresh."""
_IMAGE_TYPES = frozenset({"squashfs", "iso9660", "erofs", "udf"})
"""Read-only images are always 100 % full; calling them the fullest disk would mislead."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Percentages are of the window since the previous reading; ``load`` is 1, 5, 15 minutes."""

    percent: float
    per_core: tuple[float, ...]
    logical: int
    physical: int | None
    load: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. ``percent`` is what is not available, as psutil counts it."""

    total: int
    available: int
    used: int
    percent: float


@dataclass(frozen=True, slots=True)
class Swap:
    """Bytes; all zero on a machine without swap."""

    total: int
    used: int
    free: int
    percent: float


@dataclass(frozen=True, slots=True)
class Disk:
    """One mounted file system. ``free`` is what an ordinary user may still write, in bytes."""

    mount: str
    device: str
    total: int
    used: int
    free: int
    percent: float


@dataclass(frozen=True, slots=True)
class Network:
    """Bytes since boot and bytes per second, all interfaces but loopback."""

    sent: int
    received: int
    sent_rate: float
    received_rate: float


@dataclass(frozen=True, slots=True)
class Process:
    """One process; ``cpu_percent`` is of one core, as ``top`` shows it. ``memory`` is RSS."""

    pid: int
    name: str
    memory: int
    cpu_percent: float


@dataclass(frozen=True, slots=True)
class Temperature:
    """One sensor, in degrees Celsius."""

    label: str
    celsius: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment; ``at`` and ``boot_time`` are Unix times in seconds."""

    at: float
    cpu: Cpu
    memory: Memory
    swap: Swap
    disks: tuple[Disk, ...]
    network: Network
    processes: tuple[Process, ...]
    boot_time: float
    temperatures: tuple[Temperature, ...] = ()
    hostname: str = ""
    system: str = ""

    def by_memory(self) -> list[Process]:
        """Processes, the largest resident set first."""
        return sorted(self.processes, key=lambda p: (-p.memory, p.pid))

    def by_cpu(self) -> list[Process]:
        """Processes, the busiest first."""
        return sorted(self.processes, key=lambda p: (-p.cpu_percent, -p.memory, p.pid))


def read_memory() -> Memory:
    """Memory now."""
    m = psutil.virtual_memory()
    return Memory(m.total, m.available, m.used, m.percent)


def read_swap() -> Swap:
    """Swap now."""
    s = psutil.swap_memory()
    return Swap(s.total, s.used, s.free, s.percent)


def read_disks() -> tuple[Disk, ...]:
    """Mounted disks, one entry per device, the root first.

    A container often lists no device of its own; then the root file system is all there is.
    """
    shortest: dict[str, str] = {}
    for part in psutil.disk_partitions(all=False):
        if part.fstype in _IMAGE_TYPES:
            continue
        known = shortest.get(part.device)
        if known is None or len(part.mountpoint) < len(known):
            shortest[part.device] = part.mountpoint
    if "/" not in shortest.values() and os.name == "posix":
        shortest["root"] = "/"
    disks = []
    for device, mount in shortest.items():
        try:
            usage = psutil.disk_usage(mount)
        except OSError:
            continue  # a mount that this user may not look into, or a drive without a disk
        if usage.total:
            disks.append(Disk(mount, device, usage.total, usage.used, usage.free, usage.percent))
    return tuple(sorted(disks, key=lambda d: (d.mount != "/", d.mount)))


def read_temperatures() -> tuple[Temperature, ...]:
    """Sensors, where the machine has any that may be read."""
    read: Callable[[], dict[str, list[object]]] | None = getattr(
        psutil, "sensors_temperatures", None
    )
    if read is None:
        return ()
    found = []
    for chip, sensors in read().items():
        for sensor in sensors:
            celsius = getattr(sensor, "current", None)
            if isinstance(celsius, (int, float)):
                found.append(Temperature(getattr(sensor, "label", "") or chip, float(celsius)))
    return tuple(found)


@dataclass(slots=True)
class _Counters:
    at: float
    cores: list[tuple[float, float]]  # busy and total seconds of each core
    processes: dict[tuple[int, float], float]  # (pid, start time) -> CPU seconds
    sent: int
    received: int


@dataclass(slots=True)
class Sampler:
    """Reads everything; safe to share between threads.

    Args:
        monotonic, wall: clocks, in seconds.
        sleep: waits for the first window, when there is no earlier reading to compare with.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _previous: _Counters | None = None
    _newest: Snapshot | None = None

    def snapshot(self, max_age_s: float = 0.0) -> Snapshot:
        """A reading not older than ``max_age_s`` seconds.

        CPU and network rates cover the time since the previous reading: at least 0.2 s (the
        first call, and one that comes too soon after another, wait for the rest of that) and
        at most 10 s.
        """
        with self._lock:
            newest = self._newest
            if newest is not None and self.wall() - newest.at <= max_age_s:
                return newest
            before = self._previous
            if before is None or self.monotonic() - before.at > _MAX_WINDOW_S:
                before = self._counters()[0]
            waited = self.monotonic() - before.at
            if waited < _MIN_WINDOW_S:
                self.sleep(_MIN_WINDOW_S - waited)
            self._newest = self._read(before)
            return self._newest

    def _read(self, before: _Counters) -> Snapshot:
        after, resident = self._counters()
        window = max(after.at - before.at, 1e-6)
        processes = tuple(
            Process(pid, name, rss, _rate(seconds, before.processes.get(key), window) * 100)
            for key, (pid, name, rss, seconds) in resident.items()
        )
        cores = tuple(_share(b, a) for b, a in zip(before.cores, after.cores, strict=False)) or (
            0.0,
        )
        self._previous = after
        return Snapshot(
            at=self.wall(),
            cpu=Cpu(
                percent=round(sum(cores) / len(cores), 1),
                per_core=cores,
                logical=len(cores),
                physical=psutil.cpu_count(logical=False),
                load=_load(),
            ),
            memory=read_memory(),
            swap=read_swap(),
            disks=read_disks(),
            network=Network(
                after.sent,
                after.received,
                _rate(after.sent, before.sent, window),
                _rate(after.received, before.received, window),
            ),
            processes=processes,
            boot_time=psutil.boot_time(),
            temperatures=read_temperatures(),
            hostname=platform.node(),
            system=f"{platform.system()} {platform.release()}",
        )

    def _counters(
        self,
    ) -> tuple[_Counters, dict[tuple[int, float], tuple[int, str, int, float]]]:
        resident: dict[tuple[int, float], tuple[int, str, int, float]] = {}
        for process in psutil.process_iter():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    resident[process.pid, process.create_time()] = (
                        process.pid,
                        process.name(),
                        process.memory_info().rss,
                        times.user + times.system,
                    )
            except psutil.Error:
                continue  # it ended while we looked, or it may not be read
        sent = received = 0
        for name, nic in psutil.net_io_counters(pernic=True).items():
            if name != "lo" and not name.startswith("Loopback"):
                sent += nic.bytes_sent
                received += nic.bytes_recv
        counters = _Counters(
            self.monotonic(),
            [_busy_and_total(t) for t in psutil.cpu_times(percpu=True)],
            {key: value[3] for key, value in resident.items()},
            sent,
            received,
        )
        return counters, resident


def _busy_and_total(times: object) -> tuple[float, float]:
    """As psutil's ``cpu_percent`` counts: guest time is in user time already, iowait is idle."""
    seconds = dict(zip(times._fields, times, strict=True))  # type: ignore[attr-defined, call-overload]
    total = sum(seconds.values()) - seconds.get("guest", 0.0) - seconds.get("guest_nice", 0.0)
    return total - seconds.get("idle", 0.0) - seconds.get("iowait", 0.0), total


def _share(before: tuple[float, float], after: tuple[float, float]) -> float:
    total = after[1] - before[1]
    if total <= 0:
        return 0.0
    return round(min(max((after[0] - before[0]) / total * 100, 0.0), 100.0), 1)


def _rate(now: float, before: float | None, window_s: float) -> float:
    return max(now - before, 0.0) / window_s if before is not None else 0.0


def _load() -> tuple[float, float, float] | None:
    try:
        return psutil.getloadavg()
    except OSError:  # pragma: no cover - platforms that cannot tell
        return None

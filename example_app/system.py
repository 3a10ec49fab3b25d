"""Readings of this machine: the values of psutil as small dataclasses.

A :class:`Sampler` turns psutil's growing counters (CPU seconds, bytes on the network) into rates
since its previous reading. It keeps the previous counters itself instead of using psutil's hidden
ones, so that two samplers in one process do not shorten each other's window.
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
"""A rate over a longer window says little about the present; a new window begins."""
_IMAGE_TYPES = frozenset({"squashfs", "iso9660", "erofs", "udf"})
"""Read-only images are always 100 % full and would always be the fullest disk."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """The CPU. Percentages cover the time since the previous reading.

    ``load`` is the load average of the last 1, 5 and 15 minutes.
    """

    percent: float
    per_core: tuple[float, ...]
    logical: int
    physical: int | None
    load: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes. ``percent`` is the share that is not available, as psutil counts it."""

    total: int
    available: int
    used: int
    percent: float


@dataclass(frozen=True, slots=True)
class Swap:
    """Swap in bytes; all zero on a machine without swap."""

    total: int
    used: int
    free: int
    percent: float


@dataclass(frozen=True, slots=True)
class Disk:
    """One mounted file system, in bytes. ``free`` is what an ordinary user may still write."""

    mount: str
    device: str
    total: int
    used: int
    free: int
    percent: float


@dataclass(frozen=True, slots=True)
class Network:
    """Bytes since boot and bytes per second of all interfaces except loopback."""

    sent: int
    received: int
    sent_rate: float
    received_rate: float


@dataclass(frozen=True, slots=True)
class Process:
    """One process. ``cpu_percent`` is the share of one core, as in ``top``; ``memory`` is the
    resident set in bytes."""

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
    """All readings at one moment. ``at`` and ``boot_time`` are Unix times in seconds."""

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

    def sort_by_memory(self) -> list[Process]:
        """Return the processes, the largest resident set first."""
        return sorted(self.processes, key=lambda p: (-p.memory, p.pid))

    def sort_by_cpu(self) -> list[Process]:
        """Return the processes, the busiest first."""
        return sorted(self.processes, key=lambda p: (-p.cpu_percent, -p.memory, p.pid))


def read_memory() -> Memory:
    """Return the use of memory now."""
    m = psutil.virtual_memory()
    return Memory(m.total, m.available, m.used, m.percent)


def read_swap() -> Swap:
    """Return the use of swap now."""
    s = psutil.swap_memory()
    return Swap(s.total, s.used, s.free, s.percent)


def read_disks() -> tuple[Disk, ...]:
    """Return the mounted disks, one per device, the root first.

    A container often lists no device. The root file system is then the only disk.
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
            continue  # this user may not read the mount, or the drive is empty
        if usage.total:
            disks.append(Disk(mount, device, usage.total, usage.used, usage.free, usage.percent))
    return tuple(sorted(disks, key=lambda d: (d.mount != "/", d.mount)))


def read_temperatures() -> tuple[Temperature, ...]:
    """Return the sensors that this user may read; empty when there are none."""
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
    """Reads the machine. Threads may share it.

    Args:
        monotonic, wall: clocks, in seconds.
        sleep: waits for the first window, because there is no earlier reading yet.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _previous: _Counters | None = None
    _newest: Snapshot | None = None

    def snapshot(self, max_age_s: float = 0.0) -> Snapshot:
        """Return a reading that is at most ``max_age_s`` seconds old.

        CPU and network rates cover the time since the previous reading: at least 0.2 s and at most
        10 s. The first call, and one that comes too soon after another, waits for the rest of the
        0.2 s.
        """
        with self._lock:
            newest = self._newest
            if newest is not None and self.wall() - newest.at <= max_age_s:
                return newest
            before = self._previous
            if before is None or self.monotonic() - before.at > _MAX_WINDOW_S:
                before = self._read_counters()[0]
            waited = self.monotonic() - before.at
            if waited < _MIN_WINDOW_S:
                self.sleep(_MIN_WINDOW_S - waited)
            self._newest = self._read(before)
            return self._newest

    def _read(self, before: _Counters) -> Snapshot:
        after, resident = self._read_counters()
        window = max(after.at - before.at, 1e-6)
        processes = tuple(
            Process(pid, name, rss, _compute_rate(seconds, before.processes.get(key), window) * 100)
            for key, (pid, name, rss, seconds) in resident.items()
        )
        cores = tuple(
            _compute_share(b, a) for b, a in zip(before.cores, after.cores, strict=False)
        ) or (0.0,)
        self._previous = after
        return Snapshot(
            at=self.wall(),
            cpu=Cpu(
                percent=round(sum(cores) / len(cores), 1),
                per_core=cores,
                logical=len(cores),
                physical=psutil.cpu_count(logical=False),
                load=_read_load(),
            ),
            memory=read_memory(),
            swap=read_swap(),
            disks=read_disks(),
            network=Network(
                after.sent,
                after.received,
                _compute_rate(after.sent, before.sent, window),
                _compute_rate(after.received, before.received, window),
            ),
            processes=processes,
            boot_time=psutil.boot_time(),
            temperatures=read_temperatures(),
            hostname=platform.node(),
            system=f"{platform.system()} {platform.release()}",
        )

    def _read_counters(
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
                continue  # the process ended meanwhile, or this user may not read it
        sent = received = 0
        for name, nic in psutil.net_io_counters(pernic=True).items():
            if name != "lo" and not name.startswith("Loopback"):
                sent += nic.bytes_sent
                received += nic.bytes_recv
        counters = _Counters(
            self.monotonic(),
            [_sum_busy_and_total(t) for t in psutil.cpu_times(percpu=True)],
            {key: value[3] for key, value in resident.items()},
            sent,
            received,
        )
        return counters, resident


def _sum_busy_and_total(times: object) -> tuple[float, float]:
    """Return busy and total seconds, counted as in psutil's ``cpu_percent``.

    User time already contains guest time, and iowait counts as idle.
    """
    seconds = dict(zip(times._fields, times, strict=True))  # type: ignore[attr-defined, call-overload]
    total = sum(seconds.values()) - seconds.get("guest", 0.0) - seconds.get("guest_nice", 0.0)
    return total - seconds.get("idle", 0.0) - seconds.get("iowait", 0.0), total


def _compute_share(before: tuple[float, float], after: tuple[float, float]) -> float:
    total = after[1] - before[1]
    if total <= 0:
        return 0.0
    return round(min(max((after[0] - before[0]) / total * 100, 0.0), 100.0), 1)


def _compute_rate(now: float, before: float | None, window_s: float) -> float:
    return max(now - before, 0.0) / window_s if before is not None else 0.0


def _read_load() -> tuple[float, float, float] | None:
    try:
        return psutil.getloadavg()
    except OSError:  # pragma: no cover - platforms without a load average
        return None

"""The shipped recovery steps: refresh the cache, free memory, check the network, probe the engines.

No step deletes a last good answer. Cached entries are marked stale, so the cache serves them until
it has a new value.
"""

from __future__ import annotations

import functools
import gc
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..core.fork import hold_forks
from ..protocols import Cache, Prober, RecoveryStep

PRESSED = 0.9
"""From this share of memory in use on, values are dropped from memory."""
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


@dataclass(slots=True, eq=False, repr=False)
class MarkStale:
    """Marks the cached entries of a chain or a route stale.

    These are the entries with the tag ``chain:<name>`` or ``route:<rule>``. For a rule without
    variables, they are also the views that are cached under that path.
    """

    name = "Renewing saved answers"
    percent = 20

    cache: Cache

    def run(self, subject: str, timeout: float) -> str:
        """Mark the entries; the cache serves them until it has a new answer."""
        count = self.cache.invalidate(tags=[subject])
        kind, _, rule = subject.partition(":")
        if kind == "route" and "<" not in rule:
            # the prefix of the keys of cached views
            count += self.cache.invalidate(("view", rule))
        return f"{count} marked stale"


@dataclass(slots=True, eq=False, repr=False)
class FreeMemory:
    """Returns unused memory to the operating system.

    Args:
        cache: drops values from the memory of this process when memory is short.
        pressure: returns the share of memory in use, 0 to 1.
    """

    name = "Freeing memory"
    percent = 50

    cache: Cache
    pressure: Callable[[], float]

    def run(self, subject: str, timeout: float) -> str:
        """Collect garbage, shrink the cache if memory is short, and trim the heap."""
        lines = [f"{gc.collect()} objects collected"]
        if self.pressure() >= PRESSED:
            lines.append(f"{self.cache.shrink()} cached values put out of memory")
        trim = _malloc_trim()
        if trim is not None and trim(0):
            lines.append("memory given back")
        return ", ".join(lines)


@dataclass(slots=True, eq=False, repr=False)
class CheckReach:
    """Checks that the engines can be reached over the network."""

    name = "Checking the network"
    percent = 70

    prober: Prober

    def run(self, subject: str, timeout: float) -> str:
        """Connect to the engines; raise when no engine of the first tier can be reached."""
        return self.prober.reach(subject, timeout)


@dataclass(slots=True, eq=False, repr=False)
class ProbeEngines:
    """Probes the engines. A breaker closes only when its engine answers."""

    name = "Asking again"
    percent = 90

    prober: Prober

    def run(self, subject: str, timeout: float) -> str:
        """Probe the engines; raise when no engine of the first tier answers."""
        return self.prober.probe(subject, timeout)


def measure_pressure(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> float:
    """The share of memory in use: of the container's limit if it has one, else of the machine.

    Returns:
        A number from 0 to 1; 0.0 where neither is known.
    """
    try:
        limit = int((cgroup / "memory.max").read_text("ascii"))  # "max" when there is none
        used = int((cgroup / "memory.current").read_text("ascii"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        if limit > 0:
            return _share(used - int(stat.get("inactive_file", 0)), limit)
    except (OSError, ValueError):
        pass
    try:
        lines = meminfo.read_text("ascii").splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        return _share(kib["MemTotal"] - kib["MemAvailable"], kib["MemTotal"])
    except (OSError, ValueError, LookupError):
        return 0.0


def _share(used: int, limit: int) -> float:
    return min(max(used / limit, 0.0), 1.0) if limit > 0 else 0.0


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """The function ``malloc_trim`` of glibc; ``None`` with another C library (musl lacks it)."""
    if platform.libc_ver()[0] != "glibc":
        return None
    with hold_forks():
        import ctypes

    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return cast(Callable[[int], int], trim)


def list_steps(cache: Cache, prober: Prober | None) -> list[RecoveryStep]:
    """List the steps that an application can use.

    Args:
        cache: its cache.
        prober: tests its engines; ``None`` for none.
    """
    steps: list[RecoveryStep] = [MarkStale(cache), FreeMemory(cache, measure_pressure)]
    if prober is not None:
        steps += [CheckReach(prober), ProbeEngines(prober)]
    return steps

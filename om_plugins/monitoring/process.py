"""Processor time and memory of the process and its host, sampled in the background.

The values come from psutil when the extra ``system`` is installed, else from ``/proc`` and
:mod:`resource`. In a container the limit of its cgroup counts when it is lower than the host's
memory.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from ..core.fork import hold_forks


@dataclass(slots=True, frozen=True)
class SystemSample:
    """One sample of the process.

    Attributes:
        cpu_s: processor seconds since the sample before, user and system, of all threads.
        rss_bytes: resident memory; its peak where there is neither psutil nor ``/proc``.
        memory: share of the host's or container's memory in use, 0 to 1; 0 when unknown.
    """

    cpu_s: float
    rss_bytes: int
    memory: float


@dataclass(eq=False, repr=False)
class SystemSampler:
    """Samples this process. A forked child starts again from zero.

    Args:
        proc: the path of ``/proc``.
        cgroup: the path of the container's own memory controller.
        psutil: the module, or ``None`` to do without it. When not given, it is imported on first
            use if it is installed.
    """

    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")
    psutil: ModuleType | str | None = "auto"

    _pid: int = field(default=0, init=False)
    _cpu_s: float = field(default=0.0, init=False)

    @property
    def _psutil(self) -> ModuleType | None:
        if isinstance(self.psutil, str):
            self.psutil = _find_psutil()
        return self.psutil

    @property
    def source(self) -> str:
        """Where the values come from: ``psutil``, ``proc`` or ``resource``."""
        if self._psutil is not None:
            return "psutil"
        return "proc" if (self.proc / "self/statm").exists() else "resource"

    def sample(self) -> SystemSample:
        """Take a sample."""
        used = time.process_time()
        if self._pid != os.getpid():
            self._pid, self._cpu_s = os.getpid(), used
        spent, self._cpu_s = max(0.0, used - self._cpu_s), used
        return SystemSample(spent, self._rss(), max(self._host(), self._container()))

    def _rss(self) -> int:
        if self._psutil is not None:
            return int(self._psutil.Process().memory_info().rss)
        try:
            pages = int((self.proc / "self/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return _peak()

    def _host(self) -> float:
        if self._psutil is not None:
            return float(self._psutil.virtual_memory().percent) / 100
        try:
            lines = (self.proc / "meminfo").read_text().splitlines()
            pairs = (line.partition(":") for line in lines)
            sizes = {name: int(rest.split()[0]) for name, _, rest in pairs}
            return 1 - sizes["MemAvailable"] / sizes["MemTotal"]
        except (OSError, ValueError, KeyError, IndexError, ZeroDivisionError):
            return 0.0

    def _container(self) -> float:
        try:
            limit = int((self.cgroup / "memory.max").read_text())  # "max" is not a number: no limit
            used = int((self.cgroup / "memory.current").read_text())
            lines = (self.cgroup / "memory.stat").read_text().splitlines()
            stat = dict(line.split(" ", 1) for line in lines)
            # the kernel frees pages of files that nobody used lately when memory runs short
            return max(0.0, (used - int(stat.get("inactive_file", 0))) / limit)
        except (OSError, ValueError, ZeroDivisionError):
            return 0.0


def _find_psutil() -> ModuleType | None:
    try:
        with hold_forks():
            import psutil
    except ImportError:
        return None
    return psutil


def _peak() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

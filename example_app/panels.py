"""The panels' data: small readings, each kept by the stale-while-revalidate cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from om_plugins import OpenManager

from .faults import Faults
from .system import Process, Sampler, Snapshot

__all__ = ["NAMES", "Panels"]

STALE_S = 1.5
KEEP_S = 3600.0
LONGEST_NOTE = 200
_NOTE = "demo/note"
_NOTE_S = 7 * 86_400.0
_ROWS = 6


class Panels:
    """Reads and caches.

    A reading older than a second and a half is shown while a new one is fetched in the
    background; when the fetcher fails, the last good one stays, and says since when it is stale.

    Args:
        om: brings the cache.
        sampler: reads the machine.
        faults: may break the disk panel.
    """

    def __init__(self, om: OpenManager, sampler: Sampler, faults: Faults) -> None:
        self._om = om
        self._sampler = sampler
        self._faults = faults
        self._failing: set[str] = set()
        self._broken = False

    def read(self, name: str) -> dict[str, object]:
        """One panel: ``data`` (``None`` when there never was any), when it was read (``at``),
        ``age_s`` and ``stale_since``."""
        if name == "disks":
            self._notice_mending()
        try:
            value = self._om.cache.query(
                f"panel:{name}",
                lambda: self._fetch(name),
                stale_time=STALE_S,
                cache_time=KEEP_S,
                tags=("panels",),
                live=True,
            )
        except Exception:  # noqa: BLE001 - any failing reading is shown on its panel, not as a 500
            value = None
        now = time.time()
        if not isinstance(value, Mapping):
            return {"data": None, "at": None, "age_s": None, "stale_since": now, "failing": True}
        at = float(value["at"])
        stale = name in self._failing and now - at > STALE_S
        return {
            "data": value["data"],
            "at": at,
            "age_s": round(now - at, 1),
            "stale_since": at if stale else None,
            "failing": stale,
        }

    def all(self) -> dict[str, dict[str, object]]:
        """Every panel."""
        return {name: self.read(name) for name in NAMES}

    def note(self) -> object:
        """What somebody wrote for all who look at this machine."""
        return self._om.cache.query(
            "note", lambda: {"text": str(self._om.hub.get(_NOTE) or "")}, live=True
        )

    def write_note(self, text: str) -> None:
        """Write it; every open page that shows it asks for it again."""
        self.note()  # this worker knows now that browsers are to be told
        self._om.hub.put(_NOTE, text[:LONGEST_NOTE].strip() or None, _NOTE_S)
        self._om.cache.remove("note")

    def _notice_mending(self) -> None:
        """Read the disks at once when they were mended, not after the pause that failures earn."""
        broken, self._broken = self._broken, self._faults.on("disk")
        if broken and not self._broken:
            self._om.cache.remove("panel:disks")

    def _fetch(self, name: str) -> dict[str, object]:
        try:
            if name == "disks" and self._faults.on("disk"):
                raise OSError("the disk panel's fetcher is broken on the fault panel")
            now = self._sampler.snapshot(max_age_s=1.0)
            data = NAMES[name](now)
        except BaseException:
            self._failing.add(name)
            raise
        self._failing.discard(name)
        return {"at": now.at, "data": data}


def _cpu(now: Snapshot) -> dict[str, object]:
    c = now.cpu
    return {
        "percent": c.percent,
        "per_core": list(c.per_core),
        "cores": c.logical,
        "load": None if c.load is None else [round(x, 2) for x in c.load],
    }


def _memory(now: Snapshot) -> dict[str, object]:
    m, s = now.memory, now.swap
    return {
        "percent": m.percent,
        "total": m.total,
        "available": m.available,
        "swap_total": s.total,
        "swap_used": s.used,
    }


def _disks(now: Snapshot) -> dict[str, object]:
    return {
        "disks": [
            {"mount": d.mount, "percent": d.percent, "free": d.free, "total": d.total}
            for d in now.disks[:12]
        ]
    }


def _network(now: Snapshot) -> dict[str, object]:
    n = now.network
    return {
        "received_rate": round(n.received_rate),
        "sent_rate": round(n.sent_rate),
        "received": n.received,
        "sent": n.sent,
    }


def _processes(now: Snapshot) -> dict[str, object]:
    return {
        "count": len(now.processes),
        "by_memory": [_process(p) for p in now.by_memory()[:_ROWS]],
        "by_cpu": [_process(p) for p in now.by_cpu()[:_ROWS]],
        "hostname": now.hostname,
        "system": now.system,
        "boot_time": now.boot_time,
    }


def _process(p: Process) -> dict[str, object]:
    return {"pid": p.pid, "name": p.name, "memory": p.memory, "cpu": round(p.cpu_percent, 1)}


NAMES: dict[str, Callable[[Snapshot], dict[str, object]]] = {
    "cpu": _cpu,
    "memory": _memory,
    "disks": _disks,
    "network": _network,
    "processes": _processes,
}
"""What each panel shows of a reading."""

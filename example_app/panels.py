"""The panels' data: small readings in the stale-while-revalidate cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from om_plugins import OpenManager

from .fault_injection import FaultInjector
from .system import Process, Sampler, Snapshot

__all__ = ["PANELS", "Panels"]

STALE_S = 1.5
KEEP_S = 3600.0
LONGEST_NOTE = 200
_NOTE = "demo/note"
_NOTE_S = 7 * 86_400.0
_ROWS = 6


class Panels:
    """Reads the machine and caches the readings.

    A reading that is older than 1.5 seconds is shown while a background job fetches a new one. When
    the fetcher fails, the last good reading stays, with the time since when it is stale.

    Args:
        om: gives the cache and the hub.
        sampler: reads the machine.
        faults: breaks the disk panel.
    """

    def __init__(self, om: OpenManager, sampler: Sampler, faults: FaultInjector) -> None:
        self._om = om
        self._sampler = sampler
        self._faults = faults
        self._failing: set[str] = set()
        self._broken = False

    def read(self, name: str) -> dict[str, object]:
        """Return the reading of one panel.

        Returns:
            ``data`` (``None`` when there never was a reading), the time of the reading (``at``),
            ``age_s``, ``stale_since`` and ``failing``.
        """
        if name == "disks":
            self._refetch_repaired_disks()
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

    def read_all(self) -> dict[str, dict[str, object]]:
        """Return the readings of all panels."""
        return {name: self.read(name) for name in PANELS}

    def read_note(self) -> object:
        """Return the note, which all visitors share."""
        return self._om.cache.query(
            "note", lambda: {"text": str(self._om.hub.get(_NOTE) or "")}, live=True
        )

    def write_note(self, text: str) -> None:
        """Store the note. Every open page that shows it reads it again."""
        self.read_note()  # declares the key live in this worker: browsers hear of its changes
        self._om.hub.put(_NOTE, text[:LONGEST_NOTE].strip() or None, _NOTE_S)
        self._om.cache.remove("note")

    def _refetch_repaired_disks(self) -> None:
        """Fetch at once after a repair, not after the pause that follows a failure."""
        broken, self._broken = self._broken, self._faults.is_on("disk")
        if broken and not self._broken:
            self._om.cache.remove("panel:disks")

    def _fetch(self, name: str) -> dict[str, object]:
        try:
            if name == "disks" and self._faults.is_on("disk"):
                raise OSError("the disk panel's fetcher is broken on the fault panel")
            now = self._sampler.snapshot(max_age_s=1.0)
            data = PANELS[name](now)
        except BaseException:
            self._failing.add(name)
            raise
        self._failing.discard(name)
        return {"at": now.at, "data": data}


def _convert_cpu(now: Snapshot) -> dict[str, object]:
    c = now.cpu
    return {
        "percent": c.percent,
        "per_core": list(c.per_core),
        "cores": c.logical,
        "load": None if c.load is None else [round(x, 2) for x in c.load],
    }


def _convert_memory(now: Snapshot) -> dict[str, object]:
    m, s = now.memory, now.swap
    return {
        "percent": m.percent,
        "total": m.total,
        "available": m.available,
        "swap_total": s.total,
        "swap_used": s.used,
    }


def _convert_disks(now: Snapshot) -> dict[str, object]:
    return {
        "disks": [
            {"mount": d.mount, "percent": d.percent, "free": d.free, "total": d.total}
            for d in now.disks[:12]
        ]
    }


def _convert_network(now: Snapshot) -> dict[str, object]:
    n = now.network
    return {
        "received_rate": round(n.received_rate),
        "sent_rate": round(n.sent_rate),
        "received": n.received,
        "sent": n.sent,
    }


def _convert_processes(now: Snapshot) -> dict[str, object]:
    return {
        "count": len(now.processes),
        "by_memory": [_convert_process(p) for p in now.sort_by_memory()[:_ROWS]],
        "by_cpu": [_convert_process(p) for p in now.sort_by_cpu()[:_ROWS]],
        "hostname": now.hostname,
        "system": now.system,
        "boot_time": now.boot_time,
    }


def _convert_process(p: Process) -> dict[str, object]:
    return {"pid": p.pid, "name": p.name, "memory": p.memory, "cpu": round(p.cpu_percent, 1)}


PANELS: dict[str, Callable[[Snapshot], dict[str, object]]] = {
    "cpu": _convert_cpu,
    "memory": _convert_memory,
    "disks": _convert_disks,
    "network": _convert_network,
    "processes": _convert_processes,
}
"""Functions that make a panel's data from a reading."""

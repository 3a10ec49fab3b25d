"""Problems of a machine, by the limits that operators commonly use for alerts."""

from __future__ import annotations

from ..system import Snapshot
from .formatting import format_percent

__all__ = ["find_problems"]


def find_problems(now: Snapshot) -> list[tuple[str, str]]:
    """Return the problems, each as (English, Korean); empty when there are none."""
    found = []
    m, s, c = now.memory, now.swap, now.cpu
    if m.percent >= 90:
        found.append(
            (
                f"memory is {format_percent(m.percent)} used",
                f"메모리 {format_percent(m.percent)} 사용",
            )
        )
    if s.percent >= 80:
        found.append(
            (f"swap is {format_percent(s.percent)} used", f"스왑 {format_percent(s.percent)} 사용")
        )
    if c.percent >= 90:
        found.append(
            (
                f"the CPU is {format_percent(c.percent)} busy",
                f"CPU {format_percent(c.percent)} 사용",
            )
        )
    if c.load and c.load[1] > 2 * c.logical:
        found.append(
            (f"the load average is {c.load[1]:.2f}", f"평균 부하 {c.load[1]:.2f}"),
        )
    found += [
        (
            f"{d.mount} is {format_percent(d.percent)} full",
            f"{d.mount} {format_percent(d.percent)} 참",
        )
        for d in now.disks
        if d.percent >= 90
    ]
    found += [
        (f"{t.label} is at {t.celsius:.0f} °C", f"{t.label} {t.celsius:.0f} °C")
        for t in now.temperatures
        if t.celsius >= 90
    ]
    return found

"""Answers about disks: how full, which is fullest, and which holds a path."""

from __future__ import annotations

from ..system import Disk, Snapshot
from .query import Query
from .wording import nth, nth_ko, percent, pick, size, subject_ko, topic_ko

__all__ = ["disk_fullest", "disk_roomiest", "disk_use"]


def _disk_line(query: Query, d: Disk) -> str:
    return pick(
        query,
        f"{d.mount} has {size(d.free)} left of {size(d.total)} ({percent(d.percent)} used).",
        f"{d.mount}에 {size(d.free)} 남았습니다 (전체 {size(d.total)}, {percent(d.percent)} 사용).",
    )


def _no_disk(query: Query) -> str:
    return pick(query, "I see no disk that I may read.", "읽을 수 있는 디스크가 없습니다.")


def disk_use(query: Query, now: Snapshot) -> str:
    """How full each disk is, or the one that holds the path asked for."""
    if not now.disks:
        return _no_disk(query)
    if not query.name:
        return "\n".join(_disk_line(query, d) for d in now.disks)
    wanted = query.name
    for d in now.disks:
        if d.mount.lower().rstrip("/\\") == wanted.rstrip("/\\"):
            return _disk_line(query, d)
    holders = [d for d in now.disks if f"{wanted}/".startswith(d.mount.lower().rstrip("/") + "/")]
    if not holders:
        return pick(
            query,
            f"{wanted} is on no disk that I see.",
            f"{topic_ko(wanted)} 제가 볼 수 있는 디스크에 없습니다.",
        )
    holder = max(holders, key=lambda d: len(d.mount))
    return pick(
        query,
        f"{wanted} is not a mount point of its own; it would be on {holder.mount}. ",
        f"{topic_ko(wanted)} 따로 마운트되어 있지 않고 {holder.mount}에 속합니다. ",
    ) + _disk_line(query, holder)


def _disk_ranked(query: Query, now: Snapshot, disks: list[Disk], en: str, ko: str) -> str:
    if not disks:
        return _no_disk(query)
    if query.rank > len(disks):
        only = pick(
            query,
            f"There {'is' if len(disks) == 1 else 'are'} only {len(disks)} "
            f"disk{'' if len(disks) == 1 else 's'}. ",
            f"디스크는 {len(disks)}개뿐입니다. ",
        )
        return only + _disk_line(query, disks[-1])
    d = disks[query.rank - 1]
    return pick(
        query,
        f"{d.mount} {en.format(nth=nth(query.rank))}: {percent(d.percent)} used, {size(d.free)} of "
        f"{size(d.total)} left.",
        f"{subject_ko(d.mount)} {nth_ko(query.rank)} {ko}: {percent(d.percent)} 사용, "
        f"{size(d.total)} 중 {size(d.free)} 남음.",
    )


def disk_fullest(query: Query, now: Snapshot) -> str:
    """The fullest disk, or the one of that rank."""
    disks = sorted(now.disks, key=lambda d: -d.percent)
    return _disk_ranked(query, now, disks, "is the {nth}fullest disk", "많이 찼습니다")


def disk_roomiest(query: Query, now: Snapshot) -> str:
    """The disk with the most room, or the one of that rank."""
    disks = sorted(now.disks, key=lambda d: -d.free)
    return _disk_ranked(query, now, disks, "has the {nth}most room", "여유가 많습니다")

"""Answers about disks: how full they are, which is the fullest, and which contains a path."""

from __future__ import annotations

from ..system import Disk, Snapshot
from .formatting import (
    add_subject_particle,
    add_topic_particle,
    choose_text,
    format_percent,
    format_rank,
    format_rank_ko,
    format_size,
)
from .query import Query

__all__ = ["describe_disk_use", "describe_fullest_disk", "describe_roomiest_disk"]


def _describe_disk(query: Query, d: Disk) -> str:
    return choose_text(
        query,
        f"{d.mount} has {format_size(d.free)} left of {format_size(d.total)} "
        f"({format_percent(d.percent)} used).",
        f"{d.mount}에 {format_size(d.free)} 남았습니다 (전체 {format_size(d.total)}, "
        f"{format_percent(d.percent)} 사용).",
    )


def _describe_no_disk(query: Query) -> str:
    return choose_text(query, "I see no disk that I may read.", "읽을 수 있는 디스크가 없습니다.")


def describe_disk_use(query: Query, now: Snapshot) -> str:
    """Describe how full each disk is, or the disk that contains the path of the query."""
    if not now.disks:
        return _describe_no_disk(query)
    if not query.name:
        return "\n".join(_describe_disk(query, d) for d in now.disks)
    wanted = query.name
    for d in now.disks:
        if d.mount.lower().rstrip("/\\") == wanted.rstrip("/\\"):
            return _describe_disk(query, d)
    holders = [d for d in now.disks if f"{wanted}/".startswith(d.mount.lower().rstrip("/") + "/")]
    if not holders:
        return choose_text(
            query,
            f"{wanted} is on no disk that I see.",
            f"{add_topic_particle(wanted)} 제가 볼 수 있는 디스크에 없습니다.",
        )
    holder = max(holders, key=lambda d: len(d.mount))
    return choose_text(
        query,
        f"{wanted} is not a mount point of its own; it would be on {holder.mount}. ",
        f"{add_topic_particle(wanted)} 따로 마운트되어 있지 않고 {holder.mount}에 속합니다. ",
    ) + _describe_disk(query, holder)


def _describe_ranked_disk(query: Query, now: Snapshot, disks: list[Disk], en: str, ko: str) -> str:
    if not disks:
        return _describe_no_disk(query)
    if query.rank > len(disks):
        only = choose_text(
            query,
            f"There {'is' if len(disks) == 1 else 'are'} only {len(disks)} "
            f"disk{'' if len(disks) == 1 else 's'}. ",
            f"디스크는 {len(disks)}개뿐입니다. ",
        )
        return only + _describe_disk(query, disks[-1])
    d = disks[query.rank - 1]
    return choose_text(
        query,
        f"{d.mount} {en.format(nth=format_rank(query.rank))}: {format_percent(d.percent)} "
        f"used, {format_size(d.free)} of "
        f"{format_size(d.total)} left.",
        f"{add_subject_particle(d.mount)} {format_rank_ko(query.rank)} {ko}: "
        f"{format_percent(d.percent)} 사용, "
        f"{format_size(d.total)} 중 {format_size(d.free)} 남음.",
    )


def describe_fullest_disk(query: Query, now: Snapshot) -> str:
    """Describe the fullest disk, or the disk of the query's rank."""
    disks = sorted(now.disks, key=lambda d: -d.percent)
    return _describe_ranked_disk(query, now, disks, "is the {nth}fullest disk", "많이 찼습니다")


def describe_roomiest_disk(query: Query, now: Snapshot) -> str:
    """Describe the disk with the most free space, or the disk of the query's rank."""
    disks = sorted(now.disks, key=lambda d: -d.free)
    return _describe_ranked_disk(query, now, disks, "has the {nth}most room", "여유가 많습니다")

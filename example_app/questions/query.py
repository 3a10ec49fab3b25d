"""What a question asks, once it is understood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["INTENTS", "SUBJECTS", "Language", "Query"]

Language = Literal["en", "ko"]

INTENTS = (
    "top_memory",
    "top_cpu",
    "process_named",
    "process_count",
    "disk_use",
    "disk_fullest",
    "disk_roomiest",
    "memory_use",
    "swap_use",
    "cpu_use",
    "cores",
    "load",
    "network",
    "uptime",
    "temperature",
    "system",
    "health",
    "help",
    "several",
    "compare",
    "history",
    "follow_up",
    "unknown",
)
"""The last four before *unknown* need more than one reading, or the talk so far; only
*several* can be answered from a single one."""

SUBJECTS = ("memory", "swap", "cpu", "disk", "network", "load", "processes")


@dataclass(frozen=True, slots=True)
class Query:
    """One understood question.

    Attributes:
        intent: one of :data:`INTENTS`.
        language: the language to answer in.
        rank: which of an ordered list, from 1 for the first.
        count: how many of it.
        name: a process name, or the mount point of a disk.
        subjects: what is compared, or whose history is asked, from :data:`SUBJECTS`.
        seconds: how far back, for a history; ``None`` when the question does not say.
        since: True for "how did it change", False for "what was it".
        bare: only a subject was named, so it may continue the question before.
        step: for a follow-up, how many places further ("the next one"); 0 when ``rank`` is meant.
    """

    intent: str
    language: Language = "en"
    rank: int = 1
    count: int = 1
    name: str = ""
    subjects: tuple[str, ...] = ()
    seconds: float | None = None
    since: bool = False
    bare: bool = False
    step: int = 0

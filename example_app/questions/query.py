"""The query: the structured form of a question."""

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
"""The last four before *unknown* are about several metrics, earlier readings or the conversation
so far. One reading is enough for *several* only."""

SUBJECTS = ("memory", "swap", "cpu", "disk", "network", "load", "processes")


@dataclass(frozen=True, slots=True)
class Query:
    """The structured form of one question.

    Attributes:
        intent: one of :data:`INTENTS`.
        language: the language to answer in.
        rank: the place in an ordered list; 1 is the first.
        count: how many entries of the list.
        name: a process name, or the mount point of a disk.
        subjects: those of :data:`SUBJECTS` to compare, or whose history the question is about.
        seconds: how far back, for a history; ``None`` when the question does not say.
        since: True for "how did it change", False for "what was it".
        bare: the question names a subject only, so it may continue the question before it.
        step: of a follow-up, how many places further ("the next one"); 0 when ``rank`` counts.
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

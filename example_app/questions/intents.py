"""Finds the intent of a question from its concepts.

The rules are tried in order, specific rules first. The intent is *unknown* when a word asks for
something else (an action, a forecast, a price), or when as many words are unknown as known: a wrong
answer about a server is worse than no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from .concepts import QuestionParts, find_concepts
from .query import Query

__all__ = ["understand"]

_MAX_LIST = 10
_A_FEW = 5
_PLURAL = re.compile(
    r"\b(processes|programs|apps|applications|tasks|consumers|hogs)\b|목록|프로세스들"
)
_THRESHOLD = re.compile(r"\d\s*(%|[kmgt]i?b\b|percent\b|퍼센트|기가|메가)")
"""A size or share in the question. Processes can be ranked, but not filtered by it."""


def understand(text: str, running: Iterable[str] = ()) -> Query:
    """Find the query of one question.

    Args:
        text: the question in English or Korean.
        running: names of the processes that run now.

    Returns:
        The query; its intent is "unknown" when the question is not understood.
    """
    marks = find_concepts(text, running)
    query = _find_intent(marks)
    if query.intent in ("top_memory", "top_cpu") and _THRESHOLD.search(marks.text):
        query = Query("unknown")
    return replace(query, language=marks.language)


def _find_intent(m: QuestionParts) -> Query:
    c = m.concepts
    if "blocked" in c or len(m.unknown) >= max(m.weight, 1):
        return Query("unknown")
    if m.name and "uptime" in c:
        return Query("unknown")  # only the machine's uptime is known
    subjects = _find_subjects(m)
    if not subjects and not m.said_name:
        early = _match_without_subject(m)
        if early is not None:
            return early
    if m.name and not (c & {"most"} and "process" in c):
        named = _match_process_name(m, subjects)
        if named is not None:
            return named
    if "compare" in c and len(subjects) == 1 and "process" in c and not c & {"change"}:
        c = c - {"compare"}
    if m.seconds is not None and "running" not in c and "uptime" not in c and subjects:
        return _make_history(m, subjects)
    if "change" in c and subjects and "uptime" not in c:
        return _make_history(m, subjects)
    if len(subjects) > 1 and "process" not in c:
        intent = "compare" if c & {"compare", "most", "full"} else "several"
        return Query(intent, subjects=subjects)
    return _match_single_subject(m, subjects)


def _find_subjects(m: QuestionParts) -> tuple[str, ...]:
    c = m.concepts
    found = [s for s in ("memory", "swap", "cpu", "disk", "network", "load") if s in c]
    if c & {"core", "temperature"} or ("load" in c and "cpu" in c):
        found = [s for s in found if s not in ("cpu", "load")] or [
            s for s in found if s == "load" and "cpu" not in c
        ]
        if "load" in c and "cpu" in c and not c & {"core", "temperature"}:
            found.append("cpu")
    if "space" in c and not {"memory", "swap"} & set(found) and "disk" not in found:
        found.append("disk")
    if m.mount and "disk" not in found:
        found.append("disk")
    if not found and "full" in c and "who" in c:
        found.append("disk")
    return tuple(found)


def _match_without_subject(m: QuestionParts) -> Query | None:
    """Match questions that name nothing measured in percent or bytes."""
    c = m.concepts
    if "help" in c:
        return Query("help")
    if "process" in c:
        if "count" in c and not c & {"most", "busy"} and not m.number:
            return Query("process_count")
        if c & {"change"}:
            return Query("history", subjects=("processes",), seconds=m.seconds, since=True)
        return Query("top_memory" if c & {"most"} and "busy" not in c else "top_cpu",
                     rank=max(m.rank, 1), count=_choose_count(m))  # fmt: skip
    if "uptime" in c:
        return Query("uptime")
    if "temperature" in c:
        return Query("temperature")
    if "core" in c:
        return Query("cores")
    if "system" in c:
        return Query("system")
    if "next" in c or "ordinal" in c:
        return Query("follow_up", rank=max(m.rank, 1), step=0 if m.rank else 1)
    if "change" in c or (m.seconds is not None and not c & {"most", "ok", "running"}):
        return Query(
            "follow_up",
            seconds=m.seconds,
            since=m.seconds is None or not _asks_for_past_value(m.text),
            step=0,
        )
    if "busy" in c and not m.name:
        return Query("top_cpu") if "who" in c else Query("health")
    if "running" in c and "who" in c and not m.name:
        return Query("top_cpu", count=5)
    if c & {"ok"} and not m.name:
        return Query("health")
    if m.name and not c:
        return None
    return None if m.name else Query("unknown")


def _match_process_name(m: QuestionParts, subjects: tuple[str, ...]) -> Query | None:
    c = m.concepts
    if subjects and not {"memory", "cpu"} & set(subjects):
        return None
    if not subjects and not (c & {"running", "use", "process", "count"}):
        return None
    return Query("process_named", name=m.name, subjects=subjects)


def _make_history(m: QuestionParts, subjects: tuple[str, ...]) -> Query:
    since = bool(m.concepts & {"change"}) and not (
        m.seconds is not None and _asks_for_past_value(m.text)
    )
    return Query("history", subjects=subjects, seconds=m.seconds, since=since,
                 bare=False)  # fmt: skip


def _asks_for_past_value(text: str) -> bool:
    changed = ("chang", "trend", "rise", "rose", "risen", "grow", "grew", "fall", "fell", "drop",
               "increas", "decreas", "evolve", "develop", "변", "추이", "추세", "늘", "줄", "올",
               "내렸", "달라", "바뀌", "바꼈")  # fmt: skip
    return not any(word in text for word in changed)


def _match_single_subject(m: QuestionParts, subjects: tuple[str, ...]) -> Query:
    c = m.concepts
    subject = subjects[0] if subjects else ""
    rank, count = max(m.rank, 1), _choose_count(m)
    superlative = bool(c & {"most", "ordinal", "busy"}) or m.number > 1
    if subject in ("memory", "cpu"):
        asks_process = "process" in c or ("who" in c and "use" in c and not c & {"left", "count"})
        hungry = bool(c & {"most", "ordinal"}) and "use" in c
        why = "why" in c
        if "process" in c and "count" in c and not superlative and "use" not in c:
            return Query("process_count")
        how_much = "who" in c and _asks_percentage(m) and not superlative and "process" not in c
        if (asks_process or hungry or why) and not how_much:
            return Query(f"top_{subject}", rank=rank, count=count)
        if subject == "cpu":
            if "count" in c and "use" not in c:
                return Query("cores")
            return Query("cpu_use", bare=_is_bare(m))
        return Query("memory_use", bare=_is_bare(m))
    if subject == "disk":
        if "process" in c:
            return Query("unknown")
        if "left" in c and c & {"most"}:
            return Query("disk_roomiest", rank=rank)
        if (
            c & {"most", "ordinal"}
            or ("full" in c and "who" in c)
            or ("least" in c and "left" in c)
        ):
            return Query("disk_fullest", rank=rank)
        return Query("disk_use", name=m.mount, bare=_is_bare(m))
    if subject == "swap":
        return Query("swap_use", bare=_is_bare(m))
    if subject == "network":
        return Query("unknown") if "process" in c else Query("network", bare=_is_bare(m))
    if subject == "load":
        return Query("load", bare=_is_bare(m))
    if m.said_name or m.name:
        return Query("process_named", name=m.name, subjects=())
    for concept, intent in (("temperature", "temperature"), ("core", "cores")):
        if concept in c:
            return Query(intent)
    return Query("unknown")


def _asks_percentage(m: QuestionParts) -> bool:
    return any(
        w in m.text for w in ("percent", "level", "usage", "%", "퍼센트", "사용량", "사용률")
    )


def _is_bare(m: QuestionParts) -> bool:
    """Return whether the question names a subject only and is no complete question."""
    return not m.concepts - {"memory", "swap", "cpu", "disk", "network", "load", "about", "space",
                             "then", "next"} and not m.mount  # fmt: skip


def _choose_count(m: QuestionParts) -> int:
    """Return how many processes to list: the number in the question, 5 for a plural, else 1."""
    if m.number or m.rank:
        return min(max(m.number, 1), _MAX_LIST)
    return _A_FEW if _PLURAL.search(m.text) else 1

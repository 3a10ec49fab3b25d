"""The analyst's answers: follow-up questions, comparisons of metrics, and the last minutes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..questions import Query, answer, understand
from ..questions.formatting import (
    add_subject_particle,
    add_topic_particle,
    choose_text,
    format_duration,
    format_duration_ko,
    format_percent,
    format_size,
)
from ..system import Snapshot
from .history import History, Point

__all__ = ["reply", "resolve"]

_MAX_TURNS = 12
_DEFAULT_SPAN_S = 300.0
_RANKED = frozenset({"top_memory", "top_cpu", "disk_fullest", "disk_roomiest"})
_TOP = {"memory": "top_memory", "cpu": "top_cpu"}
_SUBJECT_OF = {
    "memory_use": "memory",
    "swap_use": "swap",
    "cpu_use": "cpu",
    "disk_use": "disk",
    "disk_fullest": "disk",
    "disk_roomiest": "disk",
    "network": "network",
    "load": "load",
    "process_count": "processes",
    "top_memory": "memory",
    "top_cpu": "cpu",
}
_NAMES = {
    "memory": ("memory", "메모리"),
    "swap": ("swap", "스왑"),
    "cpu": ("the CPU", "CPU"),
    "disk": ("the fullest disk", "가장 찬 디스크"),
    "network": ("network traffic", "네트워크 트래픽"),
    "load": ("the load average", "평균 부하"),
    "processes": ("the number of processes", "프로세스 수"),
}
_PERCENTAGES = ("memory", "swap", "cpu", "disk")


def reply(questions: Sequence[str], now: Snapshot, history: History) -> str:
    """Answer the last question of a conversation.

    Args:
        questions: the user's messages, oldest first.
        now: the current reading.
        history: the earlier readings.
    """
    query = resolve(questions, {p.name for p in now.processes})
    if query.intent == "compare":
        return _compare(query, now)
    if query.intent == "history":
        return _answer_history(query, now, history)
    if query.intent == "follow_up":
        return choose_text(
            query,
            "I can't tell what that follows. Please ask it as a whole question.",
            "무엇에 이어지는 질문인지 알 수 없습니다. 전체 질문으로 다시 물어봐 주세요.",
        )
    return answer(query, now)


def resolve(questions: Sequence[str], running: Iterable[str] = ()) -> Query:
    """Return the query of the last question, which may refer to the questions before it."""
    names = set(running)
    context: Query | None = None
    query = Query("unknown")
    for question in questions[-_MAX_TURNS:]:
        query = _continue(context, understand(question, names))
        if query.intent not in ("unknown", "follow_up", "help"):
            context = query
    return query


def _continue(before: Query | None, query: Query) -> Query:
    if before is None:
        return query
    if query.intent == "follow_up":
        if (query.since or query.seconds is not None) and (subjects := _list_subjects(before)):
            return Query("history", query.language, subjects=subjects, seconds=query.seconds,
                         since=query.since)  # fmt: skip
        if before.intent in _RANKED and query.seconds is None and not query.since:
            rank = before.rank + before.count if query.step else query.rank
            return replace(before, language=query.language, rank=rank, count=1)
        return query
    subject = _SUBJECT_OF.get(query.intent, "")
    if query.bare and subject:
        if before.intent == "history":
            return replace(before, language=query.language, subjects=(subject,))
        if before.intent in _TOP.values() and subject in _TOP:
            return replace(before, language=query.language, intent=_TOP[subject], rank=1)
        if before.intent == "process_named" and subject in _TOP:
            return replace(before, language=query.language)
    return query


def _list_subjects(query: Query) -> tuple[str, ...]:
    if query.subjects:
        return query.subjects
    subject = _SUBJECT_OF.get(query.intent)
    return (subject,) if subject else ()


def _compare(query: Query, now: Snapshot) -> str:
    point = Point.from_snapshot(now)
    known = [s for s in query.subjects if s in _PERCENTAGES and not _is_missing(s, now)]
    if len(known) < len(query.subjects):
        each = "\n".join(
            answer(Query("several", query.language, subjects=(s,)), now) for s in query.subjects
        )
        head = choose_text(query, "These cannot be compared:", "서로 비교할 수 없습니다:")
        return f"{head}\n{each}"
    ranked = sorted(known, key=lambda s: -_read_value(point, s))
    top, second = ranked[0], ranked[1]
    english = {s: _find_name(s, now)[0] for s in ranked}
    korean = {s: _find_name(s, now)[1] for s in ranked}
    values = {s: format_percent(_read_value(point, s)) for s in ranked}
    if _read_value(point, top) == _read_value(point, second):
        return choose_text(
            query,
            f"{_capitalize(english[top])} and {english[second]} are equal at {values[top]}.",
            f"{add_topic_particle(korean[top])} {korean[second]}처럼 {values[top]}입니다.",
        )
    rest_en = ", ".join(f"{english[s]} at {values[s]}" for s in ranked[1:])
    rest_ko = ", ".join(f"{add_topic_particle(korean[s])} {values[s]}" for s in ranked[1:])
    word_en, word_ko = ("higher", "더 높습니다") if "cpu" in known else ("fuller", "더 찼습니다")
    return choose_text(
        query,
        f"{_capitalize(english[top])} is {word_en}: {values[top]}, against {rest_en}.",
        f"{add_subject_particle(korean[top])} {word_ko}: {values[top]}. {rest_ko}입니다.",
    )


def _find_name(subject: str, now: Snapshot) -> tuple[str, str]:
    """Return a subject's name in English and Korean. With several disks it is the fullest."""
    if subject != "disk":
        return _NAMES[subject]
    if len(now.disks) == 1:
        return "the disk", "디스크"
    mount = max(now.disks, key=lambda d: d.percent).mount
    return f"the fullest disk ({mount})", f"가장 찬 디스크({mount})"


def _is_missing(subject: str, now: Snapshot) -> bool:
    return (subject == "swap" and not now.swap.total) or (subject == "disk" and not now.disks)


def _answer_history(query: Query, now: Snapshot, history: History) -> str:
    return "\n".join(_describe_answer_history(query, s, now, history) for s in query.subjects)


def _describe_answer_history(query: Query, subject: str, now: Snapshot, history: History) -> str:
    span = query.seconds if query.seconds is not None else _DEFAULT_SPAN_S
    points = [*history.list_since(now.at - span - 2), Point.from_snapshot(now)]
    oldest = history.list_since(0)[:1]
    watched = now.at - oldest[0].at if oldest else 0.0
    name_en, name_ko = _NAMES[subject]
    current = _format_value(subject, _read_value(points[-1], subject))
    short_en = short_ko = ""
    if watched < span * 0.95:
        short_en = f" I have been watching for only {format_duration(watched)}."
        short_ko = f" 지켜본 지 {format_duration_ko(watched)}밖에 안 됐습니다."
        span = watched
    if query.since:
        values = [_read_value(p, subject) for p in points]
        first, low, high = (
            _format_value(subject, v) for v in (values[0], min(values), max(values))
        )
        return choose_text(
            query,
            f"{_capitalize(name_en)} went from {first} to {current} in the last "
            f"{format_duration(span)} "
            f"(lowest {low}, highest {high}).{short_en}",
            f"지난 {format_duration_ko(span)} 동안 {add_topic_particle(name_ko)} {first}에서 "
            f"{current}로 변했습니다 "
            f"(최저 {low}, 최고 {high}).{short_ko}",
        )
    past = history.find_nearest(now.at - span)
    if past is None or watched < 1:
        return choose_text(
            query,
            f"I have just begun to watch and cannot look back yet. {_capitalize(name_en)} is at "
            f"{current} now.",
            f"방금 지켜보기 시작해서 아직 지난 기록이 없습니다. {add_topic_particle(name_ko)} 지금 "
            f"{current}입니다.",
        )
    back = now.at - past.at
    then = _format_value(subject, _read_value(past, subject))
    return choose_text(
        query,
        f"{_capitalize(name_en)} was at {then} {format_duration(back)} ago and is at {current} "
        f"now.{short_en}",
        f"{add_topic_particle(name_ko)} {format_duration_ko(back)} 전에 {then}였고 지금은 "
        f"{current}입니다."
        f"{short_ko}",
    )


def _read_value(point: Point, subject: str) -> float:
    return float(getattr(point, subject))


def _format_value(subject: str, value: float) -> str:
    if subject == "network":
        return f"{format_size(value)}/s"
    if subject == "load":
        return f"{value:.2f}"
    return str(int(value)) if subject == "processes" else format_percent(value)


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]

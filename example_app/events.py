"""Events of the timeline, and the sentences that describe them in English and Korean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .questions.query import Language

__all__ = ["CHAIN_NAMES", "Event", "Level", "describe"]

Level = Literal["good", "info", "warn", "bad"]

CHAIN_NAMES: dict[str, dict[str, str]] = {"assistant": {"en": "The assistant", "ko": "도우미"}}
"""The names of the chains that users see: ``OM_DISPLAY_NAMES``."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event in one worker.

    Attributes:
        what: the signal's name, with ``-ok`` or ``-not`` for one that has two outcomes.
        at: its Unix time.
        worker: the process id.
        values: the arguments of the signal, as text.
    """

    what: str
    at: float
    worker: int
    values: Mapping[str, str]

    @classmethod
    def parse(cls, data: object) -> Event | None:
        """Return the event that a worker published; ``None`` for other data."""
        if not isinstance(data, Mapping):
            return None
        what, at, worker = data.get("what"), data.get("at"), data.get("worker")
        if "ok" in data:
            what = f"{what}-{'ok' if data['ok'] else 'not'}"
        if what not in _SENTENCES or not isinstance(at, float) or not isinstance(worker, int):
            return None
        return cls(what, at, worker, {str(k): str(v)[:200] for k, v in data.items()})


def describe(event: Event, language: Language) -> tuple[Level, str]:
    """Return an event's severity and a sentence about it."""
    level, *texts = _SENTENCES[event.what]
    column = 1 if language == "ko" else 0
    values = dict(event.values)
    for name, known in _TERMS.items():
        if name in values and values[name] in known:
            values[name] = known[values[name]][column]
    if "place" in values:
        name = values["place"].partition(":")[2]
        values["place"] = CHAIN_NAMES[name][language] if name in CHAIN_NAMES else name
    text = texts[column].format_map(_Blank(values))
    if event.what == "notification_sent" and event.values.get("to") == "everyone":
        text += f": {event.values.get('key', '')}"
    return level, text


class _Blank(dict[str, str]):
    """Gives an ellipsis for a value that the event does not have."""

    def __missing__(self, key: str) -> str:
        return "…"


_WHY = {
    "Transient": ("it cannot be reached, or answers nonsense", "연결할 수 없거나 답이 깨졌습니다"),
    "AttemptTimeout": ("it took too long", "너무 오래 걸렸습니다"),
    "RateLimited": ("it asks for patience", "잠시 기다려 달라고 합니다"),
    "EngineUnavailable": ("it is left alone for now", "지금은 쉬게 둡니다"),
    "EngineError": ("it could not", "답하지 못했습니다"),
    "RuntimeError": ("it broke", "고장 났습니다"),
}
_HEALTH = {
    "healthy": ("healthy", "정상"),
    "degraded": ("degraded", "불안정"),
    "offline": ("offline", "중단"),
    "no data": ("unknown", "알 수 없음"),
}

_TERMS: dict[str, dict[str, tuple[str, str]]] = {
    "error": _WHY,
    "before": _HEALTH,
    "after": _HEALTH,
    "to": {
        "sid": ("one browser", "한 브라우저"),
        "everyone": ("everyone", "모두"),
        "operators": ("the operators", "운영자"),
        "user": ("one user", "한 사용자"),
        "role": ("one role", "한 역할"),
    },
    "kind": {
        "success": ("Good news", "성공 알림"),
        "info": ("A notice", "안내"),
        "warning": ("A warning", "경고"),
        "error": ("An error notice", "오류 알림"),
    },
    "key": {
        "response_time": ("slow answers", "느린 응답"),
        "error_rate": ("many errors", "많은 오류"),
        "memory": ("memory is nearly full", "메모리 부족"),
        "engine_offline": ("an engine is offline", "엔진 중단"),
        "fallback_rate": ("many fallbacks", "많은 대체 응답"),
        "cache_hits": ("fewer cache hits", "캐시 적중 감소"),
        "panel:disks": ("The disk panel", "디스크 패널"),
    },
}

_SENTENCES: dict[str, tuple[Level, str, str]] = {
    "engine_failed": ("warn", "{engine} did not answer: {error}", "{engine}: 답 없음. {error}"),
    "retry_scheduled": (
        "info",
        "{engine} is asked again after {number} ms",
        "{engine}: {number} ms 뒤 다시 묻습니다",
    ),
    "engine_fell_back": (
        "warn",
        "{engine} answered instead, on tier {number}",
        "{engine}: {number}단계에서 대신 답했습니다",
    ),
    "engine_health_changed": (
        "info",
        "{engine} was {before} and is {after} now",
        "{engine}: {before} → {after}",
    ),
    "error_pattern_found": (
        "warn",
        "{place} had the same trouble {number} times",
        "{place}: 같은 문제가 {number}번 생겼습니다",
    ),
    "recovery_started": ("info", "{place} is being repaired", "{place}: 복구를 시작했습니다"),
    "recovery_finished-ok": (
        "good",
        "{place} was repaired in {number} s",
        "{place}: {number}초 만에 복구했습니다",
    ),
    "recovery_finished-not": (
        "bad",
        "{place} could not be repaired",
        "{place}: 복구하지 못했습니다",
    ),
    "cache_refreshed": ("info", "Readings are being renewed", "값을 새로 읽고 있습니다"),
    "cache_refresh_failed": (
        "warn",
        "{key} could not be read; the last value stays",
        "{key}: 읽지 못해 마지막 값을 남겼습니다",
    ),
    "alert_fired": ("bad", "Alert: {key}", "경보: {key}"),
    "alert_resolved": ("good", "The alert is over: {key}", "경보 해제: {key}"),
    "notification_sent": ("info", "{kind} went to {to}", "{kind} → {to}"),
    "notification_failed": (
        "warn",
        "The notifier {key} failed",
        "알림 전달 실패: {key}",
    ),
    "csp_violation_received-ok": (
        "warn",
        "A browser would block {blocked} ({key})",
        "브라우저가 차단할 항목: {blocked} ({key})",
    ),
    "csp_violation_received-not": (
        "warn",
        "A browser blocked {blocked} ({key})",
        "브라우저가 차단한 항목: {blocked} ({key})",
    ),
    "problem_reported": (
        "warn",
        "Problem report no. {key} came in",
        "문제 신고 {key}번이 접수되었습니다",
    ),
}

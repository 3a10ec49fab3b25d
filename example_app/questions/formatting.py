"""Formats numbers and adds Korean particles."""

from __future__ import annotations

from .query import Query

__all__ = [
    "add_object_particle",
    "add_subject_particle",
    "add_topic_particle",
    "choose_text",
    "format_duration",
    "format_duration_ko",
    "format_percent",
    "format_rank",
    "format_rank_ko",
    "format_size",
]


def format_size(size_bytes: float) -> str:
    """Format bytes in binary units: ``79.0 GiB``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def format_percent(value: float) -> str:
    """Format a percentage with a no-break space: ``12.3 %``."""
    return f"{value:.1f}\u00a0%"


def format_duration(seconds: float) -> str:
    """Format a duration by its two largest units: ``3 days 4 hours``."""
    return _format_units(seconds, (" day", " hour", " minute", " second"), plural="s")


def format_duration_ko(seconds: float) -> str:
    """Format a duration in Korean by its two largest units: ``3일 4시간``."""
    return _format_units(seconds, ("일", "시간", "분", "초"), plural="")


def _format_units(seconds: float, units: tuple[str, ...], plural: str) -> str:
    rest = max(int(seconds), 0)
    parts: list[str] = []
    for length, unit in zip((86400, 3600, 60, 1), units, strict=True):
        amount, rest = divmod(rest, length)
        if amount or (length == 1 and not parts):
            parts.append(f"{amount}{unit}{plural if amount != 1 else ''}")
    return " ".join(parts[:2])


def add_topic_particle(word: str) -> str:
    """Add the topic particle 은 or 는 to a word."""
    return word + ("은" if _ends_in_consonant(word) else "는")


def add_subject_particle(word: str) -> str:
    """Add the subject particle 이 or 가 to a word."""
    return word + ("이" if _ends_in_consonant(word) else "가")


def add_object_particle(word: str) -> str:
    """Add the object particle 을 or 를 to a word."""
    return word + ("을" if _ends_in_consonant(word) else "를")


def _ends_in_consonant(word: str) -> bool:
    """Return whether a word, read aloud in Korean, ends in a consonant."""
    last = word.rstrip()[-1:].lower()
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 > 0
    return last in "lmnrbkp013678"


def choose_text(query: Query, english: str, korean: str) -> str:
    """Return the text in the question's language."""
    return korean if query.language == "ko" else english


def format_rank(rank: int) -> str:
    """Format a rank that stands before "most"; empty for the first."""
    return {1: "", 2: "second ", 3: "third ", 4: "fourth ", 5: "fifth "}.get(rank, f"{rank}th ")


def format_rank_ko(rank: int) -> str:
    """Format a rank in Korean."""
    words = {1: "가장", 2: "두 번째로", 3: "세 번째로", 4: "네 번째로", 5: "다섯 번째로"}
    return words.get(rank, f"{rank}번째로")

"""Numbers and particles as people write them."""

from __future__ import annotations

from .query import Query

__all__ = [
    "duration",
    "duration_ko",
    "nth",
    "nth_ko",
    "object_ko",
    "percent",
    "pick",
    "size",
    "subject_ko",
    "topic_ko",
]


def size(size_bytes: float) -> str:
    """Bytes in binary units: ``79.0 GiB``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def percent(value: float) -> str:
    """``12.3 %`` with a space that does not break."""
    return f"{value:.1f}\u00a0%"


def duration(seconds: float) -> str:
    """The two largest units: ``3 days 4 hours``."""
    return _two_largest(seconds, (" day", " hour", " minute", " second"), plural="s")


def duration_ko(seconds: float) -> str:
    """The two largest units in Korean: ``3일 4시간``."""
    return _two_largest(seconds, ("일", "시간", "분", "초"), plural="")


def _two_largest(seconds: float, units: tuple[str, ...], plural: str) -> str:
    rest = max(int(seconds), 0)
    parts: list[str] = []
    for length, unit in zip((86400, 3600, 60, 1), units, strict=True):
        amount, rest = divmod(rest, length)
        if amount or (length == 1 and not parts):
            parts.append(f"{amount}{unit}{plural if amount != 1 else ''}")
    return " ".join(parts[:2])


def topic_ko(word: str) -> str:
    """The word with 은 or 는."""
    return word + ("은" if _closed(word) else "는")


def subject_ko(word: str) -> str:
    """The word with 이 or 가."""
    return word + ("이" if _closed(word) else "가")


def object_ko(word: str) -> str:
    """The word with 을 or 를."""
    return word + ("을" if _closed(word) else "를")


def _closed(word: str) -> bool:
    """Whether a word ends in a consonant when read aloud in Korean."""
    last = word.rstrip()[-1:].lower()
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 > 0
    return last in "lmnrbkp013678"


def pick(query: Query, english: str, korean: str) -> str:
    """The text in the question's language."""
    return korean if query.language == "ko" else english


def nth(rank: int) -> str:
    """A rank before "most", nothing for the first."""
    return {1: "", 2: "second ", 3: "third ", 4: "fourth ", 5: "fifth "}.get(rank, f"{rank}th ")


def nth_ko(rank: int) -> str:
    """The same in Korean."""
    words = {1: "가장", 2: "두 번째로", 3: "세 번째로", 4: "네 번째로", 5: "다섯 번째로"}
    return words.get(rank, f"{rank}번째로")

"""Finds the concepts that a question names, and its unknown words.

English words match as a whole. Korean words match as stems that particles and endings follow. In
both languages a longer word may have one typing error; Korean words are compared letter by letter
(jamo).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache

from .lexicon import (
    ENGLISH,
    ENGLISH_FILLERS,
    ENGLISH_PHRASES,
    KOREAN,
    KOREAN_ENDINGS,
    KOREAN_FILLERS,
    KOREAN_PHRASES,
    NAMES,
)
from .query import Language

__all__ = ["MAX_CHARS", "QuestionParts", "find_concepts"]

MAX_CHARS = 500
"""Longer text is cut: no question about a server is longer, and matching must stay cheap."""

_ORDINALS = {
    "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4, "fifth": 5, "5th": 5,
    "두번째": 2, "둘째": 2, "세번째": 3, "셋째": 3, "네번째": 4, "넷째": 4, "다섯번째": 5,
    "2번째": 2, "3번째": 3, "4번째": 4, "5번째": 5, "2등": 2, "3등": 3, "2위": 2, "3위": 3,
}  # fmt: skip
_NUMBERS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30, "half": 0.5,
    "한": 1, "일": 1, "두": 2, "이": 2, "세": 3, "삼": 3, "네": 4, "사": 4, "다섯": 5, "오": 5,
    "육": 6, "열": 10, "십": 10, "십오": 15, "이십": 20, "삼십": 30,
}  # fmt: skip
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "초": 1.0, "분": 60.0, "시간": 3600.0}

_SPAN_EN = re.compile(
    r"\b(?P<n>\d{1,4}|" + "|".join(k for k in _NUMBERS if k.isascii()) + r")\s*(?:an?\s+)?"
    r"(?P<u>s|m|h)(?:ec|ecs|econd|econds|in|ins|inute|inutes|r|rs|our|ours)?\b"
)
_SPAN_KO = re.compile(
    r"(?P<n>\d{1,4}|" + "|".join(sorted((k for k in _NUMBERS if not k.isascii()), key=len,
                                        reverse=True)) + r")\s*(?P<u>초|분|시간)"
)  # fmt: skip
_MOUNT = re.compile(r"(?<![\w/])(/[\w.\-/]*)(?![\w])|(?<!\w)([a-z]:\\)")
_TOKEN = re.compile(r"[a-z0-9][a-z0-9_.+\-:/@]*|[가-힣]+")
_NAMED_EN = re.compile(
    r"\b(?:does|do|is|has)\s+(?:the\s+)?(?:process\s+)?(?P<n1>[\w.+\-]+)\s+(?:process(?:es)?\s+)?"
    r"(?:been\s+)?(?:use|using|used|take|taking|consume|consuming|have|eat|eating|need|hold|occupy|running|"
    r"alive)\b"
    r"|\b(?P<n2>[\w.+\-]+)'s\s+(?:memory|ram|cpu)"
    r"|\b(?:memory|ram|cpu|used|usage|use|running)\s+(?:of|by)\s+(?:the\s+)?(?:process\s+)?"
    r"(?P<n3>[\w.+\-]+)(?:\s+process(?:es)?)?\s*[?.!]*$"
    r"|\bprocess\s+(?:named|called)\s+(?P<n4>[\w.+\-]+)"
)
_NAMED_KO = re.compile(
    r"(?P<n1>[a-z][\w.+\-]*)\s*(?:이라는|라는)?\s*(?:프로세스|프로그램)?(?:가|이|은|는|의)(?=\s)"
    r"|(?P<n2>[a-z][\w.+\-]*)\s*(?:이라는|라는)?\s*(?:프로세스|프로그램)"
)


@dataclass(slots=True)
class QuestionParts:
    """The concepts, numbers and names in a question."""

    language: Language
    text: str
    concepts: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    weight: int = 0
    rank: int = 0
    number: int = 0
    seconds: float | None = None
    mount: str = ""
    name: str = ""
    said_name: bool = False
    first: str = ""


def find_concepts(text: str, running: Iterable[str] = ()) -> QuestionParts:
    """Find the concepts in a question.

    Args:
        text: the question.
        running: names of running processes, which a question may contain.
    """
    text = unicodedata.normalize("NFKC", text[:MAX_CHARS]).lower().replace("’", "'").strip()
    marks = QuestionParts(_detect_language(text), text)
    mount = _MOUNT.search(text)
    if mount:
        marks.mount = mount.group(0).rstrip("/") or "/"
        text = text.replace(mount.group(0), " ")
    names = {n.lower() for n in running}
    _find_name(text, names, marks)
    for pattern, concept in ENGLISH_PHRASES if marks.language == "en" else KOREAN_PHRASES:
        text = re.sub(pattern, concept, text)
    _find_span(text, marks)
    for token in _TOKEN.findall(text):
        before = len(marks.concepts)
        if token[0] < "\x80":
            _read_latin(token.rstrip(".:-/"), names, marks)
        else:
            _read_hangul(token, marks)
        if not marks.first and len(marks.concepts) > before:
            marks.first = token
    return marks


def _detect_language(text: str) -> Language:
    hangul = len(re.findall(r"[가-힣]+", text))
    latin = len(re.findall(r"[a-z]+", text))
    return "ko" if hangul and hangul * 2 >= latin else "en"


def _find_span(text: str, marks: QuestionParts) -> None:
    match = (_SPAN_EN if marks.language == "en" else _SPAN_KO).search(text)
    if match:
        word = match.group("n")
        amount = float(word) if word.isdigit() else float(_NUMBERS[word])
        marks.seconds = amount * _UNITS[match.group("u")]


def _find_name(text: str, running: set[str], marks: QuestionParts) -> None:
    """Find a process name by its position in the sentence, whether it runs or not."""
    for written, name in NAMES.items():
        if written in text:
            marks.name, marks.said_name = name, True
            return
    match = (_NAMED_EN if marks.language == "en" else _NAMED_KO).search(text)
    if match:
        name = next(n for n in match.groups() if n)
        if name in running or not (_find_english_concept(name) or name.isdigit()):
            marks.name, marks.said_name = name, True


def _read_latin(word: str, running: set[str], marks: QuestionParts) -> None:
    if word in _ORDINALS:
        marks.rank = _ORDINALS[word]
        marks.concepts.add("ordinal")
    elif word == marks.name or word.removesuffix("'s") == marks.name:
        marks.weight += 1
    elif word.isdigit():
        marks.number = int(word[:4])
    elif word == "about":
        marks.concepts.add("about")
    elif word in running and word not in _build_english_words() and not marks.name:
        marks.name = word
    elif found := _find_english_concept(word):
        if found != "filler":
            marks.concepts.add(found)
            marks.weight += 1
        if word in _NUMBERS and not marks.number and word not in ("a", "an", "one", "half"):
            marks.number = int(_NUMBERS[word])
    elif word in _NUMBERS:
        marks.number = int(_NUMBERS[word])
    elif not marks.name and _is_prefix_of_name(word, running):
        marks.name = word
    elif not re.fullmatch(r"\d+[a-z]{0,4}", word):
        marks.unknown.append(word)


def _is_prefix_of_name(token: str, running: set[str]) -> bool:
    return len(token) >= 4 and any(name.startswith(token) for name in running)


@cache
def _build_english_words() -> dict[str, str]:
    words = dict.fromkeys(ENGLISH_FILLERS.split(), "filler")
    for concept, text in ENGLISH.items():
        words.update(dict.fromkeys(text.split(), concept))
    return words


@lru_cache(maxsize=4096)
def _find_english_concept(token: str) -> str:
    """Return the concept of a word: "filler" for a word without one, "" for an unknown word."""
    words = _build_english_words()
    token = token.removesuffix("'s").removesuffix("s'")
    if token in words:
        return words[token]
    if not token.isalpha() or len(token) < 4:
        return ""
    best = ""
    for word, concept in words.items():
        if len(word) >= 4 and concept != "blocked" and _has_typo(token, word):
            if concept != "filler":
                return concept
            best = concept
    return best


def _has_typo(a: str, b: str) -> bool:
    """Return whether two words differ by one typing error.

    An error is an added, missing, wrong or swapped letter; in a word of four letters swapped only.
    Two errors are allowed in words of nine letters and more.
    """
    if abs(len(a) - len(b)) > 2 or a[0] != b[0]:
        return False
    swapped = len(a) == len(b) and sorted(a) == sorted(b) and _compute_distance(a, b) == 1
    if min(len(a), len(b)) < 5:
        return swapped
    return _compute_distance(a, b) <= (2 if min(len(a), len(b)) >= 9 else 1)


def _compute_distance(a: str, b: str) -> int:
    """Return the optimal string alignment distance of two words.

    An edit inserts, deletes or replaces a letter, or swaps two neighbours.
    """
    two_above: list[int] = []
    above = list(range(len(b) + 1))
    for i, x in enumerate(a):
        row = [i + 1]
        for j, y in enumerate(b):
            cost = min(above[j + 1] + 1, row[j] + 1, above[j] + (x != y))
            if i and j and x == b[j - 1] and a[i - 1] == y:
                cost = min(cost, two_above[j - 1] + 1)
            row.append(cost)
        two_above, above = above, row
    return above[-1]


@cache
def _build_korean_stems() -> dict[str, str]:
    stems = dict.fromkeys(KOREAN_FILLERS.split(), "filler")
    for concept, text in KOREAN.items():
        stems.update(dict.fromkeys(text.split(), concept))
    stems.update(dict.fromkeys((o for o in _ORDINALS if not o.isascii()), "ordinal"))
    stems.update(dict.fromkeys(NAMES, "name"))
    return stems


@cache
def _build_korean_endings() -> frozenset[str]:
    return frozenset(KOREAN_ENDINGS.split())


def _read_hangul(token: str, marks: QuestionParts) -> None:
    concepts, gaps = _split_hangul(token)
    if gaps and (slip := _find_korean_typo(token)):
        stem, width = slip
        concepts, gaps = _split_hangul(stem + token[width:])
    marks.unknown.extend(gaps)
    for concept in concepts - {"filler", "name"}:
        marks.concepts.add(concept)
        marks.weight += 1
    for written, rank in _ORDINALS.items():
        if token.startswith(written):
            marks.rank = rank


@lru_cache(maxsize=4096)
def _split_hangul(token: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Split a Korean word into stems and endings, with as few other syllables as possible.

    Returns:
        The concepts of the stems, and the other parts that may be words: those of two syllables
        and more.
    """
    stems, endings = _build_korean_stems(), _build_korean_endings()
    # best[i]: cost, position before, the piece's concept ("" an ending, None left over)
    best: list[tuple[float, int, str | None]] = [(0.0, 0, "")]
    for end in range(1, len(token) + 1):
        cost, start, concept = best[end - 1][0] + 10, end - 1, None
        for begin in range(max(0, end - 8), end):
            piece = token[begin:end]
            if piece in stems:
                price = best[begin][0] + (1.0 if len(piece) > 1 or begin == 0 else 2.0)
                if price < cost:
                    cost, start, concept = price, begin, stems[piece]
            if begin and piece in endings and best[begin][2] is not None:
                price = best[begin][0] + 1.5
                if price < cost:
                    cost, start, concept = price, begin, ""
        best.append((cost, start, concept))
    concepts: set[str] = set()
    gaps: list[str] = []
    gap = ""
    end = len(token)
    while end:
        _, start, concept = best[end]
        if concept is None:
            gap = token[start:end] + gap
        else:
            gaps.append(gap)
            gap = ""
            if concept:
                concepts.add(concept)
        end = start
    gaps.append(gap)
    return frozenset(concepts), tuple(g for g in gaps if len(g) > 1)


@lru_cache(maxsize=1024)
def _find_korean_typo(token: str) -> tuple[str, int] | None:
    """Return the stem with which a word begins except for one letter, if it has 3 syllables."""
    for stem, concept in _build_korean_stems().items():
        if len(stem) < 3 or concept in ("filler", "name", "ordinal", "blocked"):
            continue
        letters = unicodedata.normalize("NFD", stem)
        for width in (len(stem), len(stem) - 1, len(stem) + 1):
            written = unicodedata.normalize("NFD", token[:width])
            if written[0] != letters[0] or len(token) < width:
                continue
            if _compute_distance(written, letters) <= 1:
                return stem, width
    return None

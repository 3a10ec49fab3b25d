"""How long a service asks to be left alone, in the words that services use for it.

One standard header has this meaning, ``Retry-After`` (RFC 9110 section 10.2.3); many services use
others. Three places are read, in this order:

1. headers that ask for a wait: ``Retry-After``, ``retry-after-ms`` (OpenAI),
   ``x-ms-retry-after-ms`` (Azure), ``X-Rate-Limit-Retry-After-Seconds``,
   ``grpc-retry-pushback-ms``;
2. the body: ``{"retry_after": 20}``, Google's ``"retryDelay": "20s"``, "try again in 20s" in the
   text of an error, headers that a gateway repeats;
3. headers that say when a limit begins anew: ``x-ratelimit-reset-tokens: 20s``,
   ``anthropic-ratelimit-requests-reset``, ``RateLimit: "minute";r=0;t=20`` (IETF draft
   ratelimit-headers). Services send these with every answer, so they ask for a wait only in an
   answer that refuses because of a limit.

A value is a number, a duration (``20s``, ``1m30s``, ``PT20S``, ``00:00:20``) or a point in time (an
HTTP date, RFC 3339, a Unix time). Of several values the longest wait counts.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 3600.0
"""The longest wait of an engine that is believed, so that no answer can disable it for good."""

Headers = Mapping[str, str]

_UNITS_S = {
    **dict.fromkeys(("ns", "nanos", "nanoseconds"), 1e-9),
    **dict.fromkeys(("us", "µs", "μs", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
}
_ALL_UNITS = "|".join(sorted(_UNITS_S, key=len, reverse=True))
_UNITS_OF_NAMES = frozenset(
    ("ms", "msecs", "millis", "milliseconds", "s", "sec", "secs", "seconds", "minutes")
)

_FIRST_UNIX_TIME = 1e9
"""A wait of so many seconds (31 years) is a Unix time."""
_FIRST_UNIX_TIME_IN_MS = 1e11
_LONG_AGO_S = 3e7

_LONGEST_VALUE = 200
_NUMBER = re.compile(r"\+?([0-9]{1,19}(?:\.[0-9]{0,9})?)")
_PART = rf"([0-9]{{1,15}}(?:\.[0-9]{{1,9}})?)\s?({_ALL_UNITS})(?![a-zµμ])"
_PARTS = re.compile(_PART)
_DURATION = re.compile(rf"(?:{_PART}(?:\s?,?\s?(?:and\s)?)){{1,6}}")
_CLOCK = re.compile(r"([0-9]{1,4}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,9})?)")
_DATE_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ t]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)"
    r"\s?(z|utc|gmt|[+-][0-9]{2}:?[0-9]{2})?"
)
_AROUND_VALUE = re.compile(r"^[\s\"'~]+|[\s\"']+$|\s*[;(].*")

_LIMIT_ITEM = re.compile(r"(?:^|[;,\s])(r|remaining|t|reset)\s?=\s?([0-9]{1,15})")

_MOST_NODES = 200
_DEEPEST = 8
_LONGEST_TEXT = 2_000
_ASKING_FIELD = re.compile(
    r"(?:retry(?:after|in|at|delay)|tryagain(?:in|at)|wait(?:time|for)?|resets?(?:in|at)|resettime"
    r"|estimatedtime)"
    r"(|ms|millis|milliseconds|s|secs?|seconds)"
)
_TEXT_FIELDS = frozenset((
    "message", "msg", "error", "errors", "detail", "details", "description", "reason", "title",
    "errormessage", "errordescription", "raw", "hint",
))  # fmt: skip
_REPEATED_FIELDS = frozenset(("input", "request", "payload", "body", "prompt", "messages", "query"))
"""Where a service may repeat what a caller wrote, who must not decide how long all others wait."""
_ASKING_TEXT = re.compile(
    r"\b(?:(?:try|retry|retrying|again|available|wait|resets?)\b[^.!?\n0-9]{0,60}?"
    r"\b(?:in|after|for|within|at|until)|wait)\b:?\s?"
    r"(?:about |around |approximately |at least |another |~)?\s?"
    rf"({_DATE_3339.pattern}|{_DURATION.pattern}|[0-9]{{1,15}}(?=[.!)\"']?\s*(?:$|\n)))"
)
_ASKING_NAME = re.compile(
    r"\bretry[_-]?after(?:[_-](ms|seconds))?[\"']?\s?[:=]\s?[\"']?([0-9][0-9.]{0,20}[a-z]{0,12})"
)


def read_wait(
    headers: Headers,
    document: object = None,
    *,
    now: float | None = None,
    longest_s: float = MAX_WAIT_S,
) -> float | None:
    """Return how long a service wants no request, after it refused one because of a limit.

    Args:
        headers: the headers of the answer, repeated ones joined by commas.
        document: the body of the answer, decoded from JSON, or as text; ``None`` without a body.
        now: the Unix time. A point in time is compared with the ``Date`` of the same answer where
            there is one, so that a difference of clocks makes no difference.
        longest_s: the longest wait that is believed.

    Returns:
        Seconds, 0 to ``longest_s``; ``None`` when the answer does not say.
    """
    asked_s = read_asked_wait(headers, document, now=now, longest_s=longest_s)
    return _limit(_read_resets(headers, now), longest_s) if asked_s is None else asked_s


def read_asked_wait(
    headers: Headers,
    document: object = None,
    *,
    now: float | None = None,
    longest_s: float = MAX_WAIT_S,
) -> float | None:
    """Return how long a service wants no request, for an answer of any kind.

    It is as :func:`read_wait`, but headers that only say when a limit begins anew do not count.
    """
    waits = [
        wait_s
        for name, value in headers.items()
        if (unit_s := _find_unit(name.lower())) is not None
        for wait_s in _read_values(value, unit_s, headers, now)
    ]
    if not waits and document is not None:
        waits = list(_search(document, headers, now))
    return _limit(max(waits, default=None), longest_s)


def _limit(seconds: float | None, longest_s: float) -> float | None:
    return None if seconds is None else min(max(seconds, 0.0), longest_s)


# --- headers -----------------------------------------------------------------------------------


def _find_unit(name: str) -> float | None:
    """The seconds of one unit of a header that asks for a wait; ``None`` for any other header."""
    words = name.replace("retry-after", "retryafter").replace("retry-pushback", "retryafter")
    *before, last = words.split("-")
    if last in _UNITS_OF_NAMES and before and before[-1] == "retryafter":
        return _UNITS_S[last]
    return 1.0 if last == "retryafter" else None


def _read_resets(headers: Headers, now: float | None) -> float | None:
    """The longest wait of the limits that are used up. Where none says so, the longest of those
    that do not say what is left; where all have something left, the shortest wait."""
    waits: dict[str, list[float]] = {"used up": [], "unknown": [], "left": []}
    for left, wait_s in _find_limits(headers, now):
        if wait_s > 0:  # a limit that has begun anew refused nothing
            waits["unknown" if left is None else "left" if left > 0 else "used up"].append(wait_s)
    return max(waits["used up"] or waits["unknown"], default=min(waits["left"], default=None))


def _find_limits(headers: Headers, now: float | None) -> Iterator[tuple[float | None, float]]:
    """What is left of each limit (``None``: it does not say), and the seconds until it begins
    anew."""
    fields = {
        name.lower().replace("_", "-").replace("rate-limit", "ratelimit"): value
        for name, value in headers.items()
    }
    for name, value in fields.items():
        if "ratelimit" not in name:
            continue
        words = name.split("-")
        if "reset" in words:
            unit_s = _UNITS_S[words.pop()] if words[-1] in _UNITS_OF_NAMES else 1.0
            other = "-".join(word for word in words if word not in ("after", "in", "at"))
            number = _NUMBER.match(fields.get(other.replace("reset", "remaining"), "").strip())
            for wait_s in _read_values(value, unit_s, headers, now):
                yield None if number is None else float(number[1]), wait_s
        elif words[-1] == "ratelimit":
            # Until version 07 the draft has one limit: limit=9, remaining=0, reset=20.
            for item in [value] if "reset" in value else value.split(","):
                found: dict[str, str] = dict(_LIMIT_ITEM.findall(item.lower()))
                left = found.get("r", found.get("remaining"))
                wait = found.get("t", found.get("reset", "0"))
                yield None if left is None else float(left), float(wait)


# --- the body ----------------------------------------------------------------------------------


def _search(document: object, headers: Headers, now: float | None) -> Iterator[float]:
    """The waits in a body. Texts count only where services put words for people."""
    waiting: list[tuple[str, object, int]] = [("message", document, 0)]
    for _ in range(_MOST_NODES):
        if not waiting:
            return
        key, value, depth = waiting.pop()
        asking = _ASKING_FIELD.fullmatch(key)
        if asking and isinstance(value, int | float | str):
            yield from _read_values(str(value), _UNITS_S[asking[1] or "s"], headers, now)
        elif isinstance(value, str):
            if key in _TEXT_FIELDS:
                text = value[:_LONGEST_TEXT].lower()
                for found in _ASKING_TEXT.finditer(text):
                    yield from _read_values(found[1], 1.0, headers, now)
                for found in _ASKING_NAME.finditer(text):
                    yield from _read_values(found[2], _UNITS_S[found[1] or "s"], headers, now)
        elif isinstance(value, Mapping) and depth < _DEEPEST:
            if key == "headers":
                repeated = {str(name): str(one) for name, one in list(value.items())[:100]}
                wait_s = read_wait(repeated, now=now)
                yield from () if wait_s is None else (wait_s,)
            for name, one in list(value.items())[:_MOST_NODES]:
                plain = re.sub(r"[^a-z]", "", str(name)[:50].lower())
                if plain not in _REPEATED_FIELDS:
                    waiting.append((plain, one, depth + 1))
        elif isinstance(value, list) and depth < _DEEPEST:
            waiting += ((key, one, depth + 1) for one in value[:_MOST_NODES])


# --- values ------------------------------------------------------------------------------------


def _read_values(value: str, unit_s: float, headers: Headers, now: float | None) -> Iterator[float]:
    """The seconds of each value of a list; ``unit_s`` is the unit of numbers without one. The comma
    of an HTTP date divides its day of the week from what is a date without it."""
    value = value[:_LONGEST_VALUE].lower()
    one_duration = _read_duration(value, unit_s) is not None
    for one in [value] if one_duration else value.split(","):
        text = _AROUND_VALUE.sub("", one)
        seconds = _read_duration(text, unit_s)
        if seconds is not None and seconds < _FIRST_UNIX_TIME:
            yield seconds
            continue
        until = _read_date(text) if seconds is None else seconds
        if until is not None:
            while until >= _FIRST_UNIX_TIME_IN_MS:
                until /= 1000
            answered = _read_date(_AROUND_VALUE.sub("", headers.get("date", "")[:64].lower()))
            wait_s = until - (answered or (time.time() if now is None else now))
            # The number 999999999999 would be a time long ago; it means a long wait.
            yield MAX_WAIT_S if seconds is not None and wait_s < -_LONG_AGO_S else wait_s


def _read_duration(text: str, unit_s: float) -> float | None:
    if number := _NUMBER.fullmatch(text):
        return float(number[1]) * unit_s
    if clock := _CLOCK.fullmatch(text):
        return float(clock[1]) * 3600 + float(clock[2]) * 60 + float(clock[3])
    text = text.removeprefix("pt")  # ISO 8601
    parts = [(_UNITS_S[unit], float(number)) for number, unit in _PARTS.findall(text)]
    units = [unit_s for unit_s, _ in parts]
    if not _DURATION.fullmatch(text) or units != sorted(set(units), reverse=True):
        return None  # "20s, 20s" is one duration twice
    return sum(unit_s * number for unit_s, number in parts)


def _read_date(text: str) -> float | None:
    """The Unix time of an HTTP date or an RFC 3339 date; without a zone they are in UTC."""
    try:
        if date := _DATE_3339.fullmatch(text):
            zone = date[3] if date[3] and date[3][0] in "+-" else "+00:00"
            return datetime.fromisoformat(f"{date[1]}T{date[2]}{zone}").timestamp()
        if ":" not in text or not text.isascii():
            return None
        found = parsedate_to_datetime(text)
        seconds = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None
    return None if math.isnan(seconds) else seconds

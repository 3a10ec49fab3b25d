"""Parsers of the HTTP fields that a cache depends on. None raises; no input is trusted.

Sources: RFC 9110 (dates, entity tags, ranges, lists), RFC 9111 section 5.2 (``Cache-Control``),
RFC 8941 section 4.2.2 (dictionaries, for the targeted fields of RFC 9213). Input that does not
follow its grammar gets the safer meaning: a directive with a malformed value keeps the value
``""``, so that ``max-age='60'`` is stale and ``private=?`` is private.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable

Directives = dict[str, str | None]
"""Directives by lower-case name: ``None`` without a value, ``""`` for a malformed value."""

LONGEST_S = 2**31
"""A larger number of seconds is treated as this one (RFC 9111 section 1.2.2)."""

_MOST_CHARACTERS = 4096
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PIECE = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+|"')
_DIRECTIVE = re.compile(rf'[ \t]*({_WORD})(?:=(?:"((?:[^"\\]|\\.)*)"|({_WORD})))?[ \t]*')
_NAME = re.compile(rf"[ \t]*({_WORD})")
_DIGITS = re.compile(r"[0-9]+")


def directives(value: str) -> Directives:
    """Parse ``Cache-Control``.

    Of a directive that occurs twice, the first counts (RFC 9111 section 4.2.1); the field names of
    ``no-cache`` and ``private`` are added up.

    Args:
        value: the field's lines, joined with commas.
    """
    found: Directives = {}
    if len(value) > _MOST_CHARACTERS:
        return {"no-store": None}  # no author means this
    for piece in _PIECE.findall(value):
        if piece == '"':  # an unclosed quote may hide a "no-store"
            return {"no-store": None}
        match = _DIRECTIVE.fullmatch(piece)
        if match is None:
            start = _NAME.match(piece)
            if start is not None:
                found.setdefault(start[1].lower(), "")
            continue
        name = match[1].lower()
        argument = match[3] if match[2] is None else match[2]
        if name not in found:
            found[name] = argument
        elif name in ("no-cache", "private"):
            before = found[name]
            both = before is not None and argument is not None
            found[name] = f"{before},{argument}" if both else None
    return found


_KEY = r"[a-z*][a-z0-9_.*-]*"
_ITEM = (
    r'(?:-?[0-9]{1,12}\.[0-9]{1,3}|-?[0-9]{1,15}|"(?:[ !#-\[\]-~]|\\["\\])*"'
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*|:[A-Za-z0-9+/=]*:|\?[01])"
)
_PARAMETERS = rf"(?:; *{_KEY}(?:={_ITEM})?)*"
_LIST = rf"\( *(?:{_ITEM}{_PARAMETERS}(?: +{_ITEM}{_PARAMETERS})*)? *\)"
_MEMBER = re.compile(rf"({_KEY})(?:=({_LIST}|{_ITEM}))?{_PARAMETERS}")


def dictionary(value: str) -> Directives | None:
    """Parse a structured dictionary such as ``CDN-Cache-Control``.

    Returns:
        The directives; one of another type than a number or boolean has the value ``""``. ``None``
        when the field is malformed or empty and must be ignored (RFC 9213 section 2.1).
    """
    if len(value) > _MOST_CHARACTERS:
        return None
    found: Directives = {}
    position, end = 0, len(value.rstrip(" "))
    value = value[:end]
    position = len(value) - len(value.lstrip(" "))
    while position < end:
        match = _MEMBER.match(value, position)
        if match is None:
            return None
        item = match[2]
        if item is None or item == "?1":
            found[match[1]] = None
        elif item == "?0":
            found.pop(match[1], None)
        else:
            found[match[1]] = item if _DIGITS.fullmatch(item) else ""
        position = match.end()
        if position == end:
            break
        comma = _COMMA.match(value, position)
        if comma is None or comma.end() == end:
            return None
        position = comma.end()
    return found or None


_COMMA = re.compile(r"[ \t]*,[ \t]*")


def delta_seconds(value: str | None) -> int | None:
    """Parse seconds, at most :data:`LONGEST_S`; ``None`` for anything but digits."""
    if not value or not value.isascii() or not value.isdigit():
        return None
    return min(int(value), LONGEST_S) if len(value) <= 20 else LONGEST_S


def age_seconds(values: Iterable[str]) -> int:
    """Parse ``Age``: the first member of the first line; 0 when malformed (RFC 9111 5.1)."""
    for value in values:
        return delta_seconds(value.partition(",")[0].strip(" \t")) or 0
    return 0


def field_names(value: str) -> tuple[str, ...]:
    """Parse the field names of ``Vary`` and of ``no-cache="…"``.

    Returns:
        The names in lower case, sorted, each once; ``("*",)`` when a member is ``*`` or no name.
    """
    names = {part.strip(" \t").lower() for part in value.split(",")} - {""}
    if "*" in names or any(_FIELD_NAME.fullmatch(name) is None for name in names):
        return ("*",)
    return tuple(sorted(names))


_FIELD_NAME = re.compile(_WORD)


# --- dates --------------------------------------------------------------------------------------

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_TIME = r"(\d\d):(\d\d):(\d\d)"
_MONTH = f"({'|'.join(_MONTHS)})"
_SHORT_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_FLAGS = re.IGNORECASE | re.ASCII
_FIXDATE = re.compile(rf"{_SHORT_DAY}, (\d\d) {_MONTH} (\d{{4}}) {_TIME} GMT", _FLAGS)
_RFC850 = re.compile(rf"{_LONG_DAY}, (\d\d)-{_MONTH}-(\d\d) {_TIME} GMT", _FLAGS)
_ASCTIME = re.compile(rf"{_SHORT_DAY} {_MONTH} ([ \d]\d) {_TIME} (\d{{4}})", _FLAGS)


def http_date(value: str | None, now: float = 0.0) -> float | None:
    """Parse an HTTP date in one of its three forms (RFC 9110 section 5.6.7).

    Args:
        value: the field.
        now: Unix time; it decides the century of years with two digits.

    Returns:
        Unix time; ``None`` for anything else, such as another zone, a missing comma or a one-digit
        hour.
    """
    if not value or len(value) > 40:
        return None
    if match := _FIXDATE.fullmatch(value):
        day, month, year, hour, minute, second = match.groups()
    elif match := _RFC850.fullmatch(value):
        day, month, short, hour, minute, second = match.groups()
        this = 1970 + int(now // 31_556_952)
        number = this - this % 100 + int(short)
        year = str(number - 100 if number > this + 50 else number)
    elif match := _ASCTIME.fullmatch(value):
        month, day, hour, minute, second, year = match.groups()
    else:
        return None
    parts = (int(year), _MONTHS.index(month.lower()) + 1, int(day), int(hour), int(minute))
    if not (1 <= parts[2] <= 31 and parts[3] < 24 and parts[4] < 60 and int(second) <= 60):
        return None
    try:
        return float(calendar.timegm((*parts, int(second), 0, 0, 0)))
    except (ValueError, OverflowError):
        return None


# --- entity tags and ranges ---------------------------------------------------------------------

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_MOST_TAGS = 100


def entity_tags(value: str) -> tuple[str, ...]:
    """Parse the tags of ``If-None-Match``; ``("*",)`` for a star. Malformed ones are left out."""
    if value.strip(" \t") == "*":
        return ("*",)
    if len(value) > _MOST_CHARACTERS:
        return ()
    return tuple(_TAG.findall(value)[:_MOST_TAGS])


def same_tag(one: str, other: str, *, strong: bool = False) -> bool:
    """Whether two entity tags match, by weak or ``strong`` comparison (RFC 9110 8.8.3.2)."""
    if strong:
        return one == other and not one.startswith("W/")
    return one.removeprefix("W/") == other.removeprefix("W/")


_RANGE = re.compile(r"(\d{0,18})-(\d{0,18})", re.ASCII)


def ranges(value: str, size: int) -> list[tuple[int, int]] | None:
    """Parse the byte range that ``Range`` asks for.

    Args:
        value: the field.
        size: of the body, in bytes.

    Returns:
        The first byte and the one after the last, as the only pair; an empty list when the range
        cannot be satisfied; ``None`` when the field is malformed, has another unit or asks for more
        than one range, and is ignored (RFC 9110 section 14.2 allows that).
    """
    unit, equals, wanted = value.partition("=")
    if not equals or unit.strip(" \t").lower() != "bytes":
        return None
    match = _RANGE.fullmatch(wanted.strip(" \t"))
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        last = int(match[2])
        return [(max(0, size - last), size)] if last and size else []
    first = int(match[1])
    end = size if not match[2] else min(int(match[2]) + 1, size)
    if match[2] and int(match[2]) < first:
        return None
    return [(first, end)] if first < size else []

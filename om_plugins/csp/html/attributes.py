"""Puts a nonce into the attributes of one start tag, by what they are and not by how they look.

A nonce attribute that is there counts: a tag with two of them has no nonce for a browser (Content
Security Policy Level 3, section 6.7.3.1, "Is element nonceable?"). The syntax of attributes is that
of the HTML standard, section 13.2.5.
"""

from __future__ import annotations

import re

_SPACE = r"[ \t\n\r\f]"
_ATTRIBUTE = re.compile(
    rf"""(?:{_SPACE}|/)*
    (?P<whole>
        (?P<name>[^ \t\n\r\f/>][^ \t\n\r\f/>=]*)
        (?:{_SPACE}*={_SPACE}*(?P<value>"[^"]*"?|'[^']*'?|[^ \t\n\r\f>]*))?
    )""",
    re.VERBOSE,
)


def put_nonce(attributes: str, nonce: str, *, quote: str = '"', replace: bool = False) -> str:
    """Return the attributes of a tag with its nonce.

    An empty nonce attribute is filled. One with a value is kept.

    Args:
        attributes: the text between the name of the tag and its ``>``.
        nonce: of the response.
        quote: what to write around the nonce.
        replace: a nonce with another value is replaced, too.
    """
    written = f"nonce={quote}{nonce}{quote}"
    found = find_attribute(attributes, "nonce")
    if found is None:
        return f" {written}{attributes}"
    value = read_value(found)
    if value == nonce or (value and not replace):
        return attributes
    start, end = found.span("whole")
    # without a blank, what comes next would become a part of this attribute
    blank = "" if attributes[end : end + 1] in ("", " ", "\t", "\n", "\r", "\f", "/") else " "
    return f"{attributes[:start]}{written}{blank}{attributes[end:]}"


def has_nonce(attributes: str) -> bool:
    """Return whether the attributes of a tag have a nonce that is not empty."""
    found = find_attribute(attributes, "nonce")
    return found is not None and read_value(found) != ""


def find_attribute(attributes: str, name: str) -> re.Match[str] | None:
    """Return the first attribute of a name, the one that browsers take.

    Args:
        attributes: the text between the name of a tag and its ``>``.
        name: in lower case.
    """
    if name not in attributes.lower():  # most often; the rest need not be read then
        return None
    at = 0
    while True:
        match = _ATTRIBUTE.match(attributes, at)
        if match is None or match["name"].lower() == name:
            return match
        at = match.end()


def read_value(attribute: re.Match[str]) -> str:
    """Return the value of a found attribute without its quotes and the blanks around it."""
    value: str = attribute["value"] or ""
    return value.strip(value[0] if value[:1] in ('"', "'") else None).strip()

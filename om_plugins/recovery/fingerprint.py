"""Fingerprints: errors that differ only in numbers, names and addresses are of one kind.

What changes from one error to the next (ids, paths, quoted text, URLs, numbers) is masked, so that
a message says what kind of error it is and no longer whom it concerned: a masked message may be
shown to operators and kept in the hub.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

MAX_MESSAGE = 200
"""Characters of a masked message."""
MAX_SUBJECT = 200
"""Characters of a subject."""
_READ = 2_000
_CLASS = 80

# In this order: what comes first may contain what comes later. Every repetition is bounded or of
# a single class of characters, so a hostile message costs linear time.
_MASKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,15}://[^\s'\"<>()]+"), "<url>"),
    (re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), "<email>"),
    (re.compile(r"(?<!\w)'[^'\n]{0,500}'|\"[^\"\n]{0,500}\"|`[^`\n]{0,500}`"), "<text>"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b[A-Za-z]:\\[^\s:,;]+|(?<![\w<])~?(?:/[^\s/:,;'\"()<>]+)+/?"), "<path>"),
    (re.compile(r"\b0[xX][0-9a-fA-F]+\b"), "<id>"),
    (re.compile(r"\b(?=[a-fA-F]{0,64}[0-9])[0-9a-fA-F]{8,}\b"), "<id>"),
    (re.compile(r"(?<![\w<])[-+]?[0-9]+(?:[.,:][0-9]+)*(?:[eE][-+]?[0-9]+)?"), "<n>"),
    (re.compile(r"[0-9]+"), "<n>"),
    (re.compile(r"<(\w+)>(?:(?:, ?|;| )<\1>)+"), r"<\1>"),
)
_SPACE = re.compile(r"\s+")


def masked(message: str) -> str:
    """The message without what differs between errors of one kind; at most 200 characters."""
    text = _SPACE.sub(" ", message[:_READ]).strip()
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


class Seen(NamedTuple):
    """What is kept of an error, taken where it happened; the rest can be done later."""

    module: str
    name: str
    message: str

    def kind(self) -> str:
        """The kind of the error in words: its class and its masked message."""
        message = masked(self.message)
        return f"{self.name}: {message}" if message and message != self.name else self.name

    def fingerprint(self, subject: str) -> str:
        """See :func:`fingerprint`."""
        whole = "\0".join((self.kind(), self.module, subject)).encode("utf-8", "replace")
        return hashlib.blake2b(whole, digest_size=8).hexdigest()


def seen(error: BaseException) -> Seen:
    """What is kept of an error. Never raises."""
    kind = type(error)
    try:
        message = str(error)[:_READ]
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        message = ""
    return Seen(str(kind.__module__)[:_CLASS], kind.__qualname__[:_CLASS], message)


def kind_of(error: BaseException) -> str:
    """The kind of an error in words: its class and its masked message."""
    return seen(error).kind()


def fingerprint(error: BaseException, subject: str) -> str:
    """What tells one kind of error in one place from another: 16 hexadecimal digits.

    Args:
        subject: the place, ``chain:<name>`` or ``route:<rule>``.
    """
    return seen(error).fingerprint(subject)

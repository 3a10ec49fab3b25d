"""Fingerprints: errors that differ only in numbers, names and addresses are of one kind.

The parts of a message that change from one error to the next (ids, paths, quoted text, URLs,
numbers) are masked. A masked message says what kind of error it is, but not whom it concerned, so
it may be shown to operators and stored in the hub.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

MAX_MESSAGE = 200
"""The most characters of a masked message."""
MAX_SUBJECT = 200
"""The most characters of a subject."""
_READ = 2_000
_CLASS = 80

# The order matters: an earlier pattern may contain a later one. Each repetition is bounded or of
# a single class of characters, so that a hostile message takes linear time.
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


def mask(message: str) -> str:
    """Return the message without the parts that differ between errors of one kind.

    The result has at most :data:`MAX_MESSAGE` characters.
    """
    text = _SPACE.sub(" ", message[:_READ]).strip()
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


class ErrorSummary(NamedTuple):
    """What is stored of an error where it happens; the rest of the work can be done later."""

    module: str
    name: str
    message: str

    def describe(self) -> str:
        """Return the kind of the error: its class and its masked message."""
        message = mask(self.message)
        return f"{self.name}: {message}" if message and message != self.name else self.name

    def fingerprint(self, subject: str) -> str:
        """See :func:`fingerprint`."""
        whole = "\0".join((self.describe(), self.module, subject)).encode("utf-8", "replace")
        return hashlib.blake2b(whole, digest_size=8).hexdigest()


def summarize_error(error: BaseException) -> ErrorSummary:
    """Return the summary of an error. Never raises."""
    kind = type(error)
    try:
        message = str(error)[:_READ]
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        message = ""
    return ErrorSummary(str(kind.__module__)[:_CLASS], kind.__qualname__[:_CLASS], message)


def describe_error(error: BaseException) -> str:
    """Return the kind of an error: its class and its masked message."""
    return summarize_error(error).describe()


def fingerprint(error: BaseException, subject: str) -> str:
    """Return 16 hexadecimal digits that identify one kind of error in one place.

    Args:
        subject: the place, ``chain:<name>`` or ``route:<rule>``.
    """
    return summarize_error(error).fingerprint(subject)

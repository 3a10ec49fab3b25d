"""What people are told of errors and recovery, in plain words; the English text is the key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

FIRST = "{name} had a problem. You may go on; please try again if something is missing."
PATTERN = "{name} keeps having the same trouble. Telling us what you were doing helps to mend it."
REPAIRING = "{name} is being repaired"
FINISHING = "Almost done"
SUCCEEDED = "{name} was repaired. Please try again."
FAILED = "{name} could not be repaired by itself. Refresh the page, or report the problem."
TIDIED = "{name} was tidied up. Please try again."
WRONG_METHOD = (
    "Clients send {method} to {name}, which allows {allowed} only: {times} times in five minutes."
)
REFUSED_METHOD = "Clients send {method} to {name}, which refuses it: {times} times in five minutes."
REFRESH = "Refresh"
REPORT = "Report problem"


class Words(Protocol):
    """Says a text in the language of the people who will read it."""

    def __call__(self, text: str, /, **values: str) -> str:
        """``text``, one of this module's or of a recovery step, with ``values`` filled in."""


def english(text: str, /, **values: str) -> str:
    """The text as it stands here. What is no template of ours is left as it is."""
    try:
        return text.format(**values)
    except (LookupError, ValueError, AttributeError):
        return text


def _nowhere() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Reader:
    """Whom an error happened to.

    Attributes:
        address: gives the address, such as ``sid:…``, in the background; "" when there is none.
        words: in the reader's language.
    """

    address: Callable[[], str] = _nowhere
    words: Words = english


def place_of(subject: str, words: Words) -> str:
    """How a place is called: ``chain:assistant`` is ``assistant``."""
    return subject.partition(":")[2] or subject

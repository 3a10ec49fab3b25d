"""What is known of HTML source at one place: the tokenizer's state, and the tags found so far."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto


class Mode(IntEnum):
    """The state of the tokenizer."""

    TEXT = auto()
    COMMENT = auto()
    BOGUS_COMMENT = auto()
    RAW = auto()
    BEFORE_ATTRIBUTE = auto()
    ATTRIBUTE_NAME = auto()
    AFTER_NAME = auto()
    BEFORE_VALUE = auto()
    DOUBLE_QUOTED = auto()
    SINGLE_QUOTED = auto()
    UNQUOTED = auto()


@dataclass(slots=True, eq=False)
class Tag:
    """A start tag whose element may carry a nonce.

    Attributes:
        name: in lower case.
        piece, offset: where its name ends: the number of the piece and the place in it.
        quote: the quote that its attributes are written with.
        has_nonce: it certainly brings a nonce of its own.
        open: only what is put out tells whether it brings one: something unknown stands between its
            attributes, or its nonce may be empty or left out.
        mentions_nonce: something unknown between its attributes looks like a nonce by its name.
        path: of the scanner where it begins.
        apart: it ends in the statements in which it begins, and nothing in it lasts longer.
        found: it is certainly a tag that should get a nonce.
        skipped: it is not to be touched.
        loose: what is put out here may be changed before it is sent.
        address: where it loads from, with a NUL for each gap.
        body: the text inside it, when that has no gap.
        begins: the place behind its ``>``; the piece is -1 until that was read.
    """

    name: str
    piece: int
    offset: int
    quote: str = ""
    rel: str = ""
    has_nonce: bool = False
    open: bool = False
    mentions_nonce: bool = False
    path: tuple[int, ...] = ()
    apart: bool = True
    found: bool = False
    skipped: bool = False
    loose: bool = False
    address: str = ""
    body: str | None = None
    begins: tuple[int, int] = (-1, 0)


@dataclass(frozen=True, slots=True)
class Inline:
    """An event handler or ``style`` attribute whose value has no gap.

    Attributes:
        piece, offset: where its value ends.
        directive: ``script-src-attr`` or ``style-src-attr``.
        value: as it is written.
    """

    piece: int
    offset: int
    directive: str
    value: str


@dataclass(slots=True)
class State:
    """Everything that the scanner knows at one place; ``tags`` has several after a condition."""

    mode: Mode = Mode.TEXT
    tags: tuple[Tag, ...] = ()
    attribute: str = ""
    raw: str = ""
    slash: bool = False
    foreign: int = 0
    opening: str = ""
    tail: str = ""
    value: str | None = ""
    escaped: int = 0

    def copy(self) -> State:
        """One that is changed on its own."""
        return State(
            self.mode, self.tags, self.attribute, self.raw, self.slash, self.foreign,
            self.opening, self.tail, self.value, self.escaped,
        )  # fmt: skip

"""Reads the literal text of a Jinja template as HTML, through its branches, blocks and macros.

Each branch of a condition begins in the same state. Text that is output elsewhere, such as the
body of a macro, begins in a new state. Text that a filter would change is not touched.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from jinja2.filters import FILTERS
from jinja2.lexer import Token

from ..html.scan import Scanner
from ..html.state import State

# built-in filters that leave a tag a tag; the others escape, cut or change the case of their text
_TRANSPARENT_FILTERS = frozenset({"center", "default", "d", "indent", "replace", "safe", "trim"})

_OF_A_NONCE = frozenset("0123456789abcdef nonce='\"")

# bodies that are output elsewhere or not at all: the text before them is not their context
_ELSEWHERE = frozenset({"macro", "call", "set"})
_BRANCHING = frozenset({"if", "for", "trans"})
_CONTAINERS = _ELSEWHERE | _BRANCHING | {"filter", "block"}
_NEXT_BRANCH = frozenset({"elif", "else", "pluralize"})
# statements that put out nothing themselves; the text in them is read
_SILENT = frozenset(
    {"if", "for", "set", "macro", "import", "from", "extends", "do", "with", "autoescape"}
    | {"break", "continue"}
)
# statements without a body that may stand in a tag whose attributes are put out together; the
# others set something that is used behind it, leave a loop, or may have a body without a known end
_PASSING = frozenset({"include", "do", "debug"})


def join_text(stream: Iterable[Token]) -> list[Token]:
    """Return all tokens, with the literal text joined that a comment or ``{% raw %}`` separated."""
    tokens: list[Token] = []
    for token in stream:
        if token.type == "data" and tokens and tokens[-1].type == "data":
            last = tokens[-1]
            tokens[-1] = Token(last.lineno, "data", last.value + token.value)
        else:
            tokens.append(token)
    return tokens


def scan(tokens: list[Token], *, own_nonce: bool = True) -> Scanner:
    """Read a template's tokens as HTML with gaps.

    Args:
        tokens: with joined text.
        own_nonce: ``csp_nonce()`` is the nonce of the response.
    """
    scanner = Scanner()
    flow = _Flow(scanner, _find_keywords(tokens))
    number = 0
    while number < len(tokens):
        token = tokens[number]
        if token.type == "data":
            scanner.feed(token.value, number)
        elif token.type in ("variable_begin", "block_begin"):
            inside = _until(tokens, number + 1, token.type.replace("begin", "end"))
            if token.type == "variable_begin":
                _leave_gap(scanner, inside, own_nonce=own_nonce)
            elif inside and inside[0].type == "name":
                flow.process_statement(inside)
            number += len(inside)
        number += 1
    return scanner


def _leave_gap(scanner: Scanner, inside: list[Token], *, own_nonce: bool) -> None:
    """Tell the scanner of one ``{{ … }}``."""
    if not scanner.state.tags:  # most often
        scanner.gap()
        return
    names = _find_names(inside)
    scanner.gap(
        mentions_nonce=_mention_nonce(names),
        is_nonce=own_nonce and [one.value for one in inside] == ["csp_nonce", "(", ")"],
        own=bool(names) and names[0] in ("url_for", "om_static"),
    )


def _find_names(inside: Iterable[Token]) -> list[str]:
    return [one.value for one in inside if one.type == "name"]


def _until(tokens: list[Token], start: int, end: str) -> list[Token]:
    for number in range(start, len(tokens)):
        if tokens[number].type == end:
            return tokens[start:number]
    return tokens[start:]


def _find_keywords(tokens: list[Token]) -> frozenset[str]:
    return frozenset(
        token.value
        for before, token in itertools.pairwise(tokens)
        if before.type == "block_begin" and token.type == "name"
    )


def _mention_nonce(names: Iterable[str]) -> bool:
    return any("nonce" in name.lower() for name in names)


class _Flow:
    """Follows the statements of a template: each branch of a condition begins in the same state.

    Args:
        scanner: reads the literal text.
        keywords: of all statements of the template. With ``extends``, the surroundings of its
            blocks are unknown.
    """

    def __init__(self, scanner: Scanner, keywords: frozenset[str]) -> None:
        self._scanner = scanner
        self._keywords = keywords
        self._child = "extends" in keywords
        self._open: list[_Open] = []
        self._numbers = itertools.count()
        # Jinja puts out nothing that stands outside of the blocks, except filter blocks
        scanner.apart = not self._child

    def process_statement(self, inside: list[Token]) -> None:
        """Process one ``{% … %}``.

        Args:
            inside: all its tokens; the first is its keyword.
        """
        keyword = inside[0].value
        scanner = self._scanner
        top = self._open[-1] if self._open else None
        if keyword in _NEXT_BRANCH and top is not None and top.keyword in _BRANCHING:
            top.ends.append(scanner.save())
            scanner.state = top.before.copy()
        elif top is not None and keyword == "end" + top.keyword:
            self._open.pop()
            scanner.path = scanner.path[:-1]
            self._close(top)
        elif self._has_body(keyword, inside):
            fresh = keyword in _ELSEWHERE or (keyword == "block" and self._child)
            self._gap(keyword, lasts=keyword in ("set", "macro"))
            self._open.append(
                _Open(keyword, scanner.save(), fresh, scanner.skip, scanner.loose, scanner.apart)
            )
            scanner.path = (*scanner.path, next(self._numbers))
            if fresh:
                scanner.state, scanner.apart = State(), True
            scanner.loose = scanner.loose or keyword == "filter" or keyword in _ELSEWHERE
            scanner.skip = scanner.skip or keyword == "trans" or _spoils(keyword, inside)
        else:
            lasts = keyword not in _PASSING
            self._gap(keyword, lasts=lasts, mentions_nonce=_mention_nonce(_find_names(inside)))

    def _has_body(self, keyword: str, inside: list[Token]) -> bool:
        if keyword == "set":
            return not any(one.type == "assign" for one in inside)
        return keyword in _CONTAINERS or f"end{keyword}" in self._keywords

    def _gap(self, keyword: str, *, lasts: bool = False, mentions_nonce: bool = False) -> None:
        prints = keyword not in _SILENT
        self._scanner.gap(prints=prints, lasts=lasts, mentions_nonce=mentions_nonce)

    def _close(self, one: _Open) -> None:
        scanner = self._scanner
        scanner.skip, scanner.loose, scanner.apart = one.skip, one.loose, one.apart
        if one.fresh:
            scanner.state = one.before
        elif one.ends:
            first = one.ends[0]
            for other in (*one.ends[1:], scanner.state):
                if other.mode is first.mode and other.raw == first.raw:
                    first.tags += tuple(tag for tag in other.tags if tag not in first.tags)
            scanner.state = first
        self._gap(one.keyword)


@dataclass(slots=True, eq=False)
class _Open:
    """A statement whose end tag was not read yet."""

    keyword: str
    before: State
    fresh: bool
    skip: bool
    loose: bool
    apart: bool
    ends: list[State] = field(default_factory=list)


def _spoils(keyword: str, inside: list[Token]) -> bool:
    """Return whether a ``{% filter %}`` or a filtered ``{% set %}`` changes the tags in its body.

    It makes text of them, or may replace something in a nonce, which would then sometimes be wrong.
    """
    if keyword not in ("set", "filter"):
        return False
    names = _find_names(inside)
    if keyword == "set":
        names = names[1:]  # the first is the variable
    if "replace" in names[1:]:
        searched = next((one.value for one in inside if one.type == "string"), "")
        if not set(searched) - _OF_A_NONCE:
            return True
    return any(name in FILTERS and name not in _TRANSPARENT_FILTERS for name in names[1:])

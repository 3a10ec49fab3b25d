"""Finds the start tags in HTML source with gaps where a template inserts something.

A small part of the tokenizer of the HTML standard (section 13.2.5): enough to tell a tag from text
that only looks like one in a comment, an attribute's value, a script, a style, a text area or a
title. The text comes in pieces; between two pieces there may be a gap with unknown content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .state import Inline, Mode, State, Tag

# the blanks of HTML; a vertical tab is a part of a name
_MARKUP = re.compile(r"<(?:(!--)|([!?])|(/?)([A-Za-z][^ \t\n\r\f/>]*)|(/))")
_ABRUPT = re.compile(r"-?>")
_COMMENT_END = re.compile(r"--!?>")
_NAME = re.compile(r"[^ \t\n\r\f/>=]*")
_UNQUOTED = re.compile(r"[^ \t\n\r\f>]*")
_SPACE = re.compile(r"[ \t\n\r\f]*")
_BLANKS = " \t\n\r\f"
# attributes in quotes that are of interest neither to a tag without nonce nor to a policy
_PLAIN = re.compile(
    r"""(?:[ \t\n\r\f]+(?!style|on)[a-z][a-z-]*=(?:"[^"]*"|'[^']*'))*[ \t\n\r\f]*"""
)
_RAW_END = {
    name: re.compile(rf"</{name}(?=[ \t\n\r\f/>])", re.IGNORECASE | re.ASCII)
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
}
# the states "escaped" and "double escaped" of script data: "<!--<script>" hides one end tag
_SCRIPT_END = re.compile(r"<(?:(!--)|/[sS][cC][rR][iI][pP][tT](?=[ \t\n\r\f/>]))")
_ESCAPED = re.compile(r"-->|<(/?)script(?=[ \t\n\r\f/>])", re.IGNORECASE | re.ASCII)
_LOADING_RELS = frozenset({"stylesheet", "preload", "modulepreload"})
_FOREIGN = frozenset({"svg", "math"})


_BETWEEN_ATTRIBUTES = (Mode.BEFORE_ATTRIBUTE, Mode.ATTRIBUTE_NAME, Mode.AFTER_NAME)
_VALUES = (Mode.DOUBLE_QUOTED, Mode.SINGLE_QUOTED, Mode.UNQUOTED)


@dataclass(slots=True)
class Scanner:
    """Feed it pieces and gaps in order; then read :attr:`tags`.

    Attributes:
        state: may be saved with :meth:`save` and put back, to follow a template's branches.
        skip: tags that begin while this is true are not to be touched.
        loose: what is put out while this is true may be changed before it is sent.
        inline: the attributes that a policy may have to allow.
        path: the numbers of the statements in which the text stands, the outermost first.
        apart: what :attr:`Tag.apart` is at first.
        whole: the text is a page from its beginning. A tag is then certain before its end tag
            comes, because a part of a page that stands in a script would not look like a tag.
    """

    state: State = field(default_factory=State)
    tags: list[Tag] = field(default_factory=list)
    skip: bool = False
    loose: bool = False
    inline: list[Inline] = field(default_factory=list)
    path: tuple[int, ...] = ()
    apart: bool = True
    whole: bool = False

    def save(self) -> State:
        """A copy of the state."""
        return self.state.copy()

    def gap(
        self,
        *,
        prints: bool = True,
        mentions_nonce: bool = False,
        is_nonce: bool = False,
        own: bool = False,
        lasts: bool = False,
    ) -> None:
        """Something unknown stands here.

        Args:
            prints: it may put out something.
            mentions_nonce: it looks like a nonce attribute by its name.
            is_nonce: it is the nonce of the response.
            own: it is the address of a file of the site itself.
            lasts: it sets something that what stands behind the tag may use.
        """
        state = self.state
        if state.mode is Mode.TEXT and state.tail in ("<", "</"):
            state.mode, state.tags, state.opening = Mode.BEFORE_ATTRIBUTE, (), ""
        elif state.mode is Mode.BEFORE_VALUE:
            state.mode = Mode.UNQUOTED
        elif state.mode is Mode.ATTRIBUTE_NAME:
            self._end_name()
            state.attribute += "\0"
        elif state.mode is Mode.AFTER_NAME:
            state.mode = Mode.BEFORE_ATTRIBUTE
        for tag in state.tags:
            if state.mode in _BETWEEN_ATTRIBUTES and prints:
                tag.open = True
                tag.mentions_nonce = tag.mentions_nonce or mentions_nonce
            tag.apart = tag.apart and not lasts
        self._add_value(" ", "/" if own else "\0")
        whole = state.attribute.lower() == "nonce" and state.value == "\0"
        state.value = "\1" if is_nonce and whole else None
        state.tail = ""

    def feed(self, text: str, piece: int) -> None:
        """Read literal text.

        Args:
            piece: its number, for the places of tags.
        """
        state = self.state
        at = 0
        while at < len(text):
            at = _READERS[state.mode](self, text, at, piece)
        state.tail = "</" if text.endswith("</") else text[-1:]

    # --- one method per mode: from `at`, returns where to go on ---------------------------------

    def _text(self, text: str, at: int, piece: int) -> int:
        state = self.state
        match = _MARKUP.search(text, at)
        if match is None:
            return len(text)
        comment, bogus, closing, name, stray = match.groups()
        end = match.end()
        if comment:
            abrupt = _ABRUPT.match(text, end)  # "<!-->" is a whole comment
            if abrupt:
                return abrupt.end()
            state.mode = Mode.COMMENT
        elif bogus or stray:
            # "</" before a gap closes an unknown element; before anything else it is a comment
            if stray and end == len(text):
                return end
            state.mode = Mode.BOGUS_COMMENT
        else:
            name = name.lower()
            state.mode, state.slash = Mode.BEFORE_ATTRIBUTE, False
            state.tags, state.opening = (), ""
            if closing:
                if name in _FOREIGN:
                    state.foreign = max(0, state.foreign - 1)
            else:
                state.opening = name
                if name in ("script", "style", "link"):
                    tag = Tag(
                        name, piece, end, skipped=self.skip, loose=self.loose,
                        path=self.path, apart=self.apart,
                    )  # fmt: skip
                    if text[match.start() - 1 : match.start()] == '"' and not self.whole:
                        tag.quote = "'"  # most likely inside a string of a script
                    self.tags.append(tag)
                    state.tags = (tag,)
        return end

    def _comment(self, text: str, at: int, piece: int) -> int:
        match = _COMMENT_END.search(text, at)
        return self._leave(match.end() if match else 0, text)

    def _bogus_comment(self, text: str, at: int, piece: int) -> int:
        return self._leave(text.find(">", at) + 1, text)

    def _leave(self, end: int, text: str) -> int:
        if not end:
            return len(text)
        self.state.mode = Mode.TEXT
        return end

    def _raw(self, text: str, at: int, piece: int) -> int:
        state = self.state
        find = self._find_script_end if state.raw == "script" else _RAW_END[state.raw].search
        match = find(text, at)
        if match is None:
            return len(text)
        # only now is it sure: a script's string may hold "<script>", but never "</script>"
        for tag in state.tags:
            tag.found = True
            if tag.begins[0] == piece:
                tag.body = text[tag.begins[1] : match.start()]
        state.mode, state.tags, state.opening, state.slash = Mode.BEFORE_ATTRIBUTE, (), "", False
        return match.end()

    def _find_script_end(self, text: str, at: int) -> re.Match[str] | None:
        state = self.state
        while True:
            match = (_ESCAPED if state.escaped else _SCRIPT_END).search(text, at)
            if match is None:
                return None
            at = match.end()
            if not state.escaped:
                if not match[1]:
                    return match
                state.escaped = 1
                at -= 2  # "<!-->" is a whole comment here, too
            elif match[1] is None:
                state.escaped = 0
            elif not match[1]:
                state.escaped = 2
            elif state.escaped == 2:
                state.escaped = 1
            else:
                state.escaped = 0
                return match

    def _before_attribute(self, text: str, at: int, piece: int) -> int:
        state = self.state
        known = state.tags or state.slash
        match = (_SPACE if known else _PLAIN).match(text, at)
        at = match.end() if match else at
        if at == len(text):
            return at
        character = text[at]
        if character == ">":
            for tag in state.tags:
                tag.begins = (piece, at + 1)
            self._end_tag()
        elif character == "/":
            state.slash = True
        else:
            state.mode, state.attribute, state.slash = Mode.ATTRIBUTE_NAME, character, False
        return at + 1

    def _attribute_name(self, text: str, at: int, piece: int) -> int:
        match = _NAME.match(text, at)
        end = match.end() if match else at
        self.state.attribute += text[at:end]
        if end < len(text):
            self._end_name()
            self.state.mode = Mode.AFTER_NAME
        return end

    def _end_name(self) -> None:
        if self.state.attribute.lower() == "nonce":
            for tag in self.state.tags:
                tag.open = True  # it may have no value, or an empty one

    def _after_name(self, text: str, at: int, piece: int) -> int:
        if text[at] == "=":
            self.state.mode = Mode.BEFORE_VALUE
            return at + 1
        if text[at] in _BLANKS:
            return at + 1
        self.state.mode = Mode.BEFORE_ATTRIBUTE
        return at

    def _before_value(self, text: str, at: int, piece: int) -> int:
        state = self.state
        match = _SPACE.match(text, at)
        at = match.end() if match else at
        if at == len(text):
            return at
        character = text[at]
        state.value = ""
        if character in "\"'":
            state.mode = Mode.DOUBLE_QUOTED if character == '"' else Mode.SINGLE_QUOTED
            for tag in state.tags:
                tag.quote = tag.quote or character
            return at + 1
        if character == ">":
            state.mode = Mode.BEFORE_ATTRIBUTE
            return at
        if (
            character == "\\" and not self.whole
        ):  # an escaped quote: this is a string of a script, not a tag
            for tag in state.tags:
                tag.skipped = True
        state.mode = Mode.UNQUOTED
        return at

    def _quoted(self, text: str, at: int, piece: int) -> int:
        quote = '"' if self.state.mode is Mode.DOUBLE_QUOTED else "'"
        end = text.find(quote, at)
        value = text[at : end if end >= 0 else len(text)]
        self._add_value(value, value)
        if end < 0:
            return len(text)
        self._end_value(piece, end)
        return end + 1

    def _unquoted(self, text: str, at: int, piece: int) -> int:
        match = _UNQUOTED.match(text, at)
        end = match.end() if match else at
        self._add_value(text[at:end], text[at:end])
        if end < len(text):
            self._end_value(piece, end)
        return end

    def _add_value(self, rel: str, address: str) -> None:
        state = self.state
        if state.mode not in _VALUES:
            return
        if state.value is not None:
            state.value += address
        name = state.attribute.lower()
        if name == "rel":
            for tag in state.tags:
                tag.rel += rel
        elif name in ("src", "href"):
            for tag in state.tags:
                tag.address += address

    def _end_value(self, piece: int, offset: int) -> None:
        state = self.state
        state.mode = Mode.BEFORE_ATTRIBUTE
        name = state.attribute.lower()
        if name == "nonce" and state.value and state.value.strip():
            for tag in state.tags:
                tag.has_nonce = tag.has_nonce or tag.path == self.path
        if state.value and state.opening and not self.skip:
            if name == "style":
                self.inline.append(Inline(piece, offset, "style-src-attr", state.value))
            elif name.startswith("on") and name.isalpha():
                self.inline.append(Inline(piece, offset, "script-src-attr", state.value))

    def _end_tag(self) -> None:
        state = self.state
        for tag in state.tags:
            tag.apart = tag.apart and tag.path == self.path
        name = state.opening
        state.mode, state.opening = Mode.TEXT, ""
        closed_itself = state.slash and state.foreign > 0  # HTML elements cannot
        if name in _FOREIGN and not state.slash:
            state.foreign += 1
        if name == "link":
            for tag in state.tags:
                tag.found = not _LOADING_RELS.isdisjoint(tag.rel.lower().split())
            state.tags = ()
        elif name in _RAW_END and not closed_itself:
            state.mode, state.raw, state.escaped = Mode.RAW, name, 0
            for tag in state.tags:
                tag.found = self.whole
        else:
            for tag in state.tags:
                tag.found = True
            state.tags = ()


_READERS = {
    Mode.TEXT: Scanner._text,
    Mode.COMMENT: Scanner._comment,
    Mode.BOGUS_COMMENT: Scanner._bogus_comment,
    Mode.RAW: Scanner._raw,
    Mode.BEFORE_ATTRIBUTE: Scanner._before_attribute,
    Mode.ATTRIBUTE_NAME: Scanner._attribute_name,
    Mode.AFTER_NAME: Scanner._after_name,
    Mode.BEFORE_VALUE: Scanner._before_value,
    Mode.DOUBLE_QUOTED: Scanner._quoted,
    Mode.SINGLE_QUOTED: Scanner._quoted,
    Mode.UNQUOTED: Scanner._unquoted,
}

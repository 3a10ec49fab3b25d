"""Adds nonces to the literal tags of HTML that is finished, whole or in the pieces of a stream.

Only HTML without markup of users may be given to this: a tag that somebody injected would get its
nonce, too. Each ``<script>``, ``<style>`` and loading ``<link>`` gets the nonce of the response.
Another nonce on such a tag, which a cache of fragments may have kept, is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .attributes import put_nonce
from .scan import Scanner
from .state import Tag

MAX_TAG_CHARS = 65_536
"""A start tag that is longer stays as it is, so that a stream holds back no more than this."""

# what may be the beginning of markup, or the end of a comment, at the end of a piece
_OPEN_END = re.compile(r"<[^ \t\n\r\f>]*\Z|-{1,2}!?\Z")
_MAX_HELD_CHARS = 1024


class NonceWriter:
    """Adds nonces to one document. Feed it pieces in order, then call :meth:`end`.

    Args:
        ask: returns the nonce of the response; ``None`` leaves the tag, and all that follow, as
            they are. It is called at the first tag that needs one.
        xml: the document is XHTML, where ``<script/>`` is a whole element.
    """

    def __init__(self, ask: Callable[[], str | None], *, xml: bool = False) -> None:
        self._ask: Callable[[], str | None] | None = ask
        self._nonce = ""
        self._scanner = Scanner(whole=True)
        self._scanner.state.foreign = int(xml)
        self._piece = 0
        self._held = ""
        self._tag: Tag | None = None
        self._attributes: list[str] = []
        self._length = 0

    def feed(self, text: str) -> str:
        """Return what can be sent after the next piece of the document."""
        if self._ask is None and not self._nonce:
            return self._release() + text
        text = self._held + text
        match = _OPEN_END.search(text, max(0, len(text) - _MAX_HELD_CHARS))
        cut = len(text) if match is None else match.start()
        self._held = text[cut:]
        return self._scan(text[:cut])

    def end(self) -> str:
        """Return the rest of the document."""
        held, self._held = self._held, ""
        return self._scan(held) + self._release()

    def _release(self) -> str:
        """Return what is held back: a tag without an end, or one that is too long."""
        rest = "".join(self._attributes) + self._held
        self._attributes, self._held, self._tag, self._length = [], "", None, 0
        return rest

    def _scan(self, text: str) -> str:
        scanner = self._scanner
        self._piece += 1
        scanner.feed(text, self._piece)
        out: list[str] = []
        at = 0
        pending = [self._tag] if self._tag else []
        for tag in (*pending, *scanner.tags):
            if tag is not self._tag:
                out.append(text[at : tag.offset])
                at = tag.offset
            piece, end = tag.begins
            if piece < 0:  # its end is in a piece that comes
                self._tag = tag
                break
            before = "".join(self._attributes)
            self._attributes, self._tag, self._length = [], None, 0
            attributes = before + text[at : end - 1]
            out.append(self._write(attributes, tag) if tag.found else attributes)
            at = end - 1
        scanner.tags.clear()
        rest = text[at:]
        if self._tag is None:
            out.append(rest)
            return "".join(out)
        self._attributes.append(rest)
        self._length += len(rest)
        if self._length > MAX_TAG_CHARS:
            held, self._held = self._held, ""
            out.append(self._release())
            self._held = held
        return "".join(out)

    def _write(self, attributes: str, tag: Tag) -> str:
        if self._ask is not None:
            self._nonce = self._ask() or ""
            self._ask = None
        if not self._nonce:
            return attributes
        return put_nonce(attributes, self._nonce, quote=tag.quote or '"', replace=True)


def add_nonces(html: str, ask: Callable[[], str | None]) -> str:
    """Return a whole piece of HTML with nonces on its literal tags.

    Args:
        html: without markup of users.
        ask: returns the nonce of the response; ``None`` to leave the tags as they are.
    """
    writer = NonceWriter(ask)
    return writer.feed(html) + writer.end()

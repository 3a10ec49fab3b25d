"""Finds in a finished page what its policy would stop.

The page is read as a browser's parser reads it, without running anything: what scripts insert later
is not seen. Addresses and text that becomes code are looked for in inline scripts and styles by
their usual form only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urljoin

from ..html.handlers import (
    HANDLER,
    RUNS_TEXT,
    SCRIPT_URL,
    URLS,
    WRITES_SCRIPT,
    find_code_maker,
    find_written,
    guards_action,
)
from ..policy import Policy
from .matching import Kind, PagePart, is_allowed

_SCRIPT_TYPE = re.compile(
    r"|module|importmap|speculationrules|(text|application)/(x-)?(java|ecma|j|live)script[0-9.]*",
    re.IGNORECASE,
)
"""Other types are data, which no policy stops (HTML standard, section 4.12.1)."""

_LOADS: dict[tuple[str, str], str] = {
    ("audio", "src"): "media-src",
    ("embed", "src"): "object-src",
    ("form", "action"): "form-action",
    ("frame", "src"): "frame-src",
    ("iframe", "src"): "frame-src",
    ("image", "href"): "img-src",
    ("img", "src"): "img-src",
    ("img", "srcset"): "img-src",
    ("input", "src"): "img-src",
    ("object", "data"): "object-src",
    ("source", "src"): "media-src",
    ("source", "srcset"): "img-src",
    ("track", "src"): "media-src",
    ("video", "poster"): "img-src",
    ("video", "src"): "media-src",
    **{(tag, "formaction"): "form-action" for tag in ("button", "input")},
}
_LINKS = {
    "apple-touch-icon": "img-src",
    "icon": "img-src",
    "manifest": "manifest-src",
    "modulepreload": "script-src-elem",
    "stylesheet": "style-src-elem",
}
_PRELOADS = {
    "audio": "media-src",
    "fetch": "connect-src",
    "font": "font-src",
    "image": "img-src",
    "script": "script-src-elem",
    "style": "style-src-elem",
    "video": "media-src",
}
_TEXT_ONLY = frozenset({"noembed", "noframes", "noscript", "textarea", "title", "xmp"})
"""Elements whose content is text for a browser that runs scripts."""

_CALLS = re.compile(
    r"""\b(?:fetch|EventSource|WebSocket|sendBeacon|open\s*\(\s*["'`][A-Z]+["'`]\s*,)\s*\(?\s*"""
    r"""["'`]((?:https?|wss?)://[^"'`\s]+)""",
)
_WORKERS = re.compile(r"""\bnew\s+(?:Shared)?Worker\s*\(\s*["'`]([^"'`\s]+)["'`]""")
_IN_STYLE = re.compile(
    r"""(@import\s+(?:url\()?|@font-face\s*\{[^}]*?url\(|url\()\s*["']?([^"')\s]+)""", re.IGNORECASE
)
_DATA_PAGE = re.compile(
    r"\s*data:text/html(?P<options>[^,]*),(?P<data>.*)", re.IGNORECASE | re.DOTALL
)
_TOOLBAR = re.compile(r"_debug_toolbar|DEBUG_TOOLBAR")
_NONCE = re.compile(r"""\s+nonce=(?:"[^"]*"|'[^']*'|[^\s>]*)""", re.IGNORECASE)
_LONGEST = 70

WRITTEN = "document.write"
"""The tool of a script that a script writes into the page while it is read."""


def find_stopped(html: str, page: str, policies: Sequence[Policy]) -> list[PagePart]:
    """Return what the enforced policies of a response would stop, in the order of the page.

    Args:
        html: the whole page.
        page: its address.
        policies: of its headers.
    """
    reader = read_page(html, page, policies)
    return [one for one in reader.parts if not reader.allows(one)]


def read_page(html: str, page: str, policies: Sequence[Policy]) -> PageReader:
    """Read a whole page; the arguments are those of :func:`find_stopped`."""
    reader = PageReader(page, policies)
    reader.feed(html)
    reader.close()
    return reader


class PageReader(HTMLParser):
    """Reads a page and lists its parts that a policy decides about.

    Args:
        page: its address.
        policies: decide whether ``<base>`` counts, and what runs.

    Attributes:
        parts: found so far.
    """

    def __init__(self, page: str, policies: Sequence[Policy]) -> None:
        super().__init__()
        self.parts: list[PagePart] = []
        self._page = page
        self._base = page
        self._policies = policies
        self._inert = ""
        self._element: tuple[str, int, str, str] | None = None
        self._text: list[str] = []
        self._said: set[str] = set()

    def allows(self, part: PagePart) -> bool:
        """Return whether all policies allow a part."""
        return all(is_allowed(policy, part, self._page) for policy in self._policies)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._inert:
            return
        if tag in _TEXT_ONLY:
            self._inert = tag
        values = {name: value or "" for name, value in reversed(attrs)}
        shown = _shorten(_NONCE.sub("", self.get_starttag_text() or f"<{tag}>"))
        line = self.getpos()[0]
        for name, value in attrs:
            self._read_attribute(tag, name, value or "", line)
        if tag == "script":
            self._read_script(values, shown, line)
        elif tag == "style":
            self._begin_text("style-src-elem", values, shown, line)
        elif tag == "link":
            self._read_link(values, shown, line)
        elif tag == "base" and values.get("href"):
            part = self._add("load", "base-uri", shown, line, url=self._resolve(values["href"]))
            if self._base == self._page and self.allows(part):
                self._base = part.url
        for (name, attribute), directive in _LOADS.items():
            if name == tag and values.get(attribute) and not SCRIPT_URL.match(values[attribute]):
                for address in _split_set(attribute, values[attribute]):
                    self._add("load", directive, shown, line, url=self._resolve(address))
        if tag in ("iframe", "frame"):
            self._read_frame(values, line)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)  # "/>" ends no HTML element

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inert:
            self._inert = ""
        if self._element is not None and tag in ("script", "style"):
            self._end_text()

    def handle_data(self, data: str) -> None:
        if self._element is not None:
            self._text.append(data)

    def close(self) -> None:
        """Read the rest. A style without an end tag ends with the page; a script does not run."""
        super().close()
        if self._element is not None and self._element[0] == "style-src-elem":
            self._text.append(self.rawdata)
            self._end_text()

    # --- elements -----------------------------------------------------------------------------

    def _read_script(self, values: dict[str, str], shown: str, line: int) -> None:
        if not _SCRIPT_TYPE.fullmatch(values.get("type", "").strip()):
            return
        if "src" in values:
            self._add(
                "load", "script-src-elem", shown, line,
                url=self._resolve(values["src"]), nonce=values.get("nonce", ""),
                integrity=values.get("integrity", ""),
                tool="Flask-DebugToolbar" if _TOOLBAR.search(values["src"]) else "",
            )  # fmt: skip
        else:
            self._begin_text("script-src-elem", values, shown, line)

    def _begin_text(self, directive: str, values: dict[str, str], shown: str, line: int) -> None:
        self._element, self._text = (directive, line, shown, values.get("nonce", "")), []

    def _end_text(self) -> None:
        assert self._element is not None  # noqa: S101 - for mypy
        directive, line, shown, nonce = self._element
        self._element = None
        text = "".join(self._text)
        tool = "Flask-DebugToolbar" if _TOOLBAR.search(text) else ""
        beginning = _shorten(text.strip(), 30)
        part = self._add(
            "tag", directive, f"{shown}{beginning}", line, text=text, nonce=nonce, tool=tool
        )
        if self.allows(part):  # what is stopped loads nothing
            self._read_text(directive, text, line)

    def _read_text(self, directive: str, text: str, line: int) -> None:
        if directive == "style-src-elem":
            self._read_style(text, line)
            return
        for match in RUNS_TEXT.finditer(text):
            self._add(
                "code", "script-src", _shorten(match[1].strip() + "…)"), _line(text, match, line)
            )
        for match in WRITES_SCRIPT.finditer(text):
            self._add(
                "load" if match["src"] else "tag", "script-src-elem",
                _shorten(match[0] + "…"), _line(text, match, line),
                url=self._resolve(match["src"]) if match["src"] else "", tool=WRITTEN,
            )  # fmt: skip
        for place, name, code in find_written(text):
            self._add(
                "attribute", "script-src-attr", f'{name}="{_shorten(code, 40)}" in a script',
                line + text.count("\n", 0, place), text=code, guards=guards_action(name, code),
            )  # fmt: skip
        for match in _CALLS.finditer(text):
            at = _line(text, match, line)
            self._add("load", "connect-src", _shorten(match[0]), at, url=match[1])
        for match in _WORKERS.finditer(text):
            at = _line(text, match, line)
            url = self._resolve(match[1])
            self._add("load", "worker-src", _shorten(match[0]), at, url=url)

    def _read_style(self, text: str, line: int) -> None:
        for match in _IN_STYLE.finditer(text):
            begin = match[1].lower()
            directive = (
                "style-src-elem" if begin.startswith("@import")
                else "font-src" if begin.startswith("@font")
                else "img-src"
            )  # fmt: skip
            at = _line(text, match, line)
            url = self._resolve(match[2])
            self._add(
                "load", directive, f"{begin.split('{')[0].strip()}…{match[2][:40]}", at, url=url
            )

    def _read_link(self, values: dict[str, str], shown: str, line: int) -> None:
        rels = values.get("rel", "").lower().split()
        directive = next((_LINKS[one] for one in rels if one in _LINKS), "")
        if "preload" in rels:
            directive = _PRELOADS.get(values.get("as", "").lower(), "")
        if directive and values.get("href"):
            self._add(
                "load", directive, shown, line,
                url=self._resolve(values["href"]), nonce=values.get("nonce", ""),
                tool="Flask-DebugToolbar" if _TOOLBAR.search(values["href"]) else "",
            )  # fmt: skip

    def _read_frame(self, values: dict[str, str], line: int) -> None:
        """Read a document that an attribute holds: the policy of the page is also its own."""
        html = values.get("srcdoc")
        if html is None:
            html = _read_data(values.get("src", ""))
        inner = PageReader(self._page, self._policies)
        inner.feed(html)
        inner.close()
        runs = "sandbox" not in values or "allow-scripts" in values["sandbox"].lower().split()
        self.parts += [
            replace(one, line=line, framed=True)
            for one in inner.parts
            if runs or not one.directive.startswith("script-src")
        ]

    # --- attributes ---------------------------------------------------------------------------

    def _read_attribute(self, tag: str, name: str, value: str, line: int) -> None:
        if HANDLER.fullmatch(name) and value:
            self._add(
                "attribute", "script-src-attr", f'<{tag} {name}="{_shorten(value, 40)}">', line,
                text=value, guards=guards_action(name, value),
            )  # fmt: skip
        elif name == "style" and value:
            shown = f'<{tag} style="{_shorten(value, 30)}">'
            self._add("attribute", "style-src-attr", shown, line, text=value)
            self._read_style(value, line)
        elif name in URLS and SCRIPT_URL.match(value):
            shown = f'<{tag} {name}="{_shorten(value.strip(), 40)}">'
            self._add("script-url", "script-src-elem", shown, line, text=value)
        tool = find_code_maker(name, value)
        if tool and tool not in self._said:
            self._said.add(tool)
            self._add("code", "script-src", f"<{tag} {name}=…>", line, tool=tool)

    def _resolve(self, address: str) -> str:
        try:
            return urljoin(self._base, address.strip())
        except ValueError:
            return address

    def _add(
        self, kind: Kind, directive: str, shown: str, line: int, *, text: str = "", url: str = "",
        nonce: str = "", integrity: str = "", guards: bool = False, tool: str = "",
    ) -> PagePart:  # fmt: skip
        part = PagePart(
            kind, directive, line, shown, text, url, nonce, integrity, guards=guards, tool=tool
        )
        self.parts.append(part)
        return part


def _read_data(address: str) -> str:
    """Return the HTML of a ``data:`` address; "" for any other one."""
    match = _DATA_PAGE.fullmatch(address)
    if match is None:
        return ""
    data = unquote_to_bytes(match["data"])
    if match["options"].lower().endswith(";base64"):
        try:
            data = base64.b64decode(data)
        except binascii.Error:
            return ""
    return data.decode("utf-8", "replace")


def _split_set(attribute: str, value: str) -> Iterable[str]:
    """Return the addresses of an attribute; ``srcset`` has several."""
    if attribute != "srcset":
        return (value,)
    return [one.split()[0] for one in re.split(r",\s", value) if one.split()]


def _line(text: str, match: re.Match[str], line: int) -> int:
    return line + text.count("\n", 0, match.start())


def _shorten(text: str, longest: int = _LONGEST) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[:longest] + "…"

"""Finds what a strict policy would block in a Jinja template, and what it could not block.

The template is read as HTML with a placeholder character for each ``{{ … }}``; nothing is rendered.
The result helps developers, but it is no proof: HTML from a view or a filter is not included.
"""

from __future__ import annotations

import bisect
import itertools
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Literal

from jinja2 import TemplateSyntaxError

from .extension import is_html

if TYPE_CHECKING:
    from jinja2 import Environment

Level = Literal["error", "note"]

# private-use characters around the number of an expression, in the place of its value
_OPEN, _CLOSE = "\ue000", "\ue001"
_VALUE = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")

_URLS = frozenset({"href", "src", "action", "formaction", "data", "xlink:href"})
_SCRIPT_URL = re.compile(r"[\x00-\x20]*j\s*a\s*v\s*a\s*s\s*c\s*r\s*i\s*p\s*t\s*:", re.IGNORECASE)
_HANDLER = re.compile(
    "on("
    "abort|after(print|scriptexecute)|animation[a-z]+|auxclick|before[a-z]+|blur|cancel|canplay"
    "(through)?|change|click|close|command|contextmenu|copy|cuechange|cut|dblclick|drag[a-z]*|drop"
    "|durationchange|emptied|ended|error|focus(in|out)?|formdata|fullscreen[a-z]+|gotpointercapture"
    "|hashchange|input|invalid|key(down|press|up)|languagechange|load[a-z]*|lostpointercapture"
    "|message(error)?|mouse[a-z]+|offline|online|page(hide|reveal|show|swap)|paste|pause|play(ing)?"
    "|pointer[a-z]+|popstate|progress|ratechange|reset|resize|scroll(end)?|search"
    "|securitypolicyviolation|seek(ed|ing)|select[a-z]*|slotchange|stalled|storage|submit|suspend"
    "|timeupdate|toggle|touch[a-z]+|transition[a-z]+|unhandledrejection|unload|volumechange|waiting"
    "|webkit[a-z]+|wheel|begin|end|repeat"
    ")"
)
"""The event handlers of HTML and SVG. Other attributes may begin with "on", too."""
_OWN_ADDRESSES = frozenset({"url_for", "om_static"})
_SAFE_CALLS = _OWN_ADDRESSES | {"csp_nonce"}
_SAFE_FILTERS = frozenset({"tojson", "int", "float", "round", "length", "count"})
_RUNS_TEXT = re.compile(
    r"(?<![\w.$])(eval\s*\(|new\s+Function\s*\(|set(?:Timeout|Interval)\s*\(\s*[\"'`])"
)
"""Text that becomes code; the strict policy has no ``'unsafe-eval'``."""
_CODE = re.compile(rf"|module|(text|application)/(x-)?(java|ecma)script.*|.*{_OPEN}.*")


@dataclass(frozen=True, slots=True, order=True)
class Hint:
    """One finding in one template.

    Attributes:
        file: the template's file, or its name.
        line: from 1.
        level: ``error`` (it does not work under the strict policy, or weakens it) or ``note``.
        rule: a short name, such as ``event-handler``.
        message: what was found.
        fix: what to write instead.
    """

    file: str
    line: int
    level: Level
    rule: str
    message: str
    fix: str


def lint_all(environment: Environment) -> list[Hint]:
    """Check every HTML template that the environment's loader lists.

    Returns:
        The findings, by file and line.

    Raises:
        TypeError: the loader cannot list its templates.
    """
    found: set[Hint] = set()
    for name in environment.list_templates():
        if environment.loader is None or not is_html(environment, name):
            continue
        try:
            source, filename, _ = environment.loader.get_source(environment, name)
        except UnicodeDecodeError:
            found.add(Hint(name, 1, "note", "template", "It is not UTF-8 text.", "Nothing to do."))
            continue
        found.update(lint(environment, source, filename or name))
    return sorted(found)


def lint(environment: Environment, source: str, file: str) -> list[Hint]:
    """Check one template.

    Args:
        environment: defines the template's syntax.
        source: its text.
        file: the name of the file in the findings.
    """
    try:
        html, values, lines, translated = _convert_to_html(environment, source)
    except TemplateSyntaxError as error:
        message = f"It cannot be compiled: {(error.message or '').rstrip('.')}."
        return [Hint(file, error.lineno, "error", "template", message, "Fix it first.")]
    reader = _Reader(file, html, values, lines, translated)
    reader.feed(html)
    reader.end()
    return sorted(reader.hints)


def _convert_to_html(
    environment: Environment, source: str
) -> tuple[str, list[list[str]], list[tuple[int, int]], list[range]]:
    """Convert a template to HTML.

    Returns:
        The HTML with a placeholder for each expression; the words of each expression; offsets in
        the HTML with their line numbers; and the ranges inside of ``{% trans %}``.
    """
    parts: list[str] = []
    values: list[list[str]] = []
    lines: list[tuple[int, int]] = []
    length = 0
    inside: list[str] | None = None
    begun = 0
    translated: list[range] = []
    trans, before = -1, ""
    environment.parse(source)
    source = environment.preprocess(source)
    for lineno, kind, value in environment.lexer.tokeniter(source, None):
        piece = ""
        if kind == "data":
            piece = value.replace(_OPEN, " ")
        elif kind == "variable_begin":
            inside, begun = [], lineno
        elif kind == "variable_end" and inside is not None:
            lineno = begun
            piece = f"{_OPEN}{len(values)}{_CLOSE}"
            values.append(inside)
            inside = None
        elif kind in ("name", "string", "operator") and inside is not None:
            inside.append(value)
        elif kind == "name" and before == "block_begin" and value == "trans":
            trans = length
        elif kind == "name" and before == "block_begin" and value == "endtrans" and trans >= 0:
            translated.append(range(trans, length))
            trans = -1
        if kind != "whitespace":
            before = kind
        if piece:
            lines.append((length, lineno))
            parts.append(piece)
            length += len(piece)
    return "".join(parts), values, lines, translated


class _Reader(HTMLParser):
    """Reads the HTML and collects hints.

    The arguments are the file's name and the results of :func:`_convert_to_html`.
    """

    def __init__(
        self,
        file: str,
        html: str,
        values: list[list[str]],
        lines: list[tuple[int, int]],
        translated: list[range],
    ) -> None:
        super().__init__(convert_charrefs=False)
        self.hints: set[Hint] = set()
        self._file = file
        self._html = html
        self._values = values
        self._lines = lines
        self._translated = translated
        self._starts = [0, *(m.end() for m in re.finditer("\n", html))]
        self._script = False
        self._open_element: tuple[str, int] | None = None

    def end(self) -> None:
        """Finish at the end of the template."""
        opened, inside = self._open_element, self.cdata_elem
        self.close()
        if opened is not None and inside == opened[0]:
            self._add_hint(
                opened[1], "error", "open-element",
                f"<{opened[0]}> has no end tag in this template, so it gets no nonce.",
                f"End it here, or write nonce=\"{{{{ csp_nonce() }}}}\" on it. Without the end "
                f"tag, a {opened[0]} element looks the same as text.",
            )  # fmt: skip

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = self._find_offset()
        values = {name: value or "" for name, value in reversed(attrs)}
        for name, value in attrs:
            if name:
                self._check_attribute(tag, name, value or "", values, at)
        if tag in ("script", "style") and "nonce" not in values and self._is_translated(at):
            self._add_hint(
                at, "error", "translated-element",
                f"<{tag}> is in a translated text, where it gets no nonce.",
                "Move it out of {% trans %}, or write nonce=\"{{ csp_nonce() }}\" on it.",
            )  # fmt: skip
        self._open_element = (tag, at) if "nonce" not in values else None
        nonce = values.get("nonce", "").strip()
        if nonce and not _VALUE.search(nonce):
            self._add_hint(
                at, "error", "fixed-nonce",
                f"nonce=\"{nonce[:40]}\" on <{tag}> is never the nonce of the response.",
                "Remove it: a nonce is added automatically. Or write nonce=\"{{ csp_nonce() }}\".",
            )  # fmt: skip
        if tag == "script":
            self._script = bool(_CODE.fullmatch(values.get("type", "").strip().lower()))
        elif tag == "base":
            self._add_hint(
                at, "error", "base-element",
                "The strict policy stops <base> (base-uri 'none').",
                "Write complete addresses with url_for, or allow it: "
                "OM_CSP = {'base-uri': [\"'self'\"]}.",
            )  # fmt: skip
        elif tag in ("object", "embed", "applet"):
            self._add_hint(
                at, "error", "plugin-element",
                f"The policy stops <{tag}> (object-src 'none').",
                "Use <img>, <iframe>, <video> or <audio>; or allow it: "
                "@om.csp(replace={'object-src': [\"'self'\"]}).",
            )  # fmt: skip

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = False

    def handle_data(self, data: str) -> None:
        if not self._script or self.cdata_elem != "script":
            return
        start = self._find_offset()
        for match in _RUNS_TEXT.finditer(data):
            self._add_hint(
                start + match.start(), "error", "text-as-code",
                f"{match[1].partition('(')[0].strip()}(…) runs text as code, which the strict "
                "policy stops.",
                "Pass a function instead of text, and read data with JSON.parse; or allow it: "
                "@om.csp(update={'script-src': [\"'unsafe-eval'\"]}).",
            )  # fmt: skip
        for match in _VALUE.finditer(data):
            words = self._values[int(match[1])]
            if not _is_safe(words):
                written = _join_words(words)
                self._add_hint(
                    start + match.start(), "error", "script-interpolation",
                    f"{{{{ {written} }}}} is in a script, which has a nonce. Escaping for HTML "
                    "does not protect JavaScript.",
                    f"Write {{{{ {_remove_safe_filters(words)}|tojson }}}} without quotes around "
                    "it, or put it into a data- attribute and read it there.",
                )  # fmt: skip

    # --- one attribute ----------------------------------------------------------------------------

    def _check_attribute(
        self, tag: str, name: str, value: str, others: dict[str, str], at: int
    ) -> None:
        if _HANDLER.fullmatch(name):
            target = (
                f"document.getElementById('{others['id']}')"
                if _is_plain(others.get("id"))
                else "window"
                if tag == "body"
                else "element"
            )
            self._add_hint(
                at, "error", "event-handler",
                f"{name}=\"…\" on <{tag}> is an event handler that the strict policy stops.",
                f"In a script: {target}.addEventListener('{name[2:]}', …).",
            )  # fmt: skip
        elif name == "style":
            self._add_hint(
                at, "note", "style-attribute",
                f"style=\"…\" on <{tag}> works only while style-src-attr allows it.",
                "Use a class, with a rule in a style sheet or in <style>.",
            )  # fmt: skip
        elif name in _URLS and _SCRIPT_URL.match(value):
            instead = '<button type="button">' if tag == "a" else "an address"
            self._add_hint(
                at, "error", "javascript-url",
                f"The strict policy stops {name}=\"javascript:…\" on <{tag}>.",
                f"Use {instead} and addEventListener('click', …) in a script.",
            )  # fmt: skip
        if tag == "script" and name == "src":
            self._check_script_source(value, at)

    def _check_script_source(self, value: str, at: int) -> None:
        match = re.match(rf"\s*((https?:)?//[^/]*)?{_VALUE.pattern}", value)
        if match is None:
            return
        words = self._values[int(match[3])]
        if words[:1] and words[0] not in _OWN_ADDRESSES:
            self._add_hint(
                at, "error", "script-src-variable",
                f"<script src=\"{{{{ {_join_words(words)} }}}}\"> gets a nonce, so the value "
                "decides which script runs.",
                "Write url_for('static', filename=…), or choose from known addresses in the "
                "template. A tag with a nonce attribute of its own is not reported.",
            )  # fmt: skip

    def _is_translated(self, at: int) -> bool:
        return any(at in one for one in self._translated)

    # --- positions --------------------------------------------------------------------------------

    def _find_offset(self) -> int:
        line, column = self.getpos()
        return self._starts[line - 1] + column

    def _add_hint(self, at: int, level: Level, rule: str, message: str, fix: str) -> None:
        begin, lineno = self._lines[bisect.bisect(self._lines, (at, 1 << 60)) - 1]
        line = lineno + self._html.count("\n", begin, at)
        self.hints.add(Hint(self._file, line, level, rule, message, fix))


def _is_safe(words: list[str]) -> bool:
    """Return whether the value of an expression may stand in a script unchanged."""
    if words and words[0] in _SAFE_CALLS:
        return True
    pairs = itertools.pairwise(words)
    return any(before == "|" and word in _SAFE_FILTERS for before, word in pairs)


def _is_plain(value: str | None) -> bool:
    return bool(value) and bool(re.fullmatch(r"[A-Za-z0-9_-]+", value or ""))


def _join_words(words: list[str]) -> str:
    return "".join(words)[:60]


def _remove_safe_filters(words: list[str]) -> str:
    return re.sub(r"\|(safe|escape|e)\b", "", _join_words(words))

"""Finds what a strict policy would block in a Jinja template, and what it could not block.

The template is read as HTML with a placeholder character for each ``{{ … }}``; nothing is rendered.
The result helps developers, but it is no proof: HTML from a view or a filter is not included.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Literal

from jinja2 import TemplateSyntaxError

from ..html.handlers import (
    BUILDS,
    HANDLER,
    RUNS_TEXT,
    SCRIPT_URL,
    URLS,
    WRITES_SCRIPT,
    find_code_maker,
    find_written,
    guards_action,
    is_question,
)
from .expressions import OPEN, VALUE, TemplateText, read_template
from .extension import is_html

if TYPE_CHECKING:
    from jinja2 import Environment

Level = Literal["error", "note"]

GUARD, QUESTION = "guarding-handler", "asking-handler"
"""The rules of handlers that it is dangerous to stop: they check, or they do nothing but ask. Mode
``enforce`` allows the hash of a question whose text never changes."""

DANGEROUS = frozenset({GUARD, QUESTION})

_LONGEST_CODE = 60
_NONE: Mapping[str, str] = {}
_CODE = re.compile(rf"|module|(text|application)/(x-)?(java|ecma)script.*|.*{OPEN}.*")


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
        text = read_template(environment, source)
    except TemplateSyntaxError as error:
        message = f"It cannot be compiled: {(error.message or '').rstrip('.')}."
        return [Hint(file, error.lineno, "error", "template", message, "Fix it first.")]
    reader = _Reader(file, text)
    reader.feed(text.html)
    reader.end()
    return sorted(reader.hints)


class _Reader(HTMLParser):
    """Reads the HTML of one template and collects hints."""

    def __init__(self, file: str, text: TemplateText) -> None:
        super().__init__(convert_charrefs=False)
        self.hints: set[Hint] = set()
        self._file = file
        self._html = text.html
        self._expressions = text.expressions
        self._arguments, self._texts = text.arguments, text.texts
        self._libraries: set[str] = set()
        self._lines = text.lines
        self._translated, self._cached = text.translated, text.cached
        self._starts = [0, *(m.end() for m in re.finditer("\n", text.html))]
        self._script = False
        self._open_element: tuple[str, int] | None = None

    def end(self) -> None:
        """Finish at the end of the template."""
        opened, inside = self._open_element, self.cdata_elem
        self.close()
        for one in self._arguments:  # of a macro or a form's field, which writes the attribute
            name = one.name.lower()
            if HANDLER.fullmatch(name) and one.value:
                self._check_handler(one.line, name, one.value)
            elif name in URLS and SCRIPT_URL.match(one.value):
                self._add_script_url(one.line, name)
        for line, text in self._texts:
            for _, name, code in find_written(text):
                self._check_handler(line, name, code)
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
        nonce = values.get("nonce", "").strip()
        if tag in ("script", "style") and not nonce and any(at in one for one in self._translated):
            self._add_hint(
                at, "error", "translated-element",
                f"<{tag}> is in a translated text, where it gets no nonce.",
                "Move it out of {% trans %}, or write nonce=\"{{ csp_nonce() }}\" on it.",
            )  # fmt: skip
        if tag in ("script", "style") and any(at in one for one in self._cached):
            self._add_hint(
                at, "note", "cached-element",
                f"<{tag}> is in a part of the page that a cache keeps, with the nonce of one "
                "response for all.",
                "Move it out of {% cache %}, or set OM_CSP_HTML_NONCES for the paths of its pages: "
                "the nonce is then renewed.",
            )  # fmt: skip
        self._open_element = None if nonce else (tag, at)
        if nonce and not VALUE.search(nonce):
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
        for match in RUNS_TEXT.finditer(data):
            self._add_hint(
                start + match.start(), "error", "text-as-code",
                f"{match[1].partition('(')[0].strip()}(…) runs text as code, which the strict "
                "policy stops.",
                "Pass a function instead of text, and read data with JSON.parse; or allow it: "
                "@om.csp(update={'script-src': [\"'unsafe-eval'\"]}).",
            )  # fmt: skip
        for match in WRITES_SCRIPT.finditer(data):
            self._add_hint(
                start + match.start(), "error", "written-script",
                "document.write(…<script…) puts a script into the page, which the strict policy "
                "stops.",
                "Insert it with document.createElement('script'), and set its nonce to "
                "'{{ csp_nonce() }}'.",
            )  # fmt: skip
        for place, name, code in find_written(data):
            self._check_handler(self._find_line(start + place), name, self._fill_in(code))
        for match in VALUE.finditer(data):
            expression = self._expressions[int(match[1])]
            if not expression.safe:
                self._add_hint(
                    start + match.start(), "error", "script-interpolation",
                    f"{expression.quote()} is in a script, which has a nonce. Escaping for HTML "
                    "does not protect JavaScript.",
                    f"Write {expression.write_as_json()} without quotes around it, or put it into "
                    "a data- attribute and read it there.",
                )  # fmt: skip

    # --- one attribute ----------------------------------------------------------------------------

    def _check_attribute(
        self, tag: str, name: str, value: str, others: dict[str, str], at: int
    ) -> None:
        if HANDLER.fullmatch(name):
            literal = VALUE.search(value) is None
            code = self._fill_in(value)
            self._check_handler(self._find_line(at), name, code, tag, others, literal=literal)
        elif name == "style":
            self._add_hint(
                at, "note", "style-attribute",
                f"style=\"…\" on <{tag}> works only while style-src-attr allows it.",
                "Use a class, with a rule in a style sheet or in <style>.",
            )  # fmt: skip
        elif name in URLS and SCRIPT_URL.match(value):
            self._add_script_url(self._find_line(at), name, tag)
        elif name == "srcdoc":
            for _, handler, code in find_written(value):
                self._check_handler(self._find_line(at), handler, self._fill_in(code))
        library = find_code_maker(name, value)
        if library and library not in self._libraries:
            self._libraries.add(library)
            self._add_library(self._find_line(at), f"<{tag} {name}=…>", library)
        if tag == "script" and name == "src" and not others.get("nonce", "").strip():
            self._check_script_source(value, at)

    def _check_handler(
        self,
        line: int,
        name: str,
        code: str,
        tag: str = "",
        others: Mapping[str, str] = _NONE,
        *,
        literal: bool = False,
    ) -> None:
        on, event = f" on <{tag}>" if tag else "", name[2:]
        target = (
            f"document.getElementById('{others['id']}')"
            if _is_plain(others.get("id"))
            else "window"
            if tag == "body"
            else "element"
        )
        if guards_action(name, code):
            question = literal and is_question(code)
            bridge = " Until then, mode enforce allows this text by its hash." if question else ""
            self._add(
                line, "error", QUESTION if question else GUARD,
                f"Dangerous: {name}=\"{_shorten(code)}\"{on} decides whether something happens. "
                "Where the policy stops it, that happens unasked.",
                f"In a script: {target}.addEventListener('{event}', event => {{ if (!confirm(…)) "
                f"event.preventDefault(); }}).{bridge}",
            )  # fmt: skip
            return
        self._add(
            line, "error", "event-handler",
            f"{name}=\"…\"{on} is an event handler that the strict policy stops.",
            f"In a script: {target}.addEventListener('{event}', …).",
        )  # fmt: skip

    def _add_script_url(self, line: int, name: str, tag: str = "") -> None:
        instead = '<button type="button">' if tag in ("a", "") else "an address"
        on = f" on <{tag}>" if tag else ""
        self._add(
            line, "error", "javascript-url",
            f"The strict policy stops {name}=\"javascript:…\"{on}.",
            f"Use {instead} and addEventListener('click', …) in a script.",
        )  # fmt: skip

    def _add_library(self, line: int, shown: str, library: str) -> None:
        self._add(
            line, "note" if library == "Alpine" else "error", "text-as-code",
            f"{library} makes code of {shown}, which the strict policy stops.",
            f"{BUILDS[library]}; or allow it: "
            "@om.csp(update={'script-src': [\"'unsafe-eval'\"]}).",
        )  # fmt: skip

    def _check_script_source(self, value: str, at: int) -> None:
        match = re.match(rf"\s*((https?:)?//[^/]*)?{VALUE.pattern}", value)
        if match is None:
            return
        expression = self._expressions[int(match[3])]
        if not expression.is_own_address():
            self._add_hint(
                at, "error", "script-src-variable",
                f"<script src=\"{expression.quote()}\"> gets a nonce, so the value decides which "
                "script runs.",
                "Write url_for('static', filename=…), or choose from known addresses in the "
                "template. A tag with a nonce attribute of its own is not reported.",
            )  # fmt: skip

    # --- positions --------------------------------------------------------------------------------

    def _find_offset(self) -> int:
        line, column = self.getpos()
        return self._starts[line - 1] + column

    def _find_line(self, at: int) -> int:
        begin, lineno = self._lines[bisect.bisect(self._lines, (at, 1 << 60)) - 1]
        return lineno + self._html.count("\n", begin, at)

    def _fill_in(self, value: str) -> str:
        """Return a value with its expressions as they are written."""
        return VALUE.sub(lambda match: self._expressions[int(match[1])].quote(), value)

    def _add_hint(self, at: int, level: Level, rule: str, message: str, fix: str) -> None:
        self._add(self._find_line(at), level, rule, message, fix)

    def _add(self, line: int, level: Level, rule: str, message: str, fix: str) -> None:
        self.hints.add(Hint(self._file, line, level, rule, message, fix))


def _is_plain(value: str | None) -> bool:
    return bool(value) and bool(re.fullmatch(r"[A-Za-z0-9_-]+", value or ""))


def _shorten(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= _LONGEST_CODE else line[:_LONGEST_CODE] + "…"

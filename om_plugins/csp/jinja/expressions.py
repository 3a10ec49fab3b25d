"""The expressions of a Jinja template, as they stand in its source, and the HTML around them.

A template is read as HTML with a placeholder for each ``{{ … }}``; nothing is rendered.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jinja2 import nodes

if TYPE_CHECKING:
    from jinja2 import Environment

# private-use characters around the number of an expression, in the place of its value
OPEN, CLOSE = "\ue000", "\ue001"
VALUE = re.compile(f"{OPEN}([0-9]+){CLOSE}")

_OWN_ADDRESSES = frozenset({"url_for", "om_static"})
_SAFE_CALLS = _OWN_ADDRESSES | {"caller", "csp_nonce", "super"}
_SAFE_FILTERS = frozenset({"tojson", "int", "float", "round", "length", "count"})
_PUT_TOGETHER = (
    nodes.BinExpr, nodes.Concat, nodes.Filter, nodes.Keyword, nodes.Neg, nodes.Pos,
)  # fmt: skip
_ESCAPING_FILTERS = frozenset({"safe", "escape", "e"})
_WORDS = frozenset({"if", "else", "and", "or", "not", "in", "is"})
_BINDS_MORE = frozenset({".", "|"})
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_LONGEST = 60
"""Characters of an expression that a message shows."""


@dataclass(frozen=True, slots=True)
class Expression:
    """What stands between ``{{`` and ``}}``.

    Attributes:
        tokens: kind and text of each token, white space as well.
        begin, end: the delimiters of the template's syntax.
        safe: the value may stand in a script unchanged.
    """

    tokens: tuple[tuple[str, str], ...]
    begin: str = "{{"
    end: str = "}}"
    safe: bool = False

    @property
    def words(self) -> list[str]:
        """The tokens that are no white space."""
        return [text for kind, text in self.tokens if kind != "whitespace"]

    @property
    def text(self) -> str:
        """The expression on one line, as it is written."""
        return "".join(
            re.sub(r"\s+", " ", text) if kind == "whitespace" else text
            for kind, text in self.tokens
        ).strip()

    def quote(self) -> str:
        """Return it with its delimiters, cut for a message when it is long."""
        text = self.text
        return f"{self.begin} {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'} {self.end}"

    def write_as_json(self) -> str:
        """Return what to write instead, so that the value is one of JavaScript."""
        tokens = self._drop_escaping() if self._is_operand() else self.tokens
        text = Expression(tokens).text
        return f"{self.begin} {text if self._is_operand() else f'({text})'}|tojson {self.end}"

    def is_own_address(self) -> bool:
        """Return whether it is the address of a file of the site itself."""
        words = self.words
        return not words or words[0] in _OWN_ADDRESSES

    def _is_operand(self) -> bool:
        """Return whether a filter that is added at its end applies to all of it."""
        depth = 0
        for kind, text in self.tokens:
            if text in _OPENING:
                depth += 1
            elif text in _CLOSING:
                depth -= 1
            elif depth == 0 and (
                (kind == "operator" and text not in _BINDS_MORE)
                or (kind == "name" and text in _WORDS)
            ):
                return False
        return True

    def _drop_escaping(self) -> tuple[tuple[str, str], ...]:
        """Return the tokens without the filters that escape for HTML, or say that it is done."""
        kept: list[tuple[str, str]] = []
        depth = 0
        for kind, text in self.tokens:
            depth += (text in _OPENING) - (text in _CLOSING)
            if depth == 0 and kind == "name" and text in _ESCAPING_FILTERS:
                before = len(kept)
                while before and kept[before - 1][0] == "whitespace":
                    before -= 1
                if before and kept[before - 1][1] == "|":
                    del kept[before - 1 :]
                    continue
            kept.append((kind, text))
        return tuple(kept)


@dataclass(frozen=True, slots=True)
class Argument:
    """A text that an expression or statement gives by a name, as ``button(onclick="…")`` does.

    Attributes:
        line: where the expression or statement begins.
        name, value: as they are written, without quotes.
    """

    line: int
    name: str
    value: str


@dataclass(slots=True)
class TemplateText:
    """A template as HTML.

    Attributes:
        html: with a placeholder for each expression.
        expressions: in order.
        arguments: the named texts in expressions and statements.
        texts: the texts in expressions with the filter ``safe``, and their lines.
        lines: offsets in the HTML with their line numbers.
        translated: the ranges inside of ``{% trans %}``.
        cached: the ranges inside of ``{% cache %}``, a statement of Flask-Caching and others.
    """

    html: str = ""
    expressions: list[Expression] = field(default_factory=list)
    arguments: list[Argument] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    lines: list[tuple[int, int]] = field(default_factory=list)
    translated: list[range] = field(default_factory=list)
    cached: list[range] = field(default_factory=list)


def read_template(environment: Environment, source: str) -> TemplateText:
    """Read a template as HTML.

    Raises:
        TemplateSyntaxError: it cannot be compiled.
    """
    result = TemplateText()
    parts: list[str] = []
    length = 0
    inside: list[tuple[str, str]] | None = None
    begun = 0
    opened = {"trans": -1, "cache": -1}
    ranges = {"trans": result.translated, "cache": result.cached}
    environment.parse(source)
    source = environment.preprocess(source)
    for lineno, kind, value in environment.lexer.tokeniter(source, None):
        piece = ""
        if kind == "data":
            piece = value.replace(OPEN, " ")
        elif kind in ("variable_begin", "block_begin"):
            inside, begun = [], lineno
        elif kind in ("variable_end", "block_end") and inside is not None:
            if kind == "variable_end":
                lineno = begun
                piece = f"{OPEN}{len(result.expressions)}{CLOSE}"
                begin, end = environment.variable_start_string, environment.variable_end_string
                written = f"{begin} {''.join(text for _, text in inside)} {end}"
                output = environment.parse(written).find(nodes.Output)
                safe = output is None or all(_is_safe(one) for one in output.nodes)
                result.expressions.append(Expression(tuple(inside), begin, end, safe))
                if ("name", "safe") in inside:
                    result.texts += [
                        (begun, _unquote(text)) for one, text in inside if one == "string"
                    ]
            else:
                keyword = next((text for one, text in inside if one == "name"), "")
                ended = keyword.removeprefix("end")
                if keyword in opened:
                    opened[keyword] = length
                elif ended in opened and opened[ended] >= 0:
                    ranges[ended].append(range(opened[ended], length))
                    opened[ended] = -1
            result.arguments += [Argument(begun, *one) for one in _find_arguments(inside)]
            inside = None
        elif inside is not None:
            inside.append((kind, value))
        if piece:
            result.lines.append((length, lineno))
            parts.append(piece)
            length += len(piece)
    result.html = "".join(parts)
    return result


def _is_safe(node: nodes.Node | None) -> bool:
    """Return whether the value of an expression may stand in a script: the template's own text, a
    number, JSON, an address of the site, or what is put together from these.
    """
    if isinstance(node, nodes.Call):
        called = node.node
        own = isinstance(called, nodes.Getattr) and getattr(called.node, "name", "") == "self"
        return own or getattr(called, "name", "") in _SAFE_CALLS
    if isinstance(node, nodes.Filter) and node.name in _SAFE_FILTERS:
        return True
    if isinstance(node, nodes.CondExpr):
        return _is_safe(node.expr1) and _is_safe(node.expr2)
    if isinstance(node, _PUT_TOGETHER):
        return all(_is_safe(one) for one in node.iter_child_nodes())
    if isinstance(node, nodes.Const):
        return (
            not isinstance(node.value, bool) and node.value is not None
        )  # JavaScript's are others
    return node is None or isinstance(node, nodes.TemplateData)


def _find_arguments(tokens: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each ``name="…"`` in brackets, and of each ``"name": "…"``."""
    solid = [one for one in tokens if one[0] != "whitespace"]
    depth = 0
    for place, (kind, text) in enumerate(solid[:-2]):
        depth += (text in _OPENING) - (text in _CLOSING)
        between, (value_kind, value) = solid[place + 1][1], solid[place + 2]
        if depth == 0 or value_kind != "string":
            continue
        if kind == "name" and between == "=":
            yield text, _unquote(value)
        elif kind == "string" and between == ":":
            yield _unquote(text), _unquote(value)


def _unquote(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (SyntaxError, ValueError):
        return text[1:-1]

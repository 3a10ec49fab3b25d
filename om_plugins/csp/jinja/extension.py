"""Adds nonces to the literal tags of Jinja templates when they are compiled.

Only tags in the *source* of a template get a nonce. Interpolated values are data, and data never
gets one. A template that begins with ``{# om: no nonces #}`` is not changed. The extension works on
the tokens of the lexer, after Jinja has handled white space, so that the output without nonces
stays the same.

A tag costs one call when its page is rendered. Jinja would escape the result of that call, which
takes several times as long; :class:`NonceCodeGenerator` omits the escaping for these calls only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jinja2 import Template, nodes
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension
from jinja2.lexer import Token

from ..hashes import OWN, hash_text, is_own
from ..html.handlers import is_question
from ..html.state import Tag
from .bytecode import SaltedBytecodeCache, set_salt
from .host import FILTER, TemplateHost, has_own_nonce, host_of
from .inserted import CALLED, is_inserted, join_pieces, make_call
from .modules import add_fresh_modules
from .scan import join_text, scan

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from jinja2 import Environment
    from jinja2.compiler import Frame
    from jinja2.lexer import TokenStream
    from jinja2.parser import Parser

_TAG = re.compile(r"<(?:script|style|link)|\bconfirm\s*\(", re.IGNORECASE)
"""What may need a statement: a tag, or a question in an event handler."""

# with a space in them, no author can write them
_STATEMENT = "om nonce"
_END = "om nonce end"

_NO_NONCES = "om_no_nonces"

_SALT = "om_plugins-nonce-8"  # change it when the compiled form of a template changes

_HTML_SUFFIXES = (".html", ".htm", ".xhtml")
_OTHER_SUFFIXES = (
    ".txt", ".text", ".xml", ".js", ".mjs", ".css", ".json", ".md", ".rst", ".csv", ".yml",
    ".yaml", ".toml", ".ini", ".sql", ".sh",
)  # fmt: skip
_TEMPLATE_SUFFIXES = (".j2", ".jinja", ".jinja2", ".tmpl", ".tpl")


class NonceExtension(Extension):
    """Adds nonces to literal tags; :func:`install` connects it to a host."""

    priority = 1000  # after the extensions that change the text
    tags = frozenset({_STATEMENT})  # type: ignore[assignment]

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        host_of(environment)
        environment.code_generator_class = add_inserted_calls(environment.code_generator_class)

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Replace the comment that turns nonces off by a statement."""
        env = self.environment
        comment = re.match(
            rf"(\s*){re.escape(env.comment_start_string)}([-+]?)\s*om:\s*no nonces\s*([-+]?)"
            rf"{re.escape(env.comment_end_string)}",
            source,
        )
        if comment is None:
            return source
        before, start, end = comment.groups()
        statement = f"{env.block_start_string}{start} {_NO_NONCES} {end}{env.block_end_string}"
        return before + statement + source[comment.end() :]

    def filter_stream(self, stream: TokenStream) -> TokenStream | Iterator[Token]:
        """Insert a statement into each literal tag that should have a nonce."""
        tokens = list(stream)
        for at in (0, 1):  # white space may stand before it
            kinds = [token.type for token in tokens[at : at + 2]]
            if kinds == ["block_begin", "name"] and tokens[at + 1].value == _NO_NONCES:
                return iter(tokens[:at] + tokens[at + 3 :])
        if not is_html(self.environment, stream.name, stream.filename):
            return iter(tokens)
        host = host_of(self.environment)
        tokens = join_text(tokens)
        if not host.attributes and not any(
            token.type == "data" and _TAG.search(token.value) for token in tokens
        ):
            return iter(tokens)
        return _insert_statements(tokens, host, own_nonce=has_own_nonce(self.environment))

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the node of one inserted statement: it puts out what a method of the host returns.

        ``complete`` gets what its body puts out.
        """
        line = next(parser.stream).lineno
        words = []
        while parser.stream.current.type == "string":
            words.append(next(parser.stream).value)
        method, *arguments = words
        if method == "complete":
            body = parser.parse_statements((f"name:{_END}",), drop_needle=True)
            values: list[nodes.Expr] = [nodes.Const(one) for one in arguments]
            applied = nodes.Filter(None, FILTER, values, [], None, None)
            return nodes.FilterBlock(body, applied).set_lineno(line)
        return nodes.Output([make_call(method, arguments)]).set_lineno(line)


class NonceCodeGenerator(CodeGenerator):
    """Jinja's code generator, which does not escape the results of the inserted calls, and whose
    templates are :class:`~.modules.FreshModules`."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        join_pieces(node)
        super().visit_Template(node, frame)
        if not self.defer_init:  # templates that are compiled ahead of time have no environment
            self.writeline(f"root = environment.{CALLED}prepare(root)")

    def _output_child_pre(
        self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo
    ) -> None:
        if not is_inserted(node):
            super()._output_child_pre(node, frame, finalize)

    def _output_child_post(
        self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo
    ) -> None:
        if not is_inserted(node):
            super()._output_child_post(node, frame, finalize)


def add_inserted_calls(cls: type[CodeGenerator]) -> type[CodeGenerator]:
    """Return a subclass of a class of code generators that is also :class:`NonceCodeGenerator`."""
    if issubclass(cls, NonceCodeGenerator):
        return cls
    if cls is CodeGenerator:
        return NonceCodeGenerator
    return type(f"Nonce{cls.__name__}", (NonceCodeGenerator, cls), {})


def install(
    environment: Environment,
    *,
    environ: Callable[[], WSGIEnvironment | None] | None = None,
    owner: object = None,
    head: Callable[..., str] | None = None,
    plain: Callable[[], bool | None] | None = None,
    automatic: bool = True,
    trusted: bool = True,
    hashes: bool = False,
    attributes: bool = False,
    questions: bool = False,
) -> None:
    """Connect an environment to a host; it may already have compiled templates.

    Templates that were compiled without the extension are removed from the environment's cache, and
    its bytecode cache gets keys of its own: set ``environment.bytecode_cache`` before calling this,
    or call :func:`salt_bytecode`. Templates that were compiled ahead of time (``ModuleLoader``)
    stay as they are.

    Args:
        environment: such as Flask's ``app.jinja_env``. A second call only changes the functions.
        environ: returns the WSGI environ of the current request, ``None`` outside a request.
        owner: the application whose templates these are: they use the nonces of its own requests
            only. ``None``: those of whichever application the environ belongs to.
        head: returns the HTML of ``om_head()`` from an environ and the arguments of ``om_head()``.
        plain: returns ``False`` when templates that are rendered for no response need no nonces;
            see :attr:`RequestState.plain`.
        automatic: add nonces to literal tags; otherwise only the globals and the filter are added.
        trusted: ``|om_trusted`` adds nonces; otherwise it does what ``|safe`` does.
        hashes: a policy lists hashes: tags whose text never changes get no nonce, and their hash is
            noted.
        attributes: the hashes of event handlers and ``style`` attributes are noted.
        questions: the hashes of event handlers that only ask (``return confirm('Sure?')``) are
            noted.
    """
    host = host_of(environment)
    host.environ = environ or host.environ
    host.owner = owner or host.owner
    host.head = head or host.head
    host.plain = plain or host.plain
    host.trusted = trusted
    host.hashes = hashes
    host.attributes = attributes
    host.questions = questions
    if automatic and NonceExtension.identifier not in environment.extensions:
        environment.add_extension(NonceExtension)
        salt_bytecode(environment)
    elif host.installed:
        return
    if environment.template_class is not Template or not issubclass(
        environment.code_generator_class, NonceCodeGenerator
    ):
        environment.template_class = add_fresh_modules(environment.template_class)
    host.installed = True
    if environment.cache is not None:
        environment.cache.clear()


def salt_bytecode(environment: Environment) -> None:
    """Separate the bytecode of this environment from bytecode without the extension.

    Call it again when the environment may have got another bytecode cache, or a ``csp_nonce()`` of
    another package.
    """
    inner = environment.bytecode_cache
    if inner is None or NonceExtension.identifier not in environment.extensions:
        return
    host = host_of(environment)
    foreign = not has_own_nonce(environment)
    marks = {"h": host.hashes, "a": host.attributes, "q": host.questions, "f": foreign}
    salt = _SALT + "".join(mark for mark, given in marks.items() if given)
    if isinstance(inner, SaltedBytecodeCache):
        set_salt(inner, salt)
    else:
        environment.bytecode_cache = SaltedBytecodeCache(inner, salt)  # type: ignore[assignment]


def is_html(environment: Environment, name: str | None, filename: str | None = None) -> bool:
    """Return whether a template is HTML, by its suffix or else by autoescaping.

    ``page.html.j2`` counts as ``page.html``.

    Args:
        environment: the environment of the template.
        name: the template's name; ``None`` for one made from a string.
        filename: the template's file; used when it has no name.
    """
    folded = (name or filename or "").lower()
    while folded.endswith(_TEMPLATE_SUFFIXES):
        folded = folded.rpartition(".")[0]
    if folded.endswith(_HTML_SUFFIXES):
        return True
    if folded.endswith(_OTHER_SUFFIXES):
        return False
    escape = environment.autoescape
    return bool(escape(name) if callable(escape) else escape)


def _insert_statements(
    tokens: list[Token], host: TemplateHost, *, own_nonce: bool
) -> Iterator[Token]:
    scanner = scan(tokens, own_nonce=own_nonce)
    places: dict[int, list[tuple[int, tuple[str, ...]]]] = {}

    def insert(piece: int, offset: int, *words: str) -> None:
        places.setdefault(piece, []).append((offset, words))

    for tag in scanner.tags:
        if not tag.found or tag.has_nonce or tag.skipped:
            continue
        what = _find_replacement(tag) if host.hashes else ""
        quote = tag.quote or '"'
        if tag.open and tag.apart:
            insert(tag.piece, tag.offset, _STATEMENT, "complete", quote, what)
            piece, end = tag.begins
            insert(piece, end - 1, _END)
        elif not tag.mentions_nonce:
            words: tuple[str, ...] = ("note", what, quote) if what else ("attribute", quote)
            insert(tag.piece, tag.offset, _STATEMENT, *words)
    for one in scanner.inline:
        question = one.directive == "script-src-attr" and is_question(one.value)
        if host.attributes or (host.questions and question):
            what = hash_text(one.directive, one.value, attribute=True)
            # outputs nothing, so it may be inside of the value
            words = ("note", what, "") if host.attributes else ("ask", what)
            insert(one.piece, one.offset, _STATEMENT, *words)
    for number, token in enumerate(tokens):
        start = 0
        for offset, (name, *arguments) in sorted(places.get(number, ())):
            before = token.value[:offset]
            line = token.lineno + before.count("\n")
            yield Token(token.lineno, "data", before[start:])
            yield Token(line, "block_begin", "{%")
            yield Token(line, "name", name)
            for word in arguments:
                yield Token(line, "string", word)
            yield Token(line, "block_end", "%}")
            start = offset
        yield Token(token.lineno, token.type, token.value[start:]) if start else token


def _find_replacement(tag: Tag) -> str:
    """Return what a tag notes instead of a nonce; "" when it must have a nonce."""
    if tag.address:
        return OWN if is_own(tag.address) else ""
    if tag.body is None or tag.loose or tag.name == "link":
        return ""
    return hash_text(f"{tag.name}-src", tag.body)

"""Puts nonces on the literal tags of Jinja templates, when they are compiled.

Only tags that stand in a template's *source* get one: what is interpolated is data, and data never
gets a nonce. A template that begins with ``{# om: no nonces #}`` is left alone. The extension
works on the lexer's tokens, after white space was dealt with, so the output without nonces is what
it was before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jinja2 import BytecodeCache
from jinja2.ext import Extension
from jinja2.lexer import Token
from markupsafe import Markup

from .hashes import OWN, hashed, is_own, noted
from .html_scan import Tag
from .nonce import nonce, tag_nonce
from .template_scan import joined, scan

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from jinja2 import Environment
    from jinja2.bccache import Bucket
    from jinja2.lexer import TokenStream

ATTRIBUTE = "om_nonce_attribute"
"""The template global that the inserted tokens name."""

_SINGLE = "om_nonce_attribute_single"

_ENVIRON = "om_environ"
_HEAD = "om_head_html"
_HASHES = "om_hashes"
_ATTRIBUTES = "om_hash_attributes"

_NO_NONCES = "om_no_nonces"

_SALT = "om_plugins-nonce-3"  # change it when the compiled form of a template changes

_HTML_SUFFIXES = (".html", ".htm", ".xhtml")
_OTHER_SUFFIXES = (
    ".txt", ".text", ".xml", ".js", ".mjs", ".css", ".json", ".md", ".rst", ".csv", ".yml",
    ".yaml", ".toml", ".ini", ".sql", ".sh",
)  # fmt: skip
_TEMPLATE_SUFFIXES = (".j2", ".jinja", ".jinja2", ".tmpl", ".tpl")


class NonceExtension(Extension):
    """Adds nonces to literal tags, and the globals ``csp_nonce`` and ``om_head``.

    Two attributes of the environment connect it to a host:

    - ``om_environ``: a function without arguments that returns the WSGI environ of the request at
      hand, or ``None``.
    - ``om_head_html``: a function from that environ, and what else ``om_head()`` was given, to the
      HTML of ``om_head()``.
    """

    priority = 1000  # after the extensions that change the text

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        _add_globals(environment)

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Make a statement of the comment by which a template wants no nonces."""
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
        """Insert a call of the nonce attribute into each literal tag that should have one."""
        tokens = list(stream)
        for at in (0, 1):  # white space may stand before it
            kinds = [token.type for token in tokens[at : at + 2]]
            if kinds == ["block_begin", "name"] and tokens[at + 1].value == _NO_NONCES:
                return iter(tokens[:at] + tokens[at + 3 :])
        if not is_html(self.environment, stream.name, stream.filename):
            return iter(tokens)
        env = self.environment
        return _with_nonces(
            joined(tokens),
            hashes=getattr(env, _HASHES, False),
            attributes=getattr(env, _ATTRIBUTES, False),
        )


def install(
    environment: Environment,
    *,
    environ: Callable[[], WSGIEnvironment | None] | None = None,
    head: Callable[..., str] | None = None,
    automatic: bool = True,
    hashes: bool = False,
    attributes: bool = False,
) -> None:
    """Connect an environment to a host; it may already have compiled templates.

    Templates that were compiled without the extension are forgotten, and a bytecode cache is made
    to use keys of its own: set ``environment.bytecode_cache`` before calling this, or call
    :func:`salt_bytecode`. Templates that were compiled ahead of time (``ModuleLoader``) stay as
    they are.

    Args:
        environment: such as Flask's ``app.jinja_env``. A second call only changes the functions.
        environ: returns the WSGI environ of the request at hand, ``None`` outside a request.
        head: makes the HTML of ``om_head()`` from an environ and what ``om_head()`` was given.
        automatic: put nonces on literal tags; otherwise only the globals are added.
        hashes: where a policy lists hashes, tags whose text never changes are noted by their hash,
            and get no nonce.
        attributes: event handlers and ``style`` attributes are noted by their hashes.
    """
    _add_globals(environment)
    if environ is not None:
        setattr(environment, _ENVIRON, environ)
    if head is not None:
        setattr(environment, _HEAD, head)
    setattr(environment, _HASHES, hashes)
    setattr(environment, _ATTRIBUTES, attributes)
    if not automatic or NonceExtension.identifier in environment.extensions:
        return
    environment.add_extension(NonceExtension)
    if environment.cache is not None:
        environment.cache.clear()
    salt_bytecode(environment)


def salt_bytecode(environment: Environment) -> None:
    """Keep what the environment's bytecode cache holds apart from what was compiled without the
    extension. Call it again when the environment may have got another bytecode cache.
    """
    inner = environment.bytecode_cache
    if inner is None or isinstance(inner, SaltedBytecodeCache):
        return
    if NonceExtension.identifier not in environment.extensions:
        return
    hashes, attributes = (getattr(environment, name) for name in (_HASHES, _ATTRIBUTES))
    salt = f"{_SALT}{'h' * hashes}{'a' * attributes}"
    environment.bytecode_cache = SaltedBytecodeCache(inner, salt)


def _add_globals(environment: Environment) -> None:
    """The template globals; they ask the environment's attributes on each call."""
    if ATTRIBUTE in environment.globals:
        return
    environment.extend(**{_ENVIRON: None, _HEAD: None})

    def current() -> WSGIEnvironment | None:
        provider = getattr(environment, _ENVIRON)
        return provider() if provider is not None else None

    def csp_nonce() -> str:
        environ = current()
        return "" if environ is None else nonce(environ)

    def om_head(**parts: object) -> Markup:
        environ = current()
        html = getattr(environment, _HEAD)
        if environ is None or html is None:
            return Markup()
        return Markup(html(environ, **parts))  # noqa: S704 - the host's own markup

    # a "csp_nonce" that is there already belongs to whoever sets the header
    environment.globals.setdefault("csp_nonce", csp_nonce)
    environment.globals.update(
        {
            ATTRIBUTE: _NonceAttribute(current, '"'),
            _SINGLE: _NonceAttribute(current, "'"),
            "om_head": om_head,
        }
    )


class _NonceAttribute:
    """What the inserted tokens put out: a name that is looked up costs half of a call."""

    __slots__ = ("_current", "_kept", "_quote")

    def __init__(self, current: Callable[[], WSGIEnvironment | None], quote: str) -> None:
        self._current = current
        self._quote = quote
        self._kept = f"om_plugins.attribute{quote}"

    def __html__(self) -> str:
        environ = self._current()
        if environ is None:  # a mail, a job: there is no header to agree with
            return ""
        made: str | None = environ.get(self._kept)
        if made is None:
            value = tag_nonce(environ)
            if value is None:
                return ""
            made = environ[self._kept] = f" nonce={self._quote}{value}{self._quote}"
        return made

    __str__ = __html__

    def __call__(self, what: str, tag: bool = True) -> Markup:
        """Note a hash, or what else stands for a nonce.

        Args:
            what: as :func:`~.hashes.hashed` gives it.
            tag: a tag gets its nonce when nothing can be noted any more; an attribute has none.
        """
        environ = self._current()
        if environ is None or noted(environ, what) or not tag:
            return Markup()
        return Markup(self.__html__())  # noqa: S704 - hexadecimal digits


class SaltedBytecodeCache(BytecodeCache):
    """Another bytecode cache under keys of its own, for this environment alone.

    The inner cache may be shared with environments that do not have the extension, or may hold
    what was compiled before it was added.

    Args:
        inner: the cache that stores.
        salt: of the keys; another one where templates are compiled differently.
    """

    def __init__(self, inner: BytecodeCache, salt: str = _SALT) -> None:
        self.inner = inner
        self.salt = salt

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        key = f"{self.salt}|{self.inner.get_cache_key(name, filename)}"
        return hashlib.sha256(key.encode()).hexdigest()

    def get_source_checksum(self, source: str) -> str:
        return self.inner.get_source_checksum(source)

    def load_bytecode(self, bucket: Bucket) -> None:
        self.inner.load_bytecode(bucket)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.inner.dump_bytecode(bucket)

    def clear(self) -> None:
        self.inner.clear()


def is_html(environment: Environment, name: str | None, filename: str | None = None) -> bool:
    """Whether a template is HTML: by its suffix, else by whether it is escaped.

    ``page.html.j2`` counts as ``page.html``.

    Args:
        name: the template's name; ``None`` for one made from a string.
        filename: its file, asked when it has no name.
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


def _with_nonces(
    tokens: list[Token], *, hashes: bool = False, attributes: bool = False
) -> Iterator[Token]:
    scanner = scan(tokens)
    places: dict[int, list[tuple[int, str, str]]] = {}
    for tag in scanner.tags:
        if tag.found and not tag.has_nonce and not tag.skipped:
            what = _noted_for(tag) if hashes else ""
            places.setdefault(tag.piece, []).append((tag.offset, tag.quote or '"', what))
    for one in scanner.inline if attributes else ():
        what = hashed(one.directive, one.value, attribute=True)
        # put out as nothing, so it may stand inside the value
        places.setdefault(one.piece, []).append((one.offset, "", what))
    for number, token in enumerate(tokens):
        start = 0
        for offset, quote, what in sorted(places.get(number, ())):
            before = token.value[:offset]
            line = token.lineno + before.count("\n")
            yield Token(token.lineno, "data", before[start:])
            yield Token(line, "variable_begin", "{{")
            yield Token(line, "name", _SINGLE if quote == "'" else ATTRIBUTE)
            if what:
                yield Token(line, "lparen", "(")
                yield Token(line, "string", what)
                if not quote:
                    yield Token(line, "comma", ",")
                    yield Token(line, "name", "false")
                yield Token(line, "rparen", ")")
            yield Token(line, "variable_end", "}}")
            start = offset
        yield Token(token.lineno, token.type, token.value[start:]) if start else token


def _noted_for(tag: Tag) -> str:
    """What a tag may have instead of a nonce; "" when it must have one."""
    if tag.address:
        return OWN if is_own(tag.address) else ""
    if tag.body is None or tag.loose or tag.name == "link":
        return ""
    return hashed(f"{tag.name}-src", tag.body)

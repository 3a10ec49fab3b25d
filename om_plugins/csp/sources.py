"""Sources of a directive: would a browser read this one, and does it have an effect there?

A browser ignores a source that it cannot read, and reports that only in its own console, which
nobody reads. Here it is an error that says what to write instead. Other sources a browser reads and
ignores because of what stands beside them: 'unsafe-inline' beside a nonce, hosts beside
'strict-dynamic'. Source: Content Security Policy Level 3, sections 2.3.1 (grammar) and 6.7.3;
Trusted Types, section 4.3.2.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence

from ..errors import suggest

NONCE_SOURCE = "'nonce'"
"""Stands in a policy for the nonce of its response."""

HASHES_SOURCE = "'hashes'"
"""Stands in a policy for the hashes that its page used; see hashes.py."""

KEYWORDS = frozenset(
    """
    'none' 'self' 'unsafe-inline' 'unsafe-eval' 'unsafe-hashes' 'strict-dynamic'
    'report-sample' 'report-sha256' 'report-sha384' 'report-sha512' 'wasm-unsafe-eval'
    'inline-speculation-rules' 'trusted-types-eval'
    """.split()  # noqa: SIM905 - a list of words
) | {NONCE_SOURCE, HASHES_SOURCE}
_BARE_KEYWORDS = frozenset(word.strip("'") for word in KEYWORDS)
_OTHER_QUOTED: Mapping[str, frozenset[str]] = {
    "require-trusted-types-for": frozenset({"'script'"}),
    "trusted-types": frozenset({"'none'", "'allow-duplicates'"}),
    "webrtc": frozenset({"'allow'", "'block'"}),
}
_SANDBOX = frozenset(
    """
    allow-downloads allow-forms allow-modals allow-orientation-lock allow-pointer-lock
    allow-popups allow-popups-to-escape-sandbox allow-presentation allow-same-origin
    allow-same-site-none-cookies allow-scripts allow-storage-access-by-user-activation
    allow-top-navigation allow-top-navigation-by-user-activation
    allow-top-navigation-to-custom-protocols
    """.split()  # noqa: SIM905 - a list of words
)
_HASH = re.compile(r"'(?:url-|eval-)?sha(256|384|512)-([A-Za-z0-9+/_-]+={0,2})'")
_FIXED_NONCE = re.compile(r"'?nonce-.*", re.IGNORECASE)

_SCRIPT_TAGS = frozenset({"script-src", "script-src-elem", "default-src"})
_STYLE_TAGS = frozenset({"style-src", "style-src-elem", "default-src"})
_TAGS = _SCRIPT_TAGS | _STYLE_TAGS
_SCRIPTS = _SCRIPT_TAGS | {"script-src-attr"}
_INLINE = _TAGS | {"script-src-attr", "style-src-attr"}
_CODE_FROM_TEXT = frozenset({"script-src", "default-src"})
_EFFECTIVE_IN: Mapping[str, frozenset[str]] = {
    "'unsafe-inline'": _INLINE,
    "'unsafe-hashes'": _INLINE - {"style-src-elem"},
    "'strict-dynamic'": _SCRIPT_TAGS | {"worker-src"},
    "'unsafe-eval'": _CODE_FROM_TEXT,
    "'wasm-unsafe-eval'": _CODE_FROM_TEXT,
    "'trusted-types-eval'": _CODE_FROM_TEXT,
    "'inline-speculation-rules'": _SCRIPT_TAGS,
    NONCE_SOURCE: _TAGS,
    HASHES_SOURCE: _TAGS,
}
"""The directives in which browsers look for a keyword. Where text becomes code, they ask
``script-src`` alone, whatever ``script-src-elem`` says."""

_SCHEMES = frozenset({"blob", "data", "filesystem", "http", "https", "mediastream", "ws", "wss"})
_SCHEME_ALONE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WITH_PLACE = re.compile(r"(https?|wss?)[:/]+(?!/)", re.IGNORECASE)
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.?")
_PORT = re.compile(r":([0-9]{1,5}|\*)")
_POLICY_NAME = re.compile(r"[A-Za-z0-9#=_/@.%-]+|\*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def check_source(directive: str, source: object, *, source_list: bool) -> str:
    """Return what is wrong with one source; "" when nothing is.

    Args:
        directive: that the source belongs to.
        source: as it is written.
        source_list: the directive takes sources; otherwise it takes keywords of its own.
    """
    if not isinstance(source, str) or not source:
        return "every source must be text that is not empty"
    for character in source:
        if character in ";,":
            return f"{character!r} would end the value; give each source and directive its own item"
        if character.isspace():
            return "white space separates sources; give each source its own item"
        if not "!" <= character <= "~":
            return (
                f"{character!r} is not printable ASCII; write host names in Punycode and "
                "percent-encode paths"
            )
    return _check_in_list(directive, source) if source_list else _check_word(directive, source)


def fold_source(source: str) -> str:
    """Return a source as browsers compare it: keywords, schemes and hosts in lower case."""
    if source.startswith("'"):
        return source.lower() if source.lower() in KEYWORDS else source
    scheme = _SCHEME.match(source)
    path = source.find("/", scheme.end() if scheme else 0)
    return source.lower() if path < 0 else source[:path].lower() + source[path:]


def is_place(source: str) -> bool:
    """Return whether a source is a host, a scheme, or the site itself."""
    return source == "'self'" or not source.startswith("'")


def is_nonce_or_hash(source: str) -> bool:
    """Return whether a source allows single inline texts, so that ``'unsafe-inline'`` beside it
    has no effect.
    """
    return source in (NONCE_SOURCE, HASHES_SOURCE) or source.startswith(("'nonce-", "'sha"))


def allows_all_inline(directive: str, sources: Iterable[str]) -> bool:
    """Return whether every inline text is allowed (CSP3, section 6.7.3.2).

    Args:
        directive: that a browser asks; it decides whether ``'strict-dynamic'`` counts.
        sources: of this directive, or of the one that it falls back to.
    """
    found = set(sources)
    return (
        "'unsafe-inline'" in found
        and not any(map(is_nonce_or_hash, found))
        and not ("'strict-dynamic'" in found and directive.startswith("script"))
    )


def copy_sources(directive: str, base: Sequence[str]) -> tuple[str, ...]:
    """Return the sources of a fallback as they count for a directive that it stands in for.

    Args:
        directive: that begins as a copy.
        base: the sources that a browser uses for it so far.
    """
    copied = [one for one in base if find_lack_of_effect(directive, one) == ""]
    if directive.endswith("-attr") and not allows_all_inline(directive, base):
        copied = [one for one in copied if one != "'unsafe-inline'"]
        if "'unsafe-hashes'" not in copied:
            copied = [one for one in copied if not is_nonce_or_hash(one)]
    return tuple(copied)


def extend_sources(directive: str, kept: Sequence[str], added: Sequence[str]) -> tuple[str, ...]:
    """Return the sources of a directive with more, so that each one added has its effect.

    What would make browsers ignore them is taken out, and what it allowed is kept by other means
    as far as there are any:

    - ``'unsafe-inline'`` takes the place of nonces, of hashes and of ``'strict-dynamic'``. Files
      that their nonce allowed may then come from any HTTPS host.
    - A host or scheme for scripts takes the place of ``'strict-dynamic'`` and of what was there for
      browsers that do not know it. The site's own files are allowed, as in the preset
      ``compatible``.
    - A nonce or a hash is left out where every inline text is allowed. In an attribute, a hash
      counts beside ``'unsafe-hashes'`` only, which is added.
    - ``'none'`` forbids what was allowed.

    Args:
        directive: to extend.
        kept: its sources.
        added: the sources to add.
    """
    if "'none'" in added:
        return tuple(added)
    kept = [one for one in kept if one != "'none'"]
    scripts = directive in _SCRIPTS
    if directive in _INLINE and allows_all_inline(directive, kept):
        added = [
            one
            for one in added
            if not is_nonce_or_hash(one)
            and not (one == "'unsafe-hashes'" or (scripts and one == "'strict-dynamic'"))
        ]
    elif directive in _INLINE and "'unsafe-inline'" in added:
        needed_nonces = NONCE_SOURCE in kept or "'strict-dynamic'" in kept
        kept = [
            one
            for one in kept
            if not is_nonce_or_hash(one) and one not in ("'strict-dynamic'", "'unsafe-hashes'")
        ]
        if needed_nonces and directive in _TAGS:
            kept = ["'self'", "https:", *(one for one in kept if one not in ("'self'", "https:"))]
    elif directive in _SCRIPT_TAGS and "'strict-dynamic'" in kept and any(map(is_place, added)):
        # these were ignored so far, and would open more than what was asked for
        kept = [
            "'self'",
            *(
                one
                for one in kept
                if one not in ("'strict-dynamic'", "'unsafe-inline'") and not is_place(one)
            ),
        ]
    result = [*kept, *(one for one in added if one not in kept)]
    if directive.endswith("-attr") and "'unsafe-hashes'" not in result:
        first = next((at for at, one in enumerate(result) if is_nonce_or_hash(one)), None)
        if first is not None:
            result.insert(first, "'unsafe-hashes'")
    return tuple(result)


def explain_conflict(directive: str, sources: Iterable[str]) -> str:
    """Return why some of these sources cannot have an effect beside the others; "" when all can.

    It is for sources that somebody adds. In a whole policy such sources may stand for older
    browsers, as in :data:`~.presets.STRICT`.
    """
    found = set(sources)
    single = sorted(filter(is_nonce_or_hash, found))
    if "'unsafe-hashes'" in found and not single:
        return "'unsafe-hashes' allows nothing alone; add the hash of the attribute as well"
    if "'unsafe-inline'" in found and single:
        return f"browsers ignore 'unsafe-inline' beside {single[0]}; add one of them"
    places = sorted(one for one in found if is_place(one) and one not in ("https:", "http:"))
    if "'strict-dynamic'" in found and directive in _SCRIPT_TAGS:
        if "'unsafe-inline'" in found:
            return "browsers ignore 'unsafe-inline' beside 'strict-dynamic'; add one of them"
        if places:
            return f"browsers ignore {places[0]} beside 'strict-dynamic'; add one of them"
    return ""


def find_lack_of_effect(directive: str, source: str) -> str:
    """Return why a source has no effect in a directive, whatever stands beside it; "" when it may.

    A directive that is no source list is not asked about.
    """
    where = _EFFECTIVE_IN.get(source.lower())
    if where is None and _HASH.fullmatch(source):
        where = _INLINE
    if where is not None:
        known = sorted(where - {"default-src"})
        return (
            ""
            if directive in where
            else f"{source} has no effect in {directive}; browsers look for it in "
            f"{', '.join(known[:-1])}{' and ' if known[:-1] else ''}{known[-1]}"
        )
    if directive.endswith("-attr") and is_place(source):
        return (
            f"{source} has no effect in {directive}, because an attribute loads nothing; write "
            f"it in {directive.removesuffix('-attr')}"
        )
    return ""


def explain_unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the reason of an error about an unknown name: a similar name, or all known ones."""
    return f"unknown {kind}; {suggest(str(name).strip(), sorted(known))}"


def _check_word(directive: str, word: str) -> str:
    """Return what is wrong with a value of a directive that takes no sources."""
    quoted = _OTHER_QUOTED.get(directive, frozenset())
    if word in quoted:
        return ""
    if directive == "require-trusted-types-for":
        return "the only value is \"'script'\""
    if directive == "sandbox":
        return "" if word in _SANDBOX else explain_unknown("sandbox flag", word, _SANDBOX)
    if f"'{word}'" in quoted:
        return f"a keyword stands in quotes: write \"'{word}'\""
    if directive == "webrtc":
        return explain_unknown("value", word, quoted)
    if "'" in word or '"' in word:
        return "quotes have no meaning in this directive"
    if directive == "trusted-types" and not _POLICY_NAME.fullmatch(word):
        return "a policy's name has letters, digits and - # = _ / @ . % alone"
    if directive == "report-to" and not _TOKEN.fullmatch(word):
        return "write the name of one endpoint of Reporting-Endpoints; addresses are for report-uri"
    return ""


def _check_in_list(directive: str, source: str) -> str:
    bare = source.strip("\"'").lower()
    if source.lower() in _BARE_KEYWORDS or ('"' in source and bare in _BARE_KEYWORDS):
        return f"a keyword stands in quotes: write \"'{bare}'\""
    if _FIXED_NONCE.fullmatch(source):
        return "a fixed nonce protects nothing; write \"'nonce'\" for the nonce of each response"
    if re.match(r"(url-|eval-)?sha(256|384|512)-", source):
        return f"a hash stands in quotes: write \"'{source}'\""
    if "'" in source:
        hashed = _HASH.fullmatch(source)
        if hashed:
            return _check_hash(int(hashed[1]), hashed[2]) or find_lack_of_effect(directive, source)
        if source.lower() not in KEYWORDS:
            return explain_unknown("keyword", source, KEYWORDS)
        if directive == "frame-ancestors" and source.lower() not in ("'self'", "'none'"):
            return "who may frame a page is said with \"'self'\", \"'none'\", hosts and schemes"
        return find_lack_of_effect(directive, source)
    return _check_place(source) or find_lack_of_effect(directive, source)


def _check_hash(bits: int, text: str) -> str:
    try:
        digest = base64.b64decode(text, altchars="-_" if set(text) & set("-_") else None)
    except binascii.Error:
        digest = b""
    if len(digest) * 8 == bits:
        return ""
    length = 4 * -(-bits // 24)
    return f"this is no SHA-{bits} hash: one has {length} characters of base64, with '=' at its end"


def _check_place(source: str) -> str:
    """Return what is wrong with a scheme, a host, or an address."""
    alone = _SCHEME_ALONE.fullmatch(source)
    if alone:
        return _check_scheme(alone[1])
    if source.lower() in _SCHEMES:
        return f"a scheme has a colon: write '{source.lower()}:'"
    if source.startswith("//"):
        return f"write 'https:{source}', or the host alone: {source.strip('/')!r}"
    if source.startswith("/"):
        return f"a path needs its host: write \"'self'\", or 'https://your.example{source}'"
    scheme = _SCHEME.match(source)
    if scheme is None:
        slip = _WITH_PLACE.match(source)
        if slip and not source[: slip.end()].endswith(":"):
            return f"write '{slip[1].lower()}://{source[slip.end() :]}'"
    elif _check_scheme(scheme[1]):
        return _check_scheme(scheme[1])
    rest = source[scheme.end() :] if scheme else source
    host, slash, path = rest.partition("/")
    name, colon, port = host.partition(":")
    if re.search(r"[?#]", rest):
        return "browsers look at host and path alone: leave out what follows '?' and '#'"
    if "@" in host:
        return "a host has no user name: leave out what stands before '@'"
    if "[" in host:
        return "browsers know no IPv6 addresses here: write a host name"
    if not _HOST.fullmatch(name):
        if _HOST.fullmatch(name.replace("_", "-")):
            return "browsers read no host name that has a '_'"
        if "*" in name:
            return "'*' stands for a whole host, or as '*.' for all that is below one"
        return (
            "must be a keyword in quotes, a scheme such as 'data:', or a host such as "
            "'https://cdn.example' or '*.example'"
        )
    if colon and not _PORT.fullmatch(colon + port):
        if scheme is None and name.lower() in ("http", "https", "ws", "wss"):
            return f"write '{name.lower()}://{rest[len(name) + 1 :]}'"
        if scheme is None and name.lower() in _SCHEMES:
            return f"write '{name.lower()}:'; what follows it is not looked at"
        return "a port is a number, or '*' for any"
    if "*" in path:
        return f"a path has no '*': {source[: source.index('/', -len(slash + path))]}/ is all below"
    if path.startswith("/"):
        return "a path begins with one '/'"
    return ""


def _check_scheme(scheme: str) -> str:
    if scheme.lower() not in _SCHEMES and suggest(scheme, _SCHEMES, "", cutoff=0.85):
        return explain_unknown("scheme", scheme, _SCHEMES)
    return ""

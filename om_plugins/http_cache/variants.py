"""The responses at one address, and which of them a request selects.

A response is selected by inputs (:mod:`om_plugins.core.inputs`): by the request fields that its
``Vary`` names, normalized (RFC 9111 section 4.1), and by the headers and cookies that the code of
its request was seen to look at. Its key adds a keyed digest of their names and values to the key of
the address, so it tells nothing about a visitor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..core.inputs import (
    ACCEPTS,
    EnvironReader,
    IncomparableInput,
    InputReader,
    InputRules,
    encode_value,
    header_variable,
    parse_weights,
)

_MOST_MEMOIZED = 256
_MOST_NAME_SETS = 4
_METHODS = frozenset({"best_match", "quality", "__contains__"})
_LANGUAGE = ("vary:accept-language",)
ENCODED = ("vary:accept-encoding",)
"""What selects a compressed response."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What the code of a request was seen to look at.

    Attributes:
        counted: the inputs that its response depends on.
        every: these, and what known readers looked at.
        session_cookie: the cookie that the session comes from; "" when that is not known.
    """

    counted: tuple[str, ...] = ()
    every: tuple[str, ...] = ()
    session_cookie: str = ""


@dataclass(slots=True)
class VariantIndex:
    """The variants that are stored at one address.

    Attributes:
        names: the sets of inputs that responses are selected by, newest first.
        generation: part of the variants' keys; a new index makes all old variants unreachable.
        keys: the keys of the variants, oldest first.
        languages: the key of a variant by its ``Content-Language``, for variants that are selected
            by ``Accept-Language`` alone.
        memo: keys by the ``Accept`` fields as sent; saves normalizing them for each request.
    """

    names: list[tuple[str, ...]]
    generation: str
    keys: list[str] = field(default_factory=list)
    languages: dict[str, str] = field(default_factory=dict)
    memo: dict[tuple[object, ...], str] = field(default_factory=dict)

    def candidates(
        self, key: str, environ: Mapping[str, object], rules: InputRules
    ) -> Iterable[str]:
        """Yield the keys of the variants that may answer a request, best first.

        Args:
            key: the key of the address.
            environ: the request.
            rules: how inputs are compared.
        """
        reader = EnvironReader(environ)
        for names in self.names:
            found = self._find(key, names, environ, reader, rules)
            if found:
                yield found
        wanted = environ.get("HTTP_ACCEPT_LANGUAGE")
        if isinstance(wanted, str) and wanted and self.languages:
            by_language = self.languages.get(preferred_language(wanted))
            if by_language:
                yield by_language

    def _find(
        self,
        key: str,
        names: tuple[str, ...],
        environ: Mapping[str, object],
        reader: InputReader,
        rules: InputRules,
    ) -> str:
        fields = _list_negotiated(names)
        if not fields:  # other values may say who the client is, and are kept nowhere
            return variant_key(key, self.generation, names, reader, rules)
        values = (names, *(environ.get(name) for name in fields))
        found = self.memo.get(values)
        if found is None:
            found = variant_key(key, self.generation, names, reader, rules)
            if len(self.memo) >= _MOST_MEMOIZED:
                self.memo.clear()
            self.memo[values] = found
        return found

    def add(self, variant: str, names: tuple[str, ...], language: str) -> VariantIndex:
        """Return an index that lists a variant as the newest one; ``self`` if it does already.

        Args:
            variant: the key of the variant.
            names: the inputs that select it.
            language: its ``Content-Language``; "" when it has none.
        """
        if variant in self.keys and self.names[:1] == [names]:
            return self
        languages = dict(self.languages)
        if names == _LANGUAGE and language:
            languages[language] = variant
        return VariantIndex(
            [names, *(other for other in self.names if other != names)][:_MOST_NAME_SETS],
            self.generation,
            [*(key for key in self.keys if key != variant), variant],
            languages,
        )


def _list_negotiated(names: Iterable[str]) -> list[str]:
    """Return the variables of the ``Accept`` fields that inputs are; empty when one is another."""
    found = []
    for name in names:
        kind, _, rest = name.partition(":")
        header = rest.partition(":")[0]
        if kind not in ("vary", "accept") or header not in ACCEPTS:
            return []
        found.append(header_variable(header))
    return found


def variant_key(
    key: str, generation: str, names: Sequence[str], reader: InputReader, rules: InputRules
) -> str:
    """Return the key of the variant that a request selects; "" when an input cannot be compared.

    Args:
        key: the key of the address.
        generation: of the address's :class:`VariantIndex`; a new one makes all old variants
            unreachable.
        names: the inputs that select the variant.
        reader: reads what the request brought.
        rules: how inputs are compared.
    """
    digest = digest_selecting(names, reader, rules)
    return "" if digest is None else f"{key}\n{generation}\n{digest}"


def digest_selecting(names: Sequence[str], reader: InputReader, rules: InputRules) -> str | None:
    """Digest the inputs that select a response, with their names.

    Two requests with the same digest select the same response.

    Returns:
        The digest; "" without inputs; ``None`` when a value cannot be compared.
    """
    if not names:
        return ""
    try:
        return rules.digest([encode_value(tuple(names)), *(reader.read(name) for name in names)])
    except (IncomparableInput, AttributeError, TypeError, LookupError):
        return None  # an Accept method that was asked with values of another type


def is_selecting(name: str) -> bool:
    """Whether a name that a store returned is that of an input which a request is selected by."""
    kind, _, rest = name.partition(":")
    if kind in ("cookie", "header", "vary"):
        return bool(rest)
    if kind != "accept":
        return name == "cookies"
    header, _, question = rest.partition(":")
    method, _, arguments = question.partition(":")
    try:
        return header in ACCEPTS and method in _METHODS and isinstance(json.loads(arguments), list)
    except ValueError:
        return False


def preferred_language(value: str) -> str:
    """Return the one language that ``Accept-Language`` prefers to all others; "" without one."""
    found = sorted(parse_weights(value), key=lambda one: -one[1])
    if not found or found[0][1] <= 0 or (len(found) > 1 and found[1][1] == found[0][1]):
        return ""
    return found[0][0]

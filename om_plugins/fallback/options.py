"""The options of one path or view whose failures are answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from ..settings.kinds import BOOL, METHODS, STATUSES, STRINGS, choice, integer, number
from ..settings.table import Table, key

STALE = "stale"
"""Among what answers for a view with a fallback: the copy of the last good answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackOptions(Table):
    """What answers in place of a view of the host app that failed."""

    TITLE: ClassVar[str] = "A fallback's options"

    SHORT: ClassVar[str] = "answers"
    RENAMED: ClassVar[Mapping[str, str]] = {"keep_s": "keep", "copy_every_s": "copy_every"}
    SHORTER: ClassVar[Mapping[str, str]] = {"copy_every": "keep"}

    answers: tuple[str, ...] = key(
        (STALE,),
        STRINGS,
        "what answers instead, in this order: `stale` (the last good answer of that very address) "
        "or the name of a chain; a friendly page comes after the last one",
    )
    statuses: tuple[int, ...] = key(
        (500, 502, 503, 504), STATUSES, "answers of the app that count as failed"
    )
    methods: tuple[str, ...] = key(
        ("GET", "HEAD"),
        METHODS,
        "methods for which chains are asked; a copy answers GET and HEAD alone",
    )
    own_body: str = key(
        "json",
        choice("json", "always", "never"),
        "which of the app's own error bodies are sent when nothing else answers: its JSON, any "
        "that it made on purpose, or none",
    )
    page: bool = key(
        True, BOOL, "the friendly page; when false the app's own error is sent, or raised"
    )
    timeout: float | None = key(
        None, number(0.001, 3600, "seconds"), "deadline of a chain; its own when not set"
    )
    keep: float = key(
        86_400.0, number(1, 31_536_000, "seconds"), "how old a copy may be that answers"
    )
    copy_every: float = key(
        60.0, number(0, 86_400, "seconds"), "a copy of one address is renewed no sooner"
    )
    max_copy: int = key(256 * 1024, integer(1, 2**31, "bytes"), "largest body that is copied")
    copies: int = key(
        200,
        integer(1, 100_000),
        "copies that a process keeps, at most: an address has one for each kind of visitor that "
        "its page tells apart",
    )

    @classmethod
    def from_arguments(
        cls, answers: tuple[object, ...], chain: str, options: Mapping[str, object]
    ) -> Self:
        """Read the arguments of ``@om.fallback``.

        Raises:
            ConfigError: an option is unknown or not allowed.
            TypeError: the decorator has no parentheses.
        """
        if len(answers) == 1 and callable(answers[0]):
            raise TypeError("@om.fallback needs its answers: write @om.fallback('stale')")
        if chain:
            answers = (*answers, chain)
        given = {**options, "answers": answers} if answers else options
        return cls.from_mapping(given, where="fallback: ")

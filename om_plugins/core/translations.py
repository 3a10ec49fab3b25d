"""Plain words for end users, in the language of their browser.

The English text is the key; other languages are gettext catalogues in ``om_plugins/locale``. What
a person reads names neither an error class nor a route: names come from ``OM_DISPLAY_NAMES``.
"""

from __future__ import annotations

import functools
import gettext
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["LANGUAGES", "Words", "display_name", "words"]

LANGUAGES = ("en", "ko")
"""What there are words in; the first is for everybody else."""

_PAGE = "This page"
_BLANK = re.compile(r"\{(\w+)\}")
_MAX_HEADER = 500


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one language.

    Attributes:
        language: its code, such as ``en``.
    """

    language: str
    _catalogue: gettext.NullTranslations

    def gettext(self, message: str) -> str:
        """``message`` in this language; as it is when there is no translation."""
        return self._catalogue.gettext(message)

    def __call__(self, text: str, /, **values: str) -> str:
        """``text`` in this language, with ``values`` in its blanks: ``{name}`` for ``name=…``.

        A blank without a value stays as it is, so this never raises.
        """
        said = self.gettext(text)
        return _BLANK.sub(lambda blank: str(values.get(blank[1], blank[0])), said)


def words(of: WSGIEnvironment | str = "") -> Words:
    """The words for a request, by its ``Accept-Language``, or for a language.

    Args:
        of: a WSGI environ, or the text of such a header; a language code is one.
    """
    header = of if isinstance(of, str) else of.get("HTTP_ACCEPT_LANGUAGE", "")
    return _catalogue(_language(header))


def display_name(
    subject: str,
    names: Mapping[str, str | Mapping[str, str]],
    language: Words | None = None,
) -> str:
    """What people call a chain or a route.

    Args:
        subject: ``chain:<name>`` or ``route:<rule>``.
        names: ``OM_DISPLAY_NAMES``: names by subject, chain or rule; a name may be a mapping from
            languages, of which the first stands in for those that are missing.
        language: the reader's; English when not given.
    """
    language = language or words()
    kind, _, inner = subject.partition(":")
    for known in (subject, inner):
        if known in names:
            name = names[known]
            if isinstance(name, str):
                return name
            return name.get(language.language) or next(iter(name.values()))
    if kind == "chain" and inner:
        return inner.replace("-", " ").replace("_", " ").strip().capitalize()
    return language(_PAGE)


@functools.lru_cache(maxsize=256)
def _language(header: str) -> str:
    if len(header) > _MAX_HEADER:
        return LANGUAGES[0]
    for tag, quality in parse_accept_header(header, LanguageAccept):  # the best one first
        primary = tag.replace("_", "-").partition("-")[0].lower()
        if quality > 0 and primary in LANGUAGES:
            return primary
    return LANGUAGES[0]


@functools.cache
def _catalogue(language: str) -> Words:
    file = importlib.resources.files("om_plugins") / "locale" / language / "LC_MESSAGES"
    if language == "en":  # the sentences themselves
        return Words(language, gettext.NullTranslations())
    with (file / "om_plugins.mo").open("rb") as catalogue:
        return Words(language, gettext.GNUTranslations(catalogue))

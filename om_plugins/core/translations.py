"""Translations: what this package says to end users, in the language of their browser.

The English text is the key. Other languages are gettext catalogues in ``om_plugins/locale``. What
end users read names neither an error class nor a route: names come from ``OM_DISPLAY_NAMES``.
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

LANGUAGES = ("en", "ko")
"""The languages that there are texts in. The first one is for everybody else."""

_PAGE = "This page"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_MAX_HEADER = 500


@dataclass(frozen=True, slots=True)
class Translations:
    """The texts of one language.

    Attributes:
        language: the code of the language, such as ``en``.
    """

    language: str
    _catalogue: gettext.NullTranslations

    def gettext(self, message: str) -> str:
        """Return ``message`` in this language; unchanged when there is no translation."""
        return self._catalogue.gettext(message)

    def __call__(self, text: str, /, **values: str) -> str:
        """Translate ``text``, then replace ``{name}`` with the value of ``name``.

        A placeholder without a value stays as it is, so this never raises.
        """
        translated = self.gettext(text)
        return _PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), translated)


def load_translations(of: WSGIEnvironment | str = "") -> Translations:
    """Return the translations for a request, by its ``Accept-Language``, or for a language.

    Args:
        of: a WSGI environ, the text of such a header, or a language code.
    """
    header = of if isinstance(of, str) else of.get("HTTP_ACCEPT_LANGUAGE", "")
    return _load_catalogue(_choose_language(header))


def display_name(
    subject: str,
    names: Mapping[str, str | Mapping[str, str]],
    language: Translations | None = None,
) -> str:
    """Return the name of a chain or a route for end users.

    Args:
        subject: ``chain:<name>`` or ``route:<rule>``.
        names: ``OM_DISPLAY_NAMES``: names by subject, chain or rule. A name may be a mapping by
            language, whose first one stands for the languages that it does not have.
        language: the reader's language; English when not given.
    """
    language = language or load_translations()
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
def _choose_language(header: str) -> str:
    if len(header) > _MAX_HEADER:
        return LANGUAGES[0]
    for tag, quality in parse_accept_header(header, LanguageAccept):  # the best one first
        primary = tag.replace("_", "-").partition("-")[0].lower()
        if quality > 0 and primary in LANGUAGES:
            return primary
    return LANGUAGES[0]


@functools.cache
def _load_catalogue(language: str) -> Translations:
    file = importlib.resources.files("om_plugins") / "locale" / language / "LC_MESSAGES"
    if language == "en":  # the texts in the code are English
        return Translations(language, gettext.NullTranslations())
    with (file / "om_plugins.mo").open("rb") as catalogue:
        return Translations(language, gettext.GNUTranslations(catalogue))

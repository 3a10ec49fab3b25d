"""What the demo itself tells people: who answered instead, and which version is live."""

from __future__ import annotations

from flask import Flask

from om_plugins import OpenManager, __version__, signals
from om_plugins.types import Action

from .language import language_now
from .questions.query import Language
from .words import WORDS

__all__ = ["Notices"]


class Notices:
    """Tells by toasts.

    Args:
        om: sends them.
        chain: the chain whose fallbacks are told.
    """

    def __init__(self, om: OpenManager, chain: str) -> None:
        self._om = om
        self._chain = chain

    def listen(self, app: Flask) -> None:
        """Tell of fallbacks for as long as this object lives."""
        signals.engine_fell_back.connect(self.fell_back, sender=app)

    def fell_back(self, app: Flask, *, chain: str, tier: int, **extra: object) -> None:
        """A lower tier answered: say so to the browser that asked, and to nobody else."""
        language = language_now()
        if chain != self._chain or language is None:
            return
        w = WORDS[language]
        self._om.notify.warning(
            w["fell_back_2"] if tier == 2 else w["fell_back_3"],
            title=w["fell_back"],
            key="fallback",
        )

    def version_is_live(self, language: Language) -> None:
        """Tell everyone."""
        w = WORDS[language]
        self._om.notify.info(
            w["live"].format(version=__version__),
            title=w["new_version"],
            to="everyone",
            actions=[Action(w["refresh"], "refresh")],
            key="deploy",
        )

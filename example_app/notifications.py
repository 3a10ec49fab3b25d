"""The demo's own notifications: another tier answered, or a new version is live."""

from __future__ import annotations

from flask import Flask

from om_plugins import OpenManager, __version__, signals
from om_plugins.types import Action

from .language import find_current_language
from .questions.query import Language
from .translations import TRANSLATIONS

__all__ = ["DemoNotifier"]


class DemoNotifier:
    """Sends toasts.

    Args:
        om: sends them.
        chain: the chain whose fallbacks are reported.
    """

    def __init__(self, om: OpenManager, chain: str) -> None:
        self._om = om
        self._chain = chain

    def listen(self, app: Flask) -> None:
        """Report the app's fallbacks for as long as this object lives."""
        signals.engine_fell_back.connect(self.report_fallback, sender=app)

    def report_fallback(self, app: Flask, *, chain: str, tier: int, **extra: object) -> None:
        """Send a toast to the browser that asked, and to no other: a lower tier answered."""
        language = find_current_language()
        if chain != self._chain or language is None:
            return
        w = TRANSLATIONS[language]
        self._om.notify.warning(
            w["fell_back_2"] if tier == 2 else w["fell_back_3"],
            title=w["fell_back"],
            key="fallback",
        )

    def announce_version(self, language: Language) -> None:
        """Send a toast to everyone: the installed version is live."""
        w = TRANSLATIONS[language]
        self._om.notify.info(
            w["live"].format(version=__version__),
            title=w["new_version"],
            to="everyone",
            actions=[Action(w["refresh"], "refresh")],
            key="deploy",
        )

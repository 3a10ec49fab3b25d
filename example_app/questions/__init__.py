"""Understands questions about this machine in English and Korean, and answers from readings."""

from __future__ import annotations

from .answers import answer
from .intents import understand
from .query import INTENTS, Query

__all__ = ["INTENTS", "Query", "answer", "understand"]

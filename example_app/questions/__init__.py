"""Questions about this machine, in English and Korean: understood, then answered from readings."""

from __future__ import annotations

from .answers import answer
from .query import INTENTS, Query
from .understanding import understand

__all__ = ["INTENTS", "Query", "answer", "understand"]

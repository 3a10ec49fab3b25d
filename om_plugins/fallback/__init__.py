"""What answers in place of a view of the host app that failed."""

from __future__ import annotations

from .layer import FALLBACK, RAISED, FallbackLayer

__all__ = ["FALLBACK", "RAISED", "FallbackLayer"]

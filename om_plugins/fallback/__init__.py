"""The shield: what answers in place of a view of the host app that failed."""

from __future__ import annotations

from .layer import RAISED, SHIELD, Shield

__all__ = ["RAISED", "SHIELD", "Shield"]

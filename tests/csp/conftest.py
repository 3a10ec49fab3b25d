"""Requests served as in tests/headers."""

from __future__ import annotations

from tests.headers.conftest import serve, through

__all__ = ["serve", "through"]

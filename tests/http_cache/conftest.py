"""The same cache as in tests/cache."""

from __future__ import annotations

from tests.cache.conftest import clock, fetcher, hub, make_world, store, world

__all__ = ["clock", "fetcher", "hub", "make_world", "store", "world"]

"""What one query asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .keys import Ident, Key
from .refresh__refresh import Fetcher

__all__ = ["Ask"]


@dataclass(slots=True)
class Ask:
    """What one query asked for."""

    key: Key
    ident: Ident
    fetcher: Fetcher
    background: Callable[[], Fetcher] | None
    stale_time: float | None
    cache_time: float | None
    retry: int
    retry_delay: float
    dedupe_time: float
    tags: tuple[str, ...]
    negative_time: float | None = None
    negative_errors: tuple[type[Exception], ...] = ()
    negative: Callable[[Any], bool] | None = None

    @property
    def final(self) -> tuple[type[Exception], ...]:
        """Errors that are an answer: there is none."""
        return () if self.negative_time is None else self.negative_errors

    def is_negative(self, value: object) -> bool:
        """Whether a fetched value says that there is none."""
        if self.negative_time is None:
            return False
        return value is None or (self.negative is not None and self.negative(value))

    def times(self, negative: bool) -> tuple[float | None, float | None]:
        """How long a fetched value is fresh, and kept."""
        if negative:
            return self.negative_time, self.negative_time
        return self.stale_time, self.cache_time

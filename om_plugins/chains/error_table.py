"""The error table: what a chain does with each kind of error, as data.

An error has the row of its nearest class in :data:`TABLE`. What is not there and is an
``Exception`` has the row of ``Exception``; a ``BaseException`` is none of a chain's business: it
is re-raised, and only the permits are given back.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import cast

from ..errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    EngineUnavailable,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    Sent,
    TooLong,
    Transient,
    Unsupported,
)

RATE_LIMIT_DEFAULT_S = 1.0
"""How long a rate-limited engine cools when it did not say."""
RATE_LIMIT_MAX_S = 300.0
"""The longest Retry-After that is believed."""


class Retry(Enum):
    """When the same engine may be asked again by the same call."""

    NEVER = "never"
    IF_SAFE = "if it was not sent, or the call is idempotent"
    IF_IDEMPOTENT = "if the call is idempotent"
    AFTER_WAIT = "if the engine's Retry-After fits the deadline"


class NextTier(Enum):
    """When the next engine may be asked."""

    NEVER = "never"
    ALWAYS = "always: the engine refused, so nothing was done"
    UNLESS_SPENT = "unless the chain is at_most_once and the call may have been sent"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the table.

    Attributes:
        trips: the breaker counts it as a failure.
        cools: the engine is left alone for its Retry-After.
        offline: the engine is left alone until a probe succeeds: an operator must act.
    """

    retry: Retry
    next_tier: NextTier
    trips: bool = False
    cools: bool = False
    offline: bool = False


TABLE: dict[type[BaseException], Outcome] = {
    Transient: Outcome(Retry.IF_SAFE, NextTier.UNLESS_SPENT, trips=True),
    RateLimited: Outcome(Retry.AFTER_WAIT, NextTier.ALWAYS, cools=True),
    AttemptTimeout: Outcome(Retry.IF_IDEMPOTENT, NextTier.UNLESS_SPENT, trips=True),
    CallerDeadline: Outcome(Retry.NEVER, NextTier.NEVER),
    Cancelled: Outcome(Retry.NEVER, NextTier.NEVER),
    InvalidRequest: Outcome(Retry.NEVER, NextTier.NEVER),
    Unsupported: Outcome(Retry.NEVER, NextTier.ALWAYS),
    TooLong: Outcome(Retry.NEVER, NextTier.ALWAYS),
    Misconfigured: Outcome(Retry.NEVER, NextTier.ALWAYS, offline=True),
    # An engine that is full or shut by itself, and a chain inside a chain: that one has retried
    # already, and nested retries multiply.
    EngineUnavailable: Outcome(Retry.NEVER, NextTier.ALWAYS),
    ChainExhausted: Outcome(Retry.NEVER, NextTier.UNLESS_SPENT, trips=True),
    Exception: Outcome(Retry.IF_IDEMPOTENT, NextTier.UNLESS_SPENT, trips=True),
}


def outcome_of(error: Exception) -> Outcome:
    """The row of an error: that of its class, or of its nearest base class."""
    return _row(cast(Hashable, type(error)))


@lru_cache(maxsize=512)
def _row(kind: type[Exception]) -> Outcome:
    return next(TABLE[base] for base in kind.__mro__ if base in TABLE)


def sent_of(error: Exception) -> Sent:
    """Whether the engine may have got the call; an unknown error does not say, so maybe."""
    sent = getattr(error, "sent", "maybe")
    return cast(Sent, sent) if sent in ("no", "yes") else "maybe"


def asked_wait_s(error: BaseException) -> float | None:
    """The seconds that an engine asked to wait; ``None`` when it did not say a number."""
    seconds = getattr(error, "retry_after", None)
    if not isinstance(seconds, int | float) or math.isnan(seconds):
        return None
    return max(float(seconds), 0.0)


def cooling_s(error: Exception) -> float:
    """How long a rate-limited engine is left alone, in seconds."""
    asked_s = asked_wait_s(error)
    return RATE_LIMIT_DEFAULT_S if asked_s is None else min(asked_s, RATE_LIMIT_MAX_S)


def may_retry(error: Exception, idempotent: bool) -> bool:
    """Whether the table lets the same engine be asked again, given time and budget."""
    match outcome_of(error).retry:
        case Retry.NEVER:
            return False
        case Retry.IF_SAFE:
            return idempotent or sent_of(error) == "no"
        case Retry.IF_IDEMPOTENT:
            return idempotent
        case Retry.AFTER_WAIT:
            return True


def may_have_run(error: Exception) -> bool:
    """Whether the engine may have done the work although the call failed."""
    return outcome_of(error).next_tier is NextTier.UNLESS_SPENT and sent_of(error) != "no"

"""Why a request is not answered: the one exception that becomes a problem document."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from ..core.problem import problem
from ..errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    EngineError,
    InvalidRequest,
    TooLong,
)

logger = logging.getLogger("om_plugins")

RETRY_AFTER_S = 5
"""Told when no engine said when to come back."""

Headers = list[tuple[str, str]]


class Refusal(Exception):
    """Stop here and tell the client so.

    Args:
        status: the HTTP status.
        detail: what happened and the way out, in plain words.
        headers: headers that belong to this answer.
        extra: more members of the problem document.
    """

    def __init__(
        self, status: int, detail: str, headers: Sequence[tuple[str, str]] = (), **extra: object
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = list(headers)
        self.document = problem(status, "", detail, **extra)


def refusal_for(error: Exception, where: str) -> Refusal:
    """What a client is told of an error from a chain. Never the error's own text: it is written
    for logs, and may repeat what an upstream said.

    Args:
        error: what the chain raised.
        where: the route and its chain, for the log.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InvalidRequest):
        return Refusal(400, "The question cannot be answered in this form. Check its fields.")
    if isinstance(error, CallerDeadline):
        return Refusal(504, "The answer took too long. Please try again.")
    if isinstance(error, Cancelled):
        return Refusal(503, "The answer was cancelled.", _wait(1), retry_after=1)
    if isinstance(error, ChainExhausted):
        if all(isinstance(one, TooLong) for one in error.exceptions):
            return Refusal(413, "The question is too long. Please shorten it.")
        seconds = whole_seconds(error.retry_after)
        text = (
            "Too many questions at the moment."
            if error.all_rate_limited
            else "The service cannot answer at the moment."
        )
        return Refusal(
            503, f"{text} Please try again in {_words(seconds)}.", _wait(seconds),
            retry_after=seconds,
        )  # fmt: skip
    if isinstance(error, AttemptTimeout):
        return Refusal(504, "The answer took too long. Please try again.")
    if isinstance(error, EngineError):  # of a stream that had begun: nothing was left to fall to
        return Refusal(502, "The answer broke off. Please try again.")
    refusal = Refusal(500, "Something went wrong on our side. Please try again later.")
    logger.error("%s failed, %s", where, refusal.document["instance"], exc_info=error)
    return refusal


def whole_seconds(seconds: float | None) -> int:
    """A ``Retry-After``: at least a second and at most an hour."""
    if seconds is None or math.isnan(seconds):
        return RETRY_AFTER_S
    return math.ceil(min(max(seconds, 1.0), 3600.0))


def _words(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} second" + ("s" if seconds != 1 else "")
    return f"{math.ceil(seconds / 60)} minutes"


def _wait(seconds: int) -> Headers:
    return [("Retry-After", str(seconds))]

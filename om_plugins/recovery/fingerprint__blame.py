"""Which errors count: those of an engine or of our own code, never those of the caller.

A question that is wrong, a client that left and a caller in a hurry say nothing about how the
application is doing.
"""

from __future__ import annotations

from collections.abc import Sequence

from werkzeug.exceptions import HTTPException

from ..errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    EngineUnavailable,
    InvalidRequest,
    TooLong,
    Unsupported,
)
from ..types import Attempt

_CALLERS = (CallerDeadline, Cancelled, InvalidRequest, TooLong, Unsupported)


def counts(error: BaseException) -> bool:
    """Whether an error that reached a request's end is one of ours."""
    if not isinstance(error, Exception) or isinstance(error, (*_CALLERS, BrokenPipeError)):
        return False
    if isinstance(error, HTTPException):  # ClientDisconnected is a 400
        return (error.code or 500) >= 500
    return True


def blamed(attempts: Sequence[Attempt], fair_share_s: float) -> Exception | None:
    """The first error by which an engine, and not the caller, failed a call.

    Args:
        attempts: what a chain tried, in order.
        fair_share_s: an engine that was given less time than this is not to blame for taking
            longer.

    Returns:
        ``None`` when no engine was asked, or none is to blame.
    """
    for one in attempts:
        error = one.error
        if one.skipped or isinstance(error, _CALLERS):
            continue
        if isinstance(error, AttemptTimeout) and one.duration_s < fair_share_s:
            continue
        return error
    return None


def shut(attempts: Sequence[Attempt]) -> Exception | None:
    """Why the first engine that was left out was not asked; ``None`` when none was."""
    for one in attempts:
        error = one.error
        if one.skipped and isinstance(error, EngineUnavailable) and error.reason in _SHUT:
            return error
    return None


_SHUT = ("breaker open", "cooling down", "offline")

"""Which errors count: those of an engine or of our own code, never those of the caller.

A question that is wrong, a client that left and a caller in a hurry say nothing about the state of
the application.
"""

from __future__ import annotations

from collections.abc import Sequence

from werkzeug.exceptions import HTTPException

from ..errors import AttemptTimeout, EngineUnavailable, OpenManagerError
from ..policies.error_table import blames_engine, is_about_caller
from ..types import Attempt

_SKIP_REASONS = ("breaker open", "cooling down", "offline")


def is_counted(error: BaseException) -> bool:
    """Whether an error that ended a request is an error of this application."""
    if not isinstance(error, Exception) or isinstance(error, BrokenPipeError):
        return False
    if isinstance(error, OpenManagerError) and is_about_caller(error):
        return False
    if isinstance(error, HTTPException):  # ClientDisconnected is a 400
        return (error.code or 500) >= 500
    return True


def find_engine_error(attempts: Sequence[Attempt], fair_share_s: float) -> Exception | None:
    """Return the first error in a call that is an engine's fault and not the caller's.

    Args:
        attempts: those of a chain, in order.
        fair_share_s: a timeout is not the fault of an engine that had less time than this.

    Returns:
        ``None`` when no engine was asked, or none is at fault.
    """
    for one in attempts:
        error = one.error
        if one.skipped or not blames_engine(error):
            continue
        if isinstance(error, AttemptTimeout) and one.duration_s < fair_share_s:
            continue
        return error
    return None


def find_skip_reason(attempts: Sequence[Attempt]) -> Exception | None:
    """Return why the first engine that was skipped for its state was not asked.

    Returns:
        ``None`` when no engine was skipped for its state.
    """
    for one in attempts:
        error = one.error
        if one.skipped and isinstance(error, EngineUnavailable) and error.reason in _SKIP_REASONS:
            return error
    return None

"""The error table: what a chain does with each kind of error.

The rows are the attributes of the classes in :mod:`om_plugins.errors`. An error has the row of its
class. An ``Exception`` that is not an :class:`~om_plugins.errors.OpenManagerError` has the row of
that base class, since nothing is known about it, unless it carries the status of an upstream that
refused the call: :class:`ForeignRefusal`. A ``BaseException`` is none of a chain's business: the
chain gives its permits back and raises it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, cast

from ..errors import ChainExhausted, NextTier, OpenManagerError, Retry, Sent

RATE_LIMIT_DEFAULT_S = 1.0
"""How long a rate-limited engine cools down when it does not say."""
RATE_LIMIT_MAX_S = 300.0
"""The longest Retry-After that a chain believes."""


class ForeignRefusal(OpenManagerError):
    """The row of errors of other packages that carry a 3xx or 4xx: an upstream refused the call.

    Like :class:`~om_plugins.errors.Misconfigured`. But an engine that raises it may have done a
    part of its work before, so a chain that is ``at_most_once`` asks no other engine.
    """

    retry = Retry.NEVER
    trips = False
    cooldown = "offline"


_NO_REFUSALS = frozenset({408, 425, 429})
"""Statuses that say something about the upstream or the moment, and not about the call."""


def row_of(error: BaseException) -> type[OpenManagerError]:
    """Return the class whose attributes say what a chain does with an error."""
    if isinstance(error, OpenManagerError):
        return type(error)
    status = find_http_status(error)
    refused = status is not None and status < 500 and status not in _NO_REFUSALS
    return ForeignRefusal if refused else OpenManagerError


def find_http_status(error: BaseException) -> int | None:
    """Return the HTTP status of the answer that an error of another package is about.

    ``requests``, ``httpx`` and most clients of services have it as ``response.status_code``, others
    as ``status_code``, ``aiohttp`` as ``status``, werkzeug as ``code``, ``xmlrpc`` as ``errcode``,
    ``botocore`` deep in a dict.

    Returns:
        300 to 599; ``None`` for none.
    """
    response = _read(error, "response")
    if isinstance(response, Mapping):  # botocore
        about = response.get("ResponseMetadata")
        found = [about.get("HTTPStatusCode")] if isinstance(about, Mapping) else []
    else:
        found = [_read(response, name) for name in ("status_code", "status")]
        found += [_read(error, name) for name in ("status_code", "status", "code", "errcode")]
    for status in found:
        if isinstance(status, int) and not isinstance(status, bool) and 300 <= status <= 599:
            return int(status)
    return None


def _read(one: object, name: str) -> object:
    try:
        return getattr(one, name, None)
    except Exception:  # noqa: BLE001 - a property of a foreign class may raise anything
        return None


def sent_of(error: Exception) -> Sent:
    """Return whether the engine may have received the call; "maybe" where the error does not
    say."""
    sent = getattr(error, "sent", "maybe")
    return cast(Sent, sent) if sent in ("no", "yes") else "maybe"


def is_about_caller(error: BaseException) -> bool:
    """Return whether an error says nothing about the engine, because the caller caused it.

    Either its class says so, or the engine refused the credentials that this caller brought, or it
    is a chain all of whose engines said so.
    """
    if isinstance(error, ChainExhausted):
        return all(map(is_about_caller, error.exceptions))
    return row_of(error).callers_fault or _concerns_caller(error)


def trips_breaker(error: BaseException) -> bool:
    """Return whether a breaker counts an error as a failure of the engine."""
    if isinstance(error, ChainExhausted):  # perhaps its engines refused this call only
        return blames_engine(error)
    return row_of(error).trips and not _concerns_caller(error)


def cooldown_of(error: BaseException) -> Literal["", "cooling down", "offline"]:
    """Return how long the engine gets no calls; see :class:`~om_plugins.errors.OpenManagerError`.

    ``"offline"`` holds only for an error of the engine's own probe. An error of a call that says
    "offline" is a reason to ask that probe.
    """
    return "" if _concerns_caller(error) else row_of(error).cooldown


def blames_engine(error: BaseException) -> bool:
    """Return whether the error of a call is certainly the engine's fault.

    An error that says "offline" is not: perhaps the engine refused this call only. What the
    engine's own probe says about it appears as :class:`~om_plugins.errors.EngineUnavailable` of
    the calls after it.
    """
    if isinstance(error, ChainExhausted):
        return any(map(blames_engine, error.exceptions))
    return not is_about_caller(error) and cooldown_of(error) != "offline"


def _concerns_caller(error: BaseException) -> bool:
    return getattr(error, "concerns_caller", False) is True


def asked_wait_s(error: BaseException) -> float | None:
    """Return the seconds that an engine asked to wait; ``None`` when it did not give a number."""
    seconds = getattr(error, "retry_after", None)
    if not isinstance(seconds, int | float) or math.isnan(seconds):
        return None
    return max(float(seconds), 0.0)


def cooling_s(error: Exception) -> float:
    """Return how long a rate-limited engine is left alone, in seconds."""
    asked_s = asked_wait_s(error)
    return RATE_LIMIT_DEFAULT_S if asked_s is None else min(asked_s, RATE_LIMIT_MAX_S)


def may_retry(error: Exception, idempotent: bool) -> bool:
    """Return whether the table lets a call ask the same engine again, given time and budget."""
    match row_of(error).retry:
        case Retry.NEVER:
            return False
        case Retry.IF_SAFE:
            return idempotent or sent_of(error) == "no"
        case Retry.IF_IDEMPOTENT:
            return idempotent
        case Retry.AFTER_WAIT:
            return True


def may_have_run(error: Exception) -> bool:
    """Return whether the engine may have done the work although the call failed."""
    return row_of(error).next_tier is NextTier.UNLESS_SPENT and sent_of(error) != "no"

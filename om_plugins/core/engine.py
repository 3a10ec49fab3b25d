"""What chains and engines tell each other beside calls and answers.

:mod:`om_plugins.types` exports these classes; plugins import them from there. This module imports
nothing of the package, so that errors and calls can both refer to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypedDict

Sent = Literal["no", "maybe", "yes"]
"""Whether an engine may have received a request."""


@dataclass(slots=True)
class HttpRequest:
    """A whole HTTP request, as the payload of a call to engines that speak HTTP raw.

    Attributes:
        method: the HTTP method, upper case.
        target: path and query as they stand in the request line (RFC 9112 section 3.2.1),
            percent-encoded.
        headers: name and value in order, repeated names apart. No line breaks in either.
        body: bytes, which may be sent again, or an iterable of bytes, which can be read once.
        length: of a body that is an iterable, in bytes; ``None`` when it is not known.
    """

    method: str = "GET"
    target: str = "/"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | Iterable[bytes] = b""
    length: int | None = None


@dataclass(slots=True)
class HttpResponse:
    """A whole HTTP response, or its head when the answer's ``chunks`` are its body.

    Attributes:
        status: the HTTP status code.
        headers: name and value in order, repeated names apart; no hop-by-hop ones (RFC 9110
            section 7.6.1). ``Content-Length`` is there when it is known.
        body: the body as it was sent, still with its Content-Encoding; empty when streamed.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


@dataclass(slots=True, kw_only=True, frozen=True)
class EngineTraits:
    """What a chain must know of an engine before it may ask it.

    Attributes:
        streaming: it can answer in chunks.
        idempotent: asking twice does no more than asking once.
        local: it has no effect outside this process, so it may answer any call, at any time.
        cancellable: it ends soon after ``call.remaining()`` is over.
        hedge_safe: two of the same call may run at once.
        max_concurrency: how many calls it takes at once; ``None`` for no limit.
        breaker_key: engines with the same key share one breaker (the same host); "" for its own.
    """

    streaming: bool = False
    idempotent: bool = False
    local: bool = False
    cancellable: bool = False
    hedge_safe: bool = False
    max_concurrency: int | None = None
    breaker_key: str = ""


class EngineTraitKeywords(TypedDict, total=False):
    """The fields of :class:`EngineTraits` as keywords."""

    streaming: bool
    idempotent: bool
    local: bool
    cancellable: bool
    hedge_safe: bool
    max_concurrency: int | None
    breaker_key: str


@dataclass(slots=True)
class EngineSpec:
    """One engine's place in a chain, as ``om_engines`` returns it.

    Attributes:
        engine: an :class:`~om_plugins.protocols.Engine`.
        chain: the chain's name.
        tier: lower tiers are asked first, from 1.
        weight: share among engines of the same tier.
    """

    engine: object
    chain: str
    tier: int = 1
    weight: float = 1.0


@dataclass(slots=True)
class Attempt:
    """One attempt that failed, or one engine that was skipped."""

    engine: str
    tier: int
    number: int
    error: Exception
    sent: Sent
    duration_s: float
    skipped: bool = False

    def as_dict(self) -> dict[str, object]:
        """For logs and JSON: the error as its class name, never its text."""
        return {
            "engine": self.engine,
            "tier": self.tier,
            "number": self.number,
            "error": type(self.error).__name__,
            "skipped": self.skipped,
            "duration_ms": round(self.duration_s * 1000, 1),
        }


class Health(StrEnum):
    """How an engine is doing, read from its breaker and recent calls."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    NO_DATA = "no data"


@dataclass(slots=True)
class EngineHealth:
    """A snapshot of one engine's health.

    Attributes:
        failure_rate: share of failed calls in the breaker's window, 0 to 1.
        slow_rate: share of slow calls in the window, 0 to 1.
        samples: calls in the window.
        since: when the state began (Unix time).
        last_error: class name of the newest failure, "" for none.
        forced: what an operator decided of its breaker, ``"open"`` or ``"closed"``; "": nothing.
        ejected: its equals do better, so it is asked last for a while.
        probed_at: when a prober last looked at it (Unix time), ``None`` for never.
    """

    engine: str
    chain: str
    tier: int
    state: Health
    failure_rate: float
    slow_rate: float
    samples: int
    since: float
    last_error: str = ""
    forced: str = ""
    ejected: bool = False
    probed_at: float | None = None

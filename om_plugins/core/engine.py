"""The values that chains and engines exchange, except calls and answers.

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
    """A whole HTTP request: the payload of a call to engines that pass requests on unchanged.

    Attributes:
        method: the HTTP method, upper case.
        target: path and query as in the request line (RFC 9112 section 3.2.1), percent-encoded.
        headers: pairs of name and value in order. A repeated name has one pair for each value.
            Neither contains line breaks.
        body: bytes, which an engine may send again, or an iterable of bytes, which it can read
            once.
        length: the length of an iterable body in bytes; ``None`` when it is not known.
    """

    method: str = "GET"
    target: str = "/"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | Iterable[bytes] = b""
    length: int | None = None


@dataclass(slots=True)
class HttpResponse:
    """A whole HTTP response, or its head when the ``chunks`` of the answer are its body.

    Attributes:
        status: the HTTP status code.
        headers: pairs of name and value in order. A repeated name has one pair for each value.
            Hop-by-hop headers (RFC 9110 section 7.6.1) are left out. ``Content-Length`` is included
            when it is known.
        body: the body as the upstream sent it, with its Content-Encoding; empty when streamed.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


@dataclass(slots=True, kw_only=True, frozen=True)
class EngineTraits:
    """The properties of an engine that decide how a chain may call it.

    Attributes:
        streaming: the engine can answer in chunks.
        idempotent: two calls have the same effect as one.
        local: the engine has no effect outside this process, so it may answer any call at any time.
        cancellable: the engine stops soon after ``call.remaining()`` has become negative.
        hedge_safe: the same call may run twice at the same time.
        max_concurrency: how many calls the engine accepts at the same time; ``None`` for no limit.
        breaker_key: engines with the same key (the same host) share one breaker; "" for a breaker
            of its own.
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


class FunctionEngineKeywords(EngineTraitKeywords, total=False):
    """The keywords of ``@om.engine``: those of
    :class:`om_plugins.builtin.engines.callable.CallableEngine`."""

    max_threads: int | None
    interrupt: bool


@dataclass(slots=True)
class EngineSpec:
    """An engine, and its position in a chain. ``om_engines`` returns these.

    Attributes:
        engine: an :class:`~om_plugins.protocols.Engine`.
        chain: the name of the chain.
        tier: the tier, from 1. A chain calls lower tiers first.
        weight: the share of the calls among the engines of the same tier.
    """

    engine: object
    chain: str
    tier: int = 1
    weight: float = 1.0


@dataclass(slots=True)
class Attempt:
    """A failed attempt, or an engine that the chain skipped."""

    engine: str
    tier: int
    number: int
    error: Exception
    sent: Sent
    duration_s: float
    skipped: bool = False

    def as_dict(self) -> dict[str, object]:
        """Return the attempt as data for logs and JSON, with the class of the error, but not its
        text."""
        return {
            "engine": self.engine,
            "tier": self.tier,
            "number": self.number,
            "error": type(self.error).__name__,
            "skipped": self.skipped,
            "duration_ms": round(self.duration_s * 1000, 1),
        }


class Health(StrEnum):
    """The state of an engine, computed from its breaker and its latest calls."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    NO_DATA = "no data"


@dataclass(slots=True)
class EngineHealth:
    """The health of one engine at one moment.

    Attributes:
        failure_rate: the share of failed calls in the window of the breaker, 0 to 1.
        slow_rate: the share of slow calls in the window, 0 to 1.
        samples: the number of calls in the window.
        since: when the state began (Unix time).
        last_error: the class name of the newest failure; "" for none.
        forced: the state that an operator gave the breaker, ``"open"`` or ``"closed"``; "" for
            none.
        ejected: the chain calls the engine last for a while, because the other engines of its tier
            do better.
        probed_at: when a health check last ran (Unix time); ``None`` for never.
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

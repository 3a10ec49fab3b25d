"""A call to a chain of engines, and its answer.

:mod:`om_plugins.types` exports both classes; plugins import them from there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..errors import AttemptTimeout, CallerDeadline, Cancelled
from .engine import Attempt

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_call_numbers = itertools.count(1)

caller_gone: ContextVar[Callable[[], bool] | None] = ContextVar(
    "om_plugins.caller_gone", default=None
)
"""Says, without waiting, whether the client for whom a call is made has gone away. Who serves the
client sets it around the call; the HTTP engines look about twice a second while they wait, also
for the later chunks of a stream, and cancel the call."""

current_request: ContextVar[WSGIEnvironment | None] = ContextVar(
    "om_plugins.current_request", default=None
)
"""The WSGI environ of the request for which a chain is called, for code that is called from inside
the chain. ``None`` when no request is known."""


class Call:
    """One question to a chain of engines; the same object on every attempt.

    Args:
        payload: what to answer. Engines must not change it.
        chain: the chain's name.
        headers: request headers to pass on (lower-case names).
        method: the HTTP method of the question, for engines that care; an ``HttpEngine`` uses
            its own.
        stream: the caller wants chunks as they come.
        idempotent: whether the *same* engine may be asked again; ``None`` leaves it to the
            engine's trait.
        idempotency_key: sent with every attempt; made on first use when not given.
        deadline: when the caller stops waiting, on ``monotonic``'s clock; ``inf`` for never.
        monotonic: the clock.

    Attributes:
        attempt: the number of the attempt under way, from 1, counted over all tiers.
        tier: the tier under way.
        attempt_deadline: when this attempt must have ended; never later than ``deadline``.
    """

    __slots__ = (
        "_callbacks",
        "_cancelled",
        "_id",
        "_idempotency_key",
        "_monotonic",
        "attempt",
        "attempt_deadline",
        "chain",
        "deadline",
        "headers",
        "idempotent",
        "method",
        "payload",
        "stream",
        "tier",
    )

    def __init__(
        self,
        payload: object = None,
        chain: str = "",
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        stream: bool = False,
        idempotent: bool | None = None,
        idempotency_key: str | None = None,
        deadline: float = float("inf"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.payload = payload
        self.chain = chain
        self.headers = headers
        self.method = method
        self.stream = stream
        self.idempotent = idempotent
        self.deadline = deadline
        self.attempt_deadline = deadline
        self.attempt = 1
        self.tier = 1
        self._idempotency_key = idempotency_key
        self._monotonic = monotonic
        self._id: str | None = None
        self._callbacks: list[Callable[[], None]] | None = None
        self._cancelled = False

    @property
    def id(self) -> str:
        """A name for this call, unique in this process and readable in logs."""
        if self._id is None:
            self._id = f"{os.getpid():x}-{next(_call_numbers):x}"
        return self._id

    @property
    def idempotency_key(self) -> str:
        """The ``Idempotency-Key`` of this call: the same on every attempt."""
        if self._idempotency_key is None:
            self._idempotency_key = os.urandom(16).hex()
        return self._idempotency_key

    @property
    def cancelled(self) -> bool:
        """True once :meth:`cancel` was called."""
        return self._cancelled

    def remaining(self) -> float:
        """Seconds left for this attempt; negative when its time is over, ``inf`` for no limit.

        An engine passes this to whatever it waits on: a socket, a lock, a subprocess.
        """
        return self.attempt_deadline - self._monotonic()

    def raise_if_done(self) -> None:
        """Stop here when nobody waits for the answer any more.

        Raises:
            Cancelled: the caller gave up.
            CallerDeadline: the total deadline passed.
            AttemptTimeout: this attempt's time is over, the call's is not.
        """
        if self._cancelled:
            raise Cancelled(f"call {self.id} was cancelled")
        now = self._monotonic()
        if now >= self.deadline:
            raise CallerDeadline(f"call {self.id}: the deadline passed")
        if now >= self.attempt_deadline:
            raise AttemptTimeout(f"call {self.id}: attempt {self.attempt} took too long")

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have ``callback`` run, in another thread perhaps, when the call is cancelled.

        Returns:
            A function that takes the callback back; engines call it when the attempt ends.
        """
        if self._cancelled:
            callback()
            return lambda: None
        if self._callbacks is None:
            self._callbacks = []
        callbacks = self._callbacks
        callbacks.append(callback)
        if self._cancelled or self._callbacks is not callbacks:  # by another thread, just now
            _run(callbacks)

        def remove() -> None:
            with contextlib.suppress(ValueError):  # it has run, or runs just now
                callbacks.remove(callback)

        return remove

    def cut(self) -> None:
        """Stop the attempt under way, not the call: what was given to :meth:`on_cancel` runs.

        For a timer that interrupts an engine at its ``attempt_deadline``; the call goes on to its
        next attempt or tier.
        """
        callbacks, self._callbacks = self._callbacks, None
        _run(callbacks)

    def cancel(self) -> None:
        """Tell the engine at work that nobody waits any more. Safe to call twice."""
        self._cancelled = True
        callbacks, self._callbacks = self._callbacks, None
        _run(callbacks)

    def __repr__(self) -> str:
        return f"<Call {self.id} chain={self.chain!r} tier={self.tier} attempt={self.attempt}>"


def _run(callbacks: list[Callable[[], None]] | None) -> None:
    """Run each once, whoever else does the same; one that raises does not keep the others."""
    if not callbacks:
        return
    try:
        callback = callbacks.pop(0)
    except IndexError:  # another thread took the last one
        return
    try:
        callback()
    finally:
        _run(callbacks)


class Answer:
    """What a chain answered, and how it came about.

    An engine may return one (to set ``metadata`` or ``status``), a plain payload, or an
    iterator of chunks; the chain fills in the rest.

    Args:
        payload: the answer; ``None`` when it is streamed.
        chunks: the iterator of a streamed answer: ``str``, ``bytes`` or JSON-like values. Close
            it (or the answer) when you stop early.
        engine: the name of the engine that answered.
        tier: its tier, from 1.
        attempts: how many times an engine was really asked, this time included.
        degraded: True when a tier before this one exists and could not answer.
        stale: True for a copy of an earlier answer.
        status: the HTTP status to answer with, for engines that speak HTTP.
        metadata: what the engine wants known: model, usage, age of a copy.
        history: one record per failed or skipped attempt before this one.
        elapsed_s: seconds from the call to the answer (the first chunk, when streamed).
    """

    __slots__ = (
        "attempts",
        "chunks",
        "degraded",
        "elapsed_s",
        "engine",
        "history",
        "metadata",
        "payload",
        "stale",
        "status",
        "tier",
    )

    def __init__(
        self,
        payload: object = None,
        chunks: Iterator[object] | None = None,
        engine: str = "",
        tier: int = 1,
        attempts: int = 1,
        degraded: bool = False,
        stale: bool = False,
        status: int = 200,
        metadata: Mapping[str, object] | None = None,
        history: Sequence[Attempt] = (),
        elapsed_s: float = 0.0,
    ) -> None:
        self.payload = payload
        self.chunks = chunks
        self.engine = engine
        self.tier = tier
        self.attempts = attempts
        self.degraded = degraded
        self.stale = stale
        self.status = status
        self.metadata = metadata
        self.history = history
        self.elapsed_s = elapsed_s

    @property
    def streamed(self) -> bool:
        """True when the answer comes in ``chunks``."""
        return self.chunks is not None

    def __iter__(self) -> Iterator[object]:
        """The chunks of a streamed answer, or the payload as the only one."""
        return iter((self.payload,)) if self.chunks is None else self.chunks

    def close(self) -> None:
        """Give up a streamed answer: the upstream is closed, no breaker counts it."""
        close = getattr(self.chunks, "close", None)
        if close is not None:
            close()

    def __repr__(self) -> str:
        marks = "".join(f" {m}" for m in ("degraded", "stale", "streamed") if getattr(self, m))
        return f"<Answer by {self.engine!r} tier={self.tier} attempts={self.attempts}{marks}>"

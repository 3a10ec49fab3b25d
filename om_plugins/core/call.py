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
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from ..errors import AttemptTimeout, CallerDeadline, Cancelled
from .engine import Attempt

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_call_numbers = itertools.count(1)

caller_gone: ContextVar[Callable[[], bool] | None] = ContextVar(
    "om_plugins.caller_gone", default=None
)
"""A function that returns, without waiting, whether the client of a call has disconnected. The code
that serves the client sets it around the call. The HTTP engines call it about twice a second while
they wait, also for the later chunks of a stream, and cancel the call when it returns True."""

current_request: ContextVar[WSGIEnvironment | None] = ContextVar(
    "om_plugins.current_request", default=None
)
"""The WSGI environ of the request for which a chain is called. Code that the chain calls reads it.
``None`` when no request is known."""


class Call:
    """One call to a chain of engines. All attempts of the call get the same object.

    Args:
        payload: the question. Engines must not change it.
        chain: the name of the chain.
        headers: request headers to pass on, with names in lower case.
        method: the HTTP method of the question, for engines that use it. An ``HttpEngine`` uses
            its own method.
        stream: the caller wants the chunks of the answer as they arrive.
        idempotent: whether the chain may call the *same* engine again; ``None`` uses the trait of
            the engine.
        idempotency_key: the key that every attempt sends; made on first use when not given.
        deadline: when the caller stops waiting, on the clock ``monotonic``; ``inf`` for never.
        monotonic: the clock.

    Attributes:
        attempt: the number of the current attempt, from 1, counted over all tiers.
        tier: the current tier.
        attempt_deadline: when this attempt must have ended; never later than ``deadline``.
    """

    __slots__ = ("_callbacks", "_cancelled", "_id", "_idempotency_key", "_monotonic", "attempt",
                 "attempt_deadline", "chain", "deadline", "headers", "idempotent", "method",
                 "payload", "stream", "tier")  # fmt: skip

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
        """The name of this call: unique in this process, and short enough for logs."""
        if self._id is None:
            self._id = f"{os.getpid():x}-{next(_call_numbers):x}"
        return self._id

    @property
    def idempotency_key(self) -> str:
        """The ``Idempotency-Key`` of this call, which all attempts send."""
        if self._idempotency_key is None:
            self._idempotency_key = os.urandom(16).hex()
        return self._idempotency_key

    @property
    def cancelled(self) -> bool:
        """True once :meth:`cancel` was called."""
        return self._cancelled

    def remaining(self) -> float:
        """Return the seconds left for this attempt.

        An engine passes this number to each wait: on a socket, a lock, a subprocess.

        Returns:
            A negative number when the time of the attempt is over; ``inf`` for no limit.
        """
        return self.attempt_deadline - self._monotonic()

    def raise_if_done(self) -> None:
        """Raise an error when nobody waits for the answer any more.

        Raises:
            Cancelled: the call was cancelled.
            CallerDeadline: the total deadline passed.
            AttemptTimeout: the deadline of this attempt passed, and that of the call did not.
        """
        if self._cancelled:
            raise Cancelled(f"call {self.id} was cancelled")
        now = self._monotonic()
        if now >= self.deadline:
            raise CallerDeadline(f"call {self.id}: the deadline passed")
        if now >= self.attempt_deadline:
            raise AttemptTimeout(f"call {self.id}: attempt {self.attempt} took too long")

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Run ``callback`` when the call is cancelled, possibly in another thread.

        It is a plain function. What it raises reaches who cancels the call.

        Returns:
            A function that removes the callback. Engines call it when the attempt ends.
        """
        if self._cancelled:
            _run_one(callback)
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
        """Stop the current attempt, but not the call: run the callbacks of :meth:`on_cancel`.

        A timer calls this to interrupt an engine at its ``attempt_deadline``. The call continues
        with its next attempt or tier.
        """
        callbacks, self._callbacks = self._callbacks, None
        _run(callbacks)

    def cancel(self) -> None:
        """Cancel the call: run the callbacks of :meth:`on_cancel`. A second call does nothing."""
        self._cancelled = True
        callbacks, self._callbacks = self._callbacks, None
        _run(callbacks)

    def __repr__(self) -> str:
        return f"<Call {self.id} chain={self.chain!r} tier={self.tier} attempt={self.attempt}>"


def _run(callbacks: list[Callable[[], None]] | None) -> None:
    """Run each callback once, also when several threads do this at the same time. An error of one
    callback does not stop the others."""
    if not callbacks:
        return
    try:
        callback = callbacks.pop(0)
    except IndexError:  # another thread took the last one
        return
    try:
        _run_one(callback)
    finally:
        _run(callbacks)


def _run_one(callback: Callable[[], object]) -> None:
    result: Any = callback()
    if result is not None and hasattr(type(result), "__await__"):
        if isinstance(result, CoroutineType):
            result.close()  # else Python warns that nobody awaited it
        raise TypeError(
            f"on_cancel: {callback!r} is async, and nobody awaits it here; give a function that "
            "cancels at once, such as loop.call_soon_threadsafe(task.cancel)"
        )


@dataclass(slots=True, eq=False, repr=False)
class Answer:
    """The answer of a chain, and which engine gave it after which attempts.

    An engine may return an ``Answer`` (to set ``metadata`` or ``status``), a plain payload, or an
    iterator of chunks. The chain sets the other attributes.

    Args:
        payload: the answer; ``None`` when it is streamed.
        chunks: the iterator of a streamed answer: ``str``, ``bytes`` or JSON-like values. A caller
            that stops early closes the iterator or the answer.
        engine: the name of the engine that answered.
        tier: the tier of that engine, from 1.
        attempts: how many times an engine was called, the last time included.
        degraded: True when an earlier tier exists and could not answer.
        stale: True for a copy of an earlier answer.
        status: the HTTP status to answer with, for engines that speak HTTP.
        metadata: more data from the engine, such as model, usage, or the age of a copy.
        history: one record for each failed or skipped attempt before the last one.
        elapsed_s: seconds from the call to the answer (to its first chunk, when streamed).
    """

    payload: object = None
    chunks: Iterator[object] | None = None
    engine: str = ""
    tier: int = 1
    attempts: int = 1
    degraded: bool = False
    stale: bool = False
    status: int = 200
    metadata: Mapping[str, object] | None = None
    history: Sequence[Attempt] = ()
    elapsed_s: float = 0.0

    @property
    def streamed(self) -> bool:
        """True when the answer comes in ``chunks``."""
        return self.chunks is not None

    def __iter__(self) -> Iterator[object]:
        """Return the chunks of a streamed answer, or the payload as the only chunk."""
        return iter((self.payload,)) if self.chunks is None else self.chunks

    def close(self) -> None:
        """Stop a streamed answer early: close the upstream. No breaker counts this."""
        close = getattr(self.chunks, "close", None)
        if close is not None:
            close()

    def __repr__(self) -> str:
        marks = "".join(f" {m}" for m in ("degraded", "stale", "streamed") if getattr(self, m))
        return f"<Answer by {self.engine!r} tier={self.tier} attempts={self.attempts}{marks}>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that a model asks its caller to run.

    Attributes:
        id: the model's name for this request; the caller returns it with the tool's result.
        name: the tool.
        arguments: a JSON text as the model wrote it. It may be broken, or not fit the tool.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """The payload, or the last chunk, of an answer in which a model asks for tools.

    Attributes:
        tool_calls: what it asks for, in order; at least one.
        answer: the text that came before; "" for none. In a stream it came in the chunks before.
        model: the model, as the service names it.
    """

    tool_calls: tuple[ToolCall, ...]
    answer: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class ModelRefusal:
    """The payload, or the last chunk, of an answer in which a model says why it does not answer.

    It is an answer: no engine failed, and no other one is asked.

    Attributes:
        refusal: the model's words.
        answer, model: as in :class:`ToolCalls`.
    """

    refusal: str
    answer: str = ""
    model: str = ""

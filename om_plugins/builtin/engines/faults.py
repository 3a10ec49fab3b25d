"""Chaos: failures on purpose, to see that a chain survives them before its users have to.

::

    options = ChaosOptions.from_mapping({"rate": 0.3, "error": "Transient", "seed": 7})
    ask = Chaos(engine.call, options)

It stands innermost, around the engine's own ``call``, so that retries, breaker and fallback see
what they would see of a real failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from ... import errors
from ...core.clock import SystemClock
from ...errors import AttemptTimeout, EngineError, Sent, Transient
from ...protocols import Clock
from ...settings.kinds import BOOL, choice, integer, number
from ...settings.table import Table, key
from ...types import Answer, Call
from .counts import Counts

__all__ = ["ERRORS", "GARBLES", "Chaos", "ChaosOptions"]

ERRORS = (
    "Transient", "RateLimited", "AttemptTimeout", "InvalidRequest", "Unsupported", "TooLong",
    "Misconfigured", "RuntimeError",
)  # fmt: skip
"""What can be raised: engine errors by name, and ``RuntimeError`` for a bug in an engine."""

GARBLES = ("truncated", "type", "empty")
"""``truncated``: JSON cut in the middle, or a stream that breaks off; ``type``: another type than
was answered; ``empty``: nothing."""

_SLICE_S = 0.1  # a wait notices a cancelled call this late


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosOptions(Table):
    """What is done to how many calls. Of several kinds that are set, each hit gets one."""

    rate: float = key(0.0, number(0, 1), "share of calls that are hit")
    latency_s: float = key(0.0, number(0, 3600, "seconds"), "wait this long before asking")
    hang_s: float = key(
        0.0, number(0, 3600, "seconds"), "wait this long, never ask, and end in AttemptTimeout"
    )
    error: str | None = key(None, choice(*ERRORS), "raise this")
    garble: str | None = key(None, choice(*GARBLES), "ask, then spoil the answer so")
    sent: str = key("maybe", choice("no", "maybe", "yes"), "what a raised error says of itself")
    retry_after_s: float | None = key(
        None, number(0, 3600, "seconds"), "what a raised error asks to wait"
    )
    seed: int | None = key(
        None, integer(-(2**63), 2**63 - 1), "the same hits each time; by chance when not set"
    )
    active: bool = key(True, BOOL, "false leaves every call alone")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of harm that are set."""
        found = {
            "latency": self.latency_s > 0,
            "hang": self.hang_s > 0,
            "error": self.error is not None,
            "garble": self.garble is not None,
        }
        return tuple(kind for kind, is_set in found.items() if is_set)


class Chaos:
    """An engine's ``call`` with failures in it.

    Args:
        ask: the engine's own ``call``.
        options: what to do to how many calls.
        clock: time, for waits; that of the calls.
        name: the engine's, for messages.

    Attributes:
        active: may be switched at any time; begins as the options say.

    With a seed, the n-th call always gets the same; the calls of several threads are numbered in
    the order in which they come.
    """

    def __init__(
        self,
        ask: Callable[[Call], object],
        options: ChaosOptions,
        *,
        clock: Clock | None = None,
        name: str = "",
    ) -> None:
        self.options = options
        self.active = options.active
        self._ask = ask
        self._clock = clock or SystemClock()
        self._name = name
        self._chance: random.Random = (
            random.SystemRandom() if options.seed is None else random.Random(options.seed)
        )
        self._kinds = options.kinds
        self._counts = Counts("calls", "latency", "hang", "error", "garble")

    def __call__(self, call: Call) -> object:
        """Ask the engine, or hit the call.

        Raises:
            EngineError: the one that was asked for.
            CallerDeadline, Cancelled: while it waited.
        """
        if not self.active:
            return self._ask(call)
        self._counts.add(calls=1)
        hit = self._chance.random() < self.options.rate
        if not hit or not self._kinds:
            return self._ask(call)
        kind = self._kinds[int(self._chance.random() * len(self._kinds))]
        self._counts.add(**{kind: 1})
        match kind:
            case "latency":
                self._wait(call, self.options.latency_s)
            case "hang":
                self._wait(call, self.options.hang_s)
                raise AttemptTimeout(f"{self._describe()} hung", sent=self._sent())
            case "error":
                raise self._make_error()
            case "garble":
                return self._garble(self._ask(call))
        return self._ask(call)

    def stats(self) -> dict[str, int]:
        """Calls that came by while it was active, and how many were hit by each kind."""
        return self._counts.snapshot()

    def _wait(self, call: Call, seconds: float) -> None:
        until = self._clock.monotonic() + min(seconds, max(call.remaining(), 0.0))
        while (left := until - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, _SLICE_S))
            if call.cancelled:
                break
        call.raise_if_done()

    def _make_error(self) -> Exception:
        name = self.options.error or "Transient"
        if name == "RuntimeError":
            return RuntimeError(f"{self._describe()}: a bug")
        kind: type[EngineError] = getattr(errors, name)
        return kind(self._describe(), sent=self._sent(), retry_after=self.options.retry_after_s)

    def _garble(self, result: object) -> object:
        how = self.options.garble
        answer = result if isinstance(result, Answer) else None
        chunks = answer.chunks if answer is not None else result
        if hasattr(chunks, "__next__"):
            broken = _break_off(chunks, self._describe(), how or "truncated")  # type: ignore[arg-type]
            if answer is None:
                return broken
            answer.chunks = broken
            return answer
        spoiled = _spoil(answer.payload if answer is not None else result, how)
        if answer is None:
            return spoiled
        answer.payload = spoiled
        return answer

    def _sent(self) -> Sent:
        return self.options.sent  # type: ignore[return-value]  # the table checked it

    def _describe(self) -> str:
        return f"engine {self._name!r}: chaos"


def _spoil(payload: object, how: str | None) -> object:
    if how == "empty":
        return None
    if how == "type":
        return [] if not isinstance(payload, list) else {}
    if isinstance(payload, bytes):
        return payload[: len(payload) // 2]
    try:
        text = payload if isinstance(payload, str) else msgspec.json.encode(payload).decode()
    except (TypeError, ValueError, RecursionError):
        text = '{"'
    return text[: max(len(text) // 2, 1)]


def _break_off(chunks: Iterator[object], where: str, how: str) -> Iterator[object]:
    """The first chunk, and then the end that a broken connection is."""
    try:
        for chunk in chunks if how != "empty" else ():
            yield _spoil(chunk, how)
            break
        if how != "empty":
            raise Transient(f"{where}: the stream broke off", sent="yes")
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()

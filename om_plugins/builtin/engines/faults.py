"""Fault injection ("chaos"): deliberate failures, to see how a chain behaves before users do.

::

    options = ChaosOptions.from_mapping({"rate": 0.3, "error": "Transient", "seed": 7})
    ask = Chaos(engine.call, options)

It wraps the engine's own ``call``, inside of everything else, so that retries, the breaker and the
fallback see what they would see of a real failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from ... import errors
from ...core.clock import SystemClock
from ...errors import AttemptTimeout, EngineError, Sent, Transient
from ...protocols import Clock
from ...settings.kinds import BOOL, choice, integer, number
from ...settings.table import Table, key
from ...types import Answer, Call
from .counts import Counts

ERRORS = (
    "Transient", "RateLimited", "AttemptTimeout", "InvalidRequest", "Unsupported", "TooLong",
    "Misconfigured", "RuntimeError",
)  # fmt: skip
"""The errors that can be raised: engine errors, and ``RuntimeError`` for a bug in an engine."""

GARBLES = ("truncated", "type", "empty")
"""How an answer can be corrupted. ``truncated``: JSON cut in the middle, or a stream that breaks
off; ``type``: a value of another type; ``empty``: an empty value."""

_SLICE_S = 0.1  # the longest time until a wait notices a cancelled call


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosOptions(Table):
    """Which faults are injected into how many calls; an affected call gets one of the kinds."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "latency_s": "latency",
        "hang_s": "hang",
        "retry_after_s": "retry_after",
    }

    rate: float = key(0.0, number(0, 1), "share of calls that get a fault")
    latency: float = key(0.0, number(0, 3600, "seconds"), "wait this long before asking")
    hang: float = key(
        0.0, number(0, 3600, "seconds"), "wait this long, never ask, and end in AttemptTimeout"
    )
    error: str | None = key(None, choice(*ERRORS), "raise this")
    garble: str | None = key(None, choice(*GARBLES), "ask, then corrupt the answer in this way")
    sent: str = key("maybe", choice("no", "maybe", "yes"), "the attribute sent of a raised error")
    retry_after: float | None = key(
        None, number(0, 3600, "seconds"), "the attribute retry_after of a raised error"
    )
    seed: int | None = key(
        None, integer(-(2**63), 2**63 - 1), "repeats the same sequence; random when not set"
    )
    active: bool = key(True, BOOL, "false injects nothing")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of faults that are set."""
        found = {
            "latency": self.latency > 0,
            "hang": self.hang > 0,
            "error": self.error is not None,
            "garble": self.garble is not None,
        }
        return tuple(kind for kind, is_set in found.items() if is_set)


class Chaos:
    """An engine's ``call`` with injected faults.

    Args:
        ask: the engine's own ``call``.
        options: which faults, and how many.
        clock: the clock of the calls, for waits.
        name: the engine's name, for messages.

    Attributes:
        active: whether faults are injected; may be changed at any time.

    With a seed, the n-th call always gets the same fault. The calls of several threads are numbered
    in the order in which they arrive.
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
        """Ask the engine, with or without a fault.

        Raises:
            EngineError: the injected error.
            CallerDeadline, Cancelled: the call ended during an injected wait.
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
                self._wait(call, self.options.latency)
            case "hang":
                self._wait(call, self.options.hang)
                raise AttemptTimeout(f"{self._describe()} hung", sent=self._sent())
            case "error":
                raise self._make_error()
            case "garble":
                return self._garble(self._ask(call))
        return self._ask(call)

    def stats(self) -> dict[str, int]:
        """The number of calls while it was active, and of the faults of each kind."""
        return self._counts.snapshot()

    def _wait(self, call: Call, seconds: float) -> None:
        # by what was slept and not by the time: the clock of an app under test does not sleep
        left = min(seconds, max(call.remaining(), 0.0))
        while left > 0:
            self._clock.sleep(min(left, _SLICE_S))
            left -= _SLICE_S
            if call.cancelled:
                break
        call.raise_if_done()

    def _make_error(self) -> Exception:
        name = self.options.error or "Transient"
        if name == "RuntimeError":
            return RuntimeError(f"{self._describe()}: a bug")
        kind: type[EngineError] = getattr(errors, name)
        return kind(self._describe(), sent=self._sent(), retry_after=self.options.retry_after)

    def _garble(self, result: object) -> object:
        how = self.options.garble
        if isinstance(result, Answer):
            if hasattr(result.chunks, "__next__"):
                result.chunks = self._garble(result.chunks)  # type: ignore[assignment]
            else:
                result.payload = _corrupt(result.payload, how)
            return result
        if hasattr(result, "__next__"):
            return _break_off(result, self._describe(), how or "truncated")  # type: ignore[arg-type]
        corrupted = _corrupt(result, how)
        return Answer(None) if corrupted is None else corrupted

    def _sent(self) -> Sent:
        return self.options.sent  # type: ignore[return-value]  # the table checked it

    def _describe(self) -> str:
        return f"engine {self._name!r}: chaos"


def _corrupt(payload: object, how: str | None) -> object:
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
    """Yield the first chunk, then fail as a broken connection does."""
    try:
        for chunk in chunks if how != "empty" else ():
            yield _corrupt(chunk, how)
            break
        if how != "empty":
            raise Transient(f"{where}: the stream broke off", sent="yes")
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()

"""Probing the engines of a chain for the steps of recovery: are they in reach, do they answer?

What a probe finds out changes the engine's breaker and cooldown as any other call does, and nothing
else changes them: no breaker closes because recovery expects it to.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ..core.fork import hold_forks, renew_after_fork
from ..errors import EngineUnavailable
from ..protocols import Clock
from ..types import Call

if TYPE_CHECKING:
    from ..chains.chain import EngineChain
    from ..chains.engine_state import EngineState

    _EngineProbe = tuple[EngineState, Callable[[float], None]]
    """An engine, and the function that probes it within some seconds."""

_MAX_FAILED_CALLS = 32


def tell_nobody(engine: EngineState) -> None:
    """Do nothing: there is no other worker."""


@dataclass(slots=True, weakref_slot=True, kw_only=True, eq=False, repr=False)
class EngineProber:
    """Probes the engines of a subject ``chain:<name>``; other subjects have none.

    It is the :class:`~om_plugins.protocols.Prober` of an application.

    Args:
        clock: the clock.
        chains: returns the application's chains by name.
        on_answer: called with each engine that answered :meth:`probe`.
    """

    clock: Clock
    chains: Callable[[], Mapping[str, EngineChain]]
    on_answer: Callable[[EngineState], None] = tell_nobody
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _failed_calls: OrderedDict[str, Call] = field(init=False, default_factory=OrderedDict)
    _answered: set[str] = field(init=False, default_factory=set)
    _running: set[Call] = field(init=False, default_factory=set)
    _closed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        renew_after_fork(self)

    def remember(self, call: Call) -> None:
        """Keep a failed call, one for each chain: repeating it is the most reliable probe."""
        with self._lock:
            self._failed_calls[call.chain] = call
            self._failed_calls.move_to_end(call.chain)
            if len(self._failed_calls) > _MAX_FAILED_CALLS:
                self._failed_calls.popitem(last=False)

    def reach(self, subject: str, timeout: float) -> str:
        """Call the ``probe`` of every engine that has one, for three seconds each at most.

        Returns:
            The results, in one line.

        Raises:
            EngineUnavailable: no engine of the first tier is in reach.
        """
        probes = [
            (engine, partial(self._reach_engine, engine))
            for engine in self._engines(subject)
            if engine.has_probe
        ]
        line, first_tier = self._run_all(probes, timeout, "in reach")
        first_tier.raise_if_lost("out of reach")
        return line or "no engine to look for"

    def _reach_engine(self, engine: EngineState, limit_s: float) -> None:
        with hold_forks():
            from ..chains.failures.refusals import PROBE_TIMEOUT_S
            from ..chains.health_checks import probe_call

        self._run(probe_call(engine, self.clock, min(PROBE_TIMEOUT_S, limit_s)), engine.run_probe)

    def probe(self, subject: str, timeout: float) -> str:
        """Send a real call to the engines of the first tier and to all that calls are kept from.

        An idempotent engine gets the chain's last failed call again; for another one its own
        ``probe`` is called; one without a probe is left to its next caller. Each engine has as long
        as the chain gives an attempt, and never more than its share of ``timeout``.

        Returns:
            The results, in one line.

        Raises:
            EngineUnavailable: no engine of the first tier answered.
        """
        engines = self._engines(subject)
        probes = [
            (engine, partial(self._probe_engine, engine, ask, like))
            for engine in engines
            if engine.tier == engines[0].tier or not engine.breaker.permit or engine.cooldown.until
            for ask, like in [self._probe_of(engine)]
            if ask is not None
        ]
        line, first_tier = self._run_all(probes, timeout, "answered")
        first_tier.raise_if_lost("did not answer")
        if first_tier.well:
            with self._lock:
                self._failed_calls.pop(_chain_of(subject), None)
                self._answered.add(subject)
        return line or "no engine to probe"

    def _probe_engine(
        self,
        engine: EngineState,
        ask: Callable[[Call], object],
        like: Call | None,
        limit_s: float,
    ) -> None:
        with hold_forks():
            from ..chains.health_checks import probe_call

        call = probe_call(engine, self.clock, limit_s, like)
        # The attempt ends before the step does, so that an engine that hangs is at fault.
        call.attempt_deadline = min(
            call.deadline, self.clock.monotonic() + min(engine.attempt_s, limit_s * 0.99)
        )
        self._run(call, partial(engine.probe, ask=ask))
        self.on_answer(engine)

    def take_answer(self, subject: str) -> bool:
        """Return whether an engine of the first tier has answered a probe since the last call of
        this method."""
        with self._lock:
            answered = subject in self._answered
            self._answered.discard(subject)
        return answered

    def close(self) -> None:
        """Cancel the probes that run; later ones are cancelled as they begin."""
        self._closed = True
        for call in list(self._running):
            call.cancel()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._running = set()

    def _engines(self, subject: str) -> tuple[EngineState, ...]:
        """Return the chain's engines, without those that an operator keeps calls away from."""
        chain = self.chains().get(_chain_of(subject))
        now = self.clock.monotonic()
        return tuple(
            engine
            for engine in (chain.states if chain is not None else ())
            if engine.breaker.permit or engine.breaker.view(now).forced != "open"
        )

    def _probe_of(self, engine: EngineState) -> tuple[Callable[[Call], object] | None, Call | None]:
        """Return the function that probes an engine, and the failed call that it repeats."""
        failed = self._failed_calls.get(engine.spec.chain) if engine.idempotent else None
        if failed is not None:
            return engine.ask, failed
        return (engine.run_probe if engine.has_probe else None), None

    def _run_all(
        self, probes: Sequence[_EngineProbe], timeout: float, success: str
    ) -> tuple[str, _FirstTier]:
        """Run the probes one after the other; return the results in one line and by engine."""
        # early enough for the caller that set the timeout
        until = self.clock.monotonic() + timeout * 0.95
        lines, first_tier = [], _FirstTier()
        for number, (engine, probe) in enumerate(probes):
            left_s = max(until - self.clock.monotonic(), 0.0)
            failure: Exception | None = None
            try:
                probe(left_s / (len(probes) - number))  # unused time goes to the engines after it
            except Exception as error:  # noqa: BLE001 - an engine may raise anything
                failure = error
            first_tier.add(engine, failure)
            lines.append(f"{engine.name}: {type(failure).__name__ if failure else success}")
        return ", ".join(lines), first_tier

    def _run(self, call: Call, ask: Callable[[Call], object]) -> None:
        """Run a probe so that :meth:`close` can cancel it."""
        self._running.add(call)
        try:
            if self._closed:
                call.cancel()
            call.raise_if_done()
            ask(call)
        finally:
            self._running.discard(call)


@dataclass(slots=True, eq=False)
class _FirstTier:
    """The results of the engines of the first tier."""

    _tier: int | None = None
    _lost: tuple[EngineState, Exception] | None = None
    well: bool = False

    def add(self, engine: EngineState, error: Exception | None) -> None:
        if self._tier is None:
            self._tier = engine.tier
        if engine.tier == self._tier:
            if error is None:
                self.well = True
            else:
                self._lost = self._lost or (engine, error)

    def raise_if_lost(self, how: str) -> None:
        if self._lost is not None and not self.well:
            engine, error = self._lost
            raise EngineUnavailable(engine.name, f"{how} ({type(error).__name__})") from error


def _chain_of(subject: str) -> str:
    kind, _, name = subject.partition(":")
    return name if kind == "chain" else ""

"""Probing engines without a caller: is an engine in reach, and does it answer?

A :class:`~om_plugins.protocols.Prober` for the steps of recovery. What it finds out about an engine
changes that engine's breaker and cooldown as any other call does, and nothing else does: no breaker
closes because somebody hopes so.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from ..core.fork import renew_after_fork
from ..errors import EngineUnavailable
from ..protocols import Clock
from ..types import Call
from .chain import EngineChain
from .engine_state__place import Place

__all__ = ["REACH_S", "EngineProbes", "question"]

REACH_S = 3.0
"""How long one engine may take to say that it is there."""
_MOST_CALLS = 32

_Asked = TypeVar("_Asked")


class EngineProbes:
    """Probes the engines of a subject ``chain:<name>``; other subjects have none.

    Args:
        clock: time.
        chains: the application's chains by name.
    """

    def __init__(self, *, clock: Clock, chains: Callable[[], Mapping[str, EngineChain]]) -> None:
        self._clock = clock
        self._chains = chains
        self._lock = threading.Lock()
        self._failed: OrderedDict[str, Call] = OrderedDict()
        self._answered: set[str] = set()
        self._out: set[Call] = set()
        self._closed = False
        renew_after_fork(self)

    def remember(self, call: Call) -> None:
        """Keep a call that failed: asking it again is the truest probe. One for each chain."""
        with self._lock:
            self._failed[call.chain] = call
            self._failed.move_to_end(call.chain)
            if len(self._failed) > _MOST_CALLS:
                self._failed.popitem(last=False)

    def reach(self, subject: str, timeout: float) -> str:
        """Have every engine that has a ``probe`` say that it is there, three seconds each at most.

        Returns:
            What each said, in one line.

        Raises:
            EngineUnavailable: no engine of the first tier is there.
        """
        until = self._until(timeout)
        asked = [
            (place, probe)
            for place in self._places(subject)
            if (probe := getattr(place.spec.engine, "probe", None)) is not None
        ]
        lines, first = [], _First()
        for left, (place, probe) in _counted_down(asked):
            limit_s = min(REACH_S, self._share(until, left))
            call = question(place, self._clock, limit_s)
            try:
                self._in_flight(call, probe)
            except Exception as error:  # noqa: BLE001 - an engine may raise anything
                first.add(place, error)
                lines.append(f"{place.name}: {type(error).__name__}")
            else:
                first.add(place, None)
                lines.append(f"{place.name}: in reach")
        first.raise_if_lost("out of reach")
        return ", ".join(lines) or "no engine to look for"

    def probe(self, subject: str, timeout: float) -> str:
        """Ask the engines of the first tier, and all that are shut, a real question.

        An idempotent engine is asked the chain's last failed question again; another one's own
        ``probe`` is called; one that has none is left to its next caller. Each has as long as the
        chain gives an attempt, and never more than its share of ``timeout``.

        Returns:
            What each did, in one line.

        Raises:
            EngineUnavailable: no engine of the first tier answered.
        """
        until = self._until(timeout)
        places = self._places(subject)
        asked = [
            (place, ask, like)
            for place in places
            if place.tier == places[0].tier or not place.breaker.permit or place.cooldown.until
            for ask, like in [self._question(place)]
            if ask is not None
        ]
        lines, first = [], _First()
        for left, (place, ask, like) in _counted_down(asked):
            limit_s = self._share(until, left)
            call = question(place, self._clock, limit_s, like)
            # Its own time is over before the step's: an engine that hangs is to blame for it.
            call.attempt_deadline = min(
                call.deadline, self._clock.monotonic() + min(place.attempt_s, limit_s * 0.99)
            )
            try:
                self._in_flight(call, partial(place.probe, ask=ask))
            except Exception as error:  # noqa: BLE001 - an engine may raise anything
                first.add(place, error)
                lines.append(f"{place.name}: {type(error).__name__}")
            else:
                first.add(place, None)
                lines.append(f"{place.name}: answered")
        first.raise_if_lost("did not answer")
        if first.well:
            with self._lock:
                self._failed.pop(_chain_of(subject), None)
                self._answered.add(subject)
        return ", ".join(lines) or "no engine to probe"

    def take_answer(self, subject: str) -> bool:
        """Whether an engine of the first tier answered a probe since this was last asked."""
        with self._lock:
            answered = subject in self._answered
            self._answered.discard(subject)
        return answered

    def close(self) -> None:
        """Stop the probes under way; later ones are stopped as they begin."""
        self._closed = True
        for call in list(self._out):
            call.cancel()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._out = set()

    def _places(self, subject: str) -> tuple[Place, ...]:
        """The chain's engines, without those that an operator keeps calls away from."""
        chain = self._chains().get(_chain_of(subject))
        now = self._clock.monotonic()
        return tuple(
            place
            for place in (chain.places if chain is not None else ())
            if place.breaker.permit or place.breaker.view(now).forced != "open"
        )

    def _question(self, place: Place) -> tuple[Callable[[Call], object] | None, Call | None]:
        """What is asked of an engine, and the call that failed if it is that again."""
        failed = self._failed.get(place.spec.chain) if place.idempotent else None
        if failed is not None:
            return place.ask, failed
        return getattr(place.spec.engine, "probe", None), None

    def _until(self, timeout: float) -> float:
        """When to stop, so early that who set ``timeout`` still hears of it."""
        return self._clock.monotonic() + timeout * 0.95

    def _share(self, until: float, left: int) -> float:
        """The seconds that one of ``left`` engines has; what others did not need is shared."""
        return max(until - self._clock.monotonic(), 0.0) / left

    def _in_flight(self, call: Call, ask: Callable[[Call], object]) -> None:
        """Ask; :meth:`close` stops it."""
        self._out.add(call)
        try:
            if self._closed:
                call.cancel()
            call.raise_if_done()
            ask(call)
        finally:
            self._out.discard(call)


class _First:
    """How the engines of the tier that came first did."""

    def __init__(self) -> None:
        self._tier: int | None = None
        self._lost: tuple[Place, Exception] | None = None
        self.well = False

    def add(self, place: Place, error: Exception | None) -> None:
        if self._tier is None:
            self._tier = place.tier
        if place.tier == self._tier:
            if error is None:
                self.well = True
            else:
                self._lost = self._lost or (place, error)

    def raise_if_lost(self, how: str) -> None:
        if self._lost is not None and not self.well:
            place, error = self._lost
            raise EngineUnavailable(place.name, f"{how} ({type(error).__name__})") from error


def _counted_down(asked: Sequence[_Asked]) -> Iterator[tuple[int, _Asked]]:
    return zip(range(len(asked), 0, -1), asked, strict=True)


def _chain_of(subject: str) -> str:
    kind, _, name = subject.partition(":")
    return name if kind == "chain" else ""


def question(place: Place, clock: Clock, limit_s: float, like: Call | None = None) -> Call:
    """A call that no caller made.

    Args:
        place: the engine that it is for.
        clock: time.
        limit_s: its deadline, in seconds from now.
        like: the call whose question it repeats; one without a question when ``None``.
    """
    call = Call(
        like.payload if like is not None else None,
        place.spec.chain,
        like.headers if like is not None else None,
        like.method if like is not None else "POST",
        deadline=clock.monotonic() + limit_s,
        monotonic=clock.monotonic,
    )
    call.tier = place.tier
    return call

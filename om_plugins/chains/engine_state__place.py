"""One engine's place in a chain: how a call gets in, and what its end changes.

Breaker, cooldown and health of the engine change here and nowhere else, by the table of
:mod:`om_plugins.chains.error_table`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import AttemptTimeout, EngineUnavailable
from ..policies.backoff import reserve_s
from ..protocols import Clock
from ..settings.settings__options import EngineOptions
from ..signals import Emit, engine_called, engine_failed
from ..types import Answer, Call, EngineHealth
from .engine_state import Seat, tier_of
from .engine_state__traffic import Traffic
from .error_table import NextTier, cooling_s, outcome_of
from .load_balancing import Tier
from .snapshot__policy import ChainPolicy
from .stream import ChunkStream, End, close_upstream

logger = logging.getLogger("om_plugins")


class Place:
    """One engine as the calls of one moment see it; made anew when settings change.

    Args:
        seat: what lasts of it.
        policy: the chain's.
        options: the engine's own.
        equals: others share its tier.
        clock: time.
        emit: tells the application's signals.

    Attributes:
        saves_time: a local engine comes later in the chain, so this one leaves it a slice of the
            deadline.
        attempt_s: the longest time of one attempt, in seconds.
        traffic: bulkhead, load and answer times, where somebody asked for them.
        peers: its tier, where it has equals.
    """

    __slots__ = ("_clock", "_condition", "_cooldown_s", "_emit", "_fair_share_s", "ask",
                 "attempt_s", "breaker", "cooldown", "ejection", "idempotent", "learn", "local",
                 "name", "peers", "saves_time", "spec", "streaming", "tier", "traffic",
                 "weight")  # fmt: skip

    def __init__(
        self,
        seat: Seat,
        policy: ChainPolicy,
        options: EngineOptions,
        *,
        equals: bool,
        clock: Clock,
        emit: Emit,
    ) -> None:
        traits = seat.engine.traits
        self.spec = seat.spec
        self.name = seat.name
        self.tier = tier_of(seat.spec, options)
        self.weight = seat.spec.weight if options.weight is None else options.weight
        self.idempotent = traits.idempotent
        self.local = traits.local
        self.streaming = traits.streaming
        self.ask = seat.ask
        self.learn: Callable[[Call, Answer], object] | None = getattr(seat.engine, "learn", None)
        self.breaker = seat.breaker
        self.cooldown = seat.cooldown
        self.ejection = seat.ejection
        self.saves_time = False
        self.peers: Tier | None = None
        load = seat.load if equals else None
        self.traffic = (
            Traffic(seat.bulkhead, load, seat.times, policy.bulkhead_wait)
            if seat.bulkhead or load or seat.times
            else None
        )
        self._clock = clock
        self._emit = emit
        self._condition = seat.condition
        self._cooldown_s = policy.breaker_cooldown_s
        self._fair_share_s = fair_share_s(policy)
        self.attempt_s = policy.attempt_timeout or policy.timeout

    @property
    def last_error(self) -> str:
        """Class name of the newest failure, "" for none."""
        return self._condition.last_error

    @property
    def in_flight(self) -> int:
        """Calls at work; counted where the engine has equals."""
        return 0 if self.traffic is None or self.traffic.load is None else (
            self.traffic.load.in_flight
        )  # fmt: skip

    def cost(self, now: float) -> float:
        """What one more call costs here, in expected seconds of work, per weight."""
        if self.traffic is None or self.traffic.load is None:
            return 0.0
        return self.traffic.load.cost(now) / self.weight

    # --- how a call gets in ---

    def admit(self, now: float) -> int | EngineUnavailable:
        """A permit of the breaker, or why the engine must not be asked now."""
        permit = self.breaker.permit or self.breaker.enter(now)
        if not permit:
            view = self.breaker.view(now)
            reason = "forced open" if view.forced == "open" else "breaker open"
            return EngineUnavailable(self.name, reason, retry_after=view.retry_after_s)
        if self.cooldown.until and self.cooldown.refused(now):
            self.breaker.release(permit, now)
            return EngineUnavailable(
                self.name,
                self.cooldown.reason,
                retry_after=max(self.cooldown.until - now, 0.0),
            )
        return permit

    def askable(self, now: float) -> bool:
        """Whether a call would be let in at this moment, as far as can be seen from outside."""
        if now < self.cooldown.until or (self.traffic is not None and self.traffic.full):
            return False
        return bool(self.breaker.permit) or self.breaker.view(now).retry_after_s == 0.0

    # --- what its end changes ---

    def recovered(self, now: float) -> None:
        """The engine answered, and its health may have changed by it."""
        self.cooldown.succeeded()
        self.look(now)

    def tell_called(self, call: Call, duration_s: float) -> None:
        """Tell that the engine answered."""
        self._emit(
            engine_called,
            chain=self.spec.chain,
            engine=self.name,
            tier=self.tier,
            attempt=call.attempt,
            duration_s=duration_s,
            call=call,
        )

    def failed(
        self, call: Call, permit: int, error: Exception, duration_s: float, now: float
    ) -> None:
        """The engine raised ``error``, before or in the middle of its answer."""
        outcome = outcome_of(error)
        if outcome.next_tier is not NextTier.NEVER:  # else it is the caller's doing
            self._condition.last_error = type(error).__name__
        if outcome.trips and not self._cut_short(call, error, duration_s, now):
            self.breaker.leave(permit, now, duration_s, failed=True)
            if self.peers is not None:
                self._failed_among_equals(self.peers, duration_s, now)
        else:
            self.breaker.release(permit, now)
        if outcome.cools:
            self.cooldown.begin("cooling down", cooling_s(error), now)
        elif outcome.offline:
            self.cooldown.begin("offline", self._cooldown_s, now)
        self.look(now)
        if engine_failed.receivers:
            self._emit(
                engine_failed,
                chain=self.spec.chain,
                engine=self.name,
                tier=self.tier,
                attempt=call.attempt,
                error=error,
                duration_s=duration_s,
                call=call,
            )

    def streams(
        self, stream: ChunkStream, call: Call, permit: int, began: float, now: float
    ) -> None:
        """The engine's first chunk is here: how it ends is recorded when it ends."""
        traffic = self.traffic

        def ended(end: End, error: Exception | None) -> None:
            at = self._clock.monotonic()
            if traffic is not None:
                traffic.leave()
            if end == "closed":
                self.breaker.release(permit, at)
            elif error is None:
                if self.breaker.leave(permit, at, now - began) or self.cooldown.until:
                    self.recovered(at)
                if engine_called.receivers:
                    self.tell_called(call, now - began)
            else:
                self.failed(call, permit, error, at - began, at)

        stream.on_end(ended)
        if traffic is not None:
            traffic.answered(now - began, now)

    def _cut_short(self, call: Call, error: Exception, duration_s: float, now: float) -> bool:
        """True for a timeout that tells of the caller's haste and not of the engine.

        An engine that was given less time than the chain's own settings would give, because the
        caller was in a hurry or earlier attempts took the rest, is not to blame.
        """
        return (
            isinstance(error, AttemptTimeout)
            and now >= call.attempt_deadline
            and duration_s - (now - call.attempt_deadline) < self._fair_share_s
        )

    def probe(self, call: Call, ask: Callable[[Call], object]) -> None:
        """Ask without a caller, also while the breaker is open. It counts as any call: only a
        success closes the breaker and ends an offline time.

        Args:
            call: its deadline is the limit.
            ask: the engine's ``call`` or ``probe``.

        Raises:
            EngineUnavailable: somebody else is probing at the moment.
            AttemptTimeout: it answered so slowly that the breaker stays open.
            Exception: what the engine raised.
        """
        began = self._clock.monotonic()
        permit = self.breaker.enter_early(began)
        if not permit:
            raise EngineUnavailable(self.name, "is being probed")
        try:
            result = ask(call)
        except Exception as error:
            now = self._clock.monotonic()
            self.failed(call, permit, error, now - began, now)
            raise
        except BaseException:
            self.breaker.release(permit, self._clock.monotonic())
            raise
        now = self._clock.monotonic()
        self.breaker.leave(permit, now, now - began)
        self.recovered(now)
        close_upstream(result)
        if not self.breaker.permit:
            raise AttemptTimeout(f"{self.name}: answered, but too slowly")

    def _failed_among_equals(self, peers: Tier, duration_s: float, now: float) -> None:
        load = self.traffic.load if self.traffic is not None else None
        if load is not None:
            peers.failed(self, load.failed(duration_s, now), now)

    # --- health ---

    def look(self, now: float) -> EngineHealth:
        """The health at this moment; a change since the last look is told."""
        return self._condition.look(self.tier, now)

    def close(self) -> None:
        """Have the engine give its connections back, if it has any."""
        close = getattr(self.spec.engine, "close", None)
        if close is not None:
            try:
                close()
            except Exception:
                logger.exception("engine %r: close failed", self.name)


def fair_share_s(policy: ChainPolicy) -> float:
    """The time after which an engine that has not answered is to blame for it, in seconds."""
    whole_s = policy.timeout - reserve_s(policy.timeout)
    share_s = min(whole_s, policy.breaker_slow_s, policy.attempt_timeout or whole_s)
    return share_s * 0.99  # deadlines are sums of floats

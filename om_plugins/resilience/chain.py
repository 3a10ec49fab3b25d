"""The chain: engines in tiers, asked in order until one answers, inside one total deadline.

The way of a call: total deadline → tiers → skip what is offline, cooling or open → retry with
full jitter and budget → breaker → attempt deadline → engine. What happens on each error is the
table of :mod:`om_plugins.resilience.outcomes`. No thread is used, and no lock is held while an
engine works.

**Time.** No sleep passes the total deadline; a wait that does not fit is not begun, the next tier
is asked instead. Engines before a *local* one leave it a slice of the deadline (5 %, at most
250 ms), so that a tier that hangs cannot eat all of it. When an engine that cannot be cut overran
the deadline all the same, local engines are still asked, with that slice: they take no longer
than raising would. Everyone else is skipped, and the call ends in ``CallerDeadline``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from blinker import NamedSignal

from ..clock import SystemClock
from ..errors import CallerDeadline, Cancelled, ChainExhausted, ConfigError, EngineUnavailable
from ..policies.backoff import full_jitter
from ..policies.budget import RetryBudget
from ..policies.deadline import reserve_s
from ..policies.forks import renew_after_fork
from ..protocols import Clock
from ..signals import Emit, engine_called, engine_fell_back, retry_scheduled
from ..types import Answer, Attempt, Call, EngineHealth, EngineSpec
from .outcomes import (
    NextTier,
    asked_wait_s,
    cooling_s,
    may_have_run,
    may_retry,
    outcome_of,
    sent_of,
)
from .place import Place, check_engine
from .policy import ChainPolicy
from .registry import BreakerRegistry
from .stream import ChunkStream, begin, is_stream

__all__ = ["BreakerRegistry", "ChainPolicy", "EngineChain", "OnFailure"]

OnFailure = Callable[[Call, Sequence[Attempt]], None]
"""Told of a call that no engine, or only a lower tier answered, and what was tried. Must not
raise."""


class EngineChain:
    """Asks engines in order (see :class:`om_plugins.protocols.Chain`).

    Args:
        name: the chain's name.
        policy: how it treats its engines.
        clock: time.
        emit: tells the application's signals; nobody is told without one.
        breakers: the application's, so that engines of several chains may share one.
        on_failure: told of calls that fell back or failed.
    """

    def __init__(
        self,
        name: str,
        policy: ChainPolicy | None = None,
        *,
        clock: Clock | None = None,
        emit: Emit | None = None,
        breakers: BreakerRegistry | None = None,
        on_failure: OnFailure | None = None,
    ) -> None:
        self.name = name
        self.policy = policy = policy or ChainPolicy()
        self._clock = clock = clock or SystemClock()
        self._monotonic = clock.monotonic
        self._emit = emit or _nobody
        self._breakers = breakers or BreakerRegistry()
        self._on_failure = on_failure
        self._budget = RetryBudget(
            policy.retry_budget, policy.retry_budget_floor, clock.monotonic()
        )
        self._deposit = self._budget.deposit
        self._timeout_s = policy.timeout
        self._reserve_s = reserve_s(policy.timeout)
        self._lock = threading.Lock()
        self._places: tuple[Place, ...] = ()
        renew_after_fork(self)

    # --- what it is made of ---

    def add(self, spec: EngineSpec) -> None:
        """Add an engine; calls under way go on with the engines they began with.

        Raises:
            ConfigError: it is no engine, or the chain has one of that name.
            TypeError: its ``call`` is ``async``.
        """
        engine = check_engine(spec, self.name)
        with self._lock:
            if any(place.name == engine.name for place in self._places):
                raise ConfigError(
                    f"engine of chain {self.name!r}",
                    engine.name,
                    "is there already; names are unique",
                )
            breaker = self._breakers.get(
                self.name, engine.name, engine.traits.breaker_key, self.policy.breaker
            )
            place = Place(spec, self.policy, breaker, self._clock, self._emit)
            places = sorted((*self._places, place), key=lambda one: one.tier)
            local_later = False
            for place in reversed(places):
                place.saves_time = local_later and not place.local
                local_later = local_later or place.local
            self._places = tuple(places)

    @property
    def engines(self) -> Sequence[EngineSpec]:
        """The engines in the order in which they are asked."""
        return tuple(place.spec for place in self._places)

    @property
    def places(self) -> tuple[Place, ...]:
        """What the chain keeps of each engine, in the same order."""
        return self._places

    @property
    def idempotent(self) -> bool:
        """True when every engine of every tier is idempotent."""
        return bool(self._places) and all(place.idempotent for place in self._places)

    def health(self) -> list[EngineHealth]:
        """The health of each engine at this moment, in the order in which they are asked."""
        now = self._monotonic()
        return [place.look(now) for place in self._places]

    def close(self) -> None:
        """Have every engine give its connections back."""
        for place in self._places:
            place.close()

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    # --- calls ---

    def call(
        self,
        payload: object = None,
        *,
        stream: bool = False,
        timeout: float | None = None,
        idempotent: bool | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Answer:
        """Ask the engines in order.

        Args:
            payload: what to answer; engines must not change it.
            stream: the caller wants chunks as they come (:attr:`Answer.chunks`).
            timeout: seconds in all; the chain's own when ``None``. When streamed, until the first
                chunk, and again for each chunk after it.
            idempotent: whether the same engine may be asked again; ``None``: as the engine says.
            idempotency_key: sent with every attempt; made when needed.
            headers: request headers to pass on, in lower case.
            method: for HTTP engines.

        Raises:
            ChainExhausted: no engine answered.
            InvalidRequest: the call itself is wrong.
            CallerDeadline: the time was over before every engine was asked; its ``attempts`` and
                ``__cause__`` tell what was tried.
            Cancelled: the caller gave up.
            ConfigError: the chain has no engine.
        """
        monotonic = self._monotonic
        started = monotonic()
        if timeout is None:
            timeout = self._timeout_s
            reserved_s = self._reserve_s
        else:
            reserved_s = reserve_s(timeout)
        return self._run(
            Call(
                payload,
                self.name,
                headers,
                method,
                stream,
                idempotent,
                idempotency_key,
                started + timeout,
                monotonic,
            ),
            started,
            reserved_s,
        )

    def ask(self, call: Call) -> Answer:
        """As :meth:`call`, for a prepared :class:`Call` (which another thread may cancel)."""
        if call.cancelled:
            raise Cancelled(f"call {call.id} was cancelled")
        started = self._monotonic()
        return self._run(call, started, reserve_s(call.deadline - started))

    def _run(self, call: Call, started: float, reserved_s: float) -> Answer:
        # One long loop, because each function call here is paid by every call that succeeds;
        # what only failures need is in functions of its own.
        places = self._places
        if not places:
            raise ConfigError("chain", self.name, "has no engine; add one to this chain")
        deadline = call.deadline
        if not deadline > started:
            raise CallerDeadline(f"chain {self.name!r}: the call came when its time was over")
        self._deposit()
        monotonic = self._monotonic
        attempt_timeout = self.policy.attempt_timeout
        history: list[Attempt] = []
        attempt = 0
        spent = False
        now = started
        for place in places:
            limit = deadline - reserved_s if place.saves_time else deadline
            retry = 0
            while True:
                if now >= limit:
                    if not place.local:
                        _skip(place, attempt, history, "no time left")
                        break
                    limit = call.deadline = now + reserved_s  # somebody overran; see Time above
                permit = place.breaker.permit
                if not permit or place.cooldown.until or spent:
                    if spent and not place.local:
                        _skip(place, attempt, history, "at most once")
                        break
                    admitted = place.admit(now)
                    if isinstance(admitted, EngineUnavailable):
                        _skip(place, attempt, history, admitted)
                        break
                    permit = admitted
                attempt += 1
                call.attempt = attempt
                call.tier = place.tier
                call.attempt_deadline = (
                    limit if attempt_timeout is None else min(limit, now + attempt_timeout)
                )
                try:
                    result = place.ask(call)
                    if isinstance(result, Answer):
                        answer = result
                        if answer.chunks is not None:
                            answer = begin(answer, call, deadline - started, monotonic)
                    elif (call.stream or place.streaming) and is_stream(result):
                        answer = begin(result, call, deadline - started, monotonic)
                    else:
                        answer = Answer(result)
                except Exception as error:
                    began, now = now, monotonic()
                    place.failed(call, permit, error, now - began, now)
                    history.append(
                        Attempt(place.name, place.tier, attempt, error, sent_of(error), now - began)
                    )
                    _stop_if_cancelled(call, error)
                    if outcome_of(error).next_tier is NextTier.NEVER:
                        raise
                    if self.policy.at_most_once and not place.local and may_have_run(error):
                        spent = True
                    retry += 1
                    delay_s = self._delay_s(place, call, error, retry, now, limit, spent)
                    if delay_s is None:
                        break
                    self._clock.sleep(delay_s)
                    _stop_if_cancelled(call, error)
                    now = monotonic()
                except BaseException:
                    place.breaker.release(permit, monotonic())
                    raise
                else:
                    ended = monotonic()
                    if answer.chunks is not None:
                        place.streams(cast(ChunkStream, answer.chunks), call, permit, now, ended)
                    else:
                        if place.breaker.leave(permit, ended, ended - now) or place.cooldown.until:
                            place.recovered(ended)
                        if engine_called.receivers:
                            place.tell_called(call, ended - now)
                    answer.engine = place.name
                    answer.tier = place.tier
                    answer.attempts = attempt
                    answer.elapsed_s = ended - started
                    if history:
                        self._fell_back(place, call, answer, history)
                    return answer
        raise self._exhausted(call, history, monotonic() >= deadline)

    def _delay_s(
        self,
        place: Place,
        call: Call,
        error: Exception,
        retry: int,
        now: float,
        limit: float,
        spent: bool,
    ) -> float | None:
        """Seconds to wait before asking the same engine again; ``None``: ask the next one."""
        policy = self.policy
        idempotent = place.idempotent if call.idempotent is None else call.idempotent
        if retry > policy.retries or not may_retry(error, idempotent):
            return None
        if (spent and not place.local) or not place.breaker.permit:
            return None
        asked_s = asked_wait_s(error) or 0.0
        if outcome_of(error).cools:
            asked_s = max(asked_s, cooling_s(error))
        delay_s = full_jitter(retry, policy.delays, at_least_s=asked_s)
        if now + delay_s >= limit or not self._budget.withdraw(now):
            return None
        if retry_scheduled.receivers:
            self._emit(
                retry_scheduled,
                chain=self.name,
                engine=place.name,
                attempt=call.attempt + 1,
                delay_s=delay_s,
                error=error,
            )
        return delay_s

    def _fell_back(self, place: Place, call: Call, answer: Answer, history: list[Attempt]) -> None:
        for record in history:  # an answer must not keep the frames of failures alive
            record.error.__traceback__ = None
        answer.history = history
        if all(record.tier == place.tier for record in history):
            return
        answer.degraded = True
        if self._on_failure is not None:
            self._on_failure(call, history)
        if engine_fell_back.receivers:
            self._emit(
                engine_fell_back,
                chain=self.name,
                engine=place.name,
                tier=place.tier,
                attempts=answer.attempts,
                history=history,
                call=call,
            )

    def _exhausted(self, call: Call, history: list[Attempt], late: bool) -> Exception:
        if self._on_failure is not None:
            self._on_failure(call, history)
        tried = ", ".join(
            str(one.error) if one.skipped else f"{one.engine}: {type(one.error).__name__}"
            for one in history
        )
        waits = [wait for one in history if (wait := asked_wait_s(one.error)) is not None]
        exhausted = ChainExhausted(
            f"chain {self.name!r}: no engine answered ({tried})",
            [one.error for one in history],
            self.name,
            history,
            min(waits, default=None),
        )
        if not late:
            return exhausted
        deadline = CallerDeadline(f"chain {self.name!r}: the deadline passed ({tried})")
        deadline.attempts = history
        deadline.__cause__ = exhausted
        return deadline


def _skip(
    place: Place, attempt: int, history: list[Attempt], reason: str | EngineUnavailable
) -> None:
    error = EngineUnavailable(place.name, reason) if isinstance(reason, str) else reason
    history.append(Attempt(place.name, place.tier, attempt, error, "no", 0.0, skipped=True))


def _stop_if_cancelled(call: Call, error: Exception) -> None:
    if call.cancelled and not isinstance(error, Cancelled):
        raise Cancelled(f"call {call.id} was cancelled") from error


def _nobody(signal: NamedSignal, **details: object) -> None:
    """Tell nobody."""

"""How a call runs: it asks the engines of a snapshot in order until one answers.

Total deadline → tiers → skip engines that are offline, cooling down, open or full → retry with full
jitter and a budget → breaker → bulkhead → attempt deadline → engine. The table of
:mod:`om_plugins.policies.error_table` says what happens on each error. A call uses no thread of its
own, and it holds no lock while an engine works.

**Time.** No wait passes the total deadline. A wait that does not fit does not begin; the call asks
the next tier instead. Engines before a *local* one leave it a part of the deadline (5 %, at most
250 ms), so that a tier that hangs cannot use up all of the time. When an engine that cannot be
interrupted overran the deadline all the same, local engines are still asked, with that part: they
take no longer than raising an error would. All other engines are skipped, and the call ends in
``CallerDeadline``.

**Hedging** needs no thread either: the first attempt is cut where most answers have arrived already
(a quantile of the engine's own latency), and the same question is asked again, of an equal if there
is one. After Jeffrey Dean and Luiz André Barroso, "The Tail at Scale" (CACM 2013), sequentially.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    ConfigError,
    EngineUnavailable,
    NextTier,
)
from ..plugins.checks import explain_answer
from ..policies.backoff import full_jitter
from ..policies.error_table import (
    RATE_LIMIT_MAX_S,
    asked_wait_s,
    cooldown_of,
    cooling_s,
    may_have_run,
    may_retry,
    row_of,
    sent_of,
)
from ..signals import engine_called, engine_fell_back, retry_scheduled
from ..types import Answer, Attempt, Call
from .engine_state import EngineState
from .snapshot import ChainSnapshot
from .stream import ChunkStream, begin, is_stream

_PLAIN = frozenset({dict, str, list, bytes, int, float, bool, tuple})
"""The classes of most answers, which need no look (see :func:`.plugins.checks.explain_answer`)."""


def execute(snapshot: ChainSnapshot, call: Call, started: float, reserved_s: float) -> Answer:
    """Answer a call with the engines of a snapshot.

    Args:
        snapshot: the engines and settings of the chain.
        call: the call.
        started: the monotonic time.
        reserved_s: the part of the deadline that is reserved for local engines.

    Raises:
        Exception: as :meth:`om_plugins.chains.chain.EngineChain.call` says.
    """
    # One long loop, because every call that succeeds would pay for each function call here. What
    # only failures need is in FailedAttempts, which a call without failures does not make.
    engines = snapshot.engines if snapshot.tiers is None else snapshot.order(started)
    if not engines:
        raise _no_engine_error(snapshot, call)
    deadline = call.deadline
    if not deadline > started:
        raise CallerDeadline(f"chain {snapshot.name!r}: the call came when its time was over")
    snapshot.deposit()
    monotonic = snapshot.monotonic
    attempt_timeout = snapshot.attempt_timeout
    failed: FailedAttempts | None = None
    now = started
    for engine in engines:
        limit = deadline - reserved_s if engine.saves_time else deadline
        traffic = engine.traffic
        while True:
            if now >= limit:
                if not engine.local:
                    failed = failed or FailedAttempts(snapshot, call, engines)
                    failed.skip(engine, "no time left")
                    break
                limit = call.deadline = now + reserved_s  # an engine overran; see Time above
            permit = engine.breaker.permit
            if not permit or engine.cooldown.until or (failed is not None and failed.spent):
                failed = failed or FailedAttempts(snapshot, call, engines)
                permit = failed.admit(engine, now)
                if not permit:
                    break
            if traffic is not None:
                try:
                    entered = traffic.enter(limit - now)
                except BaseException:  # something ended its wait
                    engine.breaker.release(permit, monotonic())
                    raise
                now = monotonic()
                if not entered or now >= limit or call.cancelled:
                    failed = failed or FailedAttempts(snapshot, call, engines)
                    failed.turn_back(engine, permit, entered, now)
                    break
            call.attempt_deadline = (
                limit if attempt_timeout is None else min(limit, now + attempt_timeout)
            )
            call.attempt = attempt = 1 if failed is None else failed.count + 1
            call.tier = engine.tier
            hedge_at = 0.0
            try:
                if traffic is not None and traffic.latency is not None:
                    hedge_at = _cut_for_hedge(snapshot, engine, call, failed, now)
                result = engine.ask(call)
                if isinstance(result, Answer):
                    answer = result
                    if answer.chunks is not None:
                        answer = begin(answer, call, deadline - started, monotonic)
                    elif type(answer.payload) not in _PLAIN and explain_answer(answer):
                        raise engine.no_answer(answer)
                elif (call.stream or engine.streaming) and is_stream(result):
                    answer = begin(result, call, deadline - started, monotonic)
                elif type(result) in _PLAIN or not explain_answer(result):
                    answer = Answer(result)
                else:
                    raise engine.no_answer(result)
            except Exception as error:  # noqa: BLE001 - an engine may raise anything
                began, now = now, monotonic()
                if traffic is not None:
                    traffic.leave()
                failed = failed or FailedAttempts(snapshot, call, engines)
                again = failed.handle(engine, permit, error, began, now, limit, hedge_at)
                now = monotonic()
                if not again:
                    break
            except BaseException:
                if traffic is not None:
                    traffic.leave()
                engine.breaker.release(permit, monotonic())
                raise
            else:
                ended = monotonic()
                if answer.chunks is not None:
                    engine.track_stream(cast(ChunkStream, answer.chunks), call, permit, now, ended)
                else:
                    if traffic is not None:
                        traffic.leave()
                        traffic.record_answer(ended - now, ended)
                    if engine.breaker.leave(permit, ended, ended - now) or engine.cooldown.until:
                        engine.record_recovery(ended)
                    if engine_called.receivers:
                        engine.emit_called(call, ended - now)
                answer.engine = engine.name
                answer.tier = engine.tier
                answer.attempts = attempt
                answer.elapsed_s = ended - started
                if failed is not None:
                    failed.finish(engine, answer, ended)
                if snapshot.learners:
                    snapshot.teach(call, answer)
                return answer
    failed = failed or FailedAttempts(snapshot, call, engines)
    raise failed.final_error(late=monotonic() >= deadline)


class FailedAttempts:
    """The attempts of one call that failed, the engines that it skipped, and what follows.

    Args:
        snapshot: the engines and settings of the chain.
        call: the call.
        engines: the engines in the order in which this call asks them.

    Attributes:
        count: the attempts that failed, engines that were skipped not included.
        spent: the chain is ``at_most_once`` and an engine may have received the call.
    """

    __slots__ = ("_call", "_engine", "_engines", "_hedged", "_history", "_retries", "_slept_s",
                 "_snapshot", "_waited_until", "count", "spent")  # fmt: skip

    def __init__(self, snapshot: ChainSnapshot, call: Call, engines: Sequence[EngineState]) -> None:
        self.count = 0
        self._snapshot = snapshot
        self._call = call
        self._engines = engines
        self._history: list[Attempt] = []
        self._engine: EngineState | None = None
        self._retries = 0
        self._slept_s = 0.0
        self._waited_until = 0.0
        self.spent = False
        self._hedged: tuple[EngineState, float] | None = None

    @property
    def hedged(self) -> bool:
        """True once an attempt was cut for a hedge; a call has one hedge at most."""
        return self._hedged is not None

    # --- before an attempt ---

    def skip(self, engine: EngineState, reason: str | EngineUnavailable) -> None:
        """Record that an engine was not asked, and why."""
        error = EngineUnavailable(engine.name, reason) if isinstance(reason, str) else reason
        self._history.append(
            Attempt(engine.name, engine.tier, self.count, error, "no", 0.0, skipped=True)
        )

    def admit(self, engine: EngineState, now: float) -> int:
        """Return a permit of the engine's breaker; 0 where the engine was skipped."""
        if self.spent and not engine.local:
            self.skip(engine, "at most once")
            return 0
        # A wait is over when it ends: the clock of an application under test does not sleep.
        waited_until = self._waited_until if engine is self._engine else 0.0
        admitted = engine.admit(now, waited_until)
        if isinstance(admitted, EngineUnavailable):
            self.skip(engine, admitted)
            return 0
        return admitted

    def turn_back(self, engine: EngineState, permit: int, entered: bool, now: float) -> None:
        """Skip an engine whose bulkhead was full, or let the call in when its time was over.

        Raises:
            Cancelled: the caller gave up meanwhile.
        """
        engine.breaker.release(permit, now)
        if entered and engine.traffic is not None:
            engine.traffic.leave()
        _raise_if_cancelled(self._call)
        self.skip(engine, "no time left" if entered else "bulkhead full")

    # --- after a failed attempt ---

    def handle(
        self,
        engine: EngineState,
        permit: int,
        error: Exception,
        began: float,
        now: float,
        limit: float,
        hedge_at: float,
    ) -> bool:
        """Record a failed attempt, and wait where the same engine is to be asked again.

        Args:
            engine: the engine that raised the error.
            permit: the attempt's permit of the engine's breaker.
            error: what the engine raised.
            began, now: when the attempt began and ended.
            limit: when attempts of this engine must have ended.
            hedge_at: when the attempt was cut for a hedge; 0.0 when it was not.

        Returns:
            True when the same engine is to be asked again, False for the next one.

        Raises:
            Exception: ``error`` itself, where no other engine may be asked.
            Cancelled: the caller gave up meanwhile.
        """
        snapshot, call = self._snapshot, self._call
        if hedge_at and now >= hedge_at and isinstance(error, AttemptTimeout) and (
            not call.cancelled
        ):  # fmt: skip
            self._hedged = engine, began
            engine.breaker.release(permit, now)
            self._record(engine, error, now - began)
            snapshot.budget.charge(now)
            self._emit_retry(engine, 0.0, error)
            return not self._has_equal_after(engine, now)
        engine.record_failure(call, permit, error, now - began, now)
        self._record(engine, error, now - began)
        _raise_if_cancelled(call, error)
        if row_of(error).next_tier is NextTier.NEVER:
            raise error
        if snapshot.policy.at_most_once and not engine.local and may_have_run(error):
            self.spent = True
        self._retries = self._retries + 1 if engine is self._engine else 1
        self._engine = engine
        delay_s = self._delay_s(engine, error, now, limit)
        if delay_s is None or self._has_equal_after(engine, now):
            return False
        if self._slept_s + delay_s > snapshot.max_sleep_s() or not snapshot.budget.withdraw(now):
            return False
        self._emit_retry(engine, delay_s, error)
        self._slept_s += delay_s
        slept = snapshot.sleeper.sleep(delay_s, call)
        self._waited_until = now + delay_s
        _raise_if_cancelled(call, error)
        return slept

    def _record(self, engine: EngineState, error: Exception, duration_s: float) -> None:
        self.count += 1
        self._history.append(
            Attempt(engine.name, engine.tier, self.count, error, sent_of(error), duration_s)
        )

    def _delay_s(
        self, engine: EngineState, error: Exception, now: float, limit: float
    ) -> float | None:
        """Return the seconds to wait before asking the same engine again; ``None`` for the next
        engine."""
        policy, call = self._snapshot.policy, self._call
        idempotent = engine.idempotent if call.idempotent is None else call.idempotent
        if self._retries > policy.retries or not may_retry(error, idempotent):
            return None
        if isinstance(error, policy.give_up_on):
            return None
        if policy.retry_on is not None and not isinstance(error, policy.retry_on):
            return None
        if (self.spent and not engine.local) or not engine.breaker.permit:
            return None
        asked_s = asked_wait_s(error) or 0.0
        if asked_s > RATE_LIMIT_MAX_S:  # not believed, and too long for a call without a deadline
            return None
        if cooldown_of(error) == "cooling down":
            asked_s = max(asked_s, cooling_s(error))
        delay_s = full_jitter(self._retries, policy.delays, at_least_s=asked_s)
        return None if now + delay_s >= limit else delay_s

    def _has_equal_after(self, engine: EngineState, now: float) -> bool:
        """Return whether another engine of the same tier can be asked instead of the same one."""
        if engine.peers is None:
            return False
        later = self._engines[self._engines.index(engine) + 1 :]
        return any(one.tier == engine.tier and one.can_admit(now) for one in later)

    def _emit_retry(self, engine: EngineState, delay_s: float, error: Exception) -> None:
        if retry_scheduled.receivers:
            self._snapshot.emit(
                retry_scheduled,
                chain=self._snapshot.name,
                engine=engine.name,
                attempt=self._call.attempt + 1,
                delay_s=delay_s,
                error=error,
            )

    # --- at the end ---

    def finish(self, engine: EngineState, answer: Answer, ended: float) -> None:
        """Complete the answer of a call that had failures, and report that it fell back."""
        history, snapshot = self._history, self._snapshot
        if not history:
            return
        for attempt in history:  # an answer must not keep the frames of failures alive
            attempt.error.__traceback__ = None
        answer.history = history
        if any(attempt.tier != engine.tier for attempt in history):
            answer.degraded = True
            if snapshot.on_failure is not None:
                snapshot.on_failure(self._call, history)
            if engine_fell_back.receivers:
                snapshot.emit(
                    engine_fell_back,
                    chain=snapshot.name,
                    engine=engine.name,
                    tier=engine.tier,
                    attempts=answer.attempts,
                    history=history,
                    call=self._call,
                )
        if self._hedged is not None:
            # the whole time of the question, so that an engine does not look fast for being cut
            first, began = self._hedged
            if first.traffic is not None and first.traffic.latency is not None:
                first.traffic.latency.record(ended - began)

    def final_error(self, *, late: bool) -> Exception:
        """Return the error of a call that no engine answered, and report it.

        Args:
            late: the total deadline has passed.
        """
        history, snapshot = self._history, self._snapshot
        if snapshot.on_failure is not None:
            snapshot.on_failure(self._call, history)
        tried = ", ".join(
            str(one.error) if one.skipped else f"{one.engine}: {type(one.error).__name__}"
            for one in history
        )
        waits = [wait for one in history if (wait := asked_wait_s(one.error)) is not None]
        exhausted = ChainExhausted(
            f"chain {snapshot.name!r}: no engine answered ({tried})",
            [one.error for one in history],
            snapshot.name,
            history,
            min(waits, default=None),
        )
        if not late:
            return exhausted
        deadline = CallerDeadline(f"chain {snapshot.name!r}: the deadline passed ({tried})")
        deadline.attempts = history
        deadline.__cause__ = exhausted
        return deadline


def _cut_for_hedge(
    snapshot: ChainSnapshot,
    engine: EngineState,
    call: Call,
    failed: FailedAttempts | None,
    now: float,
) -> float:
    """Cut the attempt where a hedge is due; returns when that is, 0.0 when it is not cut."""
    if failed is not None and failed.hedged:
        return 0.0
    latency = engine.traffic.latency if engine.traffic is not None else None
    after_s = latency.value_s if latency is not None else None
    idempotent = engine.idempotent if call.idempotent is None else call.idempotent
    if after_s is None or not idempotent or now + after_s >= call.attempt_deadline:
        return 0.0
    if snapshot.budget.balance(now) < 1.0:
        return 0.0
    call.attempt_deadline = now + after_s
    return call.attempt_deadline


def _raise_if_cancelled(call: Call, error: Exception | None = None) -> None:
    if call.cancelled and not isinstance(error, Cancelled):
        raise Cancelled(f"call {call.id} was cancelled") from error


def _no_engine_error(snapshot: ChainSnapshot, call: Call) -> Exception:
    if not snapshot.all_engines:
        return ConfigError("chain", snapshot.name, "has no engine to ask; add one")
    failed = FailedAttempts(snapshot, call, ())
    for engine in snapshot.all_engines:  # an operator switched them off; no setting is wrong
        failed.skip(engine, "switched off")
    return failed.final_error(late=False)

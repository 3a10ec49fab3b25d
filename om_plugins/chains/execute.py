"""The way of a call: the engines of a snapshot, asked in order until one answers.

Total deadline → tiers → skip what is offline, cooling, open or full → retry with full jitter and
budget → breaker → bulkhead → attempt deadline → engine. What happens on each error is the table of
:mod:`om_plugins.chains.error_table`. No thread is used, and no lock is held while an engine
works.

**Time.** No sleep passes the total deadline; a wait that does not fit is not begun, the next tier
is asked instead. Engines before a *local* one leave it a slice of the deadline (5 %, at most
250 ms), so that a tier that hangs cannot eat all of it. When an engine that cannot be cut overran
the deadline all the same, local engines are still asked, with that slice: they take no longer
than raising would. Everyone else is skipped, and the call ends in ``CallerDeadline``.

**Hedging** needs no thread either: the first attempt is cut where most answers have come already
(a quantile of the engine's own times), and the same question is asked anew, of an equal if there is
one. After Jeffrey Dean and Luiz André Barroso, "The Tail at Scale" (CACM 2013), sequentially.
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
)
from ..policies.backoff import full_jitter
from ..signals import engine_called, engine_fell_back, retry_scheduled
from ..types import Answer, Attempt, Call
from .engine_state import EngineState
from .error_table import (
    RATE_LIMIT_MAX_S,
    NextTier,
    asked_wait_s,
    cooling_s,
    may_have_run,
    may_retry,
    row_of,
    sent_of,
)
from .snapshot import ChainSnapshot
from .stream import ChunkStream, begin, is_stream

__all__ = ["execute"]


def execute(snapshot: ChainSnapshot, call: Call, started: float, reserved_s: float) -> Answer:
    """Answer ``call`` by ``snapshot``.

    Args:
        started: the monotonic time.
        reserved_s: what is kept of the deadline for local engines.

    Raises:
        Exception: as :meth:`om_plugins.chains.chain.EngineChain.call` says.
    """
    # One long loop, because each function call here is paid by every call that succeeds;
    # what only failures need is in functions of its own.
    engines = snapshot.engines if snapshot.tiers is None else snapshot.order(started)
    if not engines:
        raise _no_engine(snapshot, call)
    deadline = call.deadline
    if not deadline > started:
        raise CallerDeadline(f"chain {snapshot.name!r}: the call came when its time was over")
    snapshot.deposit()
    monotonic = snapshot.monotonic
    attempt_timeout = snapshot.attempt_timeout
    history: list[Attempt] = []
    attempt = 0
    slept_s = 0.0
    spent = False
    hedged: tuple[EngineState, float] | None = None
    now = started
    for engine in engines:
        limit = deadline - reserved_s if engine.saves_time else deadline
        traffic = engine.traffic
        retry = 0
        while True:
            if now >= limit:
                if not engine.local:
                    _skip(engine, attempt, history, "no time left")
                    break
                limit = call.deadline = now + reserved_s  # somebody overran; see Time above
            permit = engine.breaker.permit
            if not permit or engine.cooldown.until or spent:
                if spent and not engine.local:
                    _skip(engine, attempt, history, "at most once")
                    break
                admitted = engine.admit(now)
                if isinstance(admitted, EngineUnavailable):
                    _skip(engine, attempt, history, admitted)
                    break
                permit = admitted
            if traffic is not None:
                try:
                    entered = traffic.enter(limit - now)
                except BaseException:  # something ended its wait
                    engine.breaker.release(permit, monotonic())
                    raise
                now = monotonic()
                if not entered or now >= limit or call.cancelled:
                    engine.breaker.release(permit, now)
                    if entered:
                        traffic.leave()
                    _stop_if_cancelled(call)
                    _skip(engine, attempt, history, "no time left" if entered else "bulkhead full")
                    break
            call.attempt_deadline = (
                limit if attempt_timeout is None else min(limit, now + attempt_timeout)
            )
            attempt += 1
            call.attempt = attempt
            call.tier = engine.tier
            cut = 0.0
            try:
                if traffic is not None and traffic.latency is not None and hedged is None:
                    cut = _hedge(snapshot, engine, call, now)
                result = engine.ask(call)
                if isinstance(result, Answer):
                    answer = result
                    if answer.chunks is not None:
                        answer = begin(answer, call, deadline - started, monotonic)
                elif (call.stream or engine.streaming) and is_stream(result):
                    answer = begin(result, call, deadline - started, monotonic)
                else:
                    answer = Answer(result)
            except Exception as error:
                began, now = now, monotonic()
                if traffic is not None:
                    traffic.leave()
                if cut and now >= cut and isinstance(error, AttemptTimeout) and not call.cancelled:
                    hedged = engine, began
                    engine.breaker.release(permit, now)
                    _record(engine, attempt, history, error, now - began)
                    snapshot.budget.charge(now)
                    _emit_retry(snapshot, engine, call, 0.0, error)
                    if _has_equal_after(engines, engine, now):
                        break
                    continue
                engine.record_failure(call, permit, error, now - began, now)
                _record(engine, attempt, history, error, now - began)
                _stop_if_cancelled(call, error)
                if row_of(error).next_tier is NextTier.NEVER:
                    raise
                if snapshot.policy.at_most_once and not engine.local and may_have_run(error):
                    spent = True
                retry += 1
                delay_s = _delay_s(snapshot, engine, call, error, retry, now, limit, spent)
                if delay_s is None or _has_equal_after(engines, engine, now):
                    break
                if slept_s + delay_s > snapshot.max_sleep_s() or not snapshot.budget.withdraw(now):
                    break
                _emit_retry(snapshot, engine, call, delay_s, error)
                slept_s += delay_s
                rested = snapshot.sleeper.sleep(delay_s, call)
                _stop_if_cancelled(call, error)
                now = monotonic()
                if not rested:
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
                if history:
                    _report_fallback(snapshot, engine, call, answer, history)
                    if hedged is not None:
                        _record_hedge(hedged, ended)
                if snapshot.learners:
                    snapshot.teach(call, answer)
                return answer
    raise _exhausted_error(snapshot, call, history, monotonic() >= deadline)


# --- hedging ------------------------------------------------------------------------------------


def _hedge(snapshot: ChainSnapshot, engine: EngineState, call: Call, now: float) -> float:
    """Cut the attempt where a hedge is due; returns when that is, 0.0 when it is not cut."""
    times = engine.traffic.latency if engine.traffic is not None else None
    after_s = times.value_s if times is not None else None
    idempotent = engine.idempotent if call.idempotent is None else call.idempotent
    if after_s is None or not idempotent or now + after_s >= call.attempt_deadline:
        return 0.0
    if snapshot.budget.balance(now) < 1.0:
        return 0.0
    call.attempt_deadline = now + after_s
    return call.attempt_deadline


def _record_hedge(hedged: tuple[EngineState, float], ended: float) -> None:
    """Count how long the question took with its hedge: what was cut must not look quick."""
    engine, began = hedged
    if engine.traffic is not None and engine.traffic.latency is not None:
        engine.traffic.latency.record(ended - began)


# --- after a failure ----------------------------------------------------------------------------


def _delay_s(
    snapshot: ChainSnapshot,
    engine: EngineState,
    call: Call,
    error: Exception,
    retry: int,
    now: float,
    limit: float,
    spent: bool,
) -> float | None:
    """Seconds to wait before asking the same engine again; ``None``: ask the next one."""
    policy = snapshot.policy
    idempotent = engine.idempotent if call.idempotent is None else call.idempotent
    if retry > policy.retries or not may_retry(error, idempotent):
        return None
    if isinstance(error, policy.give_up_on):
        return None
    if policy.retry_on is not None and not isinstance(error, policy.retry_on):
        return None
    if (spent and not engine.local) or not engine.breaker.permit:
        return None
    asked_s = asked_wait_s(error) or 0.0
    if asked_s > RATE_LIMIT_MAX_S:  # not believed, nor slept by a call without a deadline
        return None
    if row_of(error).cooldown == "cooling down":
        asked_s = max(asked_s, cooling_s(error))
    delay_s = full_jitter(retry, policy.delays, at_least_s=asked_s)
    return None if now + delay_s >= limit else delay_s


def _has_equal_after(engines: Sequence[EngineState], engine: EngineState, now: float) -> bool:
    """Whether another engine of the same tier can be asked: rather it than the same one again."""
    if engine.peers is None:
        return False
    return any(
        one.tier == engine.tier and one.can_admit(now)
        for one in engines[engines.index(engine) + 1 :]
    )


def _emit_retry(
    snapshot: ChainSnapshot, engine: EngineState, call: Call, delay_s: float, error: Exception
) -> None:
    if retry_scheduled.receivers:
        snapshot.emit(
            retry_scheduled,
            chain=snapshot.name,
            engine=engine.name,
            attempt=call.attempt + 1,
            delay_s=delay_s,
            error=error,
        )


def _record(
    engine: EngineState, attempt: int, history: list[Attempt], error: Exception, duration_s: float
) -> None:
    history.append(Attempt(engine.name, engine.tier, attempt, error, sent_of(error), duration_s))


def _skip(
    engine: EngineState, attempt: int, history: list[Attempt], reason: str | EngineUnavailable
) -> None:
    error = EngineUnavailable(engine.name, reason) if isinstance(reason, str) else reason
    history.append(Attempt(engine.name, engine.tier, attempt, error, "no", 0.0, skipped=True))


def _stop_if_cancelled(call: Call, error: Exception | None = None) -> None:
    if call.cancelled and not isinstance(error, Cancelled):
        raise Cancelled(f"call {call.id} was cancelled") from error


# --- at the end ---------------------------------------------------------------------------------


def _report_fallback(
    snapshot: ChainSnapshot, engine: EngineState, call: Call, answer: Answer, history: list[Attempt]
) -> None:
    for record in history:  # an answer must not keep the frames of failures alive
        record.error.__traceback__ = None
    answer.history = history
    if all(record.tier == engine.tier for record in history):
        return
    answer.degraded = True
    if snapshot.on_failure is not None:
        snapshot.on_failure(call, history)
    if engine_fell_back.receivers:
        snapshot.emit(
            engine_fell_back,
            chain=snapshot.name,
            engine=engine.name,
            tier=engine.tier,
            attempts=answer.attempts,
            history=history,
            call=call,
        )


def _no_engine(snapshot: ChainSnapshot, call: Call) -> Exception:
    if not snapshot.all_engines:
        return ConfigError("chain", snapshot.name, "has no engine to ask; add one")
    history: list[Attempt] = []
    for engine in snapshot.all_engines:  # an operator's doing, and no mistake in the settings
        _skip(engine, 0, history, "switched off")
    return _exhausted_error(snapshot, call, history, late=False)


def _exhausted_error(
    snapshot: ChainSnapshot, call: Call, history: list[Attempt], late: bool
) -> Exception:
    if snapshot.on_failure is not None:
        snapshot.on_failure(call, history)
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

"""The way of a call: the engines of a plan, asked in order until one answers.

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
from .engine_state__place import Place
from .error_table import (
    RATE_LIMIT_MAX_S,
    NextTier,
    asked_wait_s,
    cooling_s,
    may_have_run,
    may_retry,
    outcome_of,
    sent_of,
)
from .snapshot import Plan
from .stream import ChunkStream, begin, is_stream

__all__ = ["run"]


def run(plan: Plan, call: Call, started: float, reserved_s: float) -> Answer:
    """Answer ``call`` by ``plan``.

    Args:
        started: the monotonic time.
        reserved_s: what is kept of the deadline for local engines.

    Raises:
        Exception: as :meth:`om_plugins.chains.chain.EngineChain.call` says.
    """
    # One long loop, because each function call here is paid by every call that succeeds;
    # what only failures need is in functions of its own.
    places = plan.places if plan.steps is None else plan.order(started)
    if not places:
        raise _nobody(plan, call)
    deadline = call.deadline
    if not deadline > started:
        raise CallerDeadline(f"chain {plan.name!r}: the call came when its time was over")
    plan.deposit()
    monotonic = plan.monotonic
    attempt_timeout = plan.attempt_timeout
    history: list[Attempt] = []
    attempt = 0
    slept_s = 0.0
    spent = False
    hedged: tuple[Place, float] | None = None
    now = started
    for place in places:
        limit = deadline - reserved_s if place.saves_time else deadline
        traffic = place.traffic
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
            if traffic is not None:
                try:
                    entered = traffic.enter(limit - now)
                except BaseException:  # something ended its wait
                    place.breaker.release(permit, monotonic())
                    raise
                now = monotonic()
                if not entered or now >= limit or call.cancelled:
                    place.breaker.release(permit, now)
                    if entered:
                        traffic.leave()
                    _stop_if_cancelled(call)
                    _skip(place, attempt, history, "no time left" if entered else "bulkhead full")
                    break
            call.attempt_deadline = (
                limit if attempt_timeout is None else min(limit, now + attempt_timeout)
            )
            attempt += 1
            call.attempt = attempt
            call.tier = place.tier
            cut = 0.0
            try:
                if traffic is not None and traffic.times is not None and hedged is None:
                    cut = _hedge(plan, place, call, now)
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
                if traffic is not None:
                    traffic.leave()
                if cut and now >= cut and isinstance(error, AttemptTimeout) and not call.cancelled:
                    hedged = place, began
                    place.breaker.release(permit, now)
                    _note(place, attempt, history, error, now - began)
                    plan.budget.charge(now)
                    _tell_retry(plan, place, call, 0.0, error)
                    if _equal_after(places, place, now):
                        break
                    continue
                place.failed(call, permit, error, now - began, now)
                _note(place, attempt, history, error, now - began)
                _stop_if_cancelled(call, error)
                if outcome_of(error).next_tier is NextTier.NEVER:
                    raise
                if plan.policy.at_most_once and not place.local and may_have_run(error):
                    spent = True
                retry += 1
                delay_s = _delay_s(plan, place, call, error, retry, now, limit, spent)
                if delay_s is None or _equal_after(places, place, now):
                    break
                if slept_s + delay_s > plan.most_sleep_s() or not plan.budget.withdraw(now):
                    break
                _tell_retry(plan, place, call, delay_s, error)
                slept_s += delay_s
                rested = plan.sleeper.sleep(delay_s, call)
                _stop_if_cancelled(call, error)
                now = monotonic()
                if not rested:
                    break
            except BaseException:
                if traffic is not None:
                    traffic.leave()
                place.breaker.release(permit, monotonic())
                raise
            else:
                ended = monotonic()
                if answer.chunks is not None:
                    place.streams(cast(ChunkStream, answer.chunks), call, permit, now, ended)
                else:
                    if traffic is not None:
                        traffic.leave()
                        traffic.answered(ended - now, ended)
                    if place.breaker.leave(permit, ended, ended - now) or place.cooldown.until:
                        place.recovered(ended)
                    if engine_called.receivers:
                        place.tell_called(call, ended - now)
                answer.engine = place.name
                answer.tier = place.tier
                answer.attempts = attempt
                answer.elapsed_s = ended - started
                if history:
                    _fell_back(plan, place, call, answer, history)
                    if hedged is not None:
                        _hedge_ended(hedged, ended)
                if plan.learners:
                    plan.teach(call, answer)
                return answer
    raise _exhausted(plan, call, history, monotonic() >= deadline)


# --- hedging ------------------------------------------------------------------------------------


def _hedge(plan: Plan, place: Place, call: Call, now: float) -> float:
    """Cut the attempt where a hedge is due; returns when that is, 0.0 when it is not cut."""
    times = place.traffic.times if place.traffic is not None else None
    after_s = times.value_s if times is not None else None
    idempotent = place.idempotent if call.idempotent is None else call.idempotent
    if after_s is None or not idempotent or now + after_s >= call.attempt_deadline:
        return 0.0
    if plan.budget.balance(now) < 1.0:
        return 0.0
    call.attempt_deadline = now + after_s
    return call.attempt_deadline


def _hedge_ended(hedged: tuple[Place, float], ended: float) -> None:
    """Count how long the question took with its hedge: what was cut must not look quick."""
    place, began = hedged
    if place.traffic is not None and place.traffic.times is not None:
        place.traffic.times.record(ended - began)


# --- after a failure ----------------------------------------------------------------------------


def _delay_s(
    plan: Plan,
    place: Place,
    call: Call,
    error: Exception,
    retry: int,
    now: float,
    limit: float,
    spent: bool,
) -> float | None:
    """Seconds to wait before asking the same engine again; ``None``: ask the next one."""
    policy = plan.policy
    idempotent = place.idempotent if call.idempotent is None else call.idempotent
    if retry > policy.retries or not may_retry(error, idempotent):
        return None
    if isinstance(error, policy.give_up_on):
        return None
    if policy.retry_on is not None and not isinstance(error, policy.retry_on):
        return None
    if (spent and not place.local) or not place.breaker.permit:
        return None
    asked_s = asked_wait_s(error) or 0.0
    if asked_s > RATE_LIMIT_MAX_S:  # not believed, nor slept by a call without a deadline
        return None
    if outcome_of(error).cools:
        asked_s = max(asked_s, cooling_s(error))
    delay_s = full_jitter(retry, policy.delays, at_least_s=asked_s)
    return None if now + delay_s >= limit else delay_s


def _equal_after(places: Sequence[Place], place: Place, now: float) -> bool:
    """Whether another engine of the same tier can be asked: rather it than the same one again."""
    if place.peers is None:
        return False
    return any(
        one.tier == place.tier and one.askable(now) for one in places[places.index(place) + 1 :]
    )


def _tell_retry(plan: Plan, place: Place, call: Call, delay_s: float, error: Exception) -> None:
    if retry_scheduled.receivers:
        plan.emit(
            retry_scheduled,
            chain=plan.name,
            engine=place.name,
            attempt=call.attempt + 1,
            delay_s=delay_s,
            error=error,
        )


def _note(
    place: Place, attempt: int, history: list[Attempt], error: Exception, duration_s: float
) -> None:
    history.append(Attempt(place.name, place.tier, attempt, error, sent_of(error), duration_s))


def _skip(
    place: Place, attempt: int, history: list[Attempt], reason: str | EngineUnavailable
) -> None:
    error = EngineUnavailable(place.name, reason) if isinstance(reason, str) else reason
    history.append(Attempt(place.name, place.tier, attempt, error, "no", 0.0, skipped=True))


def _stop_if_cancelled(call: Call, error: Exception | None = None) -> None:
    if call.cancelled and not isinstance(error, Cancelled):
        raise Cancelled(f"call {call.id} was cancelled") from error


# --- at the end ---------------------------------------------------------------------------------


def _fell_back(
    plan: Plan, place: Place, call: Call, answer: Answer, history: list[Attempt]
) -> None:
    for record in history:  # an answer must not keep the frames of failures alive
        record.error.__traceback__ = None
    answer.history = history
    if all(record.tier == place.tier for record in history):
        return
    answer.degraded = True
    if plan.on_failure is not None:
        plan.on_failure(call, history)
    if engine_fell_back.receivers:
        plan.emit(
            engine_fell_back,
            chain=plan.name,
            engine=place.name,
            tier=place.tier,
            attempts=answer.attempts,
            history=history,
            call=call,
        )


def _nobody(plan: Plan, call: Call) -> Exception:
    if not plan.everyone:
        return ConfigError("chain", plan.name, "has no engine to ask; add one")
    history: list[Attempt] = []
    for place in plan.everyone:  # an operator's doing, and no mistake in the settings
        _skip(place, 0, history, "switched off")
    return _exhausted(plan, call, history, late=False)


def _exhausted(plan: Plan, call: Call, history: list[Attempt], late: bool) -> Exception:
    if plan.on_failure is not None:
        plan.on_failure(call, history)
    tried = ", ".join(
        str(one.error) if one.skipped else f"{one.engine}: {type(one.error).__name__}"
        for one in history
    )
    waits = [wait for one in history if (wait := asked_wait_s(one.error)) is not None]
    exhausted = ChainExhausted(
        f"chain {plan.name!r}: no engine answered ({tried})",
        [one.error for one in history],
        plan.name,
        history,
        min(waits, default=None),
    )
    if not late:
        return exhausted
    deadline = CallerDeadline(f"chain {plan.name!r}: the deadline passed ({tried})")
    deadline.attempts = history
    deadline.__cause__ = exhausted
    return deadline

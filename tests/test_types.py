"""The values that cross walls: what their own fields answer.

Covers ``om_plugins.core.call`` and ``om_plugins.core.engine``, too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import pytest

from om_plugins import types
from om_plugins.errors import AttemptTimeout, CallerDeadline, Cancelled, Transient
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Answer, Attempt, CacheStats, Call, Caller, Health, Notification


@pytest.mark.parametrize("name", types.__all__)
def test_every_value_has_slots_and_a_docstring(name: str) -> None:
    one = getattr(types, name)
    assert one.__doc__
    if one is not Health:
        assert "__slots__" in vars(one)


# --- calls --------------------------------------------------------------------------------------


def call(clock: FakeClock, deadline: float = 10.0) -> Call:
    return Call({"q": 1}, "c", deadline=clock.monotonic() + deadline, monotonic=clock.monotonic)


def test_a_call_without_a_deadline_has_all_the_time() -> None:
    assert Call().remaining() == float("inf")
    Call().raise_if_done()


def test_what_remains_is_the_attempts_time() -> None:
    clock = FakeClock()
    one = call(clock)
    one.attempt_deadline = clock.monotonic() + 3
    clock.advance(1)
    assert one.remaining() == pytest.approx(2)


def test_a_call_that_is_over_says_why() -> None:
    clock = FakeClock()
    one = call(clock)
    one.attempt_deadline = clock.monotonic() + 3
    clock.advance(3)
    with pytest.raises(AttemptTimeout):
        one.raise_if_done()
    clock.advance(7)
    with pytest.raises(CallerDeadline):
        one.raise_if_done()
    one.cancel()
    with pytest.raises(Cancelled):
        one.raise_if_done()


def test_ids_differ_and_stay() -> None:
    one, other = Call(), Call()
    assert one.id == one.id != other.id


def test_the_idempotency_key_is_the_same_on_every_attempt() -> None:
    one = Call()
    assert one.idempotency_key == one.idempotency_key != Call().idempotency_key
    assert Call(idempotency_key="mine").idempotency_key == "mine"


def test_cancelling_runs_each_callback_once() -> None:
    one, ran = Call(), []
    one.on_cancel(lambda: ran.append("a"))
    one.on_cancel(lambda: ran.append("b"))
    one.cancel()
    one.cancel()
    assert ran == ["a", "b"]
    assert one.cancelled


async def cancel_later() -> None:
    pass


@pytest.mark.parametrize(
    "callback", [cancel_later, lambda: cancel_later(), functools.partial(cancel_later)]
)
@pytest.mark.parametrize("before", [True, False])
def test_a_callback_that_cancels_nothing_is_an_error(
    callback: Callable[[], None], before: bool
) -> None:
    one, ran = Call(), []
    with pytest.raises(TypeError, match="async, and nobody awaits it"):
        if before:
            one.cancel()
        one.on_cancel(callback)
        one.on_cancel(lambda: ran.append("next"))
        one.cancel()
    assert one.cancelled
    assert ran == ([] if before else ["next"])


def test_a_callback_that_was_taken_back_does_not_run() -> None:
    one, ran = Call(), []
    remove = one.on_cancel(lambda: ran.append("a"))
    remove()
    remove()
    one.cancel()
    assert ran == []


def test_a_callback_on_a_cancelled_call_runs_at_once() -> None:
    one, ran = Call(), []
    one.cancel()
    one.on_cancel(lambda: ran.append("late"))
    assert ran == ["late"]


# --- answers ------------------------------------------------------------------------------------


def test_a_callback_that_fails_keeps_none_of_the_others() -> None:
    one, ran = Call(), []
    one.on_cancel(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    one.on_cancel(lambda: ran.append("b"))
    with pytest.raises(ZeroDivisionError):
        one.cancel()
    assert ran == ["b"]


@pytest.mark.parametrize("stop", [Call.cancel, Call.cut])
def test_a_callback_given_at_the_moment_of_the_end_runs_once(stop: Callable[[Call], None]) -> None:
    one, ran = Call(), []

    class Meanwhile(list):  # type: ignore[type-arg]
        """Lets another thread end the call just before the callback is kept."""

        def append(self, callback: object) -> None:
            stop(one)
            super().append(callback)

    one._callbacks = Meanwhile()
    one.on_cancel(lambda: ran.append("a"))
    assert ran == ["a"]
    one.cancel()
    assert ran == ["a"]


def test_a_plain_answer_iterates_over_its_payload() -> None:
    answer = Answer({"a": 1})
    assert list(answer) == [{"a": 1}]
    assert not answer.streamed
    answer.close()


def test_a_streamed_answer_iterates_over_its_chunks_and_closes_them() -> None:
    closed = []

    def chunks():
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    answer = Answer(chunks=chunks())
    assert answer.streamed
    assert next(iter(answer)) == "a"
    answer.close()
    assert closed == [True]


def test_an_attempt_tells_machines_the_errors_class_never_its_text() -> None:
    record = Attempt("gpt", 1, 2, Transient("key sk-123 refused"), "no", 0.1234)
    assert record.as_dict() == {
        "engine": "gpt",
        "tier": 1,
        "number": 2,
        "error": "Transient",
        "skipped": False,
        "duration_ms": 123.4,
    }


# --- the rest -----------------------------------------------------------------------------------


def test_the_hit_rate_counts_every_kind_of_hit() -> None:
    stats = CacheStats(fresh=5, stale=2, coalesced=1, negative=0, misses=2)
    assert (stats.hits, stats.hit_rate) == (8, 0.8)
    assert CacheStats().hit_rate is None


def test_health_reads_as_text() -> None:
    assert f"{Health.NO_DATA}" == "no data"


def test_a_notification_goes_to_operators_unless_said_otherwise() -> None:
    assert Notification(kind="info", message="x").to == "operators"
    with pytest.raises(TypeError):
        Notification("info", "x")  # type: ignore[misc]


def test_notifications_do_not_share_their_data() -> None:
    one, other = (Notification(kind="info", message="x") for _ in range(2))
    assert one.data is not other.data
    assert {f.name for f in dataclasses.fields(one)} >= {"kind", "message", "to", "key", "id"}


@pytest.mark.parametrize("wrong", [None, True, 1.5, b"ann", ["ann"], ""])
def test_a_caller_has_an_id_that_tells_it_from_others(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match="return False for nobody"):
        Caller(wrong)  # type: ignore[arg-type]
    assert Caller(0).id == 0

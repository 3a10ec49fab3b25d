"""Streams: commit after the first chunk, never replay, record the end, close the upstream."""

from __future__ import annotations

import gc

import pytest

from om_plugins.errors import CallerDeadline, ChainExhausted, RateLimited, Transient
from om_plugins.types import Answer


class Chunks:
    """An upstream iterator that says whether it was closed."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        if not self.steps:
            raise StopIteration
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    def close(self):
        self.closed += 1


def streaming(engine, *steps, **options):
    return engine("one", *[lambda call, step=step: step for step in steps], streaming=True,
                  **options)  # fmt: skip


def state(chain):
    health = chain.health()[0]
    return health.samples, health.failure_rate, health.state.value


def test_chunks_come_through_in_order_and_success_is_recorded_at_the_end(engine, chain_of):
    chunks = Chunks("a", "b", "c")
    chain = chain_of(streaming(engine, chunks))
    answer = chain.call(stream=True)
    assert (answer.streamed, answer.payload, answer.engine) == (True, None, "one")
    assert next(answer.chunks) == "a"
    assert state(chain)[0] == 0
    assert list(answer) == ["b", "c"]
    assert state(chain) == (1, 0.0, "healthy")
    assert chunks.closed == 1
    assert list(answer.chunks) == []


def test_a_first_chunk_that_fails_is_retried_and_falls_back(engine, chain_of):
    broken = [Chunks(Transient("x")), Chunks(Transient("x"))]
    chain = chain_of(streaming(engine, *broken, idempotent=True), engine("two", "whole"), retries=1)
    answer = chain.call(stream=True)
    assert (answer.engine, answer.payload, answer.chunks) == ("two", "whole", None)
    assert answer.attempts == 3
    assert [c.closed for c in broken] == [1, 1]
    assert state(chain)[:2] == (2, 1.0)


def test_a_stream_that_fails_at_once_is_closed_at_once(engine, chain_of):
    chunks = Chunks(Transient("x"))
    with pytest.raises(ChainExhausted) as caught:
        chain_of(streaming(engine, chunks)).call(stream=True)
    assert chunks.closed == 1  # though the error's frames are still here
    assert caught.value.exceptions[0].__traceback__ is not None


def test_nothing_is_replayed_after_the_first_chunk(engine, chain_of):
    chunks = Chunks("half an ", Transient("connection lost"))
    one, two = streaming(engine, chunks, idempotent=True), engine("two")
    chain = chain_of(one, two)
    answer = chain.call(stream=True)
    received = []
    with pytest.raises(Transient):
        for chunk in answer:
            received.append(chunk)
    assert (received, one.times, two.times) == (["half an "], 1, 0)
    assert state(chain)[:2] == (1, 1.0)
    assert chunks.closed == 1
    assert chain.health()[0].last_error == "Transient"
    assert list(answer.chunks) == []


def test_closing_early_is_neutral_closes_the_upstream_and_cancels_the_call(engine, chain_of):
    chunks = Chunks("a", "b")
    calls = []
    chain = chain_of(engine("one", lambda call: calls.append(call) or chunks, streaming=True))
    answer = chain.call(stream=True)
    answer.close()
    answer.close()
    assert chunks.closed == 1
    assert calls[0].cancelled
    assert state(chain)[0] == 0
    assert list(answer.chunks) == []


def test_a_stream_that_was_read_to_its_end_is_not_cancelled(engine, chain_of):
    calls = []
    chain = chain_of(engine("one", lambda call: calls.append(call) or Chunks("a"), streaming=True))
    answer = chain.call(stream=True)
    assert list(answer) == ["a"]
    answer.close()
    assert not calls[0].cancelled


def test_a_stream_never_read_is_closed_when_it_is_collected(engine, chain_of):
    chunks = Chunks("a", "b")
    chain = chain_of(streaming(engine, chunks))
    chain.call(stream=True)
    gc.collect()
    assert chunks.closed == 1
    assert state(chain)[0] == 0


def test_a_half_open_breaker_gets_its_permit_back_from_a_collected_stream(engine, chain_of, clock):
    steps = [Chunks(ValueError("x")), Chunks("probe"), Chunks("fine")]
    one = streaming(engine, *steps)
    chain = chain_of(one, breaker_min_calls=1)
    with pytest.raises(ChainExhausted):
        chain.call(stream=True)
    clock.advance(10)
    chain.call(stream=True)  # the probe, thrown away
    gc.collect()
    assert list(chain.call(stream=True)) == ["fine"]
    assert state(chain)[2] == "healthy"


def test_a_generator_is_closed_where_it_stands(engine, chain_of):
    ended = []

    def generate(call):
        try:
            yield from "abc"
        finally:
            ended.append(True)

    answer = chain_of(engine("one", generate, streaming=True)).call(stream=True)
    assert next(answer.chunks) == "a"
    answer.close()
    assert ended == [True]


def test_an_error_while_closing_the_upstream_is_nobodys_problem(engine, chain_of):
    chunks = Chunks("a")
    chunks.close = lambda: 1 / 0
    assert list(chain_of(streaming(engine, chunks)).call(stream=True)) == ["a"]


class Interrupted(BaseException):
    pass


def test_what_goes_wrong_at_the_end_keeps_no_permit_and_no_room(engine, chain_of, clock):
    class Stuck(Chunks):
        def close(self):
            raise Interrupted

    chain = chain_of(streaming(engine, Stuck("a", "b"), Chunks("c"), max_concurrency=1))
    with pytest.raises(Interrupted):
        chain.call(stream=True).close()
    assert list(chain.call(stream=True)) == ["c"]


def test_a_callback_that_fails_does_not_keep_a_stream_open(engine, chain_of):
    chunks = Chunks("a", "b")

    def stream(call):
        call.on_cancel(lambda: 1 / 0)
        return chunks

    chain = chain_of(engine("one", stream, streaming=True, max_concurrency=1))
    answer = chain.call(stream=True)
    with pytest.raises(ZeroDivisionError):
        answer.close()
    assert chunks.closed
    assert chain.states[0].traffic.bulkhead.in_use == 0


def test_a_load_counts_a_forgotten_stream_out(engine, chain_of):
    chain = chain_of([streaming(engine, Chunks("a", "b")), engine("two")])
    answer = chain.call(stream=True)
    assert [place.in_flight for place in chain.states] == [1, 0]
    del answer
    gc.collect()
    assert [place.in_flight for place in chain.states] == [0, 0]


def test_an_empty_stream_is_an_answer(engine, chain_of):
    chain = chain_of(streaming(engine, Chunks()))
    assert list(chain.call(stream=True)) == []
    assert state(chain) == (1, 0.0, "healthy")


def test_an_answer_with_chunks_keeps_what_the_engine_said(engine, chain_of):
    own = Answer(chunks=Chunks("a", "b"), metadata={"model": "m"})
    answer = chain_of(streaming(engine, own)).call(stream=True)
    assert answer is own
    assert (list(answer), answer.metadata) == (["a", "b"], {"model": "m"})


@pytest.mark.parametrize(
    ("chunks", "whole"),
    [(("a", "b"), "ab"), ((b"a", b"b"), b"ab"), (({"n": 1}, "b"), [{"n": 1}, "b"]), ((), "")],
)
def test_who_wants_no_stream_gets_the_chunks_put_together(engine, chain_of, chunks, whole):
    for result in (Chunks(*chunks), Answer(chunks=Chunks(*chunks))):
        chain = chain_of(streaming(engine, result))
        answer = chain.call()
        assert (answer.payload, answer.chunks) == (whole, None)
        assert state(chain)[0] == 1


def test_a_failure_in_the_middle_is_retried_when_nothing_was_sent_on(engine, chain_of):
    one = streaming(engine, Chunks("a", Transient("x")), Chunks("a", "b"), idempotent=True)
    answer = chain_of(one).call()
    assert (answer.payload, answer.attempts) == ("ab", 2)


def test_an_endless_stream_is_cut_at_the_deadline_when_put_together(engine, chain_of, clock):
    def endless(call):
        while True:
            clock.advance(1)
            yield "drip"

    chain = chain_of(engine("one", endless, streaming=True))
    with pytest.raises(CallerDeadline):
        chain.call(timeout=5)


def test_a_plain_engine_may_answer_a_streaming_call_at_once(engine, chain_of):
    answer = chain_of(engine("one", {"a": 1})).call(stream=True)
    assert (answer.payload, answer.streamed, list(answer)) == ({"a": 1}, False, [{"a": 1}])


def test_a_plain_engines_iterator_is_left_alone_for_a_plain_call(engine, chain_of):
    rows = iter([1, 2])
    assert chain_of(engine("one", lambda call: rows)).call().payload is rows


def test_each_chunk_after_the_first_has_the_calls_time_anew(engine, chain_of, clock):
    remaining = []

    def slowly(call):
        for chunk in "abc":
            remaining.append(call.remaining())
            clock.advance(4)
            yield chunk

    answer = chain_of(engine("one", slowly, streaming=True)).call(stream=True, timeout=5)
    assert "".join(answer) == "abc"
    assert remaining == pytest.approx([5, 5, 5])
    assert answer.elapsed_s == 4


def test_slowness_is_measured_to_the_first_chunk(engine, chain_of, clock):
    def slowly(call):
        for chunk in "abc":
            yield chunk
            clock.advance(4)

    chain = chain_of(engine("one", slowly, streaming=True))
    list(chain.call(stream=True))
    assert chain.health()[0].slow_rate == 0


def test_an_engine_rate_limited_in_mid_stream_cools_down(engine, chain_of):
    chain = chain_of(streaming(engine, Chunks("a", RateLimited("x", retry_after=9))), engine("b"))
    with pytest.raises(RateLimited):
        list(chain.call(stream=True))
    assert chain.call().engine == "b"


def test_a_base_exception_in_mid_stream_is_neutral(engine, chain_of):
    chunks = Chunks("a", KeyboardInterrupt())
    chain = chain_of(streaming(engine, chunks))
    with pytest.raises(KeyboardInterrupt):
        list(chain.call(stream=True))
    assert state(chain)[0] == 0
    assert chunks.closed == 1


@pytest.mark.usefixtures("listening")
def test_a_streamed_answer_is_told_when_it_has_ended(engine, chain_of, events):
    answer = chain_of(streaming(engine, Chunks("a", "b"))).call(stream=True)
    assert events == []
    list(answer)
    assert "engine_called" in [name for name, _ in events]

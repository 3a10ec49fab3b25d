"""Why engines fail is in the log: once a minute for each cause, with the count of the others."""

from __future__ import annotations

import logging

import pytest

from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.chains.failures.failure_log import EVERY_S, MAX_CAUSES, FailureLog
from om_plugins.errors import (
    Cancelled,
    ChainExhausted,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    Transient,
    Unsupported,
)
from om_plugins.types import Call


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="om_plugins")

    def read():
        return [r.getMessage() for r in caplog.records if r.getMessage().startswith("chain ")]

    return read


def test_the_line_names_chain_engine_and_error(engine, chain_of, lines):
    chain = chain_of(
        engine("rates-api", ConnectionRefusedError("10.0.0.7:443 refused")),
        engine("fixed"),
        name="rates",
        retries=0,
    )
    chain.call()
    assert lines() == [
        "chain 'rates': the engine 'rates-api' failed: ConnectionRefusedError: 10.0.0.7:443 refused"
    ]


def test_one_cause_has_a_line_a_minute_that_counts_the_others(engine, chain_of, clock, lines):
    chain = chain_of(engine("a", OSError("down")), engine("b"), retries=0, breaker_min_calls=1000)
    for _ in range(5):
        chain.call()
    assert len(lines()) == 1
    clock.advance(EVERY_S - 1)
    chain.call()
    assert len(lines()) == 1
    clock.advance(1)
    chain.call()
    chain.call()
    assert [line.endswith("(5 more since the last line)") for line in lines()] == [False, True]


@pytest.mark.parametrize(
    "other",
    [
        lambda engine: engine("a", OSError("down"), TimeoutError("late")),
        lambda engine: engine("a", Transient("down"), Misconfigured("no key")),
    ],
)
def test_another_class_of_error_is_another_cause(engine, chain_of, clock, lines, other):
    chain = chain_of(other(engine), engine("b"), retries=0, breaker_min_calls=1000)
    chain.call()
    chain.call()
    chain.call()
    assert len(lines()) == 2


def test_two_engines_with_one_error_are_two_causes(engine, chain_of, lines):
    chain = chain_of(engine("a", OSError("x")), engine("b", OSError("x")), retries=0)
    with pytest.raises(ChainExhausted):
        chain.call()
    assert [line.split("engine ")[1][:3] for line in lines()] == ["'a'", "'b'"]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (OSError("x"), logging.WARNING),
        (RateLimited("slow down"), logging.WARNING),
        (Misconfigured("no key"), logging.WARNING),
        (Unsupported("no pictures"), logging.INFO),
        (InvalidRequest("no question"), logging.INFO),
        (Cancelled("gone"), logging.INFO),
    ],
)
def test_what_says_nothing_about_the_engine_is_no_warning(clock, caplog, error, level):
    caplog.set_level(logging.INFO, logger="om_plugins")
    FailureLog("c", clock).record("e", error)
    assert [record.levelno for record in caplog.records] == [level]


def test_a_stream_that_breaks_off_is_written(chain_of, lines):
    def answer(call):
        yield "one"
        raise OSError("the line broke")

    chain = chain_of(CallableEngine("a", answer))
    with pytest.raises(OSError, match="broke"):
        list(chain.call(stream=True))
    assert lines() == ["chain 'chain': the engine 'a' failed: OSError: the line broke"]


def test_at_level_debug_the_traceback_follows(engine, chain_of, caplog):
    caplog.set_level(logging.DEBUG, logger="om_plugins")

    def break_here(call):
        raise ZeroDivisionError("by zero")

    chain_of(engine("a", break_here), engine("b"), retries=0).call()
    (debug,) = [r.getMessage() for r in caplog.records if "failed here" in r.getMessage()]
    assert "in break_here" in debug
    assert debug.endswith("ZeroDivisionError: by zero")


def test_without_level_debug_there_is_no_traceback(engine, chain_of, caplog):
    caplog.set_level(logging.INFO, logger="om_plugins")
    chain_of(engine("a", OSError("x")), engine("b"), retries=0).call()
    assert not [r for r in caplog.records if "failed here" in r.getMessage()]


@pytest.mark.parametrize(
    "text",
    [
        "GET https://user:SESAME@api.example/x",
        "https://api.example/x?api_key=SESAME&page=2",
        "https://api.example/x?access_token=SESAME",
        "{'Authorization': 'Bearer SESAME-12345678'}",
        "headers: Authorization: Basic SESAME12345678",
        "password='SESAME' refused",
        '{"client_secret": "SESAME"}',
        "no such key sk-SESAME12345678",
        "X-Api-Key: SESAME",
        "postgresql://shop:SESAME@db/x",
        "Cookie: session=SESAME",
        "key=SESAME",
        "https://x.example/?sig=SESAME",
    ],
)
def test_secrets_are_in_no_line_and_in_no_traceback(clock, caplog, text):
    caplog.set_level(logging.DEBUG, logger="om_plugins")
    FailureLog("c", clock).record("e", OSError(text))
    written = "\n".join(record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2
    assert "SESAME" not in written
    assert all(record.exc_info is None for record in caplog.records)


def test_a_line_stays_one_line_of_bounded_length(clock, lines):
    FailureLog("c", clock).record("e", OSError("a\nforged: line\x1b[2J" + "x" * 5000))
    (line,) = lines()
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 400


def test_an_error_without_a_text_is_written(clock, lines):
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    log = FailureLog("c", clock)
    log.record("e", OSError())
    log.record("e", Silent())
    assert [line.split("failed: ")[1] for line in lines()] == ["OSError", "Silent: it has no text"]


def test_the_causes_that_are_remembered_are_bounded(clock, lines):
    log = FailureLog("c", clock)
    for number in range(MAX_CAUSES + 1):
        log.record("e", type(f"E{number}", (Exception,), {})())
    assert len(log._causes) <= MAX_CAUSES


def test_a_failed_probe_is_written_as_one(worker, engine, clock, hub, lines, pass_time):
    class Watched:
        name = "e"
        traits = engine("x").traits

        def call(self, call):
            return 1

        def probe(self, call):
            raise OSError("no route to host")

    one = worker(interval_s=10.0)
    one.add(Watched())
    pass_time(25, one)
    assert lines() == ["chain 'chain': a probe of engine 'e' failed: OSError: no route to host"]


def test_calls_that_work_write_nothing(engine, chain_of, caplog):
    caplog.set_level(logging.DEBUG, logger="om_plugins")
    chain_of(engine("a")).ask(Call())
    assert caplog.records == []

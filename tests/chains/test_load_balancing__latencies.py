"""How busy an engine is: counted right under garbage collection and after a fork."""

from __future__ import annotations

import threading

from om_plugins.chains.load_balancing__latencies import Load


def test_a_stream_collected_while_a_call_is_counted_does_not_wait_for_itself():
    load = Load()
    load.enter()

    def collected_in_the_middle():
        with load._lock:
            load.leave()

    thread = threading.Thread(target=collected_in_the_middle, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert load.in_flight == 0


def test_what_began_in_the_parent_does_not_end_in_the_child():
    load = Load()
    load.enter()
    load.after_fork()
    load.leave()
    assert load.in_flight == 0
    load.enter()
    assert load.cost(0.0) > 0


def test_failures_in_a_row_begin_anew_with_an_answer():
    load = Load()
    assert [load.failed(0.1, 0.0), load.failed(0.1, 0.0)] == [1, 2]
    load.answered(0.1, 0.0)
    assert load.failed(0.1, 0.0) == 1


def test_a_slow_answer_counts_at_once_and_a_quick_one_little_by_little():
    load = Load()
    load.answered(0.1, 0.0)
    load.answered(2.0, 0.0)
    assert load.expected_s(0.0) == 2.0
    load.answered(0.1, 1.0)
    assert 1.5 < load.expected_s(1.0) < 2.0
    for second in range(2, 60):
        load.answered(0.1, float(second))
    assert load.expected_s(59.0) < 0.12


def test_each_failure_makes_an_engine_look_slower_and_a_quick_one_not_quick():
    load = Load()
    load.failed(0.001, 0.0)
    assert load.expected_s(0.0) == 1.0
    load.failed(0.001, 0.0)
    assert load.expected_s(0.0) == 2.0
    load.failed(9.0, 0.0)
    assert load.expected_s(0.0) == 9.0


def test_of_an_engine_that_has_not_answered_yet_one_call_finds_out():
    known, new = Load(), Load()
    known.answered(0.1, 0.0)
    assert new.cost(0.0) < known.cost(0.0)
    new.enter()
    assert new.cost(0.0) > known.cost(0.0)
    new.answered(0.01, 0.0)
    assert new.cost(0.0) < known.cost(0.0)


def test_failures_of_a_crowd_do_not_make_an_engine_slow_for_ever():
    load = Load()
    for _ in range(64):
        load.failed(0.001, 0.0)
    assert load.expected_s(0.0) == 5.0
    load.failed(9.0, 0.0)
    assert load.expected_s(0.0) == 9.0

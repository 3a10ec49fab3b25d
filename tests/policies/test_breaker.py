"""The breaker: a sliding window, one probe, and permits that always come back.

Covers ``om_plugins.policies.window`` and ``om_plugins.policies.half_open``, too.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable

import pytest

from om_plugins.errors import ConfigError
from om_plugins.policies.breaker import Breaker
from tests.patience import join


def breaker(**options: object) -> Breaker:
    settings: dict = {"failure_rate": 0.5, "min_calls": 4, "window_s": 10, "cooldown_s": 5}
    settings |= {"slow_s": 1.0, "cooldown_factor": 1}
    return Breaker(**{**settings, **options})


def in_threads(work: Callable[[], object], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(one: Breaker, now: float, failed: bool = False, duration_s: float = 0.0) -> bool:
    permit = one.permit or one.enter(now)
    if permit:
        one.leave(permit, now, duration_s, failed=failed)
    return bool(permit)


def opened(now: float = 0.0, **options: object) -> Breaker:
    one = breaker(min_calls=1, **options)
    run(one, now, failed=True)
    assert one.view(now).state == "open"
    return one


def test_it_stays_closed_below_the_minimum_of_calls():
    one = breaker()
    for _ in range(3):
        run(one, 0, failed=True)
    assert one.view(0).state == "closed"
    run(one, 0, failed=True)
    assert one.view(0).state == "open"


def test_it_opens_at_the_failure_rate_and_not_below():
    one = breaker(min_calls=10)
    for failed in [False] * 6 + [True] * 5:
        run(one, 0, failed=failed)
    assert one.view(0).state == "closed"
    assert one.view(0).failure_rate == pytest.approx(5 / 11)
    run(one, 0, failed=True)
    assert one.view(0).state == "open"


def test_a_success_never_opens_it():
    one = breaker(min_calls=4)
    for failed in (True, True, True, False):
        run(one, 0, failed=failed)
    assert one.view(0).state == "closed"


def test_slow_calls_open_it_although_they_succeed():
    one = breaker(slow_rate=0.75)
    for duration_s in (0.1, 1.0, 2.0, 3.0):
        run(one, 0, duration_s=duration_s)
    assert one.view(0).state == "open"


def test_what_is_older_than_the_window_is_forgotten():
    one = breaker()
    for now in (0, 1, 2):
        run(one, now, failed=True)
    assert one.view(2).failures == 3
    assert one.view(9.9).failures == 3
    assert one.view(10.5).failures == 2
    assert one.view(12.5).calls == 0
    run(one, 12.5, failed=True)
    assert one.view(12.5).state == "closed"


def test_a_long_silence_forgets_everything():
    one = breaker()
    for _ in range(3):
        run(one, 0, failed=True)
    assert one.view(1e6).calls == 0


def test_open_it_refuses_until_the_cooldown_is_over():
    one = opened()
    assert not run(one, 4.9)
    assert one.view(4).retry_after_s == pytest.approx(1)
    assert run(one, 5.0)
    assert one.view(5).state == "closed"


def test_half_open_it_lets_one_probe_through():
    one = opened()
    probe = one.enter(5)
    assert probe
    assert (one.permit, one.enter(5), one.enter(9)) == (0, 0, 0)
    assert one.view(5).state == "half-open"
    one.leave(probe, 6, 0.1)
    assert one.permit


def test_a_failed_probe_opens_it_again():
    one = opened()
    one.leave(one.enter(5), 6, 0.1, failed=True)
    assert one.enter(10.9) == 0
    assert one.enter(11)


def test_a_slow_probe_opens_it_again():
    one = opened()
    one.leave(one.enter(5), 8, 3.0)
    assert one.view(8).state == "open"


def test_a_released_probe_lets_the_next_one_through_at_once():
    one = opened()
    one.release(one.enter(5), 5)
    assert one.enter(5)


def test_a_lost_probe_is_replaced_after_the_cooldown_and_may_still_close_it():
    one = opened()
    lost = one.enter(5)
    assert one.enter(9.9) == 0
    second = one.enter(10)
    assert second
    one.release(lost, 10)  # says nothing of the second
    assert one.enter(10) == 0
    one.leave(lost, 11, 0.1)
    assert one.permit
    one.leave(second, 12, 0.1, failed=True)  # of an earlier state: ignored
    assert one.permit


def test_a_call_from_before_it_opened_changes_nothing_when_it_ends_late():
    one = breaker(min_calls=1)
    early = one.permit
    run(one, 0, failed=True)
    one.leave(early, 1, 0.1)
    assert one.view(1).state == "open"
    probe = one.enter(5)
    one.leave(early, 5, 0.1, failed=True)
    one.release(early, 5)
    assert one.enter(5) == 0
    one.leave(probe, 5, 0.1)
    one.leave(early, 6, 0.1, failed=True)
    assert one.view(6).state == "closed"


def test_closing_begins_a_new_window_with_the_probe_in_it():
    one = opened()
    run(one, 5)
    view = one.view(5)
    assert (view.calls, view.failures, view.retry_after_s) == (1, 0, None)


def test_a_neutral_end_counts_nothing():
    one = breaker()
    one.release(one.permit, 0)
    assert one.view(0).calls == 0


def test_leave_tells_when_health_may_have_changed():
    one = breaker()
    assert one.leave(one.permit, 0, 0)  # the first of its bucket
    assert not one.leave(one.permit, 0, 0)
    assert one.leave(one.permit, 0, 0, failed=True)
    assert one.leave(one.permit, 1, 0)


def test_sixty_four_threads_at_a_half_open_breaker_send_one_probe():
    one = opened()
    ready = threading.Barrier(64)
    permits = []

    def caller() -> None:
        ready.wait()
        permits.append(one.permit or one.enter(5))

    in_threads(caller, 64)
    assert len([p for p in permits if p]) == 1


def test_counts_are_exact_under_threads():
    one = Breaker(min_calls=10**9)

    def caller() -> None:
        for n in range(1000):
            one.leave(one.permit, n / 1000, 0.0, failed=n % 10 == 0)

    in_threads(caller, 8)
    view = one.view(1)
    assert (view.calls, view.failures) == (8000, 800)


# --- a window by count


def test_a_window_by_count_forgets_the_oldest_call_and_never_by_time():
    one = breaker(window_calls=4)
    for failed in (True, False, False, False):
        run(one, 0, failed=failed)
    assert one.view(1e9).failures == 1
    run(one, 0)
    assert (one.view(0).calls, one.view(0).failures) == (4, 0)
    run(one, 1e9, failed=True)
    assert one.view(1e9).state == "closed"
    run(one, 2e9, failed=True)
    assert one.view(2e9).state == "open"


def test_a_window_by_count_counts_slow_calls():
    one = breaker(window_calls=4, slow_rate=0.75)
    for duration_s in (0, 2, 2):
        run(one, 0, duration_s=duration_s)
    assert one.view(0).slow == 2
    run(one, 0, duration_s=2)
    assert one.view(0).state == "open"


def test_a_window_smaller_than_the_minimum_of_calls_can_open_all_the_same():
    one = breaker(min_calls=100, window_calls=3)
    for _ in range(3):
        assert one.view(0).state == "closed"
        run(one, 0, failed=True)
    assert one.view(0).state == "open"


def test_a_window_by_count_is_exact_under_threads():
    one = Breaker(window_calls=8000, failure_rate=1.0)

    def caller() -> None:
        for n in range(1000):
            one.leave(one.permit, 0, 0.0, failed=n % 10 == 0)

    in_threads(caller, 8)
    assert (one.view(0).calls, one.view(0).failures) == (8000, 800)


def test_a_window_by_count_tells_of_its_first_call():
    one = breaker(window_calls=4)
    assert one.leave(one.permit, 0, 0)
    assert not one.leave(one.permit, 0, 0)


# --- several probes


def test_half_open_it_lets_no_more_probes_through_than_must_succeed():
    one = opened(half_open_permits=3)
    probes = [one.enter(5) for _ in range(4)]
    assert (all(probes[:3]), probes[3]) == (True, 0)
    for probe in probes[:2]:
        one.leave(probe, 6, 0.1)
        assert one.enter(6) == 0  # two have succeeded and one is out
    one.leave(probes[2], 6, 0.1)
    assert (one.view(6).state, one.view(6).calls) == ("closed", 3)


def test_the_first_probe_that_fails_opens_it_again_whatever_the_others_say():
    one = opened(half_open_permits=3)
    first, second, third = (one.enter(5) for _ in range(3))
    one.leave(first, 6, 0.1)
    one.leave(second, 6, 0.1, failed=True)
    one.leave(third, 7, 0.1)
    assert one.view(7).state == "open"
    again = [one.enter(11) for _ in range(4)]
    assert (all(again[:3]), again[3]) == (True, 0)  # the one that succeeded then counts no more


def test_one_of_several_probes_that_ends_neutrally_makes_room():
    one = opened(half_open_permits=2)
    first, second = one.enter(5), one.enter(5)
    assert one.view(5).retry_after_s is None
    one.release(first, 5)
    assert one.view(5).retry_after_s == 0.0
    third = one.enter(5)
    assert third
    one.leave(second, 5, 0.1)
    one.leave(third, 5, 0.1)
    assert one.permit


def test_lost_probes_are_replaced_one_for_one():
    one = opened(half_open_permits=2)
    assert one.enter(5)
    assert one.enter(7)
    assert one.enter(9.9) == 0
    assert one.enter(10)  # the first is lost, the second is not
    assert one.enter(10) == 0


def test_a_herd_at_a_half_open_breaker_gets_exactly_its_permits_round_after_round():
    one = opened(half_open_permits=3)
    for round_ in range(20):
        ready = threading.Barrier(16)
        permits: list[int] = []

        def caller(ready=ready, permits=permits) -> None:
            ready.wait()
            permits.append(one.permit or one.enter(5))

        in_threads(caller, 16)
        let_in = [permit for permit in permits if permit]
        assert len(let_in) == 3, round_
        for permit in let_in:
            one.release(permit, 5)


# --- early probes


def test_an_early_probe_leaves_the_cooldown_of_others_as_it_is():
    one = opened()
    probe = one.enter_early(1)
    assert probe
    assert (one.enter_early(1), one.enter(4.9)) == (0, 0)
    assert one.view(1).retry_after_s == pytest.approx(4)
    one.leave(probe, 2, 0.1, failed=True)
    assert one.view(2).retry_after_s == pytest.approx(3)
    assert one.enter(5)


def test_an_early_probe_that_succeeds_closes_it():
    one = opened()
    one.leave(one.enter_early(1), 2, 0.1)
    assert one.permit


def test_an_early_probe_that_succeeds_lets_the_next_through_where_more_are_needed():
    one = opened(half_open_permits=2)
    one.leave(one.enter_early(1), 2, 0.1)
    assert one.view(2).state == "half-open"
    one.leave(one.enter(2), 2, 0.1)
    assert one.permit


def test_an_early_probe_is_any_call_while_it_is_closed():
    one = breaker()
    assert one.enter_early(0) == one.permit


# --- a cooldown that grows


def cooldowns(one: Breaker, now: float, count: int) -> list[float]:
    """The cooldowns of openings that follow one another, each by a probe that fails."""
    found = []
    for _ in range(count):
        wait_s = one.view(now).retry_after_s or 0.0
        found.append(wait_s)
        now += wait_s
        one.leave(one.enter(now), now, 0.0, failed=True)
    return found


def test_the_cooldown_doubles_with_each_opening_up_to_its_maximum():
    one = opened(cooldown_factor=2, cooldown_max_s=30)
    assert cooldowns(one, 0, 5) == pytest.approx([5, 10, 20, 30, 30])
    assert one.view(0).opened == 6


def test_a_maximum_below_the_cooldown_shortens_nothing():
    assert cooldowns(opened(cooldown_max_s=1), 0, 2) == pytest.approx([5, 5])


def test_a_breaker_that_opens_again_soon_after_closing_waits_longer():
    one = opened(cooldown_factor=2)
    run(one, 5)
    run(one, 6, failed=True)
    assert one.view(6).retry_after_s == pytest.approx(10)


@pytest.mark.parametrize(("well_s", "cooldown_s"), [(9.9, 10), (10, 5)])
def test_it_forgives_after_being_well_for_its_window(well_s, cooldown_s):
    one = opened(cooldown_factor=2)  # its window is 10 s
    run(one, 5)
    run(one, 5 + well_s, failed=True)
    assert one.view(5 + well_s).retry_after_s == pytest.approx(cooldown_s)


def test_jitter_makes_a_cooldown_longer_by_up_to_its_share():
    for drawn, wait_s in ((0.0, 5), (1.0, 6)):
        one = opened(cooldown_jitter=0.2, draw=lambda drawn=drawn: drawn)
        assert one.view(0).retry_after_s == pytest.approx(wait_s)


# --- forced


def test_forced_open_it_refuses_all_until_told_otherwise():
    one = breaker()
    early = one.permit
    assert one.force("open")
    assert not one.force("open")
    assert (one.permit, one.enter(1e9), one.enter_early(1e9)) == (0, 0, 0)
    one.leave(early, 1, 0.1)
    view = one.view(1e9)
    assert (view.state, view.forced, view.retry_after_s) == ("open", "open", None)
    one.force(None)
    assert one.view(1).state == "half-open"
    run(one, 1)
    assert one.view(1).state == "closed"


def test_forced_closed_it_counts_and_never_opens():
    one = opened()
    one.force("closed")
    for _ in range(10):
        assert run(one, 1, failed=True)
    view = one.view(1)
    assert (view.state, view.forced, view.failures) == ("closed", "closed", 10)
    one.force(None)
    assert one.view(1).state == "closed"
    run(one, 1, failed=True)
    assert one.view(1).state == "open"


def test_what_it_cannot_be_forced_to_is_refused():
    one = breaker()
    with pytest.raises(ConfigError, match="breaker 'opne': must be 'open', 'closed' or None"):
        one.force("opne")
    assert one.view(1).forced is None


def test_a_probe_that_was_out_changes_nothing_of_what_was_forced():
    one = opened()
    probe = one.enter(5)
    one.force("open")
    one.leave(probe, 6, 0.1)
    assert one.view(6).forced == "open"
    assert one.permit == 0


def test_nothing_heard_changes_what_was_forced():
    one = breaker()
    one.force("closed")
    assert not one.apply_opened(0, 5, 1, 0)
    one.force("open")
    assert not one.apply_closed(0, 0)
    assert not one.note_probe(True, 0, 0)
    assert one.view(0).state == "open"


# --- what others know


def test_it_opens_when_it_opened_elsewhere_and_probes_when_told():
    one = breaker(cooldown_factor=2, cooldown_max_s=60)
    early = one.permit
    assert one.apply_opened(0, 7, 1, 0)
    one.leave(early, 1, 0.1)
    assert one.view(0).retry_after_s == pytest.approx(7)
    assert one.enter(6.9) == 0
    one.leave(one.enter(7), 7, 0.1, failed=True)
    assert one.view(7).retry_after_s == pytest.approx(10)  # the second in a row
    assert one.view(7).opened == 2


def test_what_is_heard_is_kept_inside_bounds():
    one = breaker(cooldown_max_s=20)
    one.apply_opened(0, 1e12, 10**9, 0)
    assert one.view(0).retry_after_s == pytest.approx(20)
    two = breaker()
    two.apply_opened(0, -5, 1, 0)
    assert two.view(0).state == "half-open"


def test_hearing_of_a_longer_cooldown_makes_it_longer_and_of_a_shorter_one_not_shorter():
    one = opened()
    assert not one.apply_opened(1, 9, 1, 1)
    assert one.view(1).retry_after_s == pytest.approx(9)
    one.apply_opened(1, 2, 1, 1)
    assert one.view(1).retry_after_s == pytest.approx(9)


def test_it_closes_when_it_is_known_to_be_well():
    one = opened()
    assert one.apply_closed(1, 1)
    assert (one.view(1).state, one.view(1).calls) == ("closed", 0)
    assert not one.apply_closed(1, 1)


def test_a_probers_good_word_ends_the_cooldown_and_the_next_call_decides():
    one = opened()
    assert one.note_probe(True, 1, 1)
    view = one.view(1)
    assert (view.state, view.reached, view.probed_at) == ("half-open", True, 1)
    run(one, 1, failed=True)
    assert one.view(1).state == "open"
    assert not one.view(1).reached


def test_an_answer_elsewhere_ends_the_cooldown_and_is_no_result_of_a_health_check():
    one = opened(now=10)
    assert not one.note_answer(11, at=9)
    assert one.view(11).state == "open"
    assert one.note_answer(11, at=11)
    view = one.view(11)
    assert (view.state, view.reached, view.probed_at) == ("half-open", True, None)
    assert one.note_answer(12, at=12)
    assert one.view(12).state == "closed"


def test_what_is_out_of_date_when_it_is_heard_changes_nothing():
    one = opened(now=10)
    assert not one.apply_closed(11, at=9)
    assert not one.note_probe(True, 11, at=9)
    assert one.view(11).state == "open"
    run(one, 15)
    assert not one.apply_opened(16, 5, 1, at=14)
    assert one.view(16).state == "closed"


def test_when_nobody_probes_any_more_the_last_word_is_forgotten():
    one = breaker()
    one.note_probe(False, 1, 1)
    one.note_probe(None, 99, 99)
    assert (one.view(99).probed_at, one.view(99).probes_failed) == (None, 0)


def test_a_second_good_word_closes_it_when_nobody_called_meanwhile():
    one = opened()
    one.note_probe(True, 1, 1)
    assert one.note_probe(True, 31, 31)
    assert one.view(31).state == "closed"


def test_a_second_good_word_waits_for_the_probe_that_is_out():
    one = opened()
    one.note_probe(True, 1, 1)
    assert one.enter(2)
    assert not one.note_probe(True, 3, 3)
    assert one.view(3).state == "half-open"


def test_a_probers_bad_words_open_nothing_and_are_counted_in_a_row():
    one = breaker(min_calls=1)
    for number in (1, 2):
        assert not one.note_probe(False, number, number)
        assert one.view(number).probes_failed == number
    assert one.view(2).state == "closed"
    one.note_probe(True, 3, 3)
    assert one.view(3).probes_failed == 0


def test_changes_made_here_are_told_and_those_heard_are_not():
    told = []
    one = breaker(min_calls=1)
    one.on_change = told.append
    run(one, 0, failed=True)
    run(one, 5)
    one.force("open")
    one.force(None)
    one.apply_opened(6, 5, 1, 6)
    one.apply_closed(7, 7)
    one.apply_opened(8, 5, 1, 8)
    one.note_probe(True, 9, 9)
    one.note_probe(True, 10, 10)
    assert told == ["opened", "closed", "forced", "forced"]


def test_the_lock_is_free_while_a_change_is_told():
    one = breaker(min_calls=1)
    seen = []

    def look(change: str) -> None:
        other = threading.Thread(target=lambda: seen.append(one.view(0).state))
        other.start()
        join(other)

    one.on_change = look
    run(one, 0, failed=True)
    assert seen == ["open"]


# --- raised rates


def test_a_raised_rate_is_left_only_below_a_lower_one():
    one = breaker(min_calls=10, failure_rate=0.5, window_s=1000)
    for failed in [True] * 3 + [False] * 7:
        run(one, 0, failed=failed)
    assert one.view(0).raised  # 0.3 is above 0.25
    for _ in range(4):
        run(one, 0)
    assert one.view(0).raised  # 0.21 is above 0.15
    for _ in range(7):
        run(one, 0)
    assert not one.view(0).raised
    run(one, 0, failed=True)
    assert not one.view(0).raised  # 0.18 is below 0.25


def test_a_raised_rate_is_not_forgotten_because_calls_become_few():
    one = breaker(min_calls=10)
    for now, failed in [(0, False)] * 7 + [(9, True)] * 3 + [(9, False)] * 2:
        run(one, now, failed=failed)
    assert one.view(9).raised
    assert one.view(10.5).calls == 5
    assert one.view(10.5).raised
    assert not one.view(30).raised


# --- settings that change, forks, permits that get lost


def test_settings_change_while_it_is_in_use():
    one = breaker(min_calls=4)
    for _ in range(3):
        run(one, 0, failed=True)
    one.tune(breaker(min_calls=3, cooldown_s=7, half_open_permits=2))
    assert one.view(0).calls == 3
    run(one, 0, failed=True)
    assert one.view(0).retry_after_s == pytest.approx(7)
    assert (one.enter(7) > 0, one.enter(7) > 0, one.enter(7)) == (True, True, 0)


def test_another_kind_of_window_begins_empty():
    one = breaker()
    for _ in range(3):
        run(one, 0)
    one.tune(breaker(window_calls=2))
    assert one.view(0).calls == 0
    run(one, 0, failed=True)
    run(one, 0, failed=True)
    assert one.view(0).state == "open"


def test_a_permit_given_back_by_the_collector_in_the_middle_of_anything_is_no_deadlock():
    one = opened()

    class Forgotten:
        def __init__(self, permit: int) -> None:
            self.permit, self.itself = permit, self

        def __del__(self) -> None:
            one.release(self.permit, 5)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(100):
            permit = one.enter(5)
            if permit:
                Forgotten(permit)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert one.enter(5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_keeps_what_is_forced_and_has_none_of_the_parents_probes():
    one = opened()
    assert one.enter(5)
    two = breaker()
    two.force("open")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if one.enter(5) and two.view(5).forced == "open" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert one.enter(5) == 0


def test_fewer_permits_than_have_succeeded_still_let_the_last_probe_through():
    breaker = Breaker(min_calls=1, half_open_permits=3)
    breaker.leave(breaker.permit, 0.0, 0.1, failed=True)
    for _ in range(2):
        breaker.leave(breaker.enter(10.0), 10.0, 0.1)
    breaker.tune(Breaker(min_calls=1, half_open_permits=1))
    probe = breaker.enter(10.0)
    assert probe
    assert not breaker.enter(10.0)
    breaker.leave(probe, 10.0, 0.1)
    assert breaker.permit

"""Error patterns: counted over a sliding window, by all workers alike."""

from __future__ import annotations

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.recovery.patterns import FIRST, PATTERN, RECOVERY, ErrorPatterns
from om_plugins.testing.fakes import FakeClock


@pytest.fixture
def hub(clock: FakeClock) -> MemoryHub:
    return MemoryHub("memory://", clock)


@pytest.fixture
def patterns(clock: FakeClock, hub: MemoryHub) -> ErrorPatterns:
    return ErrorPatterns(clock=clock, hub=hub)


def add(patterns: ErrorPatterns, fingerprint: str = "f", count: int = 1) -> set[int]:
    return set(patterns.add("chain:a", fingerprint, "Boom", count)[1])


def test_the_first_the_third_and_the_fifth_error_reach_a_threshold(patterns) -> None:
    assert [add(patterns) for _ in range(6)] == [
        {FIRST}, set(), {PATTERN}, set(), {RECOVERY}, {RECOVERY},
    ]  # fmt: skip


def test_kinds_are_counted_apart(patterns) -> None:
    add(patterns, "f")
    add(patterns, "f")
    assert add(patterns, "g") == {FIRST}
    assert [(p.fingerprint, p.count) for p in patterns.current()] == [("f", 2), ("g", 1)]


def test_subjects_are_counted_apart(patterns) -> None:
    for _ in range(2):
        patterns.add("chain:a", "f", "Boom")
    assert patterns.add("chain:b", "f", "Boom")[1] == {FIRST}


def test_errors_that_are_five_minutes_old_no_longer_count(patterns, clock) -> None:
    add(patterns)
    clock.advance(100)
    add(patterns)
    clock.advance(200)
    assert [p.count for p in patterns.current()] == [1]
    assert add(patterns) == set()  # two in the window, and the first notice was given
    clock.advance(99.9)
    assert add(patterns) == {PATTERN}


def test_after_a_window_without_errors_everything_begins_anew(patterns, clock) -> None:
    for _ in range(4):
        add(patterns)
    clock.advance(300)
    assert patterns.current() == []
    assert [add(patterns) for _ in range(3)] == [{FIRST}, set(), {PATTERN}]


def test_a_steady_drizzle_is_told_once(patterns, clock) -> None:
    reached = []
    for _ in range(20):
        reached.append(add(patterns))
        clock.advance(100)  # never more than three in a window
    assert [one for one in reached if one] == [{FIRST}, {PATTERN}]


def test_a_storm_counted_at_once_reaches_all_thresholds(patterns) -> None:
    assert add(patterns, count=1000) == {FIRST, PATTERN, RECOVERY}
    assert patterns.current()[0].count == 1000


def test_two_workers_agree_on_whose_error_reaches_a_threshold(clock, hub) -> None:
    one, two = (ErrorPatterns(clock=clock, hub=hub) for _ in range(2))
    assert [add(one), add(two), add(one), add(two), add(two)] == [
        {FIRST}, set(), {PATTERN}, set(), {RECOVERY},
    ]  # fmt: skip
    late = ErrorPatterns(clock=clock, hub=hub)
    assert late.current() == one.current() == two.current()
    assert late.current()[0].count == 5


def test_what_another_worker_publishes_right_after_is_not_taken_for_ones_own(clock) -> None:
    class Busy(MemoryHub):
        """Another worker's error always comes between publishing and reading."""

        def publish(self, topic, data):
            mine = super().publish(topic, data)
            super().publish(topic, {**data, "count": 4})
            return mine

    patterns = ErrorPatterns(clock=clock, hub=Busy("memory://", clock))
    assert add(patterns) == {FIRST}


def test_a_pattern_says_when_it_began_and_ended(patterns, clock) -> None:
    begin = clock.time()
    add(patterns)
    clock.advance(10)
    pattern, _ = patterns.add("chain:a", "f", "Boom: <n>")
    assert (pattern.first_at, pattern.last_at) == (begin, begin + 10)
    assert (pattern.subject, pattern.fingerprint, pattern.example) == ("chain:a", "f", "Boom")


def test_only_so_many_kinds_are_followed(clock, hub) -> None:
    patterns = ErrorPatterns(clock=clock, hub=hub, most=3)
    for name in "abcade":
        add(patterns, name)
    assert sorted(p.fingerprint for p in patterns.current()) == ["a", "d", "e"]


@pytest.mark.parametrize(
    "garbage",
    [
        None, 7, "text", [], {}, {"subject": 1, "fingerprint": "f", "example": "e", "count": 1},
        {"subject": "s", "fingerprint": "f", "example": "e", "count": -1},
        {"subject": "s", "fingerprint": "f", "example": "e", "count": 2**60},
        {"subject": "s" * 9999, "fingerprint": "f", "example": "e", "count": 1},
        {"subject": "s", "fingerprint": "f" * 9999, "example": "e", "count": 1},
        {"subject": "s", "fingerprint": "f", "example": "e" * 9999, "count": 1},
    ],
)  # fmt: skip
def test_garbage_in_the_hub_is_passed_over(patterns, hub, garbage) -> None:
    hub.publish("errors", garbage)
    assert add(patterns) == {FIRST}
    assert len(patterns.current()) == 1


def test_an_error_counts_although_the_hub_keeps_nothing(clock) -> None:
    class Leaky(MemoryHub):
        def publish(self, topic, data):
            return ""

    patterns = ErrorPatterns(clock=clock, hub=Leaky("memory://", clock))
    assert [add(patterns) for _ in range(3)] == [{FIRST}, set(), {PATTERN}]


def test_long_storms_take_little_memory(patterns, clock) -> None:
    for _ in range(3000):
        add(patterns)
        clock.advance(0.01)
    (track,) = patterns._tracks.values()
    assert track.total == 3000
    assert len(track.times) < 50

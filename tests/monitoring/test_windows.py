"""Slots by time: filled lazily, rolled up, bounded, and added over workers."""

from __future__ import annotations

import msgspec
import pytest

from om_plugins.monitoring.windows import Slot, Windows, decode_slots, merge_workers, sum_slots

T = 1_700_000_100.0  # divisible by 300


def hit(windows, at, duration=0.1, **levels):
    slot = windows.at(at)
    slot.requests += 1
    slot.durations.record(duration)
    for name, value in levels.items():
        setattr(slot, name, value)
    return slot


def test_seconds_roll_up_into_tens_and_five_minutes_without_loss():
    windows = Windows()
    for second in range(900):
        hit(windows, T + second)
    now = T + 900
    assert [s.requests for s in windows.read(10, now)] == [10] * 90
    assert [s.requests for s in windows.read(300, now)] == [300] * 3
    assert len(windows.read(1, now)) == 119
    assert sum(s.durations.count for s in windows.read(300, now)) == 900


def test_an_idle_process_holds_no_slots():
    windows = Windows()
    assert windows.read(1, T) == windows.read(10, T) == windows.read(300, T) == []
    hit(windows, T)
    hit(windows, T + 50)
    assert [s.index for s in windows.read(1, T + 60)] == [int(T), int(T) + 50]


def test_what_is_too_old_is_not_read():
    windows = Windows()
    hit(windows, T)
    assert len(windows.read(1, T + 119)) == 1
    assert windows.read(1, T + 120) == []
    assert len(windows.read(10, T + 3599)) == 1
    assert windows.read(10, T + 3600) == []
    assert len(windows.read(300, T + 86_399)) == 1
    assert windows.read(300, T + 86_400) == []


def test_a_late_sample_goes_into_the_newest_slot_and_is_not_lost():
    windows = Windows()
    hit(windows, T + 10)
    hit(windows, T + 9)
    assert [(s.index, s.requests) for s in windows.read(1, T + 10)] == [(int(T) + 10, 2)]


def test_a_clock_that_is_set_back_does_not_stop_the_counting():
    windows = Windows()
    hit(windows, T + 7200)
    hit(windows, T)
    assert [(s.index, s.requests) for s in windows.read(1, T)] == [(int(T), 1)]


def test_the_number_of_slots_is_bounded():
    windows = Windows()
    for second in range(0, 2 * 86_400, 7):
        hit(windows, T + second)
    now = T + 2 * 86_400
    assert len(windows.read(1, now)) <= 120
    assert len(windows.read(10, now)) == 359
    assert len(windows.read(300, now)) <= 288


def test_levels_follow_in_time_and_add_up_side_by_side():
    windows = Windows()
    hit(windows, T, rss_bytes=100, memory=0.5, in_flight=3, cpu_s=0.5)
    hit(windows, T + 1, rss_bytes=200, memory=0.4, in_flight=1, cpu_s=0.25)
    (ten,) = windows.read(10, T + 10)
    assert (ten.rss_bytes, ten.memory, ten.in_flight, ten.cpu_s) == (200, 0.4, 3, 0.75)
    (both,) = merge_workers([[ten], [ten]])
    assert (both.rss_bytes, both.memory, both.in_flight, both.cpu_s) == (400, 0.4, 6, 1.5)
    assert (both.requests, both.durations.count) == (4, 4)
    assert ten.requests == 2, "the workers' own slots stay as they are"
    assert sum_slots([ten, both]).requests == 6


def test_a_slot_is_read_back_as_it_was_written():
    windows = Windows()
    slot = hit(windows, T, 0.25, rss_bytes=5, memory=0.25, cpu_s=0.125)
    slot.errors, slot.refused, slot.size_bytes, slot.cache_hits, slot.cache_misses = 1, 2, 3, 4, 5
    data = msgspec.msgpack.decode(msgspec.msgpack.encode(windows.encode(1, T)))
    (again,) = decode_slots(data)
    for name in Slot.__slots__:
        if name not in ("durations", "_encoded"):
            assert getattr(again, name) == getattr(slot, name), name
    assert again.durations.counts == slot.durations.counts


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        {},
        [[]],
        [[1, -1, 0, 0, 0, 0, 0.0, 0, 0.0, 0, 0, b""]],
        [[1, 1, 0, 0, 0, 0, float("nan"), 0, 0.0, 0, 0, b""]],
        [[1, 1, 0, 0, 0, 0, 0.0, 0, 0.0, 0, 0, b"\xff"]],
        [[1, 2**60, 0, 0, 0, 0, 0.0, 0, 0.0, 0, 0, b""]],
        [[0] * 12] * 1000,
    ],
)
def test_what_is_no_list_of_slots_is_refused(hostile):
    with pytest.raises(ValueError):
        decode_slots(hostile)

"""Answers contain the numbers of the reading."""

from __future__ import annotations

import os
from dataclasses import replace

import psutil
import pytest

from example_app.questions import Query, answer, understand
from example_app.questions.problems import find_problems
from example_app.system import Process, Sampler, Snapshot


def say(question: str, machine: Snapshot) -> str:
    names = {p.name for p in machine.processes}
    return answer(understand(question, names), machine).replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("which process uses the most memory?", ["python", "PID 7", "3.0 GiB", "37.5 %"]),
        ("which process uses the second most memory?", ["python", "PID 8", "1.0 GiB"]),
        ("which process uses the most cpu?", ["python", "PID 8", "80.0 %", "one core"]),
        ("top 2 processes by cpu", ["1. python (PID 8): 80.0 %", "2. python (PID 7): 12.5 %"]),
        ("which processes use the most memory", ["1. python (PID 7)", "4. init (PID 1)"]),
        ("how much disk is left?", ["/ has 20.0 GiB left of 100.0 GiB", "/srv has 450.0 GiB"]),
        ("how much space is left on /srv", ["/srv has 450.0 GiB left"]),
        ("how much space is left on /srv/www", ["not a mount point", "/srv has 450.0 GiB left"]),
        ("which disk is the fullest?", ["/ is the fullest", "80.0 %"]),
        ("which disk has the most free space", ["/srv has the most room", "450.0 GiB"]),
        ("memory usage", ["75.0 %", "2.0 GiB of 8.0 GiB"]),
        ("is swap used?", ["25.0 %", "1.0 GiB of 4.0 GiB"]),
        ("cpu usage", ["37.5 %", "2 cores", "0.50"]),
        ("how many cores?", ["2 cores", "1 physical", "25.0 %, 50.0 %"]),
        ("load average", ["0.50 (1 min), 0.25 (5 min), 0.12 (15 min)"]),
        ("network traffic", ["1.0 MiB/s", "2.0 KiB/s", "5.0 GiB received", "3.0 GiB sent"]),
        ("uptime", ["2 days 3 hours"]),
        ("temperature", ["cpu 48 °C"]),
        ("how many processes are running", ["4 processes"]),
        ("how much memory does python use", ["2 processes", "4.0 GiB", "92.5 %", "7, 8"]),
        ("is nginx running", ["nginx (PID 9)", "64.0 MiB"]),
        ("is apache running", ["No process called “apache”"]),
        ("which os is this", ["box", "Linux 6.1"]),
        ("is everything ok", ["Nothing looks wrong", "CPU 37.5 %", "memory 75.0 %", "/ 80.0 %"]),
        ("cpu and memory usage", ["37.5 %", "75.0 %"]),
        ("메모리 제일 많이 쓰는 프로세스가 뭐야", ["python (PID 7)", "3.0 GiB", "37.5 %"]),
        (
            "디스크 얼마나 남았어?",
            ["/에 20.0 GiB 남았습니다", "전체 100.0 GiB", "/srv에 450.0 GiB"],
        ),
        ("서버 켜진 지 얼마나 됐어?", ["2일 3시간"]),
        ("CPU 사용량 알려줘", ["37.5 %", "코어 2개"]),
        ("파이썬이 메모리 얼마나 써?", ["python 프로세스 2개", "4.0 GiB"]),
        ("서버 괜찮아?", ["문제가 없어 보입니다", "메모리 75.0 %"]),
    ],
)
def test_an_answer_contains_the_numbers(question: str, parts: list[str], machine: Snapshot) -> None:
    text = say(question, machine)
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize(
    ("question", "start"),
    [
        ("what's the weather in Seoul", "I don't know that; I can answer"),
        ("오늘 날씨 어때?", "그건 모르겠습니다."),
        ("", "I don't know that"),
        ("x" * 100_000, "I don't know that"),
        ("how did memory change?", "That needs the analyst"),
        ("메모리랑 디스크 비교해줘", "그 질문에는 대화와 지난 기록을 기억하는 분석기가 필요"),
    ],
)
def test_an_unknown_question_is_not_guessed(question: str, start: str, machine: Snapshot) -> None:
    assert say(question, machine).startswith(start)


def test_problems_are_named(machine: Snapshot) -> None:
    full = replace(
        machine,
        memory=replace(machine.memory, percent=96.0),
        disks=(replace(machine.disks[0], percent=99.0), machine.disks[1]),
    )
    assert len(find_problems(full)) == 2
    text = say("is everything ok?", full)
    assert text.startswith("Worth a look: memory is 96.0 % used; / is 99.0 % full.")


def test_a_machine_without_swap_disks_or_sensors_says_so(machine: Snapshot) -> None:
    bare = replace(
        machine,
        swap=replace(machine.swap, total=0, used=0, free=0, percent=0.0),
        disks=(),
        temperatures=(),
        cpu=replace(machine.cpu, load=None),
    )
    assert "no swap" in say("swap usage", bare)
    assert "no disk" in say("disk left", bare)
    assert "no temperature sensor" in say("temperature", bare)
    assert "does not tell" in say("load average", bare)
    assert "Nothing looks wrong" in say("is everything ok", bare)


def test_a_rank_beyond_the_list_is_explained(machine: Snapshot) -> None:
    assert "only 4" in answer(Query("top_memory", rank=9), machine)
    assert "only 2 disks" in answer(Query("disk_fullest", rank=5), machine)


def test_the_answers_equal_psutil_at_that_moment() -> None:
    before = psutil.virtual_memory()
    disk = psutil.disk_usage("/")
    now = Sampler().snapshot()
    root = next(d for d in now.disks if d.mount == "/")
    assert (root.total, now.memory.total) == (disk.total, before.total)
    after = psutil.virtual_memory()
    disk_after = psutil.disk_usage("/")
    assert is_about(root.free, disk.free, disk_after.free, 64 * 2**20)
    assert is_about(root.percent, disk.percent, disk_after.percent, 0.5)
    assert is_about(now.memory.percent, before.percent, after.percent, 5)
    assert f"{root.total / 2**30:.1f} GiB" in say("how much disk is left?", now)
    assert f"{before.total / 2**30:.1f} GiB" in say("memory usage", now)
    heaviest = now.sort_by_memory()[0]
    assert f"{heaviest.name} (PID {heaviest.pid})" in say("what uses the most memory?", now)
    assert heaviest.memory >= next(p.memory for p in now.processes if p.pid == os.getpid())


def is_about(found: float, before: float, after: float, tolerance: float) -> bool:
    """Whether it lies between two readings that were made around it."""
    return min(before, after) - tolerance < found < max(before, after) + tolerance


def test_a_hostile_process_name_is_only_text(machine: Snapshot) -> None:
    hostile = Process(66, "<script>alert(1)</script>", 7 * 2**30, 0.0)
    text = say("which process uses the most memory?", replace(machine, processes=(hostile,)))
    assert "<script>alert(1)</script> (PID 66)" in text

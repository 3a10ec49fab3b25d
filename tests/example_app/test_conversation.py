"""What only the analyst can do: follow-up questions, comparisons and earlier readings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from example_app.analyst.conversation import reply, resolve
from example_app.analyst.history import History, Point
from example_app.system import Snapshot


def ask(*questions: str, machine: Snapshot, history: History | None = None) -> str:
    return reply(questions, machine, history or History()).replace("\u00a0", " ")


@pytest.fixture
def history(machine: Snapshot) -> History:
    """Ten minutes in which memory grew from 45 to 75 percent, a point every six seconds."""
    made = History()
    now = Point.from_snapshot(machine)
    for i in range(101):
        made.add(replace(now, at=machine.at - 600 + i * 6, memory=45 + i * 0.3, cpu=10.0 + i % 2))
    return made


@pytest.mark.parametrize(
    ("questions", "part"),
    [
        (["which process uses the most memory?", "and the second one?"], "PID 8"),
        (["which process uses the most memory?", "the next one", "and the next?"], "PID 9"),
        (["what uses the most memory?", "what about the third?"], "nginx (PID 9)"),
        (["what uses the most memory?", "and the CPU?"], "PID 8) uses the most CPU"),
        (["top 2 processes by memory", "and the next one?"], "nginx (PID 9)"),
        (["which disk is the fullest?", "and the second one?"], "/srv is the second fullest"),
        (["memory usage", "and the disk?"], "/ has 20.0 GiB left"),
        (["memory usage", "tell me a joke", "hello", "and swap?"], "Swap is 25.0 % used"),
        (["메모리 제일 많이 쓰는 프로세스가 뭐야?", "그 다음은?"], "PID 8"),
        (["메모리 제일 많이 쓰는 프로세스가 뭐야?", "그럼 CPU는?"], "CPU를 가장 많이 쓰는"),
        (["어느 디스크가 제일 꽉 찼어?", "두 번째는?"], "/srv"),
    ],
)
def test_a_follow_up_continues_the_conversation(
    questions: list[str], part: str, machine: Snapshot
) -> None:
    assert part in ask(*questions, machine=machine)


@pytest.mark.parametrize("question", ["and the second one?", "그 다음은?", "how did it change?"])
def test_a_follow_up_without_a_question_before_it_is_explained(
    question: str, machine: Snapshot
) -> None:
    text = ask(question, machine=machine)
    assert text.startswith(("I can't tell what that follows", "무엇에 이어지는 질문인지"))


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (
            "is memory or disk fuller?",
            "The fullest disk (/) is fuller: 80.0 %, against memory at 75.0 %.",
        ),
        ("memory vs swap", "Memory is fuller: 75.0 %, against swap at 25.0 %."),
        ("which is higher, cpu or memory?", "Memory is higher: 75.0 %, against the CPU at 37.5 %."),
        (
            "메모리랑 디스크 중에 뭐가 더 찼어?",
            "가장 찬 디스크(/)가 더 찼습니다: 80.0 %. 메모리는 75.0 %입니다.",
        ),
    ],
)
def test_two_metrics_are_compared(question: str, text: str, machine: Snapshot) -> None:
    assert ask(question, machine=machine) == text


def test_the_answer_names_equal_metrics_and_a_single_disk(machine: Snapshot) -> None:
    single = replace(machine, disks=(replace(machine.disks[0], percent=75.0),))
    text = ask("is memory or disk fuller?", machine=single)
    assert text == "Memory and the disk are equal at 75.0 %."
    text = ask("디스크와 메모리를 비교해줘", machine=single)
    assert text == "메모리는 디스크처럼 75.0 %입니다."


def test_metrics_without_a_common_unit_are_not_compared(machine: Snapshot) -> None:
    text = ask("is the network or memory higher?", machine=machine)
    assert text.startswith("These cannot be compared")
    assert "75.0 %" in text


def test_the_answer_compares_with_earlier_readings(machine: Snapshot, history: History) -> None:
    text = ask("what was memory five minutes ago?", machine=machine, history=history)
    assert text == "Memory was at 60.0 % 5 minutes ago and is at 75.0 % now."
    text = ask("how did memory change in the last ten minutes?", machine=machine, history=history)
    assert text == (
        "Memory went from 45.0 % to 75.0 % in the last 10 minutes (lowest 45.0 %, highest 75.0 %)."
    )
    text = ask("5분 전 메모리는 어땠어?", machine=machine, history=history)
    assert text == "메모리는 5분 전에 60.0 %였고 지금은 75.0 %입니다."
    text = ask("memory usage", "and five minutes ago?", machine=machine, history=history)
    assert text == "Memory was at 60.0 % 5 minutes ago and is at 75.0 % now."
    text = ask("how did memory change?", "what about the cpu?", machine=machine, history=history)
    assert text.startswith("The CPU went from")


def test_the_answer_says_when_the_history_is_shorter(machine: Snapshot, history: History) -> None:
    text = ask("what was memory two hours ago?", machine=machine, history=history)
    assert text.endswith("I have been watching for only 10 minutes.")
    assert "just begun" in ask("what was memory an hour ago?", machine=machine)


def test_only_the_last_questions_are_read(machine: Snapshot) -> None:
    questions = ["memory usage"] * 5000 + ["and the disk?"]
    assert resolve(questions).intent == "disk_use"

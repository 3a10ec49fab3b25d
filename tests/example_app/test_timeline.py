"""The timeline (and module ``events``): signals of all workers, bounded, no private messages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from example_app import create_app
from example_app.config import DemoConfig
from example_app.state import StateDir
from example_app.timeline import SHOWN, TOPIC
from om_plugins import signals
from om_plugins.errors import Transient
from om_plugins.types import (
    Alert,
    CspViolation,
    ErrorPattern,
    Health,
    Notification,
    ProblemReport,
    RecoveryReport,
)
from tests.patience import PATIENCE_S, wait_until

Make = Callable[[], Flask]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Make]:
    """Make apps that share the state folder, as different workers do."""
    config = DemoConfig(state=tmp_path / "state", owner=os.getpid(), start_analyst=False)
    made: list[Flask] = []

    def make() -> Flask:
        app = create_app(config)
        app.config["OM_PROBE_INTERVAL"] = 0  # a probe would add events of its own
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions["om_plugins"].close()
    StateDir(config.state).remove()


def read_timeline(
    app: Flask, language: str = "en", path: str = "/api/status"
) -> list[dict[str, Any]]:
    headers = {"Accept-Language": language}
    events: list[dict[str, Any]] = (
        app.test_client().get(path, headers=headers).get_json()["timeline"]
    )
    return [event for event in events if event["text"] not in RENEWED]


RENEWED = ("Readings are being renewed", "값을 새로 읽고 있습니다")


def wait_for(app: Flask, text: str, language: str = "en") -> dict[str, Any]:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for event in read_timeline(app, language):
            if text in event["text"]:
                return event
        time.sleep(0.02)
    raise AssertionError(f"{text!r} is not among {read_timeline(app, language)}")


ALERT = Alert("memory", "firing", 0.95, 0.9, 1.0)
EVENTS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "engine_failed",
        {"engine": "analyst", "error": Transient("x")},
        "analyst did not answer: it",
        "analyst: 답 없음",
    ),
    (
        "retry_scheduled",
        {"engine": "analyst", "delay_s": 0.25},
        "asked again after 250 ms",
        "250 ms 뒤",
    ),
    (
        "engine_fell_back",
        {"chain": "assistant", "engine": "in-process", "tier": 2},
        "in-process answered instead, on tier 2",
        "2단계에서 대신",
    ),
    (
        "engine_health_changed",
        {"engine": "analyst", "before": Health.HEALTHY, "after": Health.OFFLINE},
        "was healthy and is offline",
        "정상 → 중단",
    ),
    (
        "error_pattern_found",
        {"pattern": ErrorPattern("f", "chain:assistant", 3, 1.0, 2.0, "x")},
        "The assistant had the same trouble 3 times",
        "도우미: 같은 문제가 3번",
    ),
    (
        "recovery_started",
        {"subject": "chain:assistant"},
        "The assistant is being repaired",
        "도우미: 복구를 시작",
    ),
    (
        "recovery_finished",
        {"report": RecoveryReport("chain:assistant", "f", True, (), 1.0, 1.24)},
        "The assistant was repaired in 1.2 s",
        "1.2초 만에 복구",
    ),
    (
        "recovery_finished",
        {"report": RecoveryReport("route:/x", "f", False, (), 1.0, 1.0)},
        "/x could not be repaired",
        "/x: 복구하지 못했습니다",
    ),
    (
        "cache_refresh_failed",
        {"key": "panel:disks"},
        "The disk panel could not be read",
        "디스크 패널: 읽지 못해",
    ),
    ("alert_fired", {"alert": ALERT}, "Alert: memory is nearly full", "경보: 메모리 부족"),
    (
        "alert_resolved",
        {"alert": ALERT},
        "The alert is over: memory is nearly full",
        "경보 해제: 메모리 부족",
    ),
    (
        "notification_sent",
        {"notification": Notification(kind="error", message="m", to="operators")},
        "An error notice went to the operators",
        "오류 알림 → 운영자",
    ),
    (
        "notification_sent",
        {"notification": Notification(kind="info", message="5 is live", to="everyone")},
        "A notice went to everyone: 5 is live",
        "안내 → 모두: 5 is live",
    ),
    (
        "notification_failed",
        {"notifier": "webhook"},
        "The notifier webhook failed",
        "알림 전달 실패: webhook",
    ),
    (
        "csp_violation_received",
        {
            "violation": CspViolation(
                "script-src", "https://evil.example", "/", disposition="enforce"
            )
        },
        "A browser blocked https://evil.example (script-src)",
        "차단한 항목: https://evil.example",
    ),
    (
        "problem_reported",
        {"report": ProblemReport("7", 1.0, "m", "/")},
        "Problem report no. 7 came in",
        "문제 신고 7번",
    ),
]


@pytest.mark.parametrize(("name", "details", "english", "korean"), EVENTS)
def test_a_worker_shows_the_events_of_another_in_both_languages(
    name: str, details: dict[str, Any], english: str, korean: str, worker: Make
) -> None:
    one, other = worker(), worker()
    began = time.time()
    signals.send(signals.SIGNALS[name], one, **details)
    event = wait_for(other, english)
    assert event["worker"] == os.getpid()
    assert began - 1 <= event["at"] <= time.time() + 1
    assert korean in wait_for(other, korean, "ko")["text"]
    assert not set("{}…") & set(event["text"])


def test_messages_to_one_browser_are_not_in_the_timeline(worker: Make) -> None:
    app = worker()
    secret = Notification(kind="warning", message="your card", title="your card", to="sid:abc")
    signals.send(signals.notification_sent, app, notification=secret)
    wait_for(app, "A warning went to one browser")
    messages = app.extensions["om_plugins"].hub.read(TOPIC)
    assert messages
    assert "card" not in str(messages)
    assert "abc" not in str(messages)


def test_many_equal_events_are_one_entry_and_the_list_is_bounded(worker: Make) -> None:
    app = worker()
    signals.send(signals.problem_reported, app, report=ProblemReport("0", 1.0, "m", "/"))
    for _ in range(20):
        signals.send(signals.recovery_started, app, subject="chain:assistant")
    wait_for(app, "The assistant is being repaired")
    wait_until(lambda: read_timeline(app)[0]["count"] >= 20)
    assert [event["count"] for event in read_timeline(app)] == [20, 1]
    for number in range(500):
        signals.send(signals.recovery_started, app, subject=f"route:/{number}")
    wait_for(app, "/499 ")
    assert len(read_timeline(app)) <= SHOWN


def test_refreshes_of_the_panels_appear_once_in_20_seconds(worker: Make) -> None:
    app = worker()
    for _ in range(50):
        signals.send(signals.cache_refreshed, app, key="panel:cpu", duration_s=0.1)
    signals.send(signals.recovery_started, app, subject="chain:last")
    wait_for(app, "last is being repaired")
    texts = [m.data["what"] for m in app.extensions["om_plugins"].hub.read(TOPIC)]
    assert texts.count("cache_refreshed") == 1


@pytest.mark.parametrize(
    "data", [None, [], {}, {"what": "engine_failed"}, {"what": "rm", "at": 1.0, "worker": 1}]
)
def test_other_data_on_the_topic_is_ignored(data: object, worker: Make) -> None:
    app = worker()
    app.extensions["om_plugins"].hub.publish(TOPIC, data)
    signals.send(signals.recovery_started, app, subject="chain:last")
    wait_for(app, "last is being repaired")
    assert len(read_timeline(app)) == 1

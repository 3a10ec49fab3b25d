"""A plugin is quarantined for broken code alone; what is away is logged once."""

from __future__ import annotations

import logging
from functools import partial

import pytest

from om_plugins.plugins.guard.record import PluginRecord
from om_plugins.types import PluginStatus


@pytest.fixture
def record():
    return PluginRecord(PluginStatus("chat", "active", "here"))


@pytest.fixture
def sent():
    return []


@pytest.fixture
def count(record, sent):
    def emit(signal, **about):
        sent.append(about)

    return partial(record.count, max_failures=3, emit=emit)


def test_broken_code_is_counted_until_the_plugin_is_quarantined(record, count, sent):
    assert [count("broken", KeyError("x")) for _ in range(3)] == [True, True, True]
    assert (record.status.state, record.status.failures) == ("quarantined", 3)
    assert sent == [{"name": "chat", "failures": 3}]


def test_what_is_away_is_never_counted(record, count, sent):
    for error in [ConnectionError("x"), TimeoutError(), OSError("not delivered")] * 50:
        assert count("away", error) is False
    assert (record.status.state, record.status.failures, sent) == ("active", 0, [])
    assert record.status.reason == "away"  # people may look why nothing arrives


def test_an_outage_between_two_bugs_neither_counts_nor_makes_forget(record, count):
    for error in (KeyError("x"), ConnectionError(), KeyError("x"), TimeoutError()):
        count("failed", error)
    assert record.status.state == "active"
    count("failed", KeyError("x"))
    assert record.status.state == "quarantined"


def test_an_outage_is_a_warning_once_and_its_end_is_told(record, caplog):
    caplog.set_level(logging.INFO, "om_plugins")
    for _ in range(5):
        record.log_away("Chat.send", "Chat.send raised ConnectionError")
    record.log_away("Chat.other", "Chat.other raised ConnectionError")
    record.log_back("Chat.send")
    record.log_back("Chat.send")
    assert [(r.levelname, r.message) for r in caplog.records] == [
        (
            "WARNING",
            f"plugin chat: {what} raised ConnectionError; this does not count against the plugin",
        )
        for what in ("Chat.send", "Chat.other")
    ] + [("INFO", "plugin chat: Chat.send works again")]

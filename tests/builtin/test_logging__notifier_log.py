"""The log notifier writes one line a notification."""

from __future__ import annotations

import logging

from om_plugins.builtin.logging__notifier_log import LogNotifier
from om_plugins.types import Notification


def test_kinds_become_levels_and_lines_cannot_be_forged(caplog):
    notifier = LogNotifier(logging.getLogger("om_plugins.plugin.log"))
    with caplog.at_level(logging.INFO, "om_plugins"):
        notifier.send(Notification(kind="error", message="a\nERROR forged", title="T"), 1)
        notifier.send(Notification(kind="warning", message="w"), 1)
        notifier.send(Notification(kind="success", message="디스크"), 1)
    assert [r.levelname for r in caplog.records] == ["ERROR", "WARNING", "INFO"]
    assert caplog.records[0].getMessage() == r"to operators: T: a\nERROR forged"
    assert caplog.records[2].getMessage() == "to operators: 디스크"

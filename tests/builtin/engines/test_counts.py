"""Counters of one process are exact under threads, and a child begins at zero."""

from __future__ import annotations

import os
import threading

import pytest

from om_plugins.builtin.engines.counts import Counts


def test_every_counter_begins_at_zero_and_several_are_added_at_once():
    counts = Counts("asked", "answered")
    counts.add(asked=2, answered=1)
    counts.add(asked=1)
    assert counts.snapshot() == {"asked": 3, "answered": 1}


def test_nothing_is_lost_between_threads():
    counts = Counts("asked")
    threads = [
        threading.Thread(target=lambda: [counts.add(asked=1) for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.snapshot() == {"asked": 8000}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_counts_for_itself():
    counts = Counts("asked")
    counts.add(asked=5)
    pid = os.fork()
    if pid == 0:
        counts.add(asked=1)
        os._exit(0 if counts.snapshot() == {"asked": 1} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert counts.snapshot() == {"asked": 5}

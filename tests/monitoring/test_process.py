"""Processor and memory, with psutil and without, in a container and out of one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from om_plugins.monitoring.process import SystemSampler

NONE = Path("/nowhere")


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize("sampler", [SystemSampler(), SystemSampler(psutil=None)])
def test_work_is_seen_as_processor_seconds_and_memory_is_about_right(sampler):
    began = time.process_time()
    sampler.sample()
    burn(0.05)
    found = sampler.sample()
    most_s = time.process_time() - began
    tick_s = 0.02  # the system counts in hundredths of a second, user and system time apart
    assert 0.05 - tick_s < found.cpu_s < most_s + tick_s
    assert found.rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert 0 < found.memory < 1


def test_the_source_is_named():
    assert SystemSampler().source == "psutil"
    assert SystemSampler(psutil=None).source == "proc"
    assert SystemSampler(NONE, psutil=None).source == "resource"


def test_without_psutil_and_proc_the_peak_is_what_there_is():
    found = SystemSampler(NONE, NONE, psutil=None).sample()
    assert found.rss_bytes > 1_000_000
    assert found.memory == 0.0


def test_a_containers_limit_counts_without_what_can_be_given_back(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("970\n")
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 20\n")
    found = SystemSampler(NONE, tmp_path, psutil=None).sample()
    assert found.memory == pytest.approx(0.95)


@pytest.mark.parametrize("limit", ["max", "0", "", "-1x"])
def test_a_container_without_a_limit_has_none(tmp_path, limit):
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("970")
    (tmp_path / "memory.stat").write_text("")
    assert SystemSampler(NONE, tmp_path, psutil=None).sample().memory == 0.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_does_not_count_its_parents_work():
    sampler = SystemSampler()
    sampler.sample()
    burn(0.05)
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        os._exit(0 if sampler.sample().cpu_s < 0.02 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_psutil_is_not_imported_before_it_is_used():
    code = """
import sys
from om_plugins.monitoring.process import SystemSampler
SystemSampler()
assert "psutil" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)

"""The contract of a monitor, as pytest tests."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..plugins.checks import check_result
from ..protocols import Monitor
from ..settings.callbacks import explain_unfinished
from ..types import Sample

__all__ = ["MonitorContract"]


class MonitorContract:
    """Inherit, and make your monitor in a fixture::

    class TestStatsd(MonitorContract):
        @pytest.fixture
        def monitor(self):
            return Statsd("udp://localhost:8125")
    """

    @pytest.fixture
    def monitor(self) -> Monitor:
        """The monitor under test."""
        raise NotImplementedError("make your monitor in a fixture named 'monitor'")

    def make_samples(self) -> list[Sample]:
        """Samples of requests as an application makes them."""
        return [
            Sample("/report", "GET", 200, 0.012, 512, 1_700_000_000.0),
            Sample("<unmatched>", "POST", 404, 0.0, 0, 1_700_000_000.5),
            Sample("/보고서/<int:page>", "GET", 500, 31.0, 2**33, 1_700_000_001.0),
        ]

    def test_it_can_be_called(self, monitor: Monitor) -> None:
        check_result("om_monitors", [monitor])

    def test_it_takes_samples(self, monitor: Monitor) -> None:
        record: Callable[..., object] = monitor.record
        problem = explain_unfinished(record(self.make_samples()))
        assert not problem, f"record {problem}"

    def test_it_takes_no_samples_and_many(self, monitor: Monitor) -> None:
        monitor.record([])
        monitor.record(self.make_samples() * 1000)

    def test_it_takes_what_can_be_read_once(self, monitor: Monitor) -> None:
        monitor.record(iter(self.make_samples()))

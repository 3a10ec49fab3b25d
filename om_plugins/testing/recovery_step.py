"""The contract of a step of recovery, as pytest tests."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import contextlib
import time

import pytest

from ..errors import OpenManagerError
from ..plugins.checks import check_result, explain_step_result
from ..protocols import RecoveryStep

__all__ = ["RecoveryStepContract"]


class RecoveryStepContract:
    """Inherit, and make your step in a fixture::

        class TestReconnect(RecoveryStepContract):
            @pytest.fixture
            def step(self):
                return Reconnect(database)

    Attributes:
        subjects: what the step is asked to repair.
        timeout: the seconds that it may take.
    """

    subjects: tuple[str, ...] = ("chain:assistant", "route:/report", "route:<unmatched>")
    timeout: float = 5.0

    @pytest.fixture
    def step(self) -> RecoveryStep:
        """The step under test."""
        raise NotImplementedError("make your step in a fixture named 'step'")

    def test_it_can_be_called(self, step: RecoveryStep) -> None:
        check_result("om_recovery_steps", [step])

    def test_it_says_what_was_done_or_that_the_problem_still_exists(
        self, step: RecoveryStep
    ) -> None:
        for subject in self.subjects:
            with contextlib.suppress(OpenManagerError):
                done = step.run(subject, self.timeout)
                problem = explain_step_result(done)
                assert not problem, problem
                assert done is None or "\n" not in done

    def test_it_can_run_again(self, step: RecoveryStep) -> None:
        for _ in range(3):
            with contextlib.suppress(OpenManagerError):
                step.run(self.subjects[0], self.timeout)

    def test_it_ends_in_its_time(self, step: RecoveryStep) -> None:
        began = time.monotonic()
        with contextlib.suppress(OpenManagerError):
            step.run(self.subjects[0], self.timeout)
        assert time.monotonic() - began < self.timeout

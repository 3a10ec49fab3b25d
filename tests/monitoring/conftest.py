"""What the tests of monitoring share: a clock that is told the time, and parts on it."""

from __future__ import annotations

import pytest

from om_plugins.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock(1_700_000_000.0)

"""A runtime without threads, on a clock of its own."""

from __future__ import annotations

import pytest

from om_plugins import Settings
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing.fakes import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make_runtime(clock):
    made = []

    def make(*plugins, environ=lambda: None, **settings):
        runtime = Runtime(
            Settings(**settings),
            plugins=plugins,
            clock=clock,
            host=Host(testing=True, environ=environ),
        )
        made.append(runtime)
        return runtime

    yield make
    for runtime in made:
        runtime.close()

"""Engines are counted by what the signals of their own application tell."""

from __future__ import annotations

from om_plugins import Settings
from om_plugins.runtime import Runtime
from om_plugins.testing import FakeClock
from om_plugins.types import EngineSpec, EngineTraits


class Engine:
    traits = EngineTraits(local=True, idempotent=True)

    def __init__(self, name, error=None):
        self.name = name
        self._error = error

    def call(self, call):
        if self._error is not None:
            raise self._error
        return "answer"


def made(sender):
    settings = Settings(hub_url="memory://", metrics=True, retries=0)
    runtime = Runtime(settings, sender=sender, testing=True, clock=FakeClock())
    runtime.add_engine(EngineSpec(Engine("first", ConnectionError("away")), "c", tier=1))
    runtime.add_engine(EngineSpec(Engine("second"), "c", tier=2))
    return runtime


def test_answers_failures_and_fallbacks_are_counted_for_each_application():
    one, other = made("one"), made("other")
    for _ in range(3):
        one.chain("c").call({})
    other.chain("c").call({})
    found = one.monitoring.totals()
    assert found["engine", "c", "first", "failed"] == [3]
    assert found["engine", "c", "second", "answered"] == [3]
    assert found["engine", "c", "second", "fallbacks"] == [3]
    assert other.monitoring.totals()["engine", "c", "second", "answered"] == [1]
    for runtime in (one, other):
        runtime.close()

"""The same chains as in tests/chains."""

from __future__ import annotations

from tests.chains.conftest import chain_of, clock, engine, events, hub, listening, pass_time, worker

__all__ = ["chain_of", "clock", "engine", "events", "hub", "listening", "pass_time", "worker"]

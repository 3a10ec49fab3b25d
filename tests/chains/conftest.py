"""Engines that do as they are told, on a clock that moves as it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from om_plugins import signals
from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.health_checks import HealthChecks
from om_plugins.chains.options import ChainPolicy
from om_plugins.chains.sharing import BreakerSharing, EngineBus
from om_plugins.policies.breaker import Breaker
from om_plugins.policies.registry import BreakerRegistry
from om_plugins.protocols import Hub
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Call, EngineSpec, EngineTraits
from om_plugins.workers.scheduler import BackgroundScheduler


class Scripted:
    """An engine that takes one step of its script per call; the last step repeats.

    A step is an exception (raised), a function of the call, or a payload. ``takes_s`` passes on
    the clock before each.
    """

    def __init__(
        self,
        name: str,
        steps: Iterable[object],
        clock: FakeClock,
        takes_s: float = 0.0,
        **traits: object,
    ) -> None:
        self.name = name
        self.steps = list(steps)
        self.clock = clock
        self.takes_s = takes_s
        self.traits = EngineTraits(**traits)  # type: ignore[arg-type]
        self.calls: list[dict[str, object]] = []

    def call(self, call: Call) -> object:
        self.calls.append(
            {
                "at": self.clock.monotonic(),
                "attempt": call.attempt,
                "tier": call.tier,
                "remaining": call.remaining(),
                "id": call.id,
                "key": call.idempotency_key,
            }
        )
        if self.takes_s:
            self.clock.advance(self.takes_s)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, BaseException):
            raise step
        return step(call) if callable(step) else step

    @property
    def times(self) -> int:
        return len(self.calls)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def engine(clock: FakeClock) -> Callable[..., Scripted]:
    def make(name: str, *steps: object, **options: object) -> Scripted:
        return Scripted(name, steps or (f"from {name}",), clock, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def events() -> list[tuple[str, dict[str, object]]]:
    return []


@pytest.fixture
def chain_of(
    clock: FakeClock, events: list[tuple[str, dict[str, object]]]
) -> Callable[..., EngineChain]:
    """Make a chain of engines, one per tier; a list of engines shares a tier."""

    def emit(signal: signals.NamedSignal, **details: object) -> None:
        events.append((signal.name, details))

    def make(
        *tiers: object,
        name: str = "chain",
        breakers: BreakerRegistry | None = None,
        use: FakeClock | None = None,
        **policy: object,
    ) -> EngineChain:
        chain = EngineChain(
            name,
            ChainPolicy(**policy),  # type: ignore[arg-type]
            clock=use or clock,
            emit=emit,
            breakers=breakers,
        )
        for number, members in enumerate(tiers, 1):
            for member in members if isinstance(members, list) else [members]:
                chain.add(EngineSpec(member, name, number))
        return chain

    return make


@pytest.fixture
def listening() -> Iterable[None]:
    """Somebody listens to every signal of the engines, so that they are told."""

    def listener(sender: object, **details: object) -> None:
        pass

    names = ["called", "failed", "fell_back", "health_changed"]
    heard = [signals.SIGNALS[f"engine_{name}"] for name in names] + [signals.retry_scheduled]
    for signal in heard:
        signal.connect(listener)
    yield
    for signal in heard:
        signal.disconnect(listener)


class Worker:
    """One process of several that share a hub, on a clock that moves as it is told."""

    def __init__(
        self,
        hub: Hub,
        clock: FakeClock,
        *,
        shared: bool = False,
        interval_s: float = 0.0,
        threads: bool = False,
    ) -> None:
        self.clock = clock
        self.events: list[tuple[str, dict[str, object]]] = []
        self.scheduler = BackgroundScheduler(1, 100, clock, hub, synchronous=True)
        self.breakers = BreakerRegistry()
        self.chains: dict[str, EngineChain] = {}
        self.bus = EngineBus(
            hub=hub,
            scheduler=self.scheduler,
            clock=clock,
            namespace="app",
            has_engines=lambda: not self.breakers.empty,
        )
        self.sharing = BreakerSharing(
            breakers=self.breakers, bus=self.bus, clock=clock, shared=shared
        )
        self.health_checks = HealthChecks(
            clock=clock,
            hub=hub,
            scheduler=self.scheduler,
            bus=self.bus,
            chains=lambda: self.chains,
            breakers=self.breakers,
            interval_s=interval_s,
            namespace="app",
            threads=threads,
        )

    def start(self) -> None:
        self.health_checks.start()
        self.bus.start()

    def close(self) -> None:
        self.health_checks.close()
        self.bus.close()

    def add(self, engine: object, name: str = "chain", tier: int = 1, **policy: object) -> Breaker:
        if name not in self.chains:
            self.chains[name] = EngineChain(
                name,
                ChainPolicy(**{"breaker_min_calls": 1, "retries": 0, **policy}),  # type: ignore[arg-type]
                clock=self.clock,
                emit=lambda signal, **details: self.events.append((signal.name, details)),
                breakers=self.breakers,
            )
        self.chains[name].add(EngineSpec(engine, name, tier))
        return self.chains[name].states[-1].breaker

    def fail(self, breaker: Breaker) -> None:
        """A call that is let in, and fails."""
        now = self.clock.monotonic()
        breaker.leave(breaker.permit or breaker.enter(now), now, 0.0, failed=True)

    def succeed(self, breaker: Breaker) -> None:
        now = self.clock.monotonic()
        breaker.leave(breaker.permit or breaker.enter(now), now, 0.0)

    def state(self, breaker: Breaker) -> str:
        return breaker.view(self.clock.monotonic()).state

    def work(self) -> None:
        self.scheduler.run_pending()
        self.scheduler.run_due()


@pytest.fixture
def hub(clock: FakeClock) -> MemoryHub:
    return MemoryHub("memory://", clock)


@pytest.fixture
def worker(hub: MemoryHub, clock: FakeClock) -> Callable[..., Worker]:
    def make(**options: object) -> Worker:
        made = Worker(options.pop("hub", hub), clock, **options)  # type: ignore[arg-type]
        made.start()
        return made

    return make


@pytest.fixture
def pass_time(clock: FakeClock) -> Callable[..., None]:
    """Let time pass in steps, in which each worker does what is due."""

    def advance(seconds: float, *workers: Worker) -> None:
        for one in workers:
            one.scheduler.run_pending()
        passed = 0.0
        while passed < seconds:
            step = min(0.8, seconds - passed)
            passed += step
            clock.advance(step)
            for one in workers:
                one.work()

    return advance

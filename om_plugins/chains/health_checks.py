"""Active health checks: probes every engine that has a ``probe``, also when nobody calls.

One elected worker probes, and publishes the results to the others. A probe should cost nothing, and
it does not count as a call. Its result appears as health (:mod:`om_plugins.policies.health`). A
good result also ends the cooldown of an open breaker, in all workers, so that the next call finds
out whether the engine works again (:meth:`~om_plugins.policies.breaker.Breaker.note_probe`).

No probe holds a thread of the pool: a round has a thread of its own, and so has each probe in it,
at most eight at once. A probe that overruns its time counts as failed and is abandoned. Its engine
is not probed again before that probe has ended, so there is never more than one for an engine.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Annotated

import msgspec

from ..core.body import convert
from ..core.fork import renew_after_fork
from ..policies.breaker import Breaker
from ..policies.registry import BreakerKey, BreakerRegistry
from ..protocols import Clock, Hub, Scheduler
from ..types import Call
from ..workers.pool import begin_thread
from .chain import EngineChain
from .engine_state import EngineState
from .failures.refusals import NO_VERDICT, PROBE_TIMEOUT_S
from .sharing import EngineBus, EngineEvent, RetainedKey

logger = logging.getLogger("om_plugins")

MAX_CONCURRENT_PROBES = 8
MAX_ROUND_S = 20.0
"""How long a round may take; the engines that it did not reach come first in the next."""
EXPIRY_INTERVALS = 3.0
"""Results expire after this many intervals without new ones: nobody probes any more."""
_MAX_ENGINES = 1000
_JITTER = 1.1
"""The scheduler makes a period longer by up to a tenth; this keeps the interval all the same."""

_RETAINED = "probed/newest"
_KIND = "engines probed"
_Name = Annotated[str, msgspec.Meta(max_length=1000)]


class _ProbeResult(msgspec.Struct, array_like=True):
    """The result for one breaker's engine."""

    chain: _Name
    engine: _Name
    well: bool


class _ProbeResults(msgspec.Struct):
    results: Annotated[list[_ProbeResult], msgspec.Meta(max_length=_MAX_ENGINES)] = msgspec.field(
        name="words"
    )


@dataclass(kw_only=True, eq=False, repr=False)
class HealthChecks:
    """Probes the engines of one application.

    Args:
        clock: the clock.
        hub: elects the worker that runs the first round.
        scheduler: elects the worker that probes, and runs its rounds.
        bus: carries the results to all workers.
        chains: returns the application's chains by name.
        breakers: the application's breakers.
        interval_s: seconds from one round to the next, at most; 0.0 disables health checks.
        namespace: separates two applications in one hub.
        threads: False runs one probe after another on the calling thread, for tests.
    """

    clock: Clock
    hub: Hub
    scheduler: Scheduler
    bus: EngineBus
    chains: Callable[[], Mapping[str, EngineChain]]
    breakers: BreakerRegistry
    interval_s: float
    namespace: str
    threads: bool = True

    def __post_init__(self) -> None:
        self._pid = 0
        self._reset()
        renew_after_fork(self)
        if self.interval_s:
            self.bus.subscribe(_KIND, self._receive_results)
            self.bus.before_first_read(self.receive_retained)
            self.bus.after_each_read(self._start_rounds)
            self.bus.after_each_read(self._expire_results)

    def _reset(self) -> None:
        self._round = threading.Lock()
        self._running: dict[BreakerKey, threading.Thread] = {}
        self._next = 0
        self._received_at: float | None = None
        self._stop: Callable[[], None] | None = None

    # --- who probes, and when -----------------------------------------------------------------

    def start(self) -> None:
        """Start in this process, as soon as there is an engine to probe."""
        if self.interval_s and self._pid != os.getpid():
            self._pid = os.getpid()
            self._start_rounds()

    def _start_rounds(self) -> None:
        if self._stop is None and self._pid == os.getpid() and self._targets():
            self._stop = self.scheduler.every(
                self.interval_s / _JITTER,
                self.begin_round,
                name=f"engine-probes:{self.namespace}",
                elected=True,
            )
            self.scheduler.submit(self.run_first_round, name="engine-warm-up")

    def close(self) -> None:
        """Stop. Probes that are running are left to end."""
        if self._stop is not None and self._pid == os.getpid():
            self._stop()
        self._stop = None
        self._pid = 0

    def run_first_round(self) -> None:
        """Probe now, unless another worker does or has done so not long ago."""
        if any(event.age_s < self.interval_s for event in self.bus.retained(_RETAINED)):
            return
        if self.hub.lease(f"engine-warm-up:{self.namespace}", self.interval_s) is not None:
            self.begin_round()

    def begin_round(self) -> None:
        """Begin a round on a thread of its own, unless one is running."""
        if not self._targets():
            return
        if not self.threads:
            self.run_round()
        elif not self._round.locked():
            begin_thread(self.run_round, "om-probes", logger)

    # --- a round ------------------------------------------------------------------------------

    def run_round(self) -> None:
        """Probe every engine that has a probe, and publish the results."""
        if not self._round.acquire(blocking=False):
            return
        try:
            found = self._probe_all(self._targets())
        finally:
            self._round.release()
        if found:
            results = [[*key, well] for key, well in found.items()]
            retained = RetainedKey(_RETAINED, EXPIRY_INTERVALS * self.interval_s)
            self._apply(found, self.clock.monotonic())
            self.bus.publish(_KIND, {"words": results}, retained)

    def _targets(self) -> list[tuple[BreakerKey, EngineState]]:
        """Return one engine for each breaker, those that have waited longest first."""
        by_breaker = {id(breaker): key for key, breaker in self.breakers.pairs()}
        found: dict[BreakerKey, EngineState] = {}
        for chain in list(self.chains().values()):
            for engine in chain.states:
                key = by_breaker.get(id(engine.breaker))
                if key is not None and engine.has_probe:
                    found.setdefault(key, engine)
        targets = list(found.items())[:_MAX_ENGINES]
        first = self._next % len(targets) if targets else 0
        return targets[first:] + targets[:first]

    def _probe_all(self, targets: list[tuple[BreakerKey, EngineState]]) -> dict[BreakerKey, bool]:
        if not self.threads:
            return {
                key: well
                for key, engine in targets
                if (well := _probe(engine, probe_call(engine, self.clock, PROBE_TIMEOUT_S)))
                is not None
            }
        monotonic = self.clock.monotonic
        round_ends = monotonic() + min(MAX_ROUND_S, self.interval_s)
        waiting = deque(targets)
        running: dict[BreakerKey, Call] = {}
        done: SimpleQueue[tuple[BreakerKey, bool | None]] = SimpleQueue()
        found: dict[BreakerKey, bool] = {}
        while running or waiting:
            now = monotonic()
            for key, call in [(key, call) for key, call in running.items() if now >= call.deadline]:
                del running[key]
                found[key] = False
                call.cancel()
            if now >= round_ends:
                waiting.clear()
            while waiting and len(running) < MAX_CONCURRENT_PROBES:
                key, engine = waiting.popleft()
                self._next += 1
                call = probe_call(engine, self.clock, PROBE_TIMEOUT_S)
                begun = self._begin_probe(key, engine, call, done)
                if begun is None:
                    found[key] = False  # its last probe still hangs
                elif begun:
                    running[key] = call
            if not running:
                continue
            wait_s = min(call.deadline for call in running.values()) - monotonic()
            try:
                key, well = done.get(timeout=max(wait_s, 0.001))
            except Empty:
                continue
            if running.pop(key, None) is not None and well is not None:
                found[key] = well
        return found

    def _begin_probe(
        self,
        key: BreakerKey,
        engine: EngineState,
        call: Call,
        done: SimpleQueue[tuple[BreakerKey, bool | None]],
    ) -> bool | None:
        """Begin one probe.

        Returns:
            False when there is no thread for it; ``None`` while the engine's last probe runs.
        """
        before = self._running.get(key)
        if before is not None and before.is_alive():
            return None

        def run() -> None:
            done.put((key, _probe(engine, call)))

        thread = begin_thread(run, "om-probe", logger)
        if thread is None:
            return False
        self._running[key] = thread
        return True

    # --- the results --------------------------------------------------------------------------

    def receive_retained(self) -> None:
        """Apply the results that the hub retains for workers that start later."""
        self.bus.replay(_RETAINED, self._receive_results)

    def _receive_results(self, event: EngineEvent) -> None:
        said = convert(event.data, _ProbeResults)
        if event.own or event.age_s >= EXPIRY_INTERVALS * self.interval_s:
            return
        # While a process starts, one result may come twice: as retained and as published.
        again_s = min(1.0, self.interval_s / 4)
        if self._received_at is None or event.at - self._received_at >= again_s:
            self._apply({(one.chain, one.engine): one.well for one in said.results}, event.at)

    def _apply(self, found: Mapping[BreakerKey, bool], at: float) -> None:
        now = self.clock.monotonic()
        self._received_at = at
        for key, well in found.items():
            breaker = self.breakers.find(key)
            if breaker is not None:
                breaker.note_probe(well, now, at)
                if well:
                    self._end_offline_time(breaker)
        self._check_health()

    def _end_offline_time(self, breaker: Breaker) -> None:
        for chain in list(self.chains().values()):
            for engine in chain.states:
                if engine.breaker is breaker:
                    engine.cooldown.succeeded()

    def _expire_results(self) -> None:
        """Drop the results once nobody probes any more."""
        now = self.clock.monotonic()
        received_at = self._received_at
        if received_at is None or now - received_at < EXPIRY_INTERVALS * self.interval_s:
            return
        self._received_at = None
        for _, breaker in self.breakers.pairs():
            breaker.note_probe(None, now, now)
        self._check_health()

    def _check_health(self) -> None:
        """Report changes of health now, not when somebody next reads it."""
        for chain in list(self.chains().values()):
            chain.health()

    def after_fork(self) -> None:
        self._reset()


def _probe(engine: EngineState, call: Call) -> bool | None:
    """Return whether an engine is well; ``None`` when its probe does not say."""
    if not engine.has_probe:
        return None
    try:
        engine.run_probe(call)
    except NO_VERDICT:
        return None
    except Exception as error:  # noqa: BLE001 - an engine may raise anything
        engine.failures.record(engine.name, error, probe=True)
        return False
    except BaseException:  # noqa: BLE001 - a greenlet that is killed says nothing
        return None
    return True


def probe_call(engine: EngineState, clock: Clock, limit_s: float, like: Call | None = None) -> Call:
    """Return a call that no caller made.

    Args:
        engine: the engine that the call is for.
        clock: the clock.
        limit_s: the deadline of the call, in seconds from now.
        like: the call whose payload it repeats; ``None`` for a call without a payload.
    """
    call = Call(
        like.payload if like is not None else None,
        engine.spec.chain,
        like.headers if like is not None else None,
        like.method if like is not None else "POST",
        deadline=clock.monotonic() + limit_s,
        monotonic=clock.monotonic,
    )
    call.tier = engine.tier
    return call

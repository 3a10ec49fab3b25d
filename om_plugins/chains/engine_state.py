"""The state of one engine in a chain: who may call it now, and what the end of a call changes.

The breaker, the cooldown and the health of an engine change here and nowhere else, by the table of
:mod:`om_plugins.policies.error_table`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import cast

from ..builtin.engines.faults import Chaos, ChaosOptions
from ..errors import AttemptTimeout, EngineUnavailable, NoAnswer
from ..plugins.checks import explain_answer, refuse_chunk
from ..policies.breaker import Breaker, Forced
from ..policies.bulkhead import Bulkhead
from ..policies.cooldown import Cooldown
from ..policies.error_table import cooldown_of, cooling_s, is_about_caller, trips_breaker
from ..policies.health import HealthTracker
from ..policies.registry import BreakerRegistry
from ..protocols import Clock, Engine
from ..settings.callbacks import explain_no_success, refuse_unfinished
from ..signals import Emit, engine_called, engine_failed
from ..types import Answer, Call, EngineHealth, EngineSpec
from .failures.failure_log import FailureLog
from .failures.refusals import Begin, RefusalCheck
from .load_balancing import Ejection, EngineLoad, EngineTraffic, LatencyQuantile, Tier
from .options import EngineOptions
from .stream import ChunkStream, End, close_upstream, is_stream

logger = logging.getLogger("om_plugins")

FORCED_BY_OPTION: Mapping[str, Forced] = {"open": "open", "closed": "closed"}


class EngineState:
    """One engine of a chain, under the settings of one moment.

    When settings change, :meth:`with_settings` makes a new state. It shares everything that
    counts (breaker, cooldown, load, …) with the old one, which the calls under way go on to use.

    Args:
        spec: the engine, its chain and its tier.
        breaker: the engine's own breaker, or one that several engines share.
        registry: the breakers and bulkheads of the application.
        clock: the clock.
        emit: sends the application's signals.
        failures: writes to the log why the engine fails.
        begin_probe: runs the engine's own probe off the path of a call that was refused.

    Attributes:
        ask: the engine's ``call``, inside a chaos wrapper where chaos is configured.
        traffic: bulkhead, load and latency; ``None`` where none of them is in use.
        peers: the engine's tier where it has equals, else ``None``.
        saves_time: a local engine comes later in the chain, so this one leaves it a part of the
            deadline.
        attempt_s: the longest time of one attempt, in seconds.
        health: keeps the engine's health and its newest error.
    """

    __slots__ = ("_bulkhead", "_chaos_options", "_clock", "_emit", "_fair_share_s",
                 "_forced_option", "_latency", "_load", "_offline_s", "_registry", "ask",
                 "attempt_s", "breaker", "cooldown", "ejection", "enabled", "failures", "health",
                 "idempotent", "learn", "local", "name", "peers", "refusals", "saves_time",
                 "spec", "streaming", "tier", "traffic", "weight")  # fmt: skip

    def __init__(
        self,
        spec: EngineSpec,
        breaker: Breaker,
        registry: BreakerRegistry,
        clock: Clock,
        emit: Emit,
        failures: FailureLog,
        begin_probe: Begin,
    ) -> None:
        engine = cast(Engine, spec.engine)
        traits = engine.traits
        self.spec = spec
        self.name = engine.name
        self.tier = spec.tier
        self.weight = spec.weight
        self.enabled = True
        self.idempotent = traits.idempotent
        self.local = traits.local
        self.streaming = traits.streaming
        self.ask: Callable[[Call], object] = engine.call
        self.learn: Callable[[Call, Answer], object] | None = getattr(engine, "learn", None)
        self.breaker = breaker
        self.cooldown = Cooldown()
        self.ejection = Ejection()
        self.health = HealthTracker(spec.chain, self.name, breaker, self.cooldown, clock, emit)
        self.failures = failures
        self.refusals = RefusalCheck(
            spec.chain,
            self.name,
            self.run_probe if self.has_probe else None,
            breaker=breaker,
            cooldown=self.cooldown,
            health=self.health,
            failures=failures,
            clock=clock,
            begin=begin_probe,
        )
        self.peers: Tier[EngineState] | None = None
        self.saves_time = False
        self.traffic: EngineTraffic | None = None
        self.attempt_s = float("inf")
        self._bulkhead: Bulkhead | None = None
        self._load: EngineLoad | None = None
        self._latency: LatencyQuantile | None = None
        self._fair_share_s = float("inf")
        self._offline_s = 0.0
        self._forced_option = "auto"
        self._chaos_options: Mapping[str, object] | None = None
        self._registry = registry
        self._clock = clock
        self._emit = emit

    def with_settings(
        self,
        options: EngineOptions,
        *,
        has_equals: bool,
        hedge: float,
        bulkhead_wait_s: float,
        attempt_s: float,
        fair_share_s: float,
        offline_s: float,
    ) -> EngineState:
        """Return the state of the same engine under other settings, with all it has counted.

        Args:
            options: the engine's own options.
            has_equals: other engines share its tier.
            hedge: the quantile of the latency after which an attempt is hedged; 0.0 for never.
            bulkhead_wait_s: how long a call waits at the bulkhead, at most.
            attempt_s: the longest time of one attempt.
            fair_share_s: the time after which a timeout is the engine's fault.
            offline_s: how long a misconfigured engine is left alone before the next probe.
        """
        state = copy.copy(self)
        traits = cast(Engine, self.spec.engine).traits
        state.tier = tier_of(self.spec, options)
        state.weight = self.spec.weight if options.weight is None else options.weight
        state.enabled = options.enabled
        state.peers = None
        state.saves_time = False
        state.attempt_s = attempt_s
        state._fair_share_s = fair_share_s
        state._offline_s = offline_s
        limit = options.max_concurrency
        limit = traits.max_concurrency if limit is None else limit
        state._bulkhead = self._registry.bulkhead(self.spec.engine, self.spec.chain, limit or 0)
        if has_equals and self._load is None:
            state._load = EngineLoad()
        if not hedge or not traits.hedge_safe:
            state._latency = None
        elif self._latency is None or self._latency.quantile != hedge:
            state._latency = LatencyQuantile(hedge)
        load = state._load if has_equals else None
        state.traffic = None
        if state._bulkhead or load or state._latency:
            state.traffic = EngineTraffic(state._bulkhead, load, state._latency, bulkhead_wait_s)
        if options.breaker != self._forced_option:
            state._forced_option = options.breaker
            # the live settings carry this option to other workers, so the breaker need not
            self.breaker.force(FORCED_BY_OPTION.get(options.breaker), remote=True)
        if options.chaos != self._chaos_options:
            state._chaos_options = options.chaos
            state.ask = state._wrap_in_chaos(options)
        return state

    def _wrap_in_chaos(self, options: EngineOptions) -> Callable[[Call], object]:
        call = cast(Engine, self.spec.engine).call
        chaos = check_chaos(self.name, options)
        if chaos is None:
            return call
        return Chaos(call, chaos, clock=self._clock, name=self.name)

    # --- load ---

    @property
    def in_flight(self) -> int:
        """Calls under way; 0 where nothing counts them, which is where the engine has no equals."""
        traffic = self.traffic
        return 0 if traffic is None or traffic.load is None else traffic.load.in_flight

    def cost(self, now: float) -> float:
        """Return what one more call costs here, in expected seconds of work per weight."""
        if self.traffic is None or self.traffic.load is None:
            return 0.0
        return self.traffic.load.cost(now) / self.weight

    # --- how a call gets in ---

    def admit(self, now: float, waited_until: float = 0.0) -> int | EngineUnavailable:
        """Return a permit of the breaker, or the reason why the engine must not be called now.

        Args:
            now: the monotonic time.
            waited_until: the caller has waited until then, where that is later.
        """
        permit = self.breaker.permit or self.breaker.enter(now)
        if not permit:
            view = self.breaker.view(now)
            reason = "forced open" if view.forced == "open" else "breaker open"
            return EngineUnavailable(self.name, reason, retry_after=view.retry_after_s)
        if self.cooldown.until and self.cooldown.refused(max(now, waited_until)):
            self.breaker.release(permit, now)
            return EngineUnavailable(
                self.name,
                self.cooldown.reason,
                retry_after=max(self.cooldown.until - now, 0.0),
            )
        return permit

    def can_admit(self, now: float) -> bool:
        """Return whether a call would get in now, as far as can be seen without trying."""
        if now < self.cooldown.until or (self.traffic is not None and self.traffic.full):
            return False
        return bool(self.breaker.permit) or self.breaker.view(now).retry_after_s == 0.0

    # --- what the end of a call changes ---

    def record_recovery(self, now: float) -> None:
        """Record that the engine answered, where this may have changed its health."""
        if self.cooldown.succeeded():
            self.refusals.record_answer(now, self._offline_s, self.check_health)
        self.check_health(now)

    def emit_called(self, call: Call, duration_s: float) -> None:
        """Send the signal ``engine_called``."""
        self._emit(
            engine_called,
            chain=self.spec.chain,
            engine=self.name,
            tier=self.tier,
            attempt=call.attempt,
            duration_s=duration_s,
            call=call,
        )

    def record_failure(
        self,
        call: Call,
        permit: int,
        error: Exception,
        duration_s: float,
        now: float,
        *,
        probe: bool = False,
    ) -> None:
        """Record that the engine raised ``error``, before or in the middle of its answer.

        Args:
            call: the call.
            permit: its permit of the breaker.
            error: what the engine raised.
            duration_s: how long it took.
            now: the monotonic time.
            probe: the engine's own probe raised it, and no call of a caller.
        """
        if not is_about_caller(error):
            self.health.last_error = type(error).__name__
        if trips_breaker(error) and not self._was_cut_short(call, error, duration_s, now):
            self.breaker.leave(permit, now, duration_s, failed=True)
            load = self.traffic.load if self.traffic is not None else None
            if self.peers is not None and load is not None:
                self.peers.record_failure(self, load.record_failure(duration_s, now), now)
        else:
            self.breaker.release(permit, now)
        cooldown = cooldown_of(error)
        if cooldown == "cooling down":
            self.cooldown.begin("cooling down", cooling_s(error), now)
        elif cooldown and probe:
            self.cooldown.begin("offline", self._offline_s, now)
        elif cooldown:
            self.refusals.record(now, self._offline_s, self.check_health)
        elif self.cooldown.until and is_about_caller(error):
            self.cooldown.release(now)
        self.check_health(now)
        self.failures.record(self.name, error)
        if engine_failed.receivers:
            self._emit(
                engine_failed,
                chain=self.spec.chain,
                engine=self.name,
                tier=self.tier,
                attempt=call.attempt,
                error=error,
                duration_s=duration_s,
                call=call,
            )

    def track_stream(
        self, stream: ChunkStream, call: Call, permit: int, began: float, now: float
    ) -> None:
        """Record the first chunk now, and the end of the stream when it comes."""
        traffic = self.traffic

        def record_end(end: End, error: Exception | None) -> None:
            at = self._clock.monotonic()
            if traffic is not None:
                traffic.leave()
            if end == "closed":
                self.breaker.release(permit, at)
                if self.cooldown.until:
                    self.cooldown.release(at)
            elif error is None:
                if self.breaker.leave(permit, at, now - began) or self.cooldown.until:
                    self.record_recovery(at)
                if engine_called.receivers:
                    self.emit_called(call, now - began)
            else:
                self.record_failure(call, permit, error, at - began, at)

        stream.on_end(record_end)
        if traffic is not None:
            traffic.record_answer(now - began, now)

    def _was_cut_short(self, call: Call, error: Exception, duration_s: float, now: float) -> bool:
        """Return True for a timeout that the caller's haste caused, not the engine.

        An engine that had less time than the chain's own settings give, because the caller was in
        a hurry or earlier attempts used the rest, is not at fault.
        """
        return (
            isinstance(error, AttemptTimeout)
            and now >= call.attempt_deadline
            and duration_s - (now - call.attempt_deadline) < self._fair_share_s
        )

    def probe(self, call: Call, ask: Callable[[Call], object]) -> None:
        """Call the engine without a caller, also while its breaker is open.

        It counts as any call: only a success closes the breaker and ends an offline time.

        Args:
            call: its deadline is the limit.
            ask: the engine's ``call`` or ``probe``.

        Raises:
            EngineUnavailable: another probe is under way.
            AttemptTimeout: the engine answered so slowly that the breaker stays open.
            Exception: what the engine raised.
        """
        began = self._clock.monotonic()
        permit = self.breaker.enter_early(began)
        if not permit:
            raise EngineUnavailable(self.name, "is being probed")
        try:
            result = ask(call)
            if ask is self.ask:
                self._check_answer(result)
        except Exception as error:
            now = self._clock.monotonic()
            self.record_failure(call, permit, error, now - began, now, probe=ask == self.run_probe)
            raise
        except BaseException:
            self.breaker.release(permit, self._clock.monotonic())
            raise
        now = self._clock.monotonic()
        self.breaker.leave(permit, now, now - began)
        self.record_recovery(now)
        close_upstream(result)
        if not self.breaker.permit:
            raise AttemptTimeout(f"{self.name}: answered, but too slowly")

    @property
    def has_probe(self) -> bool:
        """True when the engine has a ``probe`` of its own."""
        return getattr(self.spec.engine, "probe", None) is not None

    def run_probe(self, call: Call) -> None:
        """Call the engine's own ``probe``.

        Raises:
            NoAnswer: it returned anything but ``None`` or ``True``.
            Exception: what it raised.
        """
        problem = explain_no_success(self.spec.engine.probe(call))  # type: ignore[attr-defined]
        if problem:
            raise NoAnswer(f"the probe of engine {self.name!r} {problem}")

    def _check_answer(self, result: object) -> None:
        """Refuse what is no answer. Of an answer in chunks the first one is read: before it, no
        code of the engine may have run.

        Raises:
            NoAnswer: it is none.
            Exception: what the engine raised.
        """
        chunks = result.chunks if isinstance(result, Answer) else None
        if chunks is None and self.streaming and is_stream(result):
            chunks = cast(Iterator[object], result)
        if chunks is not None:
            refuse_chunk(next(iter(chunks), None))
        elif explain_answer(result):
            raise self.no_answer(result)

    def no_answer(self, result: object) -> NoAnswer:
        """Return the error for a call that returned something that is no answer."""
        return NoAnswer(f"engine {self.name!r} {explain_answer(result)}", sent="yes")

    def check_health(self, now: float) -> EngineHealth:
        """Return the health at this moment; sends a signal where it has changed."""
        return self.health.check(self.tier, now, ejected=now < self.ejection.until)

    def close(self) -> None:
        """Have the engine give its connections back, if it has any."""
        close = getattr(self.spec.engine, "close", None)
        if close is not None:
            try:
                refuse_unfinished(close())
            except Exception:
                logger.exception("engine %r: close failed", self.name)


def tier_of(spec: EngineSpec, options: EngineOptions) -> int:
    """Return the tier of an engine: that of its options, or the one it was registered with."""
    return spec.tier if options.tier is None else options.tier


def check_chaos(engine: str, options: EngineOptions) -> ChaosOptions | None:
    """Check the chaos options of an engine, which the settings leave unchecked.

    Returns:
        The checked options; ``None`` without chaos.

    Raises:
        ConfigError: an option is unknown, or its value cannot work.
    """
    if not options.chaos:
        return None
    return ChaosOptions.from_mapping(options.chaos, where=f"chaos of engine {engine!r}: ")

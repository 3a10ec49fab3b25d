"""An engine's seat in a chain: what was registered, and what lasts of it while settings change."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import cast

from ..builtin.engines.faults import Chaos, ChaosOptions
from ..errors import ConfigError
from ..policies.breaker import Breaker, Forced
from ..policies.bulkhead import Bulkhead
from ..policies.cooldown import Cooldown
from ..policies.registry import BreakerRegistry
from ..protocols import Clock, Engine
from ..settings.settings__options import EngineOptions
from ..signals import Emit
from ..types import Call, EngineSpec, EngineTraits
from .engine_state__condition import Condition
from .load_balancing import Ejection
from .load_balancing__latencies import Load, Quantile
from .snapshot__policy import ChainPolicy

FORCED: Mapping[str, Forced] = {"open": "open", "closed": "closed"}


class Seat:
    """What lasts of one engine while the settings of its chain change.

    Args:
        spec: the engine, its chain and tier.
        breaker: the engine's own, or the one it shares.
        registry: the application's.
        clock: time.
        emit: tells the application's signals.

    Attributes:
        ask: the engine's ``call``, with chaos around it where there is any.
        bulkhead: bounds its calls at work; ``None`` while nothing does.
        load: how busy it is, beside its equals; ``None`` while it has none.
        times: when a hedge is due; ``None`` while there is no hedging.
    """

    __slots__ = ("_breaker_option", "_chaos_options", "_clock", "_registry", "ask", "breaker",
                 "bulkhead", "chaos", "condition", "cooldown", "ejection", "engine", "load",
                 "name", "spec", "times")  # fmt: skip

    def __init__(
        self,
        spec: EngineSpec,
        breaker: Breaker,
        registry: BreakerRegistry,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self.spec = spec
        self.engine = engine = cast(Engine, spec.engine)
        self.name = engine.name
        self.ask: Callable[[Call], object] = engine.call
        self.breaker = breaker
        self.cooldown = Cooldown()
        self.ejection = Ejection()
        self.condition = Condition(
            spec.chain, self.name, breaker, self.cooldown, self.ejection, clock, emit
        )
        self.bulkhead: Bulkhead | None = None
        self.load: Load | None = None
        self.times: Quantile | None = None
        self.chaos: Chaos | None = None
        self._breaker_option = "auto"
        self._chaos_options: Mapping[str, object] | None = None
        self._registry = registry
        self._clock = clock

    def prepare(self, policy: ChainPolicy, options: EngineOptions, *, equals: bool) -> None:
        """Make what these settings need; what is there already is kept, with all it has counted.

        Args:
            equals: other engines share its tier.
        """
        limit = options.max_concurrency
        limit = self.engine.traits.max_concurrency if limit is None else limit
        self.bulkhead = self._registry.bulkhead(self.engine, self.spec.chain, limit or 0)
        if equals and self.load is None:
            self.load = Load()
        if not policy.hedge or policy.at_most_once or not self.engine.traits.hedge_safe:
            self.times = None
        elif self.times is None or self.times.share != policy.hedge:
            self.times = Quantile(policy.hedge)
        if options.breaker != self._breaker_option:
            self._breaker_option = options.breaker
            # carried to other workers as this option is
            self.breaker.force(FORCED.get(options.breaker), heard=True)
        if options.chaos != self._chaos_options:
            self._chaos_options = options.chaos
            self.chaos = self._chaos(options)
            self.ask = self.chaos or self.engine.call

    def check(self, options: EngineOptions) -> ChaosOptions | None:
        """What is checked only here, before anything is changed.

        Raises:
            ConfigError: chaos cannot be as the options say.
        """
        if not options.chaos:
            return None
        return ChaosOptions.from_mapping(options.chaos, where=f"chaos of engine {self.name!r}: ")

    def _chaos(self, options: EngineOptions) -> Chaos | None:
        checked = self.check(options)
        if checked is None:
            return None
        return Chaos(self.engine.call, checked, clock=self._clock, name=self.name)


def tier_of(spec: EngineSpec, options: EngineOptions) -> int:
    """The tier of an engine: its option, or where it was registered."""
    return spec.tier if options.tier is None else options.tier


def check_engine(spec: EngineSpec, chain: str) -> Engine:
    """Refuse what is no engine, when it is registered and not when it is first needed.

    Raises:
        ConfigError: it lacks a part of the contract, or its place is not one.
        TypeError: its ``call`` is ``async``.
    """
    engine = spec.engine
    key = f"engine of chain {chain!r}"
    if not chain or chain == "*":
        raise ConfigError("chain", chain, "must be a name; '' is none, and '*' means every chain")
    if spec.chain != chain:
        raise ConfigError(key, engine, f"its spec names another chain, {spec.chain!r}")
    name = getattr(engine, "name", None)
    if not isinstance(name, str) or not name:
        raise ConfigError(key, engine, "must have a name, a text that is not empty")
    call = getattr(engine, "call", None)
    if isinstance(engine, type) or not callable(call):
        raise ConfigError(key, engine, "must be an object with a method call(call)")
    if not isinstance(getattr(engine, "traits", None), EngineTraits):
        raise ConfigError(key, engine, "must have traits, an EngineTraits")
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        raise TypeError(
            f"engine {name!r}: call is async, and a chain is not; "
            "wrap the coroutine function in a CallableEngine"
        )
    if isinstance(spec.tier, bool) or not isinstance(spec.tier, int) or spec.tier < 1:
        raise ConfigError(f"tier of engine {name!r}", spec.tier, "must be a whole number from 1")
    try:
        EngineOptions.from_mapping(
            {"weight": spec.weight, "max_concurrency": cast(Engine, engine).traits.max_concurrency}
        )
    except ConfigError as error:
        raise ConfigError(f"{error.key} of engine {name!r}", error.value, error.reason) from None
    return cast(Engine, engine)

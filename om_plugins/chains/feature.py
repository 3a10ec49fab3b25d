"""Chains of engines: retries, budget, breaker, hedge and fallback around each call."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigError, suggest
from ..plugins.feature import Feature
from ..plugins.kit import Card, Finding
from ..plugins.names import check_names
from ..settings.kinds import BOOL, number, single
from ..settings.kinds import partial as partial_table
from ..settings.table import Table, key
from .options import ChainPolicy, check_attempts

if TYPE_CHECKING:
    from ..plugins.kit import Kit
    from ..types import Attempt, Call, EngineSpec
    from .chain import EngineChain

_key = partial(key, group="Engines")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainKeys(Table):
    """The settings of chains of engines."""

    PREFIX: ClassVar[str] = "OM_"
    RENAMED: ClassVar[Mapping[str, str]] = {
        f"OM_{name.upper()}": f"OM_CHAIN_DEFAULTS = {{{name!r}: …}}"
        for name in ChainPolicy.keys()  # noqa: SIM118
    } | {
        f"OM_{old.upper()}": f"OM_CHAIN_DEFAULTS = {{{new!r}: …}}"
        for old, new in ChainPolicy.RENAMED.items()
    }

    chain_defaults: ChainPolicy = _key(
        ChainPolicy(),
        single(ChainPolicy, "OM_CHAIN_DEFAULTS"),
        "how chains treat their engines: `{'timeout': 5, 'retries': 1}`",
    )
    chains: dict[str, dict[str, Any]] = _key(
        {},
        partial_table(ChainPolicy, "OM_CHAINS"),
        "what is different for single chains: `{'assistant': {'timeout': 30}}`",
    )
    breaker_shared: bool = _key(
        False,
        BOOL,
        "a breaker that opens or is closed by a probe in one worker does so in all, by the hub",
    )
    probe_interval: float = _key(
        30.0,
        number(0, 86_400, "seconds"),
        "how often one worker probes the engines that have a `probe`; 0: never, as under `TESTING`",
    )


ONE_THREAD_SLEEP_S = 1.0
"""How long a call may wait between attempts where the server has one thread."""


class ChainsFeature(Feature["Chains", ChainKeys]):
    """``om.chain``, ``@om.engine``; ``OM_CHAINS`` and the options of all chains."""

    name = "chains"
    keys = ChainKeys

    def is_needed(self, kit: Kit, keys: ChainKeys) -> bool:
        return bool(keys.chains) or keys.chain_defaults != ChainPolicy()

    def build(self, kit: Kit, keys: ChainKeys) -> Chains:
        return Chains(kit, keys)

    def start(self, kit: Kit, part: Chains) -> None:
        part.start()

    def close(self, kit: Kit, part: Chains) -> None:
        part.health_checks.close()
        part.bus.close()
        for chain in part.by_name.values():
            chain.close()

    def card(self, kit: Kit, part: Chains) -> Card:
        return Card("Chains", data={"chains": sorted(part.by_name)})

    def name_findings(self, kit: Kit, part: Chains) -> Iterable[Finding]:
        keys = kit.settings.of(ChainKeys)
        yield from check_names(
            "OM_CHAINS[{!r}]",
            keys.chains,
            part.by_name,
            "No engine belongs to this chain, so its options do nothing.",
            "Add an engine, or take the options out.",
        )
        every = {one.name for chain in part.by_name.values() for one in chain.all_states}
        own = {
            f"OM_CHAINS[{name!r}].engines": (
                options.get("engines", {}),
                {one.name for one in part.by_name[name].all_states},
            )
            for name, options in keys.chains.items()
            if name in part.by_name
        }
        places = {"OM_CHAIN_DEFAULTS.engines": (keys.chain_defaults.engines, every), **own}
        for place, (names, known) in places.items():
            yield from check_names(
                place.replace("{", "{{").replace("}", "}}") + "[{!r}]",
                names,
                known,
                "No engine of the chain has this name, so its options do nothing.",
                f"Its engines are {', '.join(sorted(known))}." if known else "Add an engine.",
            )

    def findings(self, kit: Kit, part: Chains) -> Iterable[Finding]:
        for name, chain in part.by_name.items():
            if len(chain.engines) == 1:
                yield Finding(
                    "warn",
                    f"chain {name}",
                    "It has one engine: when that fails there is nothing to fall back to.",
                    "Add a later tier, such as a StaticEngine or a local function.",
                )
            else:
                yield Finding("ok", f"chain {name}", f"It has {len(chain.engines)} engines.")


def _check_times(keys: ChainKeys) -> None:
    every = keys.chain_defaults
    check_attempts("OM_CHAIN_DEFAULTS.", {"attempt_timeout": every.attempt_timeout}, every)
    for name, options in keys.chains.items():
        check_attempts(f"OM_CHAINS[{name!r}].", options, replace(every, **options))


class Chains:
    """The chains of one application.

    Attributes:
        by_name: each chain that has an engine.
        live: what operators change while the application runs.
        bus: carries news of breakers and probes to other workers.
        sharing: applies to this process's breakers what other workers publish.
        health_checks: probes engines.
    """

    def __init__(self, kit: Kit, keys: ChainKeys) -> None:
        from ..policies.registry import BreakerRegistry
        from .health_checks import HealthChecks
        from .live_settings import LiveSettings
        from .sharing import BreakerSharing, EngineBus

        _check_times(keys)
        self._kit = kit
        self._started_in = self._reading_in = 0  # process ids
        self._breakers = BreakerRegistry()
        self.by_name: dict[str, EngineChain] = {}
        self.bus = EngineBus(
            hub=kit.hub,
            scheduler=kit.scheduler,
            clock=kit.clock,
            namespace=kit.namespace,
            has_engines=lambda: not self._breakers.empty,
        )
        self.sharing = BreakerSharing(
            breakers=self._breakers, bus=self.bus, clock=kit.clock, shared=keys.breaker_shared
        )
        self.health_checks = HealthChecks(
            clock=kit.clock,
            hub=kit.hub,
            scheduler=kit.scheduler,
            bus=self.bus,
            chains=lambda: self.by_name,
            breakers=self._breakers,
            interval_s=0.0 if kit.host.testing else keys.probe_interval,
            namespace=kit.namespace,
            threads=not kit.host.testing,
        )
        self.live = LiveSettings(
            defaults=keys.chain_defaults,
            own=keys.chains,
            hub=kit.hub,
            scheduler=kit.scheduler,
            clock=kit.clock,
            chains=lambda: self.by_name,
        )

    def start(self) -> None:
        """Start in this process, as far as there are engines; else with the first one.

        Most applications have none, and news of other workers' engines are not for them.
        """
        self._started_in = os.getpid()
        self.health_checks.start()
        self._start_reading()

    def _start_reading(self) -> None:
        pid = os.getpid()
        if self.by_name and self._started_in == pid and self._reading_in != pid:
            self._reading_in = pid
            self.bus.start()
            self.live.start()

    def get(self, name: str) -> EngineChain:
        """The chain of that name.

        Raises:
            ConfigError: no engine belongs to it.
        """
        found = self.by_name.get(name)
        if found is None:
            hint = suggest(name, self.by_name, "add one with om.engine(..., chain=…)")
            raise ConfigError("chain", name, f"no engine belongs to it; {hint}")
        return found

    def add(self, spec: EngineSpec) -> None:
        """Give an engine its place in a chain; current calls end on the old order.

        Raises:
            ConfigError: it is no engine, or the chain has one of that name.
            TypeError: its ``call`` is ``async``.
        """
        from ..workers.servers import stopping
        from .chain import EngineChain
        from .failures.refusals import begin_no_probe, begin_probe

        spec = self._attached(spec)
        found = self.by_name.get(spec.chain)
        if found is None:
            found = EngineChain(
                spec.chain,
                self.live.get_policy(spec.chain),
                options=self.live.get_engine_options(spec.chain),
                clock=self._kit.clock,
                emit=self._kit.emit,
                breakers=self._breakers,
                on_failure=self._report_failure if self._kit.keys.enabled else None,
                ambient_deadline=self._kit.part_of("deadline"),
                stopping=lambda: self._kit.is_closed() or stopping(),
                max_sleep_s=self._max_sleep_s,
                begin_probe=begin_probe if self.health_checks.interval_s else begin_no_probe,
            )
            found.add(spec)
            self.by_name[spec.chain] = found
            self._start_reading()
        else:
            found.add(spec)

    def _report_failure(self, call: Call, history: Sequence[Attempt]) -> None:
        self._kit.part_of("recovery").recovery.chain_failed(call, history)

    def _attached(self, spec: EngineSpec) -> EngineSpec:
        """Have an engine that wants the parts of the application get them."""
        from ..plugins.checks import check_engine

        engine = check_engine(spec, spec.chain)
        attach = getattr(engine, "attach", None)
        if attach is None:
            return spec
        log = logging.getLogger(f"om_plugins.engine.{engine.name}")
        mine = attach(self._kit.plugin_context(engine.name, None, log))
        return spec if mine is None else replace(spec, engine=mine)

    def _max_sleep_s(self) -> float:
        """How long a call may wait between attempts: it must not hold a server's only thread."""
        from ..workers.servers import has_one_thread

        environ = self._kit.environ()
        return ONE_THREAD_SLEEP_S if environ and has_one_thread(environ) else float("inf")

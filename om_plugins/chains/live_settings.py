"""Live settings: how operators change chains and engines while the application runs.

::

    live.configure("assistant", timeout=3, engines={"model": {"enabled": False}})

A change is checked as ``OM_CHAINS`` is, holds at once in this process and within a second in every
other worker that shares the hub, and ends by itself: what should stay belongs into the settings.
Each chain takes it in one step; calls under way end as they began.
"""

from __future__ import annotations

import difflib
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import msgspec

from ..core.body import convert
from ..core.fork import renew_after_fork
from ..errors import ConfigError
from ..protocols import Clock, Hub, Lease, Scheduler
from .chain import EngineChain
from .options import ChainPolicy, EngineOptions

__all__ = ["EVERY_CHAIN", "LASTS_S", "LiveChange", "LiveSettings"]

logger = logging.getLogger("om_plugins")

EVERY_CHAIN = "*"
LASTS_S = 86_400.0
"""A change made by hand lasts a day, unless said otherwise."""
LOOK_S = 1.0
"""How often a worker looks what others have changed."""
_KEY = "live:settings"
_LEASE_S = 5.0
_LEASE_LOOK_S = 0.05
_MOST_CHAINS = 1000
_MOST_BYTES = 200_000
_LONGEST_S = 30 * 86_400.0
_SKEW_S = 300.0
"""The clocks of two hosts differ by this much, at most: a change from further ahead is none."""


@dataclass(slots=True)
class LiveChange:
    """What is changed of one chain.

    Attributes:
        options: as ``OM_CHAINS`` has them, only what differs.
        until: when it ends (Unix time).
    """

    options: dict[str, object]
    until: float


class _Change(TypedDict):
    options: dict[str, object]
    until: float


class _Wire(TypedDict):
    """All changes as they lie in the hub; of two, the one made later holds."""

    at: float
    changes: dict[str, _Change]


class LiveSettings:
    """The changes of one application's chains.

    Args:
        defaults: ``OM_CHAIN_DEFAULTS``.
        own: ``OM_CHAINS``: what is different for one chain, by its name.
        hub: carries changes to the other workers.
        scheduler: looks for changes of others.
        clock: time.
        chains: the application's chains by name.
    """

    def __init__(
        self,
        *,
        defaults: ChainPolicy,
        own: Mapping[str, Mapping[str, Any]],
        hub: Hub,
        scheduler: Scheduler,
        clock: Clock,
        chains: Callable[[], Mapping[str, EngineChain]],
    ) -> None:
        self._defaults = defaults
        self._own = own
        self._hub = hub
        self._scheduler = scheduler
        self._clock = clock
        self._chains = chains
        self._changes: dict[str, LiveChange] = {}
        self._at = 0.0
        """When they were last changed (Unix time); 0.0 while nobody has."""
        self._lock = threading.RLock()
        renew_after_fork(self)

    def start(self) -> None:
        """Look now, and each second, for what other workers have changed."""
        # weakly: an application that is dropped before it ran must not be kept by it
        look = weakref.WeakMethod(self.look)

        def look_if_living() -> None:
            living = look()
            if living is not None:
                living()

        self._scheduler.submit(look_if_living, name="live settings")
        self._scheduler.every(LOOK_S, self.look, name="live settings")

    # --- what operators do ---

    def configure(self, chain: str, *, lasts_s: float = LASTS_S, **options: object) -> None:
        """Change a chain, in every worker.

        Args:
            chain: its name, or ``*`` for every chain.
            lasts_s: seconds after which the change ends, at most 30 days.
            **options: as in ``OM_CHAINS[chain]``; ``None`` takes a change back. ``engines`` is a
                dict from an engine's name to what changes of it: ``tier``, ``weight``,
                ``enabled``, ``max_concurrency``, ``breaker``, ``chaos``.

        Raises:
            ConfigError: no chain or engine has that name, an option is unknown, or its value
                cannot work. Nothing has been changed then.
        """
        self._check_name(chain)
        if not 0 < lasts_s <= _LONGEST_S:
            raise ConfigError("lasts_s", lasts_s, "must be above 0 and at most 30 days (2592000)")
        _checked(options, f"chain {chain!r}: ")
        self._check_engines(chain, _mapping(options.get("engines"), chain))
        now = self._clock.time()
        self._change(lambda changes: _with(changes, chain, options, now + lasts_s))

    def reset(self, chain: str | None = None) -> None:
        """Take the changes of a chain back (of all, when ``None``), in every worker."""

        def without(changes: dict[str, LiveChange]) -> dict[str, LiveChange]:
            return {} if chain is None else {k: v for k, v in changes.items() if k != chain}

        self._change(without)

    def changes(self) -> dict[str, LiveChange]:
        """What is changed at the moment, by chain."""
        now = self._clock.time()
        return {name: one for name, one in self._changes.items() if one.until > now}

    # --- what a chain gets ---

    def policy_of(self, chain: str, *, own: bool = True) -> ChainPolicy:
        """The policy of a chain, with what is changed of it.

        Args:
            own: false leaves out what is changed of this chain alone; for ``*``, everything.
        """
        live = ChainPolicy.read_some(self._said_of(chain, own=own))
        return replace(self._defaults, **{**self._own.get(chain, {}), **live})

    def engines_of(self, chain: str, *, own: bool = True) -> dict[str, EngineOptions]:
        """What is said of the chain's engines alone, by name; ``own`` as in :meth:`policy_of`."""
        merged: dict[str, dict[str, object]] = {
            name: dict(options.given())
            for engines in (self._defaults.engines, self._own.get(chain, {}).get("engines", {}))
            for name, options in engines.items()
        }
        live = _mapping(self._said_of(chain, own=own).get("engines"), "engines")
        for name, said in live.items():
            # as it was said: `enabled=True` is a change where the settings say False
            merged.setdefault(name, {}).update(_mapping(said, f"engines[{name!r}]"))
        return {
            name: EngineOptions.from_mapping(said, where=f"engines[{name!r}].")
            for name, said in merged.items()
        }

    def _said_of(self, chain: str, *, own: bool) -> dict[str, object]:
        merged: dict[str, object] = {}
        changes = self.changes()
        for name in (EVERY_CHAIN, chain):
            if name in changes and (own or name != chain):
                merged = _merged(merged, changes[name].options)
        return merged

    # --- how changes get about ---

    def look(self) -> None:
        """Take over what other workers have changed, and end what is over.

        A hub that has lost its memory, or was away while this worker was told of a change, gets
        back what holds here.
        """
        found = self._hub.get(_KEY)
        with self._lock:
            at = _at(found, self._clock.time())
            if at < self._at:
                self._share()
            elif at > self._at:
                self._at, self._changes = at, self._read(found)
                self._apply(checking=False)
            if len(now := self.changes()) != len(self._changes):
                self._changes = now
                self._apply(checking=False)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def _change(self, change: Callable[[dict[str, LiveChange]], dict[str, LiveChange]]) -> None:
        lease = self._turn()
        try:
            self.look()
            with self._lock:
                before = self._changes
                self._changes = change(self.changes())
                try:
                    if len(msgspec.json.encode(self._wire())) > _MOST_BYTES:
                        raise ConfigError("live settings", "…", f"are over {_MOST_BYTES} bytes")
                    self._apply(checking=True)
                except Exception:
                    self._changes = before
                    self._apply(checking=False)
                    raise
                # later than what it replaces, also where this host's clock is behind
                self._at = max(self._clock.time(), self._at + 0.001)
                self._share()
        finally:
            if lease is not None:
                lease.release()

    def _turn(self) -> Lease | None:
        """Wait until no other operator is at it; the turn of one who died ends by itself."""
        until = self._clock.monotonic() + _LEASE_S
        while (lease := self._hub.lease("live", _LEASE_S)) is None:
            if self._clock.monotonic() >= until:
                return None
            self._clock.sleep(_LEASE_LOOK_S)
        return lease

    def _share(self) -> None:
        self._hub.put(_KEY, self._wire(), ttl=_LONGEST_S)

    def _wire(self) -> _Wire:
        return {
            "at": self._at,
            "changes": {
                name: {"options": one.options, "until": one.until}
                for name, one in self._changes.items()
            },
        }

    def _read(self, found: object) -> dict[str, LiveChange]:
        """What the hub holds, as far as it can be believed; no change outlasts what may be."""
        latest = self._clock.time() + _LONGEST_S
        read = _from_wire(found)
        for one in read.values():
            one.until = min(one.until, latest)
        return read

    def _apply(self, *, checking: bool) -> None:
        for name, chain in list(self._chains().items()):
            try:
                # what is said of engines that are gone, or are another chain's, is not for it
                known = {place.name for place in chain.all_states} | chain.options.keys()
                policy, engines = self.policy_of(name), self.engines_of(name)
                engines = {engine: said for engine, said in engines.items() if engine in known}
                if (policy, engines) != (chain.policy, chain.options):
                    chain.configure(policy, engines)
            except ConfigError as error:
                if checking:
                    raise
                logger.warning("a live change of chain %r is left out: %s", name, error)

    def _check_name(self, chain: str) -> None:
        known = list(self._chains())
        if chain != EVERY_CHAIN and chain not in known:
            near = difflib.get_close_matches(str(chain), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)} and '*'"
            raise ConfigError("chain", chain, f"no engine belongs to it; {hint}")

    def _check_engines(self, chain: str, engines: Mapping[str, object]) -> None:
        names = {
            one.name
            for name, found in list(self._chains().items())
            if chain in (name, EVERY_CHAIN)
            for one in found.all_states
        }
        for engine, said in engines.items():
            if said is not None and engine not in names:
                near = difflib.get_close_matches(str(engine), names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
                raise ConfigError(f"chain {chain!r}: engines", engine, f"no such engine; {hint}")


def _checked(options: Mapping[str, object], where: str) -> None:
    for name in ("retry_on", "give_up_on"):
        for one in _listed(options.get(name)):
            if "." in str(one):  # a shared store must not say which modules are imported
                raise ConfigError(where + name, one, "a live change knows no dotted names")
    for engine, said in _mapping(options.get("engines"), where).items():
        _mapping(said, f"{where}engines[{engine!r}]")
    ChainPolicy.read_some(_merged({}, options), where=where)


def _listed(value: object) -> list[object]:
    if isinstance(value, str):
        return [one.strip() for one in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else []


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(where, value, "must be a dict")
    return value


def _with(
    changes: dict[str, LiveChange], chain: str, options: Mapping[str, object], until: float
) -> dict[str, LiveChange]:
    before = changes[chain].options if chain in changes else {}
    merged = _merged(before, options)
    others = {name: one for name, one in changes.items() if name != chain}
    return {**others, chain: LiveChange(merged, until)} if merged else others


def _merged(before: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """``more`` over ``before``, deep in dicts; ``None`` takes away."""
    merged = dict(before)
    for name, value in more.items():
        if value is None:
            merged.pop(name, None)
            continue
        if isinstance(value, Mapping):
            inside = merged.get(name)
            value = _merged(inside if isinstance(inside, Mapping) else {}, value)
            if not value:
                merged.pop(name, None)
                continue
        merged[name] = list(value) if isinstance(value, tuple) else value
    return merged


def _at(wire: object, now: float) -> float:
    """When what the hub holds was written; 0.0 for what nobody can have written."""
    at = wire.get("at") if isinstance(wire, dict) else None
    return at if isinstance(at, int | float) and 0.0 < at <= now + _SKEW_S else 0.0


def _from_wire(wire: object) -> dict[str, LiveChange]:
    """What the hub holds, as far as it can be believed."""
    found: dict[str, LiveChange] = {}
    changes = wire.get("changes") if isinstance(wire, dict) else None
    try:
        read = convert(changes or {}, dict[str, LiveChange])
    except (ValueError, RecursionError) as error:
        logger.warning("the hub holds live settings that cannot be read: %s", error)
        return found
    for name, one in list(read.items())[:_MOST_CHAINS]:
        try:
            _checked(one.options, f"chain {name!r}: ")
        except (ConfigError, RecursionError) as error:
            logger.warning("a live change is left out: %s", error)
        else:
            found[name] = one
    return found

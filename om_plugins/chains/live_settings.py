"""Live settings: operators change chains and engines while the application runs.

::

    live.configure("assistant", timeout=3, engines={"model": {"enabled": False}})

A change is checked as ``OM_CHAINS`` is. It holds at once in this process, and within a second in
every other worker that shares the hub. It ends by itself: a change that should stay belongs into
the settings. Each chain applies it in one step; calls under way end as they began.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from ..core.body import convert
from ..core.fork import renew_after_fork
from ..errors import ConfigError, suggest
from ..protocols import Clock, Hub, Lease, Scheduler
from .chain import EngineChain
from .options import DEFAULT_LASTS_S, ChainPolicy, EngineOptions, check_attempts

logger = logging.getLogger("om_plugins")

EVERY_CHAIN = "*"
POLL_INTERVAL_S = 1.0
"""How often a worker reads the changes of others."""
_KEY = "live:settings:2"
_LEASE_S = 5.0
_LEASE_POLL_S = 0.05
_MAX_CHAINS = 1000
_MAX_BYTES = 200_000
_MAX_LASTS_S = 30 * 86_400.0
_MAX_SKEW_S = 300.0
"""The clocks of two hosts differ by this much at most; a change from further ahead is not valid."""


@dataclass(slots=True)
class LiveChange:
    """The changes of one chain.

    Attributes:
        options: as in ``OM_CHAINS``, only those that differ.
        until: when they end (Unix time).
    """

    options: dict[str, object]
    until: float


class LiveSettings:
    """The changes of one application's chains.

    Args:
        defaults: ``OM_CHAIN_DEFAULTS``.
        own: ``OM_CHAINS``: the options of single chains, by name.
        hub: carries changes to the other workers.
        scheduler: reads the changes of others in the background.
        clock: the clock.
        chains: returns the application's chains by name.
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
        """When the newest change was made (Unix time); 0.0 before the first one."""
        self._lock = threading.RLock()
        renew_after_fork(self)

    def start(self) -> None:
        """Read the changes of other workers now, and then each second."""
        # a weak reference, so that it does not keep an application that is dropped before it ran
        poll = weakref.WeakMethod(self.poll)

        def poll_if_alive() -> None:
            alive = poll()
            if alive is not None:
                alive()

        self._scheduler.submit(poll_if_alive, name="live settings")
        self._scheduler.every(POLL_INTERVAL_S, self.poll, name="live settings")

    # --- changes by operators ---

    def configure(self, chain: str, *, lasts: float = DEFAULT_LASTS_S, **options: object) -> None:
        """Change a chain, in every worker.

        Args:
            chain: its name, or ``*`` for every chain.
            lasts: seconds after which the change ends, at most 30 days.
            **options: as in ``OM_CHAINS[chain]``; ``None`` takes a change back. ``engines`` is a
                dict from an engine's name to the options that change: ``tier``, ``weight``,
                ``enabled``, ``max_concurrency``, ``breaker``, ``chaos``.

        Raises:
            ConfigError: no chain or engine has that name, an option is unknown, or its value
                cannot work. Nothing is changed then.
        """
        self._check_name(chain)
        if "lasts_s" in options:
            raise ConfigError("lasts_s", options["lasts_s"], "is now called lasts, in seconds")
        if not isinstance(lasts, int | float) or not 0 < lasts <= _MAX_LASTS_S:
            wrong = "must be seconds, a number above 0 and at most 30 days (2592000)"
            raise ConfigError("lasts", lasts, wrong)
        _check_options(options, f"chain {chain!r}: ")
        self._check_engines(chain, _as_mapping(options.get("engines"), chain))
        changed = replace(self.get_policy(chain), **ChainPolicy.read_some(_merge({}, options)))
        check_attempts(f"chain {chain!r}: ", options, changed)
        now = self._clock.time()
        self._change(lambda changes: _with_change(changes, chain, options, now + lasts))

    def reset(self, chain: str | None = None) -> None:
        """Take the changes of a chain back in every worker; of all chains when it is ``None``."""

        def without(changes: dict[str, LiveChange]) -> dict[str, LiveChange]:
            return {} if chain is None else {k: v for k, v in changes.items() if k != chain}

        self._change(without)

    def changes(self) -> dict[str, LiveChange]:
        """Return the changes that hold at the moment, by chain."""
        now = self._clock.time()
        return {name: one for name, one in self._changes.items() if one.until > now}

    # --- the settings of a chain ---

    def get_policy(self, chain: str, *, own: bool = True) -> ChainPolicy:
        """Return the policy of a chain with its live changes.

        Args:
            chain: its name, or ``*`` for every chain.
            own: False leaves out the changes of this chain alone; for ``*``, all changes.
        """
        live = ChainPolicy.read_some(self._merge_changes(chain, own=own))
        return replace(self._defaults, **{**self._own.get(chain, {}), **live})

    def get_engine_options(self, chain: str, *, own: bool = True) -> dict[str, EngineOptions]:
        """Return the options of the chain's engines by name; arguments as in :meth:`get_policy`."""
        merged: dict[str, dict[str, object]] = {
            name: dict(options.get_changed())
            for engines in (self._defaults.engines, self._own.get(chain, {}).get("engines", {}))
            for name, options in engines.items()
        }
        live = _as_mapping(self._merge_changes(chain, own=own).get("engines"), "engines")
        for name, said in live.items():
            # not as EngineOptions: `enabled=True` is a change where the settings say False
            merged.setdefault(name, {}).update(_as_mapping(said, f"engines[{name!r}]"))
        return {
            name: EngineOptions.from_mapping(said, where=f"engines[{name!r}].")
            for name, said in merged.items()
        }

    def get_options_of(self, chain: str, engine: str, *, own: bool = True) -> EngineOptions:
        """Return the options of one engine; the other arguments as in :meth:`get_policy`."""
        return self.get_engine_options(chain, own=own).get(engine, EngineOptions())

    def _merge_changes(self, chain: str, *, own: bool) -> dict[str, object]:
        merged: dict[str, object] = {}
        changes = self.changes()
        for name in (EVERY_CHAIN, chain):
            if name in changes and (own or name != chain):
                merged = _merge(merged, changes[name].options)
        return merged

    # --- sharing changes ---

    def poll(self) -> None:
        """Apply the changes of other workers, and end those whose time is over.

        A hub that has lost its memory, or was out of reach when this worker made a change, gets the
        changes that hold here.
        """
        found = self._hub.get(_KEY)
        with self._lock:
            at = _read_time(found, self._clock.time())
            if at < self._at:
                self._store()
            elif at > self._at:
                self._at, self._changes = at, self._decode(found)
                self._apply(checking=False)
            if len(now := self.changes()) != len(self._changes):
                self._changes = now
                self._apply(checking=False)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def _change(self, change: Callable[[dict[str, LiveChange]], dict[str, LiveChange]]) -> None:
        lease = self._acquire_lease()
        try:
            self.poll()
            with self._lock:
                before = self._changes
                self._changes = change(self.changes())
                try:
                    if len(msgspec.json.encode(self._encode())) > _MAX_BYTES:
                        raise ConfigError("live settings", "…", f"are over {_MAX_BYTES} bytes")
                    self._apply(checking=True)
                except Exception:
                    self._changes = before
                    self._apply(checking=False)
                    raise
                # later than the change that it replaces, also where this host's clock is behind
                self._at = max(self._clock.time(), self._at + 0.001)
                self._store()
        finally:
            if lease is not None:
                lease.release()

    def _acquire_lease(self) -> Lease | None:
        """Wait until no other operator makes a change; returns ``None`` after five seconds."""
        until = self._clock.monotonic() + _LEASE_S
        while (lease := self._hub.lease("live", _LEASE_S)) is None:
            if self._clock.monotonic() >= until:
                return None
            self._clock.sleep(_LEASE_POLL_S)
        return lease

    def _store(self) -> None:
        self._hub.put(_KEY, self._encode(), ttl=_MAX_LASTS_S)

    def _encode(self) -> dict[str, object]:
        """Return all changes as the hub stores them; of two versions, the later one holds."""
        changes = {name: asdict(one) for name, one in self._changes.items()}
        return {"at": self._at, "changes": changes}

    def _decode(self, found: object) -> dict[str, LiveChange]:
        """Return the changes that the hub stores, as far as they are valid, with bounded times."""
        latest = self._clock.time() + _MAX_LASTS_S
        read = _read_changes(found)
        for one in read.values():
            one.until = min(one.until, latest)
        return read

    def _apply(self, *, checking: bool) -> None:
        for name, chain in list(self._chains().items()):
            try:
                # options of engines that are gone, or of another chain, are not for this one
                known = {place.name for place in chain.all_states} | chain.options.keys()
                policy, engines = self.get_policy(name), self.get_engine_options(name)
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
            others = (
                f"known are {', '.join(known)} and '*'" if known else "no chain has an engine yet"
            )
            hint = suggest(chain, known, others)
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
                reason = f"no such engine; {suggest(engine, names)}"
                raise ConfigError(f"chain {chain!r}: engines", engine, reason)


def _check_options(options: Mapping[str, object], where: str) -> None:
    for name in ("retry_on", "give_up_on"):
        for one in _as_list(options.get(name)):
            if "." in str(one):  # a shared store must not choose modules to import
                raise ConfigError(where + name, one, "a live change knows no dotted names")
    for engine, said in _as_mapping(options.get("engines"), where).items():
        _as_mapping(said, f"{where}engines[{engine!r}]")
    ChainPolicy.read_some(_merge({}, options), where=where)


def _as_list(value: object) -> list[object]:
    if isinstance(value, str):
        return [one.strip() for one in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else []


def _as_mapping(value: object, where: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(where, value, "must be a dict")
    return value


def _with_change(
    changes: dict[str, LiveChange], chain: str, options: Mapping[str, object], until: float
) -> dict[str, LiveChange]:
    before = changes[chain].options if chain in changes else {}
    merged = _merge(before, options)
    others = {name: one for name, one in changes.items() if name != chain}
    return {**others, chain: LiveChange(merged, until)} if merged else others


def _merge(before: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """Return ``before`` updated with ``more``, also inside dicts; ``None`` removes a key."""
    merged = dict(before)
    for name, value in more.items():
        if value is None:
            merged.pop(name, None)
            continue
        if isinstance(value, Mapping):
            inside = merged.get(name)
            value = _merge(inside if isinstance(inside, Mapping) else {}, value)
            if not value:
                merged.pop(name, None)
                continue
        merged[name] = list(value) if isinstance(value, tuple) else value
    return merged


def _read_time(wire: object, now: float) -> float:
    """Return when the stored changes were made; 0.0 where the time is not valid."""
    at = wire.get("at") if isinstance(wire, dict) else None
    return at if isinstance(at, int | float) and 0.0 < at <= now + _MAX_SKEW_S else 0.0


def _read_changes(wire: object) -> dict[str, LiveChange]:
    """Return the changes that the hub stores, as far as they are valid."""
    found: dict[str, LiveChange] = {}
    changes = wire.get("changes") if isinstance(wire, dict) else None
    try:
        read = convert(changes or {}, dict[str, LiveChange])
    except (ValueError, RecursionError) as error:
        logger.warning("the hub holds live settings that cannot be read: %s", error)
        return found
    for name, one in list(read.items())[:_MAX_CHAINS]:
        try:
            _check_options(one.options, f"chain {name!r}: ")
        except (ConfigError, RecursionError) as error:
            logger.warning("a live change is left out: %s", error)
        else:
            found[name] = one
    return found

"""Active health: every engine that has a ``probe`` is asked for it, also when nobody calls.

One worker of all probes, the elected one, and tells the others what it found. A probe is asked,
not a question: it should cost nothing, and it is not counted as a call. What it finds is shown as
health (:mod:`.health`); a good word also ends the cooldown of a breaker that is open, in all
workers, so that the next call finds out whether the engine is back
(:meth:`~om_plugins.policies.breaker.Breaker.note_probe`).

No probe holds a thread of the pool: a round has a thread of its own, and so has each probe in it,
at most eight at once. One that overruns its time counts as failed and is left behind; its engine is
not probed again before it has ended, so there is never more than one for an engine.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Annotated

import msgspec

from ..core.fork import renew_after_fork
from ..core.problem__conversion import converted
from ..errors import RateLimited
from ..policies.registry import BreakerKey, BreakerRegistry
from ..protocols import Clock, Hub, Scheduler
from ..types import Call
from ..workers.pool import begin_thread
from .chain import EngineChain
from .engine_state__place import Place
from .health_checks__probing import REACH_S, question
from .sharing import EngineNews, Kept, News

__all__ = ["ActiveHealth"]

logger = logging.getLogger("om_plugins")

AT_ONCE = 8
ROUND_S = 20.0
"""How long a round may take; engines that were not reached in it come first in the next."""
OUT_OF_DATE = 3.0
"""What was found is forgotten after so many intervals without news: nobody probes any more."""
_MOST = 1000
_JITTER = 1.1
"""The scheduler makes a period longer by up to a tenth; the interval is kept all the same."""

_KEPT = "probed/newest"
_KIND = "engines probed"
_Name = Annotated[str, msgspec.Meta(max_length=1000)]


class _Word(msgspec.Struct, array_like=True):
    """What was found of one breaker's engine."""

    chain: _Name
    engine: _Name
    well: bool


class _Words(msgspec.Struct):
    words: Annotated[list[_Word], msgspec.Meta(max_length=_MOST)]


class ActiveHealth:
    """Probes the engines of one application.

    Args:
        clock: time.
        hub: elects the worker that warms up.
        scheduler: elects the worker that probes, and runs it.
        news: carries what was found to all workers.
        chains: the application's chains by name.
        breakers: the application's breakers.
        interval_s: from one round to the next, at most; 0.0: nobody probes.
        namespace: keeps two applications in one hub apart.
        threads: false to probe one after another on the thread of the round, for tests.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        hub: Hub,
        scheduler: Scheduler,
        news: EngineNews,
        chains: Callable[[], Mapping[str, EngineChain]],
        breakers: BreakerRegistry,
        interval_s: float,
        namespace: str,
        threads: bool = True,
    ) -> None:
        self._clock = clock
        self._hub = hub
        self._scheduler = scheduler
        self._news = news
        self._chains = chains
        self._breakers = breakers
        self._interval_s = interval_s
        self._namespace = namespace
        self._threads = threads
        self._pid = 0
        self._anew()
        renew_after_fork(self)
        if interval_s:
            news.on(_KIND, self._hear)
            news.at_start(self._learn)
            news.always(self._begin_jobs)
            news.always(self._forget)

    def _anew(self) -> None:
        self._round = threading.Lock()
        self._under_way: dict[BreakerKey, threading.Thread] = {}
        self._next = 0
        self._heard_at: float | None = None
        self._stop: Callable[[], None] | None = None

    # --- who probes, and when -----------------------------------------------------------------

    def start(self) -> None:
        """Begin in this process, as soon as there is something to probe; one of all that share
        the hub warms up."""
        if self._interval_s and self._pid != os.getpid():
            self._pid = os.getpid()
            self._begin_jobs()

    def _begin_jobs(self) -> None:
        if self._stop is None and self._pid == os.getpid() and self._targets():
            self._stop = self._scheduler.every(
                self._interval_s / _JITTER,
                self.begin_round,
                name=f"engine-probes:{self._namespace}",
                elected=True,
            )
            self._scheduler.submit(self.warm_up, name="engine-warm-up")

    def close(self) -> None:
        """Stop; probes that are out are left to their end."""
        if self._stop is not None and self._pid == os.getpid():
            self._stop()
        self._stop = None
        self._pid = 0

    def warm_up(self) -> None:
        """Probe now, unless another worker just does, or has not long ago."""
        if any(news.age_s < self._interval_s for news in self._news.kept(_KEPT)):
            return
        if self._hub.lease(f"engine-warm-up:{self._namespace}", self._interval_s) is not None:
            self.begin_round()

    def begin_round(self) -> None:
        """Begin a round on a thread of its own, unless one is under way."""
        if not self._targets():
            return
        if not self._threads:
            self.round()
        elif not self._round.locked():
            begin_thread(self.round, "om-probes", logger)

    # --- a round ------------------------------------------------------------------------------

    def round(self) -> None:
        """Probe every engine that has a probe, and tell what was found."""
        if not self._round.acquire(blocking=False):
            return
        try:
            found = self._probe_all(self._targets())
        finally:
            self._round.release()
        if found:
            words = [[*key, well] for key, well in found.items()]
            kept = Kept(_KEPT, OUT_OF_DATE * self._interval_s)
            self._apply(found, self._clock.monotonic())
            self._news.tell(_KIND, {"words": words}, kept)

    def _targets(self) -> list[tuple[BreakerKey, Place]]:
        """One engine for each breaker, those that wait longest first."""
        by_breaker = {id(breaker): key for key, breaker in self._breakers.pairs()}
        found: dict[BreakerKey, Place] = {}
        for chain in list(self._chains().values()):
            for place in chain.places:
                key = by_breaker.get(id(place.breaker))
                if key is not None and getattr(place.spec.engine, "probe", None) is not None:
                    found.setdefault(key, place)
        targets = list(found.items())[:_MOST]
        first = self._next % len(targets) if targets else 0
        return targets[first:] + targets[:first]

    def _probe_all(self, targets: list[tuple[BreakerKey, Place]]) -> dict[BreakerKey, bool]:
        if not self._threads:
            return {
                key: well
                for key, place in targets
                if (well := _word_of(place, question(place, self._clock, REACH_S))) is not None
            }
        monotonic = self._clock.monotonic
        round_ends = monotonic() + min(ROUND_S, self._interval_s)
        waiting = deque(targets)
        out: dict[BreakerKey, Call] = {}
        done: SimpleQueue[tuple[BreakerKey, bool | None]] = SimpleQueue()
        found: dict[BreakerKey, bool] = {}
        while out or waiting:
            now = monotonic()
            for key, call in [(key, call) for key, call in out.items() if now >= call.deadline]:
                del out[key]
                found[key] = False
                call.cancel()
            if now >= round_ends:
                waiting.clear()
            while waiting and len(out) < AT_ONCE:
                key, place = waiting.popleft()
                self._next += 1
                call = question(place, self._clock, REACH_S)
                begun = self._begin(key, place, call, done)
                if begun is None:
                    found[key] = False  # its last probe still hangs
                elif begun:
                    out[key] = call
            if not out:
                continue
            patience_s = min(call.deadline for call in out.values()) - monotonic()
            try:
                key, well = done.get(timeout=max(patience_s, 0.001))
            except Empty:
                continue
            if out.pop(key, None) is not None and well is not None:
                found[key] = well
        return found

    def _begin(
        self,
        key: BreakerKey,
        place: Place,
        call: Call,
        done: SimpleQueue[tuple[BreakerKey, bool | None]],
    ) -> bool | None:
        """Begin one probe; False when there is no thread for it, ``None`` while the engine's last
        one is still out."""
        before = self._under_way.get(key)
        if before is not None and before.is_alive():
            return None

        def run() -> None:
            done.put((key, _word_of(place, call)))

        thread = begin_thread(run, "om-probe", logger)
        if thread is None:
            return False
        self._under_way[key] = thread
        return True

    # --- what was found -----------------------------------------------------------------------

    def _learn(self) -> None:
        self._news.learn(_KEPT, self._hear)

    def _hear(self, news: News) -> None:
        said = converted(news.data, _Words)
        if news.own or news.age_s >= OUT_OF_DATE * self._interval_s:
            return
        # What is both kept and told while a process starts is one word and not two.
        again_s = min(1.0, self._interval_s / 4)
        if self._heard_at is None or news.at - self._heard_at >= again_s:
            self._apply({(one.chain, one.engine): one.well for one in said.words}, news.at)

    def _apply(self, found: Mapping[BreakerKey, bool], at: float) -> None:
        now = self._clock.monotonic()
        self._heard_at = at
        for key, well in found.items():
            breaker = self._breakers.find(key)
            if breaker is not None:
                breaker.note_probe(well, now, at)
        self._look()

    def _forget(self) -> None:
        """When nobody probes any more, what was found is out of date."""
        now = self._clock.monotonic()
        heard_at = self._heard_at
        if heard_at is None or now - heard_at < OUT_OF_DATE * self._interval_s:
            return
        self._heard_at = None
        for _, breaker in self._breakers.pairs():
            breaker.note_probe(None, now, now)
        self._look()

    def _look(self) -> None:
        """Have changes of health told now, and not when somebody next looks."""
        for chain in list(self._chains().values()):
            chain.health()

    def after_fork(self) -> None:
        self._anew()


def _word_of(place: Place, call: Call) -> bool | None:
    """Whether an engine is well; ``None`` when its probe does not tell."""
    probe = getattr(place.spec.engine, "probe", None)
    if probe is None:
        return None
    try:
        probe(call)
    except (RateLimited, NotImplementedError):
        return None  # who says "not so often" is there
    except Exception as error:  # noqa: BLE001 - an engine may raise anything
        logger.debug("engine %r: its probe failed: %s", place.name, type(error).__name__)
        return False
    except BaseException:  # noqa: BLE001 - a greenlet that is killed says nothing
        return None
    return True

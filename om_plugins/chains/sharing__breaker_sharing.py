"""Breakers over all workers: what an operator decided, and, when asked for, what they found out.

With ``OM_BREAKER_SHARED``, a breaker that opens in one worker opens in all within a second, and
one that a probe closed there closes here. Of several workers whose breaker opened, the one that
opened it probes first; the others give it two seconds to tell them what it found.

A forced state is always shared, and it is kept: workers that start later begin with it.
"""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from typing import Annotated, Literal

import msgspec

from ..core.problem__conversion import converted
from ..policies.breaker import Breaker, Change
from ..policies.registry import BreakerKey, BreakerRegistry
from ..protocols import Clock
from .sharing import EngineNews, Kept, News

__all__ = ["BreakerSharing"]

logger = logging.getLogger("om_plugins")

HEAD_START_S = 2.0
FORCED_TTL_S = 365 * 86_400.0

_Name = Annotated[str, msgspec.Meta(max_length=1000)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400 * 2)]


class _Opened(msgspec.Struct):
    chain: _Name
    engine: _Name
    for_s: _Seconds
    in_a_row: Annotated[int, msgspec.Meta(ge=0, le=1000)]


class _Closed(msgspec.Struct):
    chain: _Name
    engine: _Name


class _Forced(msgspec.Struct):
    chain: _Name
    engine: _Name
    state: Literal["open", "closed"] | None


class BreakerSharing:
    """Carries the changes of this process's breakers to the others', and theirs here.

    Args:
        breakers: the application's.
        news: what carries them.
        clock: time.
        shared: opening and closing too, not forced states alone.
    """

    def __init__(
        self, *, breakers: BreakerRegistry, news: EngineNews, clock: Clock, shared: bool
    ) -> None:
        self._breakers = breakers
        self._news = news
        self._clock = clock
        self._shared = shared
        self._forced: dict[BreakerKey, Literal["open", "closed"]] = {}
        breakers.watch(self._made)
        news.on("breaker forced", self._hear_forced)
        if shared:
            news.on("breaker opened", self._hear_opened)
            news.on("breaker closed", self._hear_closed)
        news.at_start(self._learn)

    # --- what happens here --------------------------------------------------------------------

    def _made(self, key: BreakerKey, breaker: Breaker) -> None:
        if key in self._forced:  # decided before this engine came
            breaker.force(self._forced[key], heard=True)
        breaker.on_change = partial(self._changed, key, breaker)

    def _changed(self, key: BreakerKey, breaker: Breaker, change: Change) -> None:
        view = breaker.view(self._clock.monotonic())
        name: dict[str, object] = {"chain": key[0], "engine": key[1]}
        if change == "forced":
            kept = Kept(f"forced/{_digest(key)}", FORCED_TTL_S if view.forced else 0.0)
            self._news.tell("breaker forced", {**name, "state": view.forced}, kept)
        elif not self._shared:
            return
        elif change == "closed":
            kept = Kept(f"opened/{_digest(key)}", 0.0)
            self._news.tell("breaker closed", name, kept)
        elif view.state == "open":
            for_s = view.retry_after_s or 0.0
            kept = Kept(f"opened/{_digest(key)}", max(for_s, 0.1))
            self._news.tell(
                "breaker opened", {**name, "for_s": for_s, "in_a_row": view.in_a_row}, kept
            )

    # --- what happened elsewhere --------------------------------------------------------------

    def _learn(self) -> None:
        self._news.learn("forced/", self._hear_forced)
        if self._shared:
            self._news.learn("opened/", self._hear_opened)

    def _hear_forced(self, news: News) -> None:
        # One's own are taken like all others, so that of two operators the same one is the last
        # in every worker.
        said = converted(news.data, _Forced)
        key = (said.chain, said.engine)
        breaker = self._breakers.find(key)
        if breaker is not None and breaker.force(said.state, heard=True):
            what = f"was forced {said.state}" if said.state else "decides by itself again"
            named = " / ".join(part[:200] for part in key if part)
            logger.warning("the breaker of %s %s, as another worker was told", named, what)
        if said.state is None:
            self._forced.pop(key, None)
        elif breaker is not None or len(self._forced) < 1000:
            self._forced[key] = said.state

    def _hear_opened(self, news: News) -> None:
        said = converted(news.data, _Opened)
        breaker = self._breakers.find((said.chain, said.engine))
        left_s = said.for_s - news.age_s
        if news.own or breaker is None or left_s <= 0.0:
            return
        if not breaker.permit and news.origin > self._news.origin:
            return  # it opened in both: one of them goes first, and here that is this one
        now = self._clock.monotonic()
        breaker.hear_opened(now, left_s + HEAD_START_S, said.in_a_row, news.at)

    def _hear_closed(self, news: News) -> None:
        said = converted(news.data, _Closed)
        breaker = self._breakers.find((said.chain, said.engine))
        if breaker is not None and not news.own:
            breaker.hear_closed(self._clock.monotonic(), news.at)


def _digest(key: BreakerKey) -> str:
    """A name for the hub's keys: engines may be called anything."""
    text = "\0".join(key).encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()

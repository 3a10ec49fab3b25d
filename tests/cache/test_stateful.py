"""The cache against a simple model: what a look-up may return, and whether it may be fresh."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache import miss, refresh
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.cache.keys import ALL_SCOPES
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.scheduler import BackgroundScheduler

STALE_S, GONE_S = 10.0, 40.0
KEYS = ["a", "ab", ("a",), ("a", 1), ("a", True)]
TAGS = {"'a'": ("t",), "'ab'": ("t", "u"), "('a', 1)": ("u",)}  # by repr: 1 == True
keys = st.sampled_from(KEYS)
scopes = st.sampled_from(["", "me"])


def tags_of(key: object) -> tuple[str, ...]:
    return TAGS.get(repr(key), ())


class CacheMachine(RuleBasedStateMachine):
    """Every fetch and set makes a new number; the model keeps the last one stored, and when."""

    @initialize(shared=st.booleans())
    def begin(self, shared: bool) -> None:
        # an example must go the same way each time that it is run
        miss.RANDOM = refresh.RANDOM = random.Random(7)
        self.clock = FakeClock()
        hub = MemoryHub("memory://", self.clock)
        self.scheduler = BackgroundScheduler(1, 1000, self.clock, hub, synchronous=True)
        store: dict[str, bytes] = {}

        class Store:
            get = staticmethod(store.get)

            @staticmethod
            def set(key: str, value: bytes, ttl: float) -> None:
                store[key] = value

            @staticmethod
            def delete(key: str) -> None:
                store.pop(key, None)

        self.cache = SmartCache(
            CacheOptions(
                stale_time=STALE_S,
                cache_time=GONE_S,
                l1_bytes=1 << 20,
                max_value=1000,
                clock=self.clock,
                scheduler=self.scheduler,
                hub=hub,
                store=Store() if shared else None,
            )
        )
        self.number = 0
        self.model: dict[object, tuple[int, float, bool]] = {}
        self.lookups = self.fetches = 0
        self.absent_until = 0.0
        self.version = 0  # of "a", which "sum" is computed from
        self.summed: int | None = None

    def teardown(self) -> None:
        miss.RANDOM = refresh.RANDOM = random.SystemRandom()

    def place(self, key: object, scope: str) -> object:
        return (scope, type(key).__name__, repr(key))

    def store(self, key: object, scope: str) -> int:
        self.number += 1
        self.model[self.place(key, scope)] = (self.number, self.clock.monotonic(), False)
        return self.number

    def now(self, key: object, scope: str) -> tuple[int, bool] | None:
        """The model's value, and whether it is fresh."""
        found = self.model.get(self.place(key, scope))
        if found is None or self.clock.monotonic() - found[1] >= GONE_S:
            return None
        number, at, invalidated = found
        return number, not invalidated and self.clock.monotonic() - at < STALE_S

    @rule(key=keys, scope=scopes, fails=st.booleans())
    def query(self, key: object, scope: str, fails: bool) -> None:
        fetched = []

        def fetch() -> int:
            self.fetches += 1
            if fails:
                raise OSError("down")
            fetched.append(self.store(key, scope))
            return fetched[-1]

        expected = self.now(key, scope)
        self.lookups += 1
        try:
            found = self.cache.query(
                key, fetch, scope=scope, tags=tags_of(key), retries=0, dedupe_time=0
            )
        except OSError:
            assert expected is None
            assert fails
            return
        if expected is None:
            assert fetched == [found]
            return
        assert found == expected[0]
        assert not fetched
        ran = self.scheduler.run_pending()
        if expected[1]:
            assert ran == 0
        elif ran and not fails:
            assert fetched == [self.cache.get(key, scope=scope)]
            self.lookups += 1

    @rule(key=keys, scope=scopes)
    def get(self, key: object, scope: str) -> None:
        expected = self.now(key, scope)
        self.lookups += 1
        assert self.cache.get(key, scope=scope) == (None if expected is None else expected[0])

    @rule(key=keys, scope=scopes)
    def put(self, key: object, scope: str) -> None:
        self.clock.advance(0.001)  # a store can order what happens at different times only
        self.changed(key == "a" and not scope)
        self.cache.set(key, self.store(key, scope), scope=scope, tags=tags_of(key))

    @rule(key=keys, scope=scopes)
    def remove(self, key: object, scope: str) -> None:
        self.changed(key == "a" and not scope)
        self.cache.remove(key, scope=scope)
        self.model.pop(self.place(key, scope), None)
        self.clock.advance(0.001)

    @rule(fails=st.booleans())
    def query_what_is_not_there(self, fails: bool) -> None:
        asked = []

        def fetch() -> None:
            self.fetches += 1
            asked.append(1)
            if fails:
                raise KeyError("none")

        self.lookups += 1
        kept = self.clock.monotonic() < self.absent_until
        try:
            assert self.cache.query("none", fetch, negative_time=5, tags=["v"]) is None
        except KeyError:
            assert kept or fails
        assert bool(asked) is not kept
        if asked:
            self.absent_until = self.clock.monotonic() + 5

    @rule()
    def query_what_is_computed(self) -> None:
        def compute() -> str:
            self.fetches += 1
            self.lookups += 1
            found = self.cache.get("a")
            # what is not there has no tags yet, so from then on only its key counts
            self.summed = None if found is None else self.version
            return f"sum of {found}"

        self.lookups += 1
        before = self.cache.stats().fresh
        self.cache.query("sum", compute, retries=0, dedupe_time=0)
        if self.cache.stats().fresh > before and self.summed is not None:
            assert self.summed == self.version
        self.scheduler.run_pending()

    def changed(self, it: bool) -> None:
        if it:
            self.version += 1

    @rule(prefix=st.sampled_from(["a", "ab", ("a",), ("a", 1)]), scope=scopes)
    def purge_prefix(self, prefix: str | tuple[object, ...], scope: str) -> None:
        self.cache.purge(prefix, scope=scope or ALL_SCOPES)
        self.forget(lambda key: self.begins(key, prefix), scope)

    @rule(tag=st.sampled_from("tuv"), scope=scopes)
    def purge_tag(self, tag: str, scope: str) -> None:
        self.cache.purge(tags=[tag], scope=scope or ALL_SCOPES)
        self.absent_until = 0.0 if tag == "v" and not scope else self.absent_until
        self.forget(lambda key: tag in tags_of(key), scope)

    def forget(self, meant, scope: str) -> None:
        self.changed(meant("a") and not scope)
        for key in KEYS:
            for one in ("", "me"):
                if meant(key) and scope in ("", one):
                    self.model.pop(self.place(key, one), None)
        self.clock.advance(0.001)

    @rule(prefix=st.sampled_from(["", "a", "ab", ("a",), ("a", 1), ("b",)]), scope=scopes)
    def invalidate_prefix(self, prefix: str | tuple[object, ...], scope: str) -> None:
        self.cache.invalidate(prefix, scope=scope or ALL_SCOPES)
        if prefix == "" and not scope:
            self.absent_until = 0.0
        self.mark(lambda key: self.begins(key, prefix), scope)

    @staticmethod
    def begins(key: object, prefix: object) -> bool:
        if type(key) is not type(prefix):
            return False
        if isinstance(prefix, str):
            return str(key).startswith(prefix)
        return repr(key[: len(prefix)]) == repr(prefix)  # type: ignore[index]

    @rule(tag=st.sampled_from("tuv"), scope=scopes)
    def invalidate_tag(self, tag: str, scope: str) -> None:
        self.cache.invalidate(tags=[tag], scope=scope or ALL_SCOPES)
        self.absent_until = 0.0 if tag == "v" and not scope else self.absent_until
        self.mark(lambda key: tag in tags_of(key), scope)

    def mark(self, meant, scope: str) -> None:
        self.changed(meant("a") and not scope)
        for key in KEYS:
            for one in ("", "me"):
                place = self.place(key, one)
                if place in self.model and meant(key) and scope in ("", one):
                    number, at, _ = self.model[place]
                    self.model[place] = (number, at, True)
        self.clock.advance(0.001)

    @rule(seconds=st.sampled_from([0.5, 3, 6, 11, 39, 41]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.scheduler.run_due()

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()
        self.changed(True)
        self.absent_until = 0.0
        self.clock.advance(0.001)

    @invariant()
    def every_look_up_is_counted_once(self) -> None:
        if not hasattr(self, "cache"):
            return
        stats = self.cache.stats()
        assert stats.hits + stats.misses == self.lookups
        assert stats.fetches + stats.refreshes + stats.failures >= self.fetches


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=80, stateful_step_count=30)

"""One application's parts: built without opening anything, opened on first use."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from om_plugins import CallableEngine, Settings, StaticEngine, SystemClock, hookimpl
from om_plugins.errors import ConfigError, PluginError, RateLimited, Transient
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing import FakeClock
from om_plugins.types import EngineSpec, EngineTraits


class Store(dict):
    def set(self, key, value, ttl):
        self[key] = value

    def delete(self, key):
        self.pop(key, None)


class Bringer:
    """A plugin that brings a cache store and counts its start and end."""

    def __init__(self):
        self.store = Store()
        self.events = []

    @hookimpl
    def om_caches(self, context):
        return {"dict": lambda url: self.store}

    @hookimpl
    def om_startup(self, context):
        self.events.append("startup")
        context.cache.set("from-plugin", 1)

    @hookimpl
    def om_shutdown(self, context):
        self.events.append("shutdown")


def test_a_plugins_store_is_used_and_its_hooks_are_called_once():
    plugin = Bringer()
    runtime = Runtime(
        Settings(cache_url="dict://"), plugins=[(plugin, "bringer")], host=Host(testing=True)
    )
    runtime.start()
    runtime.start()
    assert runtime.part_of("cache").get("from-plugin") == 1
    assert plugin.store
    runtime.close()
    runtime.close()
    assert plugin.events == ["startup", "shutdown"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cache_url": "flie:///tmp/x"}, "OM_CACHE_URL.*'flie'.*did you mean 'file'"),
        ({"hub_url": "sqlit:///tmp/x"}, "OM_HUB_URL.*'sqlit'.*did you mean 'sqlite'"),
        ({"hub_url": "sqlite://x"}, "OM_HUB_URL.*absolute one has 4 slashes"),
        ({"hub_url": "redis://h/0?colour=red"}, "OM_HUB_URL.*colour"),
        ({"cache_url": "redis://h:port"}, "OM_CACHE_URL.*is no address of a Redis"),
        ({"cache_url": "memcached://h/0"}, "OM_CACHE_URL.*must be 'memcached://host:11211'"),
        ({"cache_url": "file://var/cache"}, "OM_CACHE_URL.*did you mean 'file:///var/cache'"),
        ({"csp": "img-src *; img-src 'self'"}, "OM_CSP.*'img-src' stands there twice"),
        ({"csp": {"scrip-src": ["'self'"]}}, "scrip-src.*script-src"),
    ],
)
def test_what_cannot_work_is_an_error_when_it_is_built(settings, words):
    with pytest.raises(ConfigError, match=words):
        Runtime(Settings(**settings), host=Host(testing=True))


@pytest.mark.parametrize("url", ["redsi://ann:hunter2@h/0", "REDIS://ann:hunter2@h/0"])
@pytest.mark.parametrize("key", ["cache_url", "hub_url"])
def test_a_password_in_a_url_is_in_no_error(key, url):
    with pytest.raises(ConfigError, match=r"ann:\*\*\*@h") as caught:
        Runtime(Settings(**{key: url}), host=Host(testing=True))
    assert "hunter2" not in str(caught.value)


def test_a_plugins_broken_policy_is_left_out_and_reported():
    class Careless:
        @hookimpl
        def om_csp(self, context):
            return {"img-src": ["https://a.example; script-src *"]}

    plugins = [(Careless(), "careless")]
    runtime = Runtime(Settings(strict=False), plugins=plugins, host=Host(testing=True))
    (status,) = [s for s in runtime.plugins.get_statuses() if s.name == "careless"]
    assert status.failures == 1
    runtime.close()


def test_an_engine_that_is_none_is_reported_by_its_plugin():
    class Wrong:
        @hookimpl
        def om_engines(self, context):
            return [EngineSpec(object(), "c")]

    runtime = Runtime(Settings(strict=False), plugins=[(Wrong(), "wrong")], host=Host(testing=True))
    assert runtime.part_of("chains").by_name == {}
    (status,) = [s for s in runtime.plugins.get_statuses() if s.name == "wrong"]
    assert status.failures == 1
    runtime.close()


def test_a_broken_plugin_raises_when_strict():
    class Raising:
        @hookimpl
        def om_engines(self, context):
            raise ValueError("no key")

    with pytest.raises(PluginError, match=r"raising.*no key"):
        Runtime(plugins=[(Raising(), "raising")], host=Host(testing=True))


class Attached:
    name = "attached"
    traits = EngineTraits()

    def __init__(self, mine=None):
        self.mine = mine
        self.contexts = []

    def call(self, call):
        return "answer"

    def attach(self, context):
        self.contexts.append(context)
        return self.mine


def test_an_engine_gets_the_parts_of_the_application_once_before_its_first_call():
    engine = Attached()
    runtime = Runtime(host=Host(testing=True))
    runtime.add_engine(EngineSpec(engine, "c"))
    runtime.part_of("chains").get("c").call()
    (context,) = engine.contexts
    assert (context.name, context.config) == ("attached", None)
    assert context.logger.name == "om_plugins.engine.attached"
    assert context.cache is runtime.part_of("cache")
    assert context.clock is runtime.clock
    runtime.close()


def test_an_engine_that_returns_another_gives_it_the_place():
    other = Attached()
    runtime = Runtime(host=Host(testing=True))
    spec = EngineSpec(Attached(other), "c", tier=4)
    runtime.add_engine(spec)
    (found,) = runtime.part_of("chains").get("c").engines
    assert (found.engine, found.tier) == (other, 4)
    assert spec.engine is not other  # another application's place is not changed
    runtime.close()


@pytest.mark.parametrize(
    ("name", "settings", "namespace"),
    [
        ("shop.web", {}, "shop.web"),
        ("내 shop{}", {}, "--shop--"),
        ("", {}, "app"),
        ("shop", {"namespace": "shop-2"}, "shop-2"),
    ],
)
def test_an_application_is_named_in_stores_that_others_use_too(name, settings, namespace):
    runtime = Runtime(Settings(**settings), host=Host(name=name, testing=True))
    assert runtime.kit.namespace == namespace
    assert runtime.kit.plugin_context("p", None, runtime.clock).namespace == namespace
    with pytest.raises(ConfigError, match="OM_NAMESPACE"):
        Settings(namespace="a b")


def test_the_secret_is_the_same_for_all_who_share_a_hub(tmp_path):
    url = f"sqlite:///{tmp_path}/hub.sqlite3"
    first, second = Runtime(Settings(hub_url=url)), Runtime(Settings(hub_url=url))
    assert first.kit.secret() == second.kit.secret()
    assert len(first.kit.secret()) == 32
    assert Runtime(Settings(secret_key="given secret")).kit.secret() == b"given secret"
    assert Runtime(host=Host(secret_key=lambda: "the host's")).kit.secret() == b"the host's"
    first.close()
    second.close()


def test_closing_closes_engines_and_they_may_be_used_again():
    class Engine:
        name = "e"
        traits = EngineTraits()
        closed = 0

        def call(self, call):
            return "answer"

        def close(self):
            self.closed += 1

    engine = Engine()
    runtime = Runtime(host=Host(testing=True))
    runtime.add_engine(EngineSpec(engine, "c"))
    runtime.close()
    assert engine.closed == 1
    assert runtime.part_of("chains").get("c").call().payload == "answer"
    runtime.close()


# --- under test nothing sleeps ------------------------------------------------------------------


class Slept(Exception):
    """Something slept under TESTING."""


@pytest.fixture
def no_sleep(monkeypatch):
    """Fail where something sleeps for longer than a poll."""
    real = time.sleep

    def sleep(seconds):
        if seconds > 0.01:
            raise Slept(seconds)
        real(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(
        threading.Event,
        "wait",
        lambda self, timeout=None: (_ for _ in ()).throw(Slept(timeout)),
    )


def _retry_in_a_chain(runtime, error):
    def fail(call):
        raise error

    runtime.add_engine(EngineSpec(CallableEngine("a", fail, idempotent=True), "c"))
    runtime.add_engine(EngineSpec(StaticEngine("b", "from b"), "c", 2))
    assert runtime.part_of("chains").get("c").call().attempts == 5


def _retry_a_fetch(runtime, error):
    calls = []

    def fetch():
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        runtime.part_of("cache").query("k", fetch, retries=3)
    assert len(calls) == 4


def _inject_latency(runtime, error):
    spec = EngineSpec(StaticEngine("a", "from a"), "c")
    runtime.add_engine(spec)
    chaos = {"latency": 3.0, "rate": 1.0}
    runtime.part_of("chains").live.configure("c", engines={"a": {"chaos": chaos}})
    assert runtime.part_of("chains").get("c").call().payload == "from a"


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (_retry_in_a_chain, OSError("down")),
        (_retry_in_a_chain, Transient("down")),
        (_retry_in_a_chain, RateLimited("busy", retry_after=2)),
        (_retry_a_fetch, OSError("down")),
        (_inject_latency, None),
    ],
    ids=["backoff", "transient", "retry-after", "fetch", "chaos"],
)
def test_under_test_nothing_sleeps(no_sleep, wait, error):
    with contextlib.closing(Runtime(host=Host(testing=True))) as runtime:
        wait(runtime, error)


def test_a_clock_that_is_given_is_used_under_test_as_well():
    clock = FakeClock()
    with contextlib.closing(Runtime(host=Host(testing=True), clock=clock)) as runtime:
        assert runtime.clock is clock


def test_outside_of_tests_the_clock_is_the_systems():
    with contextlib.closing(Runtime()) as runtime:
        assert isinstance(runtime.clock, SystemClock)

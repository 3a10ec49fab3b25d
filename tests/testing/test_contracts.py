"""The contracts: a sound part keeps them, a broken one is found out.

Covers ``om_plugins.testing.cache_store``, ``om_plugins.testing.engine``,
``om_plugins.testing.fakes``, ``om_plugins.testing.hub``, ``om_plugins.testing.monitor``,
``om_plugins.testing.notifier``, ``om_plugins.testing.plugin``,
``om_plugins.testing.recovery_step`` and ``om_plugins.protocols``, which the contracts prove.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import om_plugins.testing
from om_plugins import Answer, Call, EngineTraits, Notification, hookimpl
from om_plugins.errors import EngineUnavailable
from om_plugins.plugins.checks import BadResult
from om_plugins.testing import (
    CacheStoreContract,
    EngineContract,
    MonitorContract,
    NotifierContract,
    PluginContract,
    RecoveryStepContract,
)
from tests.patience import PATIENCE_S

# --- a third party's parts keep them --------------------------------------------------------------


class TestGreeterEngine(EngineContract):
    @pytest.fixture
    def engine(self, greeter: ModuleType) -> Any:
        return greeter.GreeterEngine(greeter.GreeterConfig())


class TestFolderStore(CacheStoreContract):
    @pytest.fixture
    def store(self, greeter: ModuleType, tmp_path: Path) -> Any:
        return greeter.FolderStore(f"folder://{tmp_path}/store")


class TestOutboxNotifier(NotifierContract):
    @pytest.fixture
    def notifier(self, greeter: ModuleType, tmp_path: Path) -> Any:
        self.path = tmp_path / "outbox"
        return greeter.OutboxNotifier(str(self.path))

    def delivered(self, notifier: Any) -> str:
        return self.path.read_text("utf-8")


class TestGreeterPlugin(PluginContract):
    config = {"greeting": "안녕하세요"}

    @pytest.fixture
    def plugin(self, greeter: ModuleType) -> Any:
        return greeter


class Streaming:
    name = "streaming"
    traits = EngineTraits(streaming=True, idempotent=True, local=True)

    def call(self, call: Call) -> object:
        return iter(["one", "two"]) if call.stream else "one two"

    def probe(self, call: Call) -> None: ...

    def close(self) -> None: ...


class TestStreamingEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> Any:
        return Streaming()


# --- broken parts are found out -------------------------------------------------------------------


class Broken:
    """A sound engine until one thing is spoilt."""

    name = "broken"
    traits = EngineTraits()

    def __init__(self, answer: Any = lambda call: "fine", **spoilt: Any) -> None:
        self._answer = answer
        for name, value in spoilt.items():
            setattr(self, name, value)

    def call(self, call: Call) -> object:
        return self._answer(call)


def _changes_payload(call: Call) -> str:
    call.payload["question"] = "another"  # type: ignore[index]
    return "fine"


def _nobody_asked(call: Call) -> Iterator[str]:
    yield "a stream"


def _untold(call: Call) -> object:
    return iter(["x"]) if call.stream else "x"


async def _asynchronous(call: Call) -> str:
    return "late"


def _deaf(call: Call) -> str:
    time.sleep(0.3 if call.remaining() < 0 or call.cancelled else 0)
    return "late"


def _marks_stale(call: Call, answer: Answer) -> None:
    answer.stale = True


class _AsyncObject:
    async def __call__(self, call: Call) -> str:
        return "late"


class _OnlyOne:
    """Answers one caller at a time and fails the others."""

    def __init__(self) -> None:
        self._busy = False
        self._second = threading.Event()

    def __call__(self, call: Call) -> str:
        if self._busy:
            self._second.set()
            raise RuntimeError("busy")
        self._busy = True
        assert self._second.wait(PATIENCE_S)
        self._busy = False
        return "fine"


@pytest.mark.parametrize(
    ("test", "engine"),
    [
        ("it_has_a_name_and_traits", Broken(name="")),
        ("it_has_a_name_and_traits", Broken(traits={"streaming": True})),
        ("its_call_is_a_plain_function", Broken(call=_asynchronous)),
        ("it_answers_completely_unless_a_stream_is_asked_for", Broken(_nobody_asked)),
        ("it_leaves_the_payload_alone", Broken(_changes_payload)),
        ("it_answers_again_and_again", Broken(lambda call: None)),
        ("it_answers_again_and_again", Broken(lambda call: _asynchronous(call))),
        ("it_answers_again_and_again", Broken(lambda call: (one for one in "ab"))),
        ("it_answers_again_and_again", Broken(lambda call: Answer(_asynchronous(call)))),
        ("it_answers_again_and_again", Broken(lambda call: Answer(one for one in "ab"))),
        ("its_call_is_a_plain_function", Broken(call=_AsyncObject())),
        ("its_call_is_a_plain_function", Broken(call=_nobody_asked)),
        ("a_chain_accepts_it", Broken(call=_nobody_asked)),
        ("a_chain_accepts_it", Broken(probe=_asynchronous)),
        ("a_chain_accepts_it", Broken(close=lambda now: None)),
        ("a_chain_accepts_it", Broken(traits=EngineTraits(local="yes"))),  # type: ignore[arg-type]
        ("a_probe_finds_it_well", Broken(probe=lambda call: False)),
        ("a_probe_finds_it_well", Broken(probe=lambda call: "down")),
        ("a_probe_finds_it_well", Broken(probe=lambda call: 1)),
        ("a_probe_finds_it_well", Broken(probe=lambda call: _asynchronous(call))),
        ("a_probe_finds_it_well", Broken(probe=_nobody_asked)),
        ("a_stream_can_be_read_to_its_end", Broken(_untold)),
        ("a_call_whose_time_is_over_ends_soon", Broken(_deaf)),
        ("a_cancelled_call_ends_soon", Broken(_deaf)),
        ("it_answers_several_callers_at_once", Broken(_OnlyOne())),
        ("two_applications_may_attach_it", Broken(attach=lambda context: Broken(name="other"))),
        ("learning_never_fails_and_leaves_call_and_answer_alone", Broken(learn=_marks_stale)),
    ],
)
def test_a_broken_engine_is_found_out(test: str, engine: Any) -> None:
    contract = EngineContract()
    contract.patience_s = 0.2
    with pytest.raises(AssertionError):
        getattr(contract, f"test_{test}")(engine)
    contract.patience_s = PATIENCE_S
    getattr(contract, f"test_{test}")(Broken())


class Forgetful(dict[str, bytes]):
    """A sound store until one thing is spoilt."""

    def set(self, key: str, value: bytes, ttl: float) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


class _OneCase(Forgetful):
    def set(self, key: str, value: bytes, ttl: float) -> None:
        self[key.lower()] = value

    def get(self, key: str) -> bytes | None:  # type: ignore[override]
        return super().get(key.lower())


class _Immortal(Forgetful):
    def delete(self, key: str) -> None: ...


class _Fenced(Forgetful):
    """Compares, and says what it did in a way of its own."""

    said: Any = (False, True)

    def compare_and_set(self, key: str, before: bytes | None, value: bytes, ttl: float) -> Any:
        now = self.get(key)
        fits = now is None if before is None else now is not None and now.startswith(before)
        if fits:
            self[key] = value
        return self.said[fits]


class _Counts(_Fenced):
    said = (0, 1)


class _SaysNothing(_Fenced):
    said = (None, None)


class _FirstWins(Forgetful):
    def set(self, key: str, value: bytes, ttl: float) -> None:
        self.setdefault(key, value)


@pytest.mark.parametrize(
    ("test", "store"),
    [
        ("keys_of_every_kind_are_kept_apart", _OneCase),
        ("a_deleted_key_is_none", _Immortal),
        ("the_last_value_wins", _FirstWins),
        ("a_fenced_store_writes_over_what_was_seen_and_nothing_else", _Counts),
        ("a_fenced_store_writes_over_what_was_seen_and_nothing_else", _SaysNothing),
    ],
)
def test_a_broken_store_is_found_out(test: str, store: type[Forgetful]) -> None:
    with pytest.raises(AssertionError):
        getattr(CacheStoreContract(), f"test_{test}")(store())
    getattr(CacheStoreContract(), f"test_{test}")(Forgetful())
    getattr(CacheStoreContract(), f"test_{test}")(_Fenced())


class _Latin:
    """Loses what it cannot write."""

    name = "latin"

    def __init__(self) -> None:
        self.sent = ""

    def send(self, notification: Notification, timeout: float) -> None:
        self.sent += notification.message.encode("latin-1", "ignore").decode("latin-1")


class _LatinContract(NotifierContract):
    def delivered(self, notifier: Any) -> str:
        return str(notifier.sent)


def test_a_broken_notifier_is_found_out() -> None:
    contract = _LatinContract()
    contract.test_every_kind_arrives(_Latin(), "info")
    with pytest.raises(AssertionError):
        contract.test_words_in_any_script_arrive(_Latin())


class _Yielding(_Latin):
    def send(self, notification: Notification, timeout: float) -> Any:
        yield self.sent


def test_a_notifier_that_never_sends_is_found_out() -> None:
    with pytest.raises(AssertionError, match="write return, not yield"):
        _LatinContract().test_its_send_is_a_plain_function(_Yielding())
    with pytest.raises(BadResult, match="write return, not yield"):
        _LatinContract().test_it_can_be_called(_Yielding())
    _LatinContract().test_it_can_be_called(_Latin())


class _SaysNo(_Latin):
    def send(self, notification: Notification, timeout: float) -> Any:
        super().send(notification, timeout)
        return False


def test_a_notifier_that_says_no_is_found_out() -> None:
    contract = _LatinContract()
    with pytest.raises(AssertionError, match="send returned False"):
        contract.test_every_kind_arrives(_SaysNo(), "info")
    for wants in (None, 1, "yes"):
        notifier = _Latin()
        notifier.accepts = lambda note, wants=wants: wants  # type: ignore[attr-defined]
        with pytest.raises(AssertionError, match="accepts returns True or False"):
            contract.test_it_says_whether_it_wants_a_notification(notifier)


@pytest.mark.parametrize(
    "test", ["it_answers_completely_unless_a_stream_is_asked_for", "it_answers_again_and_again"]
)
def test_none_on_purpose_is_an_answer_as_it_is_for_a_chain(test: str) -> None:
    getattr(EngineContract(), f"test_{test}")(Broken(lambda call: Answer(None)))
    with pytest.raises(AssertionError, match="returned None"):
        getattr(EngineContract(), f"test_{test}")(Broken(lambda call: None))


class _Forwarding:
    async def _send(self, samples: object) -> None: ...

    def record(self, samples: object) -> Any:
        return self._send(samples)


def test_a_monitor_that_records_nothing_is_found_out() -> None:
    with pytest.raises(AssertionError, match="record returned a coroutine"):
        MonitorContract().test_it_takes_samples(_Forwarding())


@pytest.mark.parametrize("done", [False, 1, ["looked"], object()])
def test_a_step_that_does_not_say_what_it_did_is_found_out(done: object) -> None:
    step = SoundStep()
    step.run = lambda subject, timeout: done  # type: ignore[method-assign,assignment,return-value]
    contract = RecoveryStepContract()
    with pytest.raises(AssertionError, match="return what was done"):
        contract.test_it_says_what_was_done_or_that_the_problem_still_exists(step)


def test_a_broken_plugin_is_found_out() -> None:
    from om_plugins.errors import PluginError

    class Plugin:
        @hookimpl
        def om_engine(self, context: Any) -> None: ...

    class Contract(PluginContract): ...

    runtimes = PluginContract.runtime.__wrapped__(Contract(), Plugin())  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="did you mean 'om_engines'"):
        next(runtimes)


# --- the kit itself -------------------------------------------------------------------------------


def test_stand_ins_work_without_pytest() -> None:
    code = (
        "import sys; from om_plugins.testing import FakeClock; assert 'pytest' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_contract_is_exported() -> None:
    for name in om_plugins.testing.__all__:
        assert getattr(om_plugins.testing, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Telepathy"):
        om_plugins.testing.Telepathy  # noqa: B018


# --- monitors and steps of recovery ---------------------------------------------------------------


class SoundMonitor:
    def record(self, samples: Any) -> None:
        for sample in samples:
            assert sample.duration_s >= 0


class TestSoundMonitor(MonitorContract):
    @pytest.fixture
    def monitor(self) -> Any:
        return SoundMonitor()


class SoundStep:
    name = "look"
    percent = 10

    def run(self, subject: str, timeout: float) -> str:
        if subject.startswith("route:"):
            raise EngineUnavailable("the page", "offline")
        return f"looked at {subject}"


class TestSoundStep(RecoveryStepContract):
    @pytest.fixture
    def step(self) -> Any:
        return SoundStep()


WRONG_PARTS = """
import pytest
from om_plugins import EngineSpec, EngineTraits, PluginInfo, hookimpl
from om_plugins.testing import MonitorContract, PluginContract, RecoveryStepContract

class Step:
    name = "x"; percent = 250
    def run(self): return ""

class Monitor:
    def record(self): pass

class Notifier:
    name = "n"
    def send(self, notification): pass

class Store:
    def __init__(self): pass

class Engine:
    name = "e"; traits = EngineTraits(idempotent=True)
    def call(self): return None

class Plugin:
    @hookimpl
    def om_plugin_info(self): return PluginInfo(summary="all wrong")
    @hookimpl
    def om_recovery_steps(self): return [Step()]
    @hookimpl
    def om_monitors(self): return [Monitor()]
    @hookimpl
    def om_notifiers(self): return [Notifier()]
    @hookimpl
    def om_caches(self): return {"bad": Store}
    @hookimpl
    def om_engines(self): return [EngineSpec(Engine(), chain="c")]

class TestPlugin(PluginContract):
    @pytest.fixture
    def plugin(self): return Plugin()

class TestMonitor(MonitorContract):
    @pytest.fixture
    def monitor(self): return Monitor()

class TestStep(RecoveryStepContract):
    @pytest.fixture
    def step(self): return Step()
"""


def test_parts_that_nobody_could_call_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other packages bring some
    (tmp_path / "test_wrong.py").write_text(WRONG_PARTS, "utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_wrong.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    for hook in ("om_recovery_steps", "om_monitors", "om_notifiers", "om_caches", "om_engines"):
        assert f"FAILED test_wrong.py::TestPlugin::test_its_hooks_answer[{hook}]" in run.stdout
    for contract in ("TestMonitor", "TestStep"):
        assert f"FAILED test_wrong.py::{contract}::test_it_can_be_called" in run.stdout

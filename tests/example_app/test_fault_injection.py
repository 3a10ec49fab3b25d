"""Fault injection (and module ``supervisor``): workers share the state; a kill ends the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from example_app.config import DemoConfig
from example_app.fault_injection import ACTIONS, FaultInjector
from example_app.state import StateDir
from example_app.supervisor import Supervisor

pytestmark = pytest.mark.server


@pytest.fixture
def config(tmp_path: Path) -> DemoConfig:
    return DemoConfig(state=tmp_path / "state", owner=os.getpid())


@pytest.fixture
def supervise(config: DemoConfig) -> Iterator[Callable[[], Supervisor]]:
    """Supervisors as different workers have them; what they started is ended and waited for."""
    made: list[Supervisor] = []

    def make() -> Supervisor:
        made.append(Supervisor(config))
        return made[-1]

    yield make
    Supervisor(config).stop()
    for supervisor in made:
        supervisor.status()


@pytest.fixture
def worker(config: DemoConfig, supervise: Callable[[], Supervisor]) -> Callable[[], FaultInjector]:
    return lambda: FaultInjector(config, supervise())


def test_one_worker_starts_and_another_kills_the_analyst(
    config: DemoConfig, worker: Callable[[], FaultInjector]
) -> None:
    one, other = worker(), worker()
    assert one.read_state().analyst == "never"
    assert one.apply("start")
    assert other.read_state().analyst == "running"
    pid = int(str(StateDir(config.state).read("analyst")["pid"]))
    assert other.apply("stop")
    assert one.read_state().analyst == "stopped"
    assert not psutil.pid_exists(pid)
    assert not other.apply("stop")


def test_it_starts_again_on_the_same_port(supervise: Callable[[], Supervisor]) -> None:
    supervisor = supervise()
    supervisor.start()
    port = supervisor.port
    supervisor.stop()
    supervisor.start()
    assert supervisor.port == port


def test_many_starts_at_once_make_one_analyst(supervise: Callable[[], Supervisor]) -> None:
    threads = [threading.Thread(target=supervise().start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    children = psutil.Process().children()
    assert len([c for c in children if "example_app.analyst" in " ".join(c.cmdline())]) == 1


def test_a_reused_process_id_is_never_killed(config: DemoConfig) -> None:
    StateDir(config.state).write("analyst", {"pid": os.getpid(), "started": 1.0, "port": 1})
    assert Supervisor(config).status() == "stopped"
    assert not Supervisor(config).stop()


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "started": null}'])
def test_a_damaged_state_file_reads_as_not_running(damaged: str, config: DemoConfig) -> None:
    config.state.mkdir()
    (config.state / "analyst.json").write_text(damaged)
    assert Supervisor(config).status() in ("never", "stopped")


@pytest.mark.parametrize(
    ("action", "undo", "name"),
    [
        ("slow", "unslow", "slow"),
        ("garble", "ungarble", "garble"),
        ("break-analysis", "fix-analysis", "analysis"),
        ("break-disk", "fix-disk", "disk"),
    ],
)
def test_a_switch_is_seen_by_every_worker(
    action: str, undo: str, name: str, worker: Callable[[], FaultInjector]
) -> None:
    one, other = worker(), worker()
    one.apply(action)
    assert getattr(other.read_state(), name) is True
    other.apply(undo)
    assert getattr(one.read_state(), name) is False


def test_switching_at_once_loses_no_switch(worker: Callable[[], FaultInjector]) -> None:
    threads = [
        threading.Thread(target=worker().apply, args=(action,))
        for action in ("slow", "garble", "break-disk", "break-analysis") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = worker().read_state()
    assert (state.slow, state.garble, state.disk, state.analysis) == (True, True, True, True)


def test_another_service_cannot_be_started_or_killed(
    config: DemoConfig, supervise: Callable[[], Supervisor]
) -> None:
    remote = FaultInjector(
        replace(config, llm_url="http://127.0.0.1:1/v1", llm_model="m"), supervise()
    )
    assert remote.read_state().analyst == "remote"
    assert not remote.apply("start")
    assert not remote.apply("stop")


def test_an_unknown_action_is_refused(worker: Callable[[], FaultInjector]) -> None:
    with pytest.raises(KeyError):
        worker().apply("rm -rf /")
    assert len(ACTIONS) == 10


def test_the_state_folder_is_private_and_removed_without_a_trace(
    config: DemoConfig, worker: Callable[[], FaultInjector]
) -> None:
    worker().apply("slow")
    assert config.state.stat().st_mode & 0o077 == 0
    StateDir(config.state).remove()
    assert not config.state.exists()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OM_DEMO_LLM_URL": "ftp://x", "OM_DEMO_LLM_MODEL": "m"}, "must begin with http"),
        ({"OM_DEMO_LLM_URL": "http://x/v1"}, "OM_DEMO_LLM_MODEL is not set"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DemoConfig.from_environment(environ)

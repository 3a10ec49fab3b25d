"""The failure scenarios, the toast of a new version (module ``notifications``) and the recovery
step (module ``recovery``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from example_app import create_app
from example_app.config import DemoConfig
from example_app.fault_injection import FaultInjector
from example_app.recovery import StartAnalyst
from example_app.state import StateDir
from example_app.supervisor import Supervisor
from om_plugins import __version__
from om_plugins.errors import OpenManagerError
from tests.patience import wait_until


@pytest.fixture
def config(tmp_path: Path) -> DemoConfig:
    return DemoConfig(state=tmp_path / "state", owner=os.getpid(), start_analyst=False)


@pytest.fixture
def supervisor(config: DemoConfig) -> Iterator[Supervisor]:
    supervisor = Supervisor(config)
    yield supervisor
    supervisor.stop()
    StateDir(config.state).remove()


@pytest.fixture
def make(config: DemoConfig, supervisor: Supervisor) -> Iterator[Callable[..., Flask]]:
    made: list[Flask] = []

    def make(**changes: Any) -> Flask:
        made.append(create_app(replace(config, **changes)))
        return made[-1]

    yield make
    for app in made:
        app.extensions["om_plugins"].close()


@pytest.mark.server
def test_recovery_starts_the_killed_analyst_again(
    make: Callable[..., Flask], config: DemoConfig, supervisor: Supervisor
) -> None:
    app = make()
    assert supervisor.start()
    first = StateDir(config.state).read("analyst")["pid"]
    answer = app.test_client().post("/scenarios/transient").get_json()
    assert answer["done"] is True
    assert answer["cooldown_s"] == 0
    recovery = app.extensions["om_plugins"].part_of("recovery").recovery
    (report,) = wait_until(recovery.history)
    assert report.succeeded
    assert "Starting the analyst: it was started again" in report.steps
    assert StateDir(config.state).read("analyst")["pid"] != first
    assert app.test_client().post("/faults/stop").get_json()["done"] is True


@pytest.mark.parametrize(
    "path", ["/scenarios/transient", "/scenarios/permanent", "/repair", "/announce"]
)
def test_only_the_apps_own_pages_can_press_the_buttons(
    path: str, make: Callable[..., Flask]
) -> None:
    client = make().test_client()
    assert client.post(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get(path).status_code == 405
    assert client.post("/scenarios/nothing").status_code == 404


def test_no_scenario_runs_against_another_service(make: Callable[..., Flask]) -> None:
    app = make(llm_url="http://127.0.0.1:1/v1", llm_model="m")
    assert app.test_client().post("/scenarios/transient").get_json()["done"] is False
    assert app.extensions["om_plugins"].part_of("recovery").recovery.patterns() == []


@pytest.mark.parametrize(
    ("language", "words"), [("en", f"{__version__} is live."), ("ko", f"버전 {__version__}이 적용")]
)
def test_all_browsers_get_a_toast_of_a_new_version(
    language: str, words: str, make: Callable[..., Flask]
) -> None:
    app = make()
    client = app.test_client()
    client.set_cookie("lang", language)
    assert client.post("/announce", headers={"Accept": "application/json"}).status_code == 200
    hub = app.extensions["om_plugins"].hub
    (message,) = wait_until(lambda: hub.read("notifications"))
    assert message.data["to"] == "everyone"
    assert words in message.data["message"]


def test_without_a_script_a_button_redirects_to_the_page(make: Callable[..., Flask]) -> None:
    answer = make().test_client().post("/announce", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_the_recovery_step_is_for_the_assistant_only(
    config: DemoConfig, supervisor: Supervisor
) -> None:
    step = StartAnalyst(supervisor, "chain:assistant")
    assert step.run("route:/", 10) == ""
    assert FaultInjector(config, supervisor).read_state().analyst == "never"


def test_an_analyst_that_does_not_start_ends_recovery(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "start", lambda: False)
    with pytest.raises(OpenManagerError, match="does not start"):
        StartAnalyst(supervisor, "chain:assistant").run("chain:assistant", 10)


def test_only_this_machine_can_open_the_console(make: Callable[..., Flask]) -> None:
    client = make().test_client()
    page = client.get("/").get_data(as_text=True)
    assert 'href="/_om/"' in page
    assert client.get("/_om/overview.json").status_code == 200
    far = client.get("/_om/overview.json", environ_overrides={"REMOTE_ADDR": "203.0.113.9"})
    assert far.status_code == 401

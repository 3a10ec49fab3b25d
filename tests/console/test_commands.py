"""``flask om engines``: what it prints."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import FlaskGroup

from om_plugins import EngineTraits, OpenManager


class Echo:
    traits = EngineTraits(idempotent=True, local=True, max_concurrency=4)

    def __init__(self, name: str = "echo") -> None:
        self.name = name

    def call(self, call: Any) -> object:
        return call.payload


def make_app(*plugins: object, **config: Any) -> tuple[Flask, OpenManager]:
    app = Flask("shop")
    app.config.update(TESTING=True, OM_STRICT=False, SECRET_KEY="x" * 32, OM_PLUGINS=())
    app.config.update(config)
    om = OpenManager()
    for plugin in plugins:
        om.register_plugin(plugin)
    om.init_app(app)
    return app, om


def run(app: Flask, *arguments: str) -> Result:
    """As the ``flask`` command runs it: the group is found by its entry point."""
    group = FlaskGroup(create_app=lambda: app)
    return CliRunner().invoke(group, ["om", *arguments], catch_exceptions=False)


def run_json(app: Flask, *arguments: str) -> Any:
    return json.loads(run(app, *arguments, "--json").stdout)


def test_engines_are_listed_in_the_order_in_which_they_are_asked() -> None:
    app, om = make_app()
    om.add_engine(Echo("second"), chain="assistant", tier=2)
    om.add_engine(Echo("first"), chain="assistant", tier=1)
    with app.app_context():
        om.chain("assistant").call("hello")
    rows = run_json(app, "engines")
    assert [(row["tier"], row["engine"]) for row in rows] == [(1, "first"), (2, "second")]
    assert [row["health"] for row in rows] == ["healthy", "no data"]
    assert rows[0]["traits"] == ["idempotent", "local", "max_concurrency=4"]
    assert "first" in run(app, "engines").output


def test_the_health_of_engines_is_that_of_all_workers_with_what_was_changed_live(
    tmp_path: Path,
) -> None:
    class Probed(Echo):
        def probe(self, call: object) -> None: ...

    hub = {"OM_HUB_URL": f"sqlite:///{tmp_path}/hub.sqlite3"}
    worker, om = make_app(**hub)
    command, same = make_app(**hub)
    for one in (om, same):
        for name in ("first", "second"):
            one.add_engine(Probed(name), chain="assistant")
        one.add_engine(Echo("third"), chain="assistant", tier=2)
    assert "Health: of this process alone; no worker reports." in run(command, "engines").output
    assert not list(tmp_path.iterdir()), "looking makes no hub"
    with worker.app_context():
        engines = {"first": {"breaker": "open"}, "third": {"enabled": False}}
        om.configure("assistant", engines=engines)
        om.chain("assistant").call("hello")
        place = om.chain("assistant").states[1]
        now = om.runtime.clock.monotonic()
        place.breaker.note_probe(True, 1000.0, now - 60)
        place.ejection.begin(now)
        om.runtime.part_of("monitoring").tick()
    rows = {row["engine"]: row for row in run_json(command, "engines")}
    assert [rows[name]["health"] for name in rows] == ["offline", "degraded", "switched off"]
    assert [rows[name]["forced"] for name in rows] == ["open", "", ""]
    assert [rows[name]["ejected"] for name in rows] == [False, True, False]
    assert time.time() - rows["second"]["probed_at"] == pytest.approx(60, abs=5)
    output = run(command, "engines").output
    assert re.search(r"first +offline +breaker forced open +", output)
    assert re.search(r"second +degraded +asked last, probed 1 min ago +", output)
    assert "Health: as 1 worker reports it." in output
    om.runtime.close()
    same.runtime.close()


def test_an_app_without_engines_is_told_how_to_add_one() -> None:
    app, _ = make_app()
    assert "@om.engine(" in run(app, "engines").output
    assert run_json(app, "engines") == []

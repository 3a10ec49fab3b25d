"""Two workers under gunicorn tell their sums, whichever is asked, and when one has ended, too."""

from __future__ import annotations

import os
import signal
import time
import urllib.request

import pytest

from tests.patience import HANG_S, PATIENCE_S

parsed = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families
pytestmark = pytest.mark.server

TOKEN = "Kq7vR2mX9pL4nB8wZ3tY"
APP = f"""
import os
from pathlib import Path
from flask import Flask
from om_plugins import Feature, FeatureSpec, Metric, OpenManager, hookimpl
from om_plugins.monitoring import monitoring as centre

centre.EVERY_S = 0.5
app = Flask(__name__, instance_path=str(Path(__file__).parent / "instance"))
app.config.update(OM_METRICS=True, OM_CONSOLE_AUTH="{TOKEN}")

class Pids(Feature):
    name = "pids"

    def build(self, kit, keys):
        return {{"count": 0}}

    def metrics(self, kit, part):
        yield Metric("om_pids", "How often a process told its number", part["count"])
        yield Metric("om_pids_workers", "Processes", 1, kind="gauge")

class PidsPlugin:
    @hookimpl
    def om_features(self):
        return [FeatureSpec(Pids())]

om = OpenManager()
om.register_plugin(PidsPlugin(), "pids")
om.init_app(app)

@app.get("/up")
def up():
    return "up"

@app.get("/pid")
def pid():
    om.runtime.part_of("pids")["count"] += 1
    return str(os.getpid())
"""


def read(url, **headers):
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=HANG_S
    ) as answer:
        return answer.read().decode()


def counted(url):
    text = read(url + "/_om/metrics", Authorization=f"Bearer {TOKEN}")
    found = {one.name: one for one in parsed(text)}
    of_route = [one for one in found["om_http_requests"].samples if one.labels["route"] == "/pid"]
    return sum(one.value for one in of_route), found["om_pids"].samples[0].value


def until(url, wanted):
    deadline = time.monotonic() + PATIENCE_S
    while (found := counted(url)) != (wanted, wanted) and time.monotonic() < deadline:
        assert max(found) <= wanted
        time.sleep(0.1)
    assert found == (wanted, wanted)


def test_the_sums_are_those_of_all_workers(gunicorn):
    url, _ = gunicorn(APP, "--workers", "2", "--threads", "2")
    pids = [read(url + "/pid") for _ in range(20)]
    while len(set(pids)) < 2:
        pids.append(read(url + "/pid"))
    until(url, len(pids))
    assert {counted(url) for _ in range(20)} == {(len(pids), len(pids))}  # whoever answers
    os.kill(int(pids[0]), signal.SIGTERM)
    time.sleep(0.5)
    assert {counted(url) for _ in range(20)} == {(len(pids), len(pids))}  # it took nothing along

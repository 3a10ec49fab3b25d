"""What an upstream bears while it is down, and how soon it is back in use: real processes."""

from __future__ import annotations

import collections
import json
import threading
import time
import urllib.request

import pytest

from om_plugins import HttpEngine, Settings, StaticEngine
from om_plugins.runtime import Runtime
from om_plugins.types import EngineSpec
from tests.patience import HANG_S, wait_until

pytestmark = [pytest.mark.proof, pytest.mark.server]

LOAD_PER_S = 100
SECONDS = 8
INTERVAL_S = 2


def read(url):
    with urllib.request.urlopen(url, timeout=HANG_S) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    "defaults",
    [{}, {"breaker_min_calls": 100_000, "retry_budget_floor": 0.0}],
    ids=["as shipped", "without its breaker"],
)
def test_a_total_outage_costs_at_most_one_and_a_fifth(upstream, capsys, defaults):
    down = upstream(fail=1.0)
    runtime = Runtime(Settings(chain_defaults=defaults))
    runtime.add_engine(
        EngineSpec(HttpEngine("up", down.url, idempotent=True, pool_size=64), "c", 1)
    )
    runtime.add_engine(EngineSpec(StaticEngine("local", "resting"), "c", 2))
    chain = runtime.part_of("chains").get("c")
    answers = collections.Counter()
    began = time.monotonic()

    def client(number, clients=50):
        """Asks at its own times, so that those who wait do not slow the others down."""
        for turn in range(LOAD_PER_S * SECONDS // clients):
            due = began + (turn * clients + number) / LOAD_PER_S
            time.sleep(max(due - time.monotonic(), 0.0))
            answers[chain.call({}).engine] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    calls_each = down.asked() / answers.total()
    runtime.close()
    with capsys.disabled():
        print(f"\noutage: {calls_each:.3f} upstream calls a request, {answers.total()} requests")
    assert answers == {"local": LOAD_PER_S * SECONDS}
    assert calls_each <= 1.2


APP = """
import os
from pathlib import Path
from flask import Flask
from om_plugins import HttpEngine, OpenManager, StaticEngine

app = Flask(__name__, instance_path=str(Path(__file__).parent / "instance"))
app.config.update(OM_PROBE_INTERVAL=%d, OM_BREAKER_SHARED=%r,
    OM_CHAIN_DEFAULTS={"retries": 0, "breaker_cooldown": 600})
om = OpenManager(app)
om.add_engine(HttpEngine("up", %r, timeout=5, idempotent=True), chain="c")
om.add_engine(StaticEngine("local", "resting"), chain="c", tier=2)

@app.get("/up")
def up():
    return ""

@app.get("/ask")
def ask():
    return {"pid": os.getpid(), "tier": om.chain("c").call({}).tier,
            "open": not om.chain("c").states[0].breaker.permit}
"""


@pytest.mark.parametrize("shared", [False, True], ids=["breakers alone", "breakers shared"])
def test_traffic_is_back_when_a_probe_finds_the_upstream_well(upstream, gunicorn, capsys, shared):
    up = upstream()
    url, _ = gunicorn(APP % (INTERVAL_S, shared, up.url), "--workers", "2", "--threads", "4")
    newest = {}  # what each worker answered last

    def until(reached):
        def look():
            answer = read(url + "/ask")
            newest[answer["pid"]] = answer
            return len(newest) == 2 and all(map(reached, newest.values()))

        began = time.monotonic()
        wait_until(look, lambda: newest, pause_s=0.01)
        return time.monotonic() - began

    until(lambda one: one["tier"] == 1)
    up.kill()
    until(lambda one: one["open"])
    time.sleep(2 * INTERVAL_S)
    up.start()
    took_s = until(lambda one: one["tier"] == 1)  # the breakers alone would stay open for minutes
    with capsys.disabled():
        print(f"\nrecovery: both workers back after {took_s:.2f} s, probes each {INTERVAL_S} s")

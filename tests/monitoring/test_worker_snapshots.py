"""Real processes show each other what they counted; a killed one leaves the picture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from om_plugins import Settings
from om_plugins.monitoring import worker_snapshots as exchange
from om_plugins.runtime import Runtime
from tests.patience import HANG_S, wait_until

WORKER = """
import sys
from werkzeug.test import Client
from om_plugins import OpenManagerMiddleware, Settings
from om_plugins.monitoring import monitoring as centre, worker_snapshots as exchange

exchange.TTL_S = 3.0
centre.EVERY_S = 1.0

def app(environ, start_response):
    failed = environ["PATH_INFO"] == "/fail"
    start_response("500 X" if failed else "200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

middleware = OpenManagerMiddleware(app, Settings(hub_url=sys.argv[1]))
client = Client(middleware)
for _ in range(int(sys.argv[2])):
    client.get("/").close()
client.get("/fail").close()
print("ready", flush=True)
sys.stdin.read()
middleware.runtime.close()
"""


@pytest.fixture
def hub_url(tmp_path):
    return f"sqlite:///{tmp_path}/hub.sqlite3"


@pytest.fixture
def begin(hub_url):
    processes = []

    def begin(requests):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, hub_url, str(requests)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def eventually(look, wanted):
    wait_until(
        lambda: look() == wanted,
        lambda: f"{look()!r} is not {wanted!r}",
        pause_s=0.05,
        patience_s=HANG_S,
    )


def test_two_processes_are_one_picture_and_a_killed_one_runs_out(hub_url, begin):
    first, second = begin(30), begin(40)
    runtime = Runtime(Settings(hub_url=hub_url))

    def requests():
        seen = runtime.part_of("monitoring").overview()
        return {w["pid"]: w["requests"] for w in seen["workers"] if w["pid"] != os.getpid()}

    try:
        eventually(requests, {first.pid: 31, second.pid: 41})
        seen = runtime.part_of("monitoring").overview()
        assert seen["requests"] == 72
        assert sum(point["errors"] for point in seen["seconds"]) == 2
        assert seen["rss_bytes"] > 20_000_000
        eventually(
            lambda: sum(p["requests"] for p in runtime.part_of("monitoring").overview()["seconds"]),
            72,
        )
        os.kill(first.pid, signal.SIGKILL)
        eventually(requests, {second.pid: 41})
        second.communicate("")
        assert second.returncode == 0
        assert requests() == {}, "one that ends properly takes its snapshot back at once"
    finally:
        runtime.close()


def test_a_picture_of_a_busy_worker_fits_into_the_hub(clock):
    """200 routes and full windows, a wide spread of durations: far below a hub's limit."""
    import random

    from om_plugins.builtin.hubs.encoding import MAX_VALUE_BYTES, encode
    from om_plugins.monitoring.collector import Collector
    from om_plugins.types import CacheStats

    rng = random.Random(1)
    collector = Collector(clock)
    for _second in range(7200):
        for _ in range(5):
            route = f"/some/longer/route/{rng.randrange(500)}/<int:number>"
            duration = rng.lognormvariate(-3, 1)
            collector.enter()
            collector.leave((route, "GET", "200 OK", duration, 10, clock.monotonic(), False))
        collector.fold()
        clock.advance(1)
    full = CacheStats(*[2**40] * len(CacheStats.__slots__))
    view = exchange.read_own_view(
        "u", collector, dropped=0, rss_bytes=1, cache=full, engines=[],
        groups={f"{n:080}": full for n in range(200)},
    )  # fmt: skip
    puts = {}

    class Hub:
        def put(self, key, value, ttl):
            puts[key.split("/")[1]] = len(encode(key, value))

    exchange.WorkerSnapshots(Hub()).publish(
        view, exchange.encode_own_slots(collector, past=True), past=True
    )
    assert puts["now"] < MAX_VALUE_BYTES / 4, puts
    assert puts["past"] < MAX_VALUE_BYTES / 4, puts

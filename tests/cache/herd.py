"""A worker process for the tests of turns: ``python herd.py hub-url store-url log threads lease``.

It says ``ready``, then does what each line of its input says and answers with one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from om_plugins import Settings
from om_plugins.cache import singleflight
from om_plugins.runtime import Runtime

hub_url, store_url, log, threads, lease_s = sys.argv[1:]
singleflight.LEASE_S = float(lease_s)
settings = {"hub_url": hub_url, "cache_url": store_url, "namespace": "herd", "monitoring": False}
runtime = Runtime(Settings(**settings))
cache = runtime.part_of("cache")
cache.get("warm")
runtime.hub.get("warm")


def fetcher(value, seconds):
    def fetch():
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()} {value}\n")
        time.sleep(seconds)
        if value == "error":
            raise ValueError("no value")
        return f"{value} {os.getpid()}"

    return fetch


def together(key, value, seconds, stale_time):
    answers, times = [], []
    barrier = threading.Barrier(int(threads))

    def work():
        barrier.wait()
        began = time.perf_counter()
        try:
            answers.append(
                cache.query(key, fetcher(value, seconds), stale_time=stale_time, retries=0)
            )
        except ValueError as error:
            answers.append(repr(error))
        times.append(time.perf_counter() - began)

    workers = [threading.Thread(target=work) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"slowest": max(times), "answers": sorted(set(answers))}


def load(seconds):
    """Look-ups and counts for a while; says what failed, and when the hub was away."""
    end = time.time() + seconds
    failures, slowest, away, ages, counts = [], [0.0], [], [0.0], [0]

    def work():
        while (now := time.time()) < end:
            began = time.perf_counter()
            try:
                value = cache.query("clock", time.time, stale_time=600)
                runtime.hub.increment("requests", ttl=600)
            except Exception as error:
                failures.append(repr(error))
                continue
            slowest.append(time.perf_counter() - began)
            counts[0] += 1
            if away and away[-1][1] is None and now - away[-1][0] > 2:
                ages.append(now - value)
            time.sleep(0.005)

    workers = [threading.Thread(target=work) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    while time.time() < end:
        if runtime.hub.alone and (not away or away[-1][1] is not None):
            away.append([time.time(), None])
        elif not runtime.hub.alone and away and away[-1][1] is None:
            away[-1][1] = time.time()
        time.sleep(0.01)
    for worker in workers:
        worker.join()
    return {
        "failures": failures, "slowest": max(slowest), "away": away, "oldest": max(ages),
        "requests": counts[0],
    }  # fmt: skip


print("ready", flush=True)
for line in sys.stdin:
    verb, *rest = json.loads(line)
    if verb == "together":
        print(json.dumps(together(*rest)), flush=True)
    elif verb == "set":
        print(json.dumps(cache.set(*rest)), flush=True)
    elif verb == "get":
        print(json.dumps(cache.get(*rest)), flush=True)
    elif verb == "invalidate":
        print(json.dumps(cache.invalidate(*rest)), flush=True)
    elif verb == "load":
        print(json.dumps(load(*rest)), flush=True)
runtime.close()

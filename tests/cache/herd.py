"""A worker process for the tests of turns: ``python herd.py hub-url store-url log threads lease``.

A fetch lasts so many seconds, or until the gate is open: until there is a file ``log.gate``.

It says ``ready``, then does what each line of its input says and answers with one line of JSON.
"""

from __future__ import annotations

import itertools
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
singleflight.FOLLOW_S = 60.0  # who waits for all of it has missed what it waits for
settings = {"hub_url": hub_url, "cache_url": store_url, "namespace": "herd", "monitoring": False}
runtime = Runtime(Settings(**settings))
cache = runtime.part_of("cache")
cache.get("warm")
runtime.hub.get("warm")


def pass_gate():
    while not Path(log + ".gate").exists():
        time.sleep(0.01)


def fetcher(value, seconds):
    def fetch():
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()} {value}\n")
        if seconds is None:
            pass_gate()
        else:
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


def load():
    """Look-ups and counts until the hub has been away and is back; says what failed meanwhile.

    The value has the number of its fetch: while the hub is away, one after the other is seen.
    """
    failures, away, counts, seen, over = [], [], [0], set(), threading.Event()
    numbers = itertools.count()

    def work():
        while not over.is_set():
            try:
                value = cache.query("clock", fetcher(f"clock{next(numbers)}", 0), stale_time=600)
                runtime.hub.increment("requests", ttl=600)
            except Exception as error:
                failures.append(repr(error))
                continue
            if len(away) == 1:
                counts[0] += 1
                seen.add(value)
            time.sleep(0.005)

    workers = [threading.Thread(target=work) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    while len(away) < 2:
        if runtime.hub.alone != bool(len(away) % 2):
            away.append(time.time())
        time.sleep(0.01)
    over.set()
    for worker in workers:
        worker.join()
    return {"failures": failures, "requests": counts[0], "seen": sorted(seen)}


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

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

from om_plugins.caching import turns
from om_plugins.runtime import Runtime
from om_plugins.settings import Settings

hub_url, store_url, log, threads, lease_s = sys.argv[1:]
turns.LEASE_S = float(lease_s)
settings = {"hub_url": hub_url, "cache_url": store_url, "namespace": "herd", "monitoring": False}
runtime = Runtime(Settings(**settings))
cache = runtime.cache
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
                cache.query(key, fetcher(value, seconds), stale_time=stale_time, retry=0)
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
    elif verb == "alone":
        print(json.dumps(runtime.hub.alone), flush=True)
runtime.close()

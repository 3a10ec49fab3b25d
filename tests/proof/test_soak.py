"""Availability under engine failure, measured: real upstream processes that fail and are killed.

A minute here; ``make soak`` goes on until 100,000 calls were made (``OM_SOAK_CALLS``).
"""

from __future__ import annotations

import collections
import os
import threading
import time
from pathlib import Path

import pytest

from om_plugins import HttpEngine, Settings, StaticEngine
from om_plugins.runtime import Runtime
from om_plugins.types import EngineSpec
from tests.patience import wait_until

pytestmark = pytest.mark.proof

SECONDS = float(os.environ.get("OM_SOAK_SECONDS", "60"))
CALLS = int(os.environ.get("OM_SOAK_CALLS", "0"))
THREADS = 16
DEADLINE_S = 5.0


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def open_threads():
    return len(list(Path("/proc/self/task").iterdir()))


def test_calls_are_answered_while_upstreams_fail_hang_and_are_killed(upstream, capsys):
    first, second = upstream(fail=0.30, hang=0.05, limit=0.05), upstream()
    runtime = Runtime(
        Settings(chain_defaults={"timeout": DEADLINE_S, "attempt_timeout": 1.0, "retries": 1})
    )
    for tier, engine in enumerate(
        [
            HttpEngine("first", first.url, idempotent=True, pool_size=THREADS),
            HttpEngine("second", second.url, idempotent=True, pool_size=THREADS),
            StaticEngine("local", {"answer": "resting"}),
        ],
        start=1,
    ):
        runtime.add_engine(EngineSpec(engine, "soak", tier))
    chain = runtime.part_of("chains").get("soak")
    chain.call({})
    files, threads = open_files(), open_threads()
    results = collections.Counter()
    with_two = collections.Counter()
    late = asked = 0
    times = []
    lock = threading.Lock()
    up = threading.Event()
    up.set()
    started = time.monotonic()
    done = threading.Event()

    def enough():
        return len(times) >= CALLS if CALLS else time.monotonic() - started >= SECONDS

    def work():
        nonlocal late, asked
        while not done.is_set():
            was_up = up.is_set()
            began = time.monotonic()
            try:
                answer = chain.call({})
                outcome, attempts = answer.engine, answer.attempts
            except Exception as error:  # what came out is what is measured
                outcome = type(error).__name__
                attempts = sum(not one.skipped for one in getattr(error, "attempts", ()))
            took = time.monotonic() - began
            with lock:
                results[outcome] += 1
                times.append(took)
                asked += attempts
                late += took > 2 * DEADLINE_S  # a busy machine; what hangs hangs for 30 s
                if was_up and up.is_set():
                    with_two["above" if outcome in ("first", "second") else "below"] += 1
            time.sleep(0.005)

    workers = [threading.Thread(target=work) for _ in range(THREADS)]
    for worker in workers:
        worker.start()
    killed_at = started
    while not enough():
        time.sleep(0.1)
        if time.monotonic() - killed_at < 10:
            continue
        killed_at = time.monotonic()
        up.clear()
        second.kill()
        time.sleep(1)
        second.start()
        wait_until(lambda: chain.states[1].breaker.permit)  # it was probed
        up.set()
    done.set()
    for worker in workers:
        worker.join()
    total = sum(results.values())
    answered = total - sum(n for name, n in results.items() if name[0].isupper())
    times.sort()
    with capsys.disabled():
        shares = ", ".join(f"{name} {n / total:.2%}" for name, n in results.most_common())
        print(
            f"\nsoak: {total} calls in {time.monotonic() - started:.0f} s, "
            f"answered {answered / total:.4%}, {shares}; "
            f"with tier 2 up {with_two['above'] / with_two.total():.3%} above tier 3; "
            f"{asked / total:.2f} attempts a call; "
            f"p50 {times[total // 2] * 1000:.1f} ms, p99 {times[total * 99 // 100] * 1000:.0f} ms, "
            f"max {times[-1]:.2f} s"
        )
    assert answered / total >= 0.9999
    assert late == 0
    runtime.close()
    assert with_two["above"] / with_two.total() >= 0.999
    wait_until(  # a joined thread ends for the kernel a little later
        lambda: open_threads() <= threads, lambda: [one.name for one in threading.enumerate()]
    )
    assert open_files() <= files

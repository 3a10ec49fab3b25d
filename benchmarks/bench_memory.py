"""Compares the resident memory of a process with a full cache with ``OM_CACHE_L1_BYTES``.

Two million values of many sizes and kinds are set, with text and tuple keys, some with tags. Most
of them are evicted, so that the memory of the allocator becomes fragmented.
"""

from __future__ import annotations

import argparse
import gc
import random
import subprocess
import sys
from pathlib import Path

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.core.clock import SystemClock
from om_plugins.workers.scheduler import BackgroundScheduler

LIMIT = 256 * 2**20
SETS = 2_000_000


def read_resident() -> int:
    """Return the resident memory of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def fill(limit: int, sets: int) -> tuple[int, int, int]:
    """Fill a cache.

    Returns:
        The growth of resident memory in bytes, the weight that the cache counted, and the entries.
    """
    draw = random.Random(3)
    clock = SystemClock()
    hub = MemoryHub("memory://", clock)
    cache = SmartCache(
        CacheOptions(
            stale_time=3600,
            cache_time=7200,
            l1_bytes=limit,
            max_value=1 << 20,
            clock=clock,
            scheduler=BackgroundScheduler(1, 10, clock, hub, synchronous=True),
        )
    )
    filler = "x" * 65_536
    gc.collect()
    before = read_resident()
    for number in range(sets):
        size = int(2 ** draw.uniform(3, 14))
        kind = number % 4
        value = (
            filler[:size]
            if kind == 0
            else {"n": number, "text": filler[: size // 2]}
            if kind == 1
            else [number] * (size // 9)
            if kind == 2
            else filler[:size].encode()
        )
        key = f"user:{number}:profile" if number % 3 else ("user", number, "profile")
        cache.set(key, value, tags=("users", f"team-{number % 1000}") if number % 10 == 0 else ())
    gc.collect()
    grown = read_resident() - before
    table = cache.internals.here().memory.table
    return grown, table.weight, len(table.entries)


def measure(repeats: int = 30, limit: int = LIMIT, sets: int = SETS) -> dict[str, float]:
    """Measure in a new process, whose memory no other code used. One run is enough."""
    code = f"import bench_memory as b; print(*b.fill({limit}, {sets}))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown, weight, entries = map(int, answer.stdout.split())
    return {
        "limit, MB": limit / 2**20,
        "counted, MB": weight / 2**20,
        "resident, MB": grown / 2**20,
        "resident / limit": grown / limit,
        "entries": float(entries),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS)
    for subject, value in measure(sets=parser.parse_args().sets).items():
        print(f"{subject:<20} {value:10.2f}")

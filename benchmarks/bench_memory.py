"""What a full first level costs: the process's resident memory against ``OM_CACHE_L1_BYTES``.

Two million values are set, of many sizes and kinds, with text and tuple keys and now and then tags,
so that most are pushed out again and the allocator has had time to fragment.
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


def resident() -> int:
    """This process's resident memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def fill(limit: int, sets: int) -> tuple[int, int, int]:
    """Resident bytes above the start, the weight that the cache counted, and entries."""
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
    before = resident()
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
    grown = resident() - before
    table = cache.internals.here().memory.table
    return grown, table.weight, len(table.entries)


def measure(repeats: int = 30, limit: int = LIMIT, sets: int = SETS) -> dict[str, float]:
    """In a process of its own, whose memory nothing else has touched; repeating tells no more."""
    code = f"import bench_memory as b; print(*b.fill({limit}, {sets}))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown, weight, entries = map(int, answer.stdout.split())
    return {
        "bound, MB": limit / 2**20,
        "counted, MB": weight / 2**20,
        "resident, MB": grown / 2**20,
        "resident / bound": grown / limit,
        "entries": float(entries),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS)
    for subject, value in measure(sets=parser.parse_args().sets).items():
        print(f"{subject:<20} {value:10.2f}")

"""Measures the hit rate of eviction policies: ours, LRU and two others, on two traces.

All policies have space for the same number of entries of one size, and get all look-ups of a trace.
A miss puts the entry. Ours is the table of the cache itself
(:class:`om_plugins.cache.memory.MemoryTable`).
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, count

from om_plugins.cache.entry import CacheEntry
from om_plugins.cache.memory import MemoryTable

Access = Callable[[int], bool]
"""Looks a key up, puts it when it is missing, and returns whether it was found."""


def zipf(length: int, keys: int, alpha: float, seed: int = 1) -> Iterator[int]:
    """Yield independent look-ups; the n-th key has a probability of 1 / n ** alpha."""
    draw = random.Random(seed)
    sums = list(accumulate(1 / n**alpha for n in range(1, keys + 1)))
    order = list(range(keys))
    draw.shuffle(order)
    for _ in range(length):
        yield order[bisect_left(sums, draw.random() * sums[-1])]


def scan_and_loop(length: int, keys: int, size: int, seed: int = 2) -> Iterator[int]:
    """Yield the load of a database, after the traces of LIRS and ARC.

    It mixes Zipf look-ups, scans of keys that never occur again, and loops over a few more keys
    than fit into the cache.
    """
    draw = random.Random(seed)
    base = zipf(length + 4 * size, keys, 0.9, seed)  # the last part may exceed the length
    fresh = count(10 * keys)
    loop = [keys + n for n in range(int(1.3 * size))]
    done = 0
    while done < length:
        part = draw.choice(("zipf", "zipf", "scan", "loop"))
        if part == "zipf":
            for _ in range(4 * size):
                yield next(base)
            done += 4 * size
        elif part == "scan":
            for number in range(2 * size):
                yield next(fresh)
                if number % 2:
                    yield next(base)
            done += 3 * size
        else:
            yield from loop * 3
            done += 3 * len(loop)


def ours(size: int) -> Access:
    """Return the access function of the cache's own table."""
    local: MemoryTable | None = None

    def access(key: int) -> bool:
        nonlocal local
        name = f"{key:08}"
        if local is not None and (found := local.entries.get(name)) is not None:
            found.visited = True
            return True
        entry = CacheEntry(
            name, b"", tags=(), began=0.0, stored=0.0, stale_time=1.0, cache_time=1.0
        )
        if local is None:
            local = MemoryTable(size * entry.weight)
        local.put(entry)
        return False

    return access


def lru(size: int) -> Access:
    """Return the access function of LRU: least recently used."""
    table: OrderedDict[int, None] = OrderedDict()

    def access(key: int) -> bool:
        if key in table:
            table.move_to_end(key)
            return True
        if len(table) >= size:
            table.popitem(last=False)
        table[key] = None
        return False

    return access


def s3_fifo(size: int) -> Access:
    """Return the access function of S3-FIFO (Yang et al., SOSP 2023).

    It has a small queue, a main queue and a list of evicted keys.
    """
    small: OrderedDict[int, int] = OrderedDict()
    main: OrderedDict[int, int] = OrderedDict()
    ghost: OrderedDict[int, None] = OrderedDict()
    small_size = max(1, size // 10)

    def evict() -> None:
        if len(small) >= small_size:
            while small:
                key, seen = small.popitem(last=False)
                if seen:
                    main[key] = 0
                else:
                    ghost[key] = None
                    if len(ghost) > size:
                        ghost.popitem(last=False)
                    return
        while main:
            key, seen = main.popitem(last=False)
            if not seen:
                return
            main[key] = seen - 1

    def access(key: int) -> bool:
        for queue in (small, main):
            if key in queue:
                queue[key] = min(3, queue[key] + 1)
                return True
        while len(small) + len(main) >= size:
            evict()
        if key in ghost:
            del ghost[key]
            main[key] = 0
        else:
            small[key] = 0
        return False

    return access


def w_tiny_lfu(size: int) -> Access:
    """Return the access function of W-TinyLFU (Einziger, Friedman, Manes, 2017).

    It has exact counts instead of a sketch, a window of 1 %, a segmented LRU of 20 and 80 %, and
    admission by frequency. The counts are halved regularly.
    """
    window: OrderedDict[int, None] = OrderedDict()
    probation: OrderedDict[int, None] = OrderedDict()
    protected: OrderedDict[int, None] = OrderedDict()
    window_size = max(1, size // 100)
    protected_size = int((size - window_size) * 0.8)
    seen: Counter[int] = Counter()
    looked = 0

    def age() -> None:
        nonlocal looked
        looked += 1
        if looked >= 10 * size:
            looked //= 2
            for key in list(seen):
                seen[key] //= 2
                if not seen[key]:
                    del seen[key]

    def access(key: int) -> bool:
        age()
        seen[key] = min(15, seen[key] + 1)
        if key in window:
            window.move_to_end(key)
            return True
        if key in protected:
            protected.move_to_end(key)
            return True
        if key in probation:
            del probation[key]
            protected[key] = None
            if len(protected) > protected_size:
                demoted, _ = protected.popitem(last=False)
                probation[demoted] = None
            return True
        window[key] = None
        if len(window) > window_size:
            candidate, _ = window.popitem(last=False)
            if len(probation) + len(protected) < size - window_size:
                probation[candidate] = None
            else:
                victim = next(iter(probation))
                if seen[candidate] > seen[victim]:
                    del probation[victim]
                    probation[candidate] = None
        return False

    return access


POLICIES: dict[str, Callable[[int], Access]] = {
    "ours": ours,
    "LRU": lru,
    "S3-FIFO": s3_fifo,
    "W-TinyLFU": w_tiny_lfu,
}


def compute_hit_rate(access: Access, trace: Iterable[int]) -> float:
    """Return the hits per look-up, 0 to 1."""
    hits = looked = 0
    for key in trace:
        looked += 1
        hits += access(key)
    return hits / looked


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure the percentage of hits by trace and policy."""
    length, keys = 10_000 * repeats, 20_000
    found = {}
    for share in (0.01, 0.1):
        size = int(keys * share)
        traces: dict[str, Callable[[], Iterable[int]]] = {
            "Zipf 0.9": lambda: zipf(length, keys, 0.9),
            "scans and loops": lambda size=size: scan_and_loop(length, keys, size),
        }
        for name, trace in traces.items():
            for policy, make in POLICIES.items():
                found[f"{name}, space for {share:.0%}: {policy}"] = 100 * compute_hit_rate(
                    make(size), trace()
                )
    return found


if __name__ == "__main__":
    for subject, rate in measure().items():
        print(f"{subject:<50} {rate:6.2f} %")

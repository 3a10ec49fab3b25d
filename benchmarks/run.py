"""Run every benchmark and write ``docs/benchmarks.md``: ``make bench``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bench_breaker
import bench_cache
import bench_chain
import bench_eviction
import bench_headers
import bench_hedging
import bench_http_cache
import bench_hub
import bench_memory
import bench_monitoring
import bench_stack
import bench_templates

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

SECTIONS = [
    (
        "Whole default stack on a Flask hello",
        bench_stack.measure,
        "Target: at most 1.25 × bare.",
    ),
    (
        "Security headers",
        bench_headers.measure,
        "Target: at most 4 µs on a bare WSGI callable, 9 µs on Flask (nonce used), 2 µs for JSON.",
    ),
    (
        "Templates with nonces",
        bench_templates.measure,
        "Target: compile at most 1.2 ×, render at most 1.02 ×. The long template has four tags "
        "that get a nonce, the page of 75 rows and its layout have eight.",
    ),
    (
        "The observe layer",
        bench_monitoring.measure,
        "Part of the stack above; what it costs alone.",
    ),
    (
        "A call to a chain, all defaults, nobody listening",
        bench_chain.measure,
        "Target: at most 2.0 µs above the bare call, 2.6 µs with a bulkhead.",
    ),
    (
        "Breaker and bulkhead alone",
        bench_breaker.measure,
        "Target: eight threads through one breaker as fast as without it; a bulkhead at most "
        "0.4 µs. The counts of eight threads are checked to be exact.",
    ),
    (
        "Hedging, an upstream of which 5 % of the answers take 250 ms more",
        bench_hedging.measure,
        "One quiet caller; the rows are percentiles of what a call takes.",
    ),
    (
        "The cache, fresh value in memory",
        bench_cache.measure,
        "Target: at most 0.8 µs for a value of up to 64 bytes; its decoding + 0.8 µs for larger; "
        "over Redis at most 1.5 × of that in memory.",
    ),
    (
        "What the cache keeps in memory",
        bench_eviction.measure,
        "The same look-ups and the same room for each policy; ours is SIEVE.",
        "hits in 100 look-ups",
    ),
    (
        "Memory of a full cache",
        bench_memory.measure,
        "Two million values of many sizes and kinds, most of them pushed out again. Target: "
        "resident at most 1.25 × the bound.",
        "",
    ),
    (
        "The hub, one call in one process",
        bench_hub.measure,
        "No target: what workers share is asked in the background, or once in a while.",
    ),
    (
        "The shared HTTP cache, a hit on a page of 50 KB whose twenty nonces are renewed",
        bench_http_cache.measure,
        "Target: the layer alone at most 0.10 × bare Flask, the whole stack at most 0.25 ×.",
    ),
]

PEERS = (
    "flask werkzeug flask-talisman prometheus-flask-exporter tenacity stamina pybreaker nopanic "
    "pyresilience litellm cachelib dogpile.cache cashews flask-caching hishel"
)


def table(rows: dict[str, float], unit: str | None = None) -> list[str]:
    """A Markdown table; of microseconds each "bare …" row is the base of those below it."""
    if unit is not None:
        found = [f"| {name} | {value:,.2f} |" for name, value in rows.items()]
        return [f"| what | {unit} |", "|---|---:|", *found]
    lines = ["| what | µs | above bare, µs | ratio |", "|---|---:|---:|---:|"]
    base = None
    for name, value in rows.items():
        if name.startswith("bare"):
            base = value
        compared = f"{value - base:+.2f} | {value / base:.2f} ×" if base else " | "
        lines.append(f"| {name} | {value:.2f} | {compared} |")
    return lines


def installed(names: str) -> str:
    """The peers' versions, for the page."""
    found = []
    for name in names.split():
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30, help="rounds (default 30)")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`: the same work, our part and its peers alternating in one run, the",
        f"minimum of {arguments.repeats} repeats. Microseconds depend on the machine; ratios are",
        "what to compare.",
        "",
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; "
        f"{installed(PEERS)}.",
    ]
    for title, measure, target, *unit in SECTIONS:
        print(f"{title} …", file=sys.stderr, flush=True)
        lines += ["", f"## {title}", "", target, "", *table(measure(arguments.repeats), *unit)]
    text = "\n".join(lines) + "\n"
    print(text)
    if not arguments.no_write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Runs every benchmark and writes ``docs/benchmarks.md``: ``make bench``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bench_bind
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
        "One more app in a process",
        bench_bind.measure,
        "Target: at most 3,000 µs above the bare app. Settings that change after the line, as "
        "`TESTING` does in many suites, have the parts built again.",
    ),
    (
        "Security headers",
        bench_headers.measure,
        "Target: at most 4 µs on a bare WSGI callable, 9 µs on Flask (nonce used), 2 µs for JSON.",
    ),
    (
        "Templates with nonces",
        bench_templates.measure,
        "Target: compile at most 1.2 ×, render at most 1.02 ×. Four tags of the long "
        "template get a nonce, and eight of the page with 75 rows and its layout.",
    ),
    (
        "The monitoring layer",
        bench_monitoring.measure,
        "A part of the stack above, measured alone.",
    ),
    (
        "A call to a chain, with the defaults and no receivers of signals",
        bench_chain.measure,
        "Target: at most 2.0 µs above the bare call, 2.6 µs with a bulkhead.",
    ),
    (
        "Breaker and bulkhead alone",
        bench_breaker.measure,
        "Target: eight threads are as fast through one breaker as without it; a bulkhead takes at "
        "most 0.4 µs. The benchmark checks that the counts of eight threads are exact.",
    ),
    (
        "Hedging, with an upstream of which 5 % of the answers take 250 ms more",
        bench_hedging.measure,
        "One caller, one call at a time. The rows are percentiles of the time of a call.",
    ),
    (
        "The cache, with a fresh value in memory",
        bench_cache.measure,
        "Target: at most 0.8 µs for a value of up to 64 bytes, and its decoding + 0.8 µs for a "
        "larger one; over Redis at most 1.5 × the time in memory.",
    ),
    (
        "Eviction from memory",
        bench_eviction.measure,
        "Each policy gets the same look-ups and the same size. The policy of om_plugins is SIEVE.",
        "hits in 100 look-ups",
    ),
    (
        "Memory of a full cache",
        bench_memory.measure,
        "Two million values of many sizes and kinds, most of them evicted again. Target: "
        "resident at most 1.25 × the limit.",
        "",
    ),
    (
        "The hub: one call in one process",
        bench_hub.measure,
        "No target: the hub is used in the background, or rarely.",
    ),
    (
        "The shared HTTP cache: a hit on a page of 50 KB with twenty renewed nonces",
        bench_http_cache.measure,
        "Target: the layer alone at most 0.10 × bare Flask, the whole stack at most 0.25 ×.",
    ),
]

PEERS = (
    "flask werkzeug flask-talisman prometheus-flask-exporter tenacity stamina pybreaker nopanic "
    "pyresilience litellm cachelib dogpile.cache cashews flask-caching hishel"
)


def format_table(rows: dict[str, float], unit: str | None = None) -> list[str]:
    """Format a Markdown table. In microseconds, each "bare …" row is the base of the rows below."""
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


def list_versions(names: str) -> str:
    """Return the versions of the installed packages among ``names``."""
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
        "`make bench` writes this page. Each part and its peers do the same work, in turns, in one",
        f"run. The numbers are the minimum of {arguments.repeats} repeats. Microseconds depend on",
        "the machine, so compare the ratios.",
        "",
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; "
        f"{list_versions(PEERS)}.",
    ]
    for title, measure, target, *unit in SECTIONS:
        print(f"{title} …", file=sys.stderr, flush=True)
        lines += [
            "",
            f"## {title}",
            "",
            target,
            "",
            *format_table(measure(arguments.repeats), *unit),
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not arguments.no_write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

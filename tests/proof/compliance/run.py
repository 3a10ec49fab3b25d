"""Run the public suite of HTTP cache tests: ``make compliance``.

The suite (npm ``http-cache-tests``, https://cache-tests.fyi) is an origin server and a client; what
it tests stands in between: gunicorn with our middleware around a plain reverse proxy.

``python run.py [--suite FOLDER] [--runs N] [--id TEST]``. Without a folder the pinned version is
installed from npm into ``build/compliance``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[2] / "build" / "compliance"
PACKAGE = "http-cache-tests@0.4.5"  # exactly this one
GOOD = ("pass", "yes")


@dataclass(frozen=True)
class Ended:
    """How one test ended: ``result`` is the suite's own word."""

    group: str
    id: str
    kind: str
    result: str
    why: str


def installed() -> Path:
    """The pinned version of the suite, from npm."""
    folder = BUILD / re.sub(r"[^a-z0-9.]+", "-", PACKAGE)
    suite = folder / "node_modules" / PACKAGE.partition("@")[0]
    if not (suite / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        subprocess.run(
            ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", PACKAGE],
            cwd=folder,
            check=True,
            timeout=300,
        )
    return suite


def run(suite: Path, only: list[str] | None = None) -> list[Ended]:
    """One run of the suite; every process that is begun here is ended here."""
    origin, served = free_port(), free_port()
    BUILD.mkdir(parents=True, exist_ok=True)
    server = "test-engine/server/server.mjs"
    if not (suite / server).exists():
        server = "server/server.mjs"
    environment = {
        **os.environ,
        "npm_config_protocol": "http",
        "npm_config_port": str(origin),
        "npm_config_pidfile": str(BUILD / "origin.pid"),
        "ORIGIN": f"127.0.0.1:{origin}",
    }
    gunicorn = [sys.executable, "-m", "gunicorn", "served:application", "--chdir", str(HERE)]
    gunicorn += ["--worker-class", "gthread", "--threads", "32", "--keep-alive", "75"]
    gunicorn += ["--bind", f"127.0.0.1:{served}", "--log-level", "warning"]
    processes = []
    try:
        with (BUILD / "servers.log").open("w") as log:
            for command, cwd in ((["node", server], suite), (gunicorn, HERE)):
                processes.append(
                    subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=log)
                )
            wait_for(origin, "localhost")
            wait_for(served, "127.0.0.1")
            client = ["node", "--no-warnings", str(HERE / "count.mjs")]
            done = subprocess.run(
                [*client, str(suite.resolve()), f"http://127.0.0.1:{served}", *(only or [])],
                check=True,
                capture_output=True,
                text=True,
                timeout=1200,
            )
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
    if only:
        print(done.stdout.rpartition("\n[")[0])
        print((BUILD / "servers.log").read_text())
    return [Ended(**one) for one in json.loads(done.stdout.strip().splitlines()[-1])]


def counts(ended: list[Ended]) -> str:
    """``required N optimal N check N``: the tests that passed."""
    passed = Counter(one.kind for one in ended if one.result in GOOD)
    return " ".join(f"{kind} {passed[kind]}" for kind in ("required", "optimal", "check"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, host: str) -> None:
    """Until something answers there."""
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://{host}:{port}/", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", type=Path, help="a checkout of the suite")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--id", action="append", help="only this test, with all it says")
    parser.add_argument("--check", action="store_true", help="show what the checks say, too")
    arguments = parser.parse_args()
    if shutil.which("node") is None:
        sys.exit("node is missing: apt-get install nodejs npm")
    suite = arguments.suite or installed()
    if not (suite / "package.json").exists():
        sys.exit(f"{suite} is no checkout of the suite: it has no package.json")
    for _ in range(arguments.runs):
        ended = run(suite, arguments.id)
        total = Counter(one.kind for one in ended)
        for one in ended:
            if one.result not in GOOD and (one.kind != "check" or arguments.check):
                print(f"{one.kind:8}  {one.id:45}  {one.result:15}  {one.why}")
        print("of: " + " ".join(f"{kind} {total[kind]}" for kind in total))
        print(counts(ended), flush=True)


if __name__ == "__main__":
    main()

"""Run the analyst: ``python -m example_app.analyst --port N``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

import psutil

from ..state import StateDir
from ..system import Sampler
from .history import History
from .service import AnalystServer


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal comes, or the owner's process is gone."""
    parser = argparse.ArgumentParser(prog="python -m example_app.analyst", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, or a port that is taken: any free")
    parser.add_argument("--owner", type=int, help="end when this process ends")
    parser.add_argument("--state", type=Path, help="folder shared with the server")
    options = parser.parse_args(argv)
    state = StateDir(options.state or Path(tempfile.mkdtemp(prefix="om-analyst-")))
    owner = _started(options.owner) if options.owner else None
    if options.owner and owner is None:
        return 1

    sampler, history = Sampler(), History()
    try:
        server = AnalystServer(options.port, state, sampler, history)
    except OSError:
        server = AnalystServer(0, state, sampler, history)

    def end(*_: object) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    threading.Thread(target=history.watch, args=(sampler, server.stopping), daemon=True).start()
    if owner is not None:
        threading.Thread(
            target=_outlive_not, args=(options.owner, owner, server, state), daemon=True
        ).start()
    port = server.server_address[1]
    state.write("analyst", {"pid": os.getpid(), "started": _started(os.getpid()), "port": port})
    sys.stdout.write(f"the analyst listens on http://127.0.0.1:{port}/v1\n")
    sys.stdout.flush()
    with contextlib.closing(server.socket):
        server.serve_forever(poll_interval=0.2)
    if not options.state:
        state.remove()
    return 0


def _started(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _outlive_not(pid: int, started: float, server: AnalystServer, state: StateDir) -> None:
    """End with the owner, however it ended, and leave nothing behind."""
    while not server.stopping.wait(0.5):
        if _started(pid) != started:
            state.remove()
            server.shutdown()


if __name__ == "__main__":
    sys.exit(main())

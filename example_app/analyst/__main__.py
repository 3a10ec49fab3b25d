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
from .server import AnalystServer


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal arrives or the owner's process has ended."""
    parser = argparse.ArgumentParser(prog="python -m example_app.analyst", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, or a port that is taken: any free")
    parser.add_argument("--owner", type=int, help="end when this process ends")
    parser.add_argument("--state", type=Path, help="folder shared with the server")
    options = parser.parse_args(argv)
    state = StateDir(options.state or Path(tempfile.mkdtemp(prefix="om-analyst-")))
    owner = _find_start_time(options.owner) if options.owner else None
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
            target=_end_with_owner, args=(options.owner, owner, server, state), daemon=True
        ).start()
    port = server.server_address[1]
    state.write(
        "analyst", {"pid": os.getpid(), "started": _find_start_time(os.getpid()), "port": port}
    )
    sys.stdout.write(f"the analyst listens on http://127.0.0.1:{port}/v1\n")
    sys.stdout.flush()
    with contextlib.closing(server.socket):
        server.serve_forever(poll_interval=0.2)
    if not options.state:
        state.remove()
    return 0


def _find_start_time(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _end_with_owner(pid: int, started: float, server: AnalystServer, state: StateDir) -> None:
    """Delete the state and stop the server when the owner has ended, for whatever reason."""
    while not server.stopping.wait(0.5):
        if _find_start_time(pid) != started:
            state.remove()
            server.shutdown()


if __name__ == "__main__":
    sys.exit(main())

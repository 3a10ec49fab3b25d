"""The analyst's process: start it, kill it and read its status."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import Literal

import psutil

from .config import ROOT, DemoConfig
from .state import StateDir

__all__ = ["Supervisor"]

_START_S = 10.0


class Supervisor:
    """Starts and stops the one analyst of a server, from any worker.

    When the analyst listens, it writes its process id, start time and port to the state folder. A
    process is the analyst only if both id and start time are equal: another process that got the
    same id later is never killed.

    Args:
        config: names the state folder and the process that owns the analyst.
    """

    def __init__(self, config: DemoConfig) -> None:
        self._config = config
        self._state = StateDir(config.state)
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def port(self) -> int | None:
        """The port on which the analyst listens or last listened; ``None`` when it never did."""
        port = self._state.read("analyst").get("port")
        return port if isinstance(port, int) else None

    def status(self) -> Literal["running", "stopped", "never"]:
        """Return whether the analyst runs now."""
        if not self._state.read("analyst"):
            return "never"
        return "stopped" if self._find_process() is None else "running"

    def start(self) -> bool:
        """Start the analyst unless it runs, and wait until it listens.

        Returns:
            False when it did not listen within ten seconds; its log says why.
        """
        with self._state.lock():
            if self._find_process() is not None:
                return True
            log = self._state.open_log()
            try:
                child = subprocess.Popen(
                    [
                        sys.executable, "-m", "example_app.analyst",
                        "--port", str(self.port or 0),
                        "--owner", str(self._config.owner),
                        "--state", str(self._config.state),
                    ],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(log)
            self._children.append(child)
            until = time.monotonic() + _START_S
            while time.monotonic() < until and child.poll() is None:
                if self._state.read("analyst").get("pid") == child.pid:
                    return True
                time.sleep(0.05)
            return False

    def stop(self) -> bool:
        """Kill the analyst at once (SIGKILL). Returns False when it did not run."""
        with self._state.lock():
            process = self._find_process()
            if process is None:
                return False
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(5)
            self._reap()
            return True

    def _find_process(self) -> psutil.Process | None:
        self._reap()
        known = self._state.read("analyst")
        pid, started = known.get("pid"), known.get("started")
        if not isinstance(pid, int) or not isinstance(started, (int, float)):
            return None
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - started) > 1:
                return None
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.Error:
            return None
        return process

    def _reap(self) -> None:
        """Remove the children that ended. ``poll`` takes their exit status from the kernel."""
        self._children = [child for child in self._children if child.poll() is None]

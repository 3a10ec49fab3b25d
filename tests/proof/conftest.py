"""Upstreams that are processes of their own: they fail as they are told, and can be killed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.patience import HANG_S, PATIENCE_S

SCRIPT = Path(__file__).with_name("upstream.py")


class Upstream:
    """A process of its own, killed without warning and started again."""

    def __init__(self, fail=0.0, hang=0.0, limit=0.0):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._rates = [str(fail), str(hang), str(limit)]
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.port), *self._rates], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + HANG_S
        while time.monotonic() < deadline:
            try:
                self.asked()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the upstream did not start")

    def asked(self):
        """How many calls have come since it started."""
        with urllib.request.urlopen(self.url, timeout=HANG_S) as answer:
            return json.load(answer)

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)


@pytest.fixture
def upstream():
    """Start ``upstream(fail=…, hang=…, limit=…)``; all are killed at the end."""
    made = []

    def make(**rates):
        made.append(Upstream(**rates))
        return made[-1]

    yield make
    for one in made:
        one.kill()

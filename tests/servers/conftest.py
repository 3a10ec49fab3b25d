"""Real servers: started on a free loopback port, ended with their whole process group."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def gunicorn(tmp_path):
    """Start ``gunicorn(module_source, *arguments)``; gives the base URL and the process."""
    started = []

    def start(source, *arguments, app="app"):
        (tmp_path / "served.py").write_text(source)
        port = free_port()
        log = tmp_path / "server.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}"),
                    *arguments,
                    f"served:{app}",
                ],
                cwd=tmp_path,
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(url + "/up", timeout=1).close()
                return url, process
            except OSError:
                time.sleep(0.05)
        raise AssertionError(log.read_text())

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)

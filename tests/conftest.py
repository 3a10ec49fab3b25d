"""Shared by all tests: the package under test is the installed one, never the source folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

from tests.patience import HANG_S, PATIENCE_S

# On a busy machine 200 ms pass without the code, or what makes the examples, being slow.
settings.register_profile("om_plugins", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("om_plugins")

# Where tests run in the background, SIGINT is ignored, by what they start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent

# example_app is not in the wheel: found last, so that om_plugins still comes from site-packages.
sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]
sys.path.append(str(ROOT))

CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def lacking(what: str) -> None:
    """Skip for a missing tool, named with the reason; with ``CI=true`` it is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by Playwright; each test opens contexts of its own.

    Not for the whole session: while Playwright runs, this thread counts as one with a running
    event loop, and other tests call ``asyncio.run``.
    """
    executable = shutil.which("chromium")
    if executable is None:
        lacking("chromium (apt-get install chromium)")
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        lacking("playwright (pip install 'om-plugins[test]')")
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=list(CHROMIUM_OPTIONS)
        )
        yield chromium
        chromium.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Worker:
    """What gunicorn's workers say of themselves, by their handler of SIGTERM."""

    def __init__(self):
        self.alive = True
        self.cfg = SimpleNamespace(threads=4, graceful_timeout=10)

    def handle_exit(self, number, frame):
        """Never called."""


@pytest.fixture
def threads_begun(monkeypatch):
    """The threads that the test's own thread starts; those of tests before it may come and go."""
    begun = []
    start, own = threading.Thread.start, threading.current_thread()

    def note(thread):
        if threading.current_thread() is own:
            begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    return begun


@pytest.fixture
def gunicorn_worker():
    """This process, taken for a worker of gunicorn."""
    made = Worker()
    before = signal.signal(signal.SIGTERM, made.handle_exit)
    yield made
    signal.signal(signal.SIGTERM, before)


class StoreServer:
    """A Redis or memcached of one test's own; it can be killed, paused and started again."""

    def __init__(self, command, answers):
        self._command = command
        self._answers = answers
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self.process.poll() is None, f"{self._command[0]} ended"
            assert time.monotonic() < deadline, f"{self._command[0]} does not answer"
            time.sleep(0.01)

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)


def _answers(kind, address, question, answer):
    try:
        with socket.socket(kind) as s:
            s.settimeout(PATIENCE_S)
            s.connect(address)
            s.sendall(question)
            return s.recv(100).startswith(answer)
    except OSError:
        return False


@pytest.fixture
def redis_server(tmp_path):
    """A real Redis, on a free port (``url``) and a socket (``unix_url``); its ``client``."""
    if shutil.which("redis-server") is None:
        lacking("redis-server (apt-get install redis-server)")
    try:
        import redis
    except ImportError:
        lacking("redis (pip install 'om-plugins[redis]')")
    port = free_port()
    path = tmp_path / "redis.sock"
    server = StoreServer(
        [
            *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""),
            *("--unixsocket", str(path), "--dir", str(tmp_path)),
        ],
        lambda: _answers(socket.AF_INET, ("127.0.0.1", port), b"PING\r\n", b"+PONG"),
    )
    server.url = f"redis://127.0.0.1:{port}/0"
    server.unix_url = f"unix://{path}"
    server.client = redis.Redis(port=port)
    yield server
    server.client.close()
    server.kill()


@pytest.fixture
def memcached_server(tmp_path):
    """A real memcached on a free port (``url``)."""
    if shutil.which("memcached") is None:
        lacking("memcached (apt-get install memcached)")
    port = free_port()
    server = StoreServer(
        ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-U", "0"],
        lambda: _answers(socket.AF_INET, ("127.0.0.1", port), b"version\r\n", b"VERSION"),
    )
    server.port = port
    server.url = f"memcached://127.0.0.1:{port}"
    yield server
    server.kill()


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
                env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + HANG_S
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(url + "/up", timeout=PATIENCE_S).close()
                return url, process
            except OSError:
                time.sleep(0.05)
        raise AssertionError(log.read_text())

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)

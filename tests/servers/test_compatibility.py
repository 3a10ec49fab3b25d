"""Real servers and a real browser: start, debug, restart and end as before the line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.patience import HANG_S, PATIENCE_S

pytestmark = pytest.mark.server

APP = """
import os
from pathlib import Path
from flask import Flask
from om_plugins import OpenManager

folder = Path(__file__).parent
app = Flask(__name__, instance_path=str(folder / "instance"))
app.config.update(OM_CSP_MODE={mode!r}, OM_ROUTES={{"/ask": {{"chain": "c", "rate": "9999/min"}}}})
om = OpenManager(app)

@om.engine("local", chain="c", local=True, idempotent=True)
def local(call):
    return {{"pid": os.getpid()}}

@app.get("/up")
def up():
    return str(os.getpid())

@app.get("/cached")
@om.cached(stale_time=0.05)
def cached():
    return "<p>cached"

@app.get("/broken")
def broken():
    secret = "of this frame"
    raise RuntimeError("meant to break")
"""

KINDS = [
    ["--worker-class", "sync"],
    ["--worker-class", "gthread", "--threads", "4"],
    ["--worker-class", "gevent"],
    ["--workers", "2", "--threads", "2", "--preload"],
]


def get(url, data=None):
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def children(pid):
    """The processes below ``pid``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            found += [int(folder.name), *children(int(folder.name))]
    return found


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.parametrize("arguments", KINDS, ids=lambda one: one[-1])
def test_a_server_ends_at_once_and_leaves_no_process(gunicorn, arguments):
    if "gevent" in arguments:
        pytest.importorskip("gevent")
    url, process = gunicorn(APP.format(mode="enforce"), *arguments)
    assert get(url + "/ask", b"{}")[0] == 200
    for _ in range(3):
        assert get(url + "/cached") == (200, b"<p>cached")
        time.sleep(0.06)  # so that the next one is stale: its refresh starts the pool
    below = children(process.pid)
    assert below
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0  # gunicorn would wait 30 seconds for what goes on
    assert not [pid for pid in below if alive(pid)]


def test_workers_that_are_replaced_all_the_time_lose_no_request(gunicorn, tmp_path):
    url, _ = gunicorn(
        APP.format(mode="adopt"),
        *("--workers", "2", "--threads", "2", "--max-requests", "40", "--preload"),
    )
    pids = set()

    def one(number):
        path, data = [("/ask", b"{}"), ("/cached", None), ("/up", None)][number % 3]
        for _ in range(3):
            try:
                status, body = get(url + path, data)
                break
            except OSError:  # the listening socket is shared, a connection may die with its worker
                continue
        if path == "/up":
            pids.add(int(body))
        return status

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(300))) == {200}
    assert len(pids) > 2
    assert "Traceback" not in (tmp_path / "server.log").read_text()
    assert len(list(tmp_path.rglob("hub.sqlite3"))) == 1


@pytest.fixture
def flask_run(tmp_path):
    """Start ``flask run`` with the reloader and the debugger; gives its URL and the process."""
    started = []

    def start(source):
        (tmp_path / "served.py").write_text(source)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        log = tmp_path / "server.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "flask", "--app", "served", "run", "--debug"),
                    *("--port", str(port)),
                ],
                cwd=tmp_path,
                env={**os.environ, "WERKZEUG_DEBUG_PIN": "off"},
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: get(url + "/up")[0] == 200, log)
        return url, process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)


def wait_for(done, log):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if done():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_the_development_server_reloads_and_ends(flask_run, tmp_path):
    url, process = flask_run(APP.format(mode="adopt"))
    _, first = get(url + "/up")
    assert get(url + "/ask", b"{}")[0] == 200
    time.sleep(1.1)  # the reloader compares whole seconds of the file's time
    source = APP.format(mode="adopt").replace("<p>cached", "<p>again")
    (tmp_path / "served.py").write_text(source)
    wait_for(lambda: get(url + "/cached")[1] == b"<p>again", tmp_path / "server.log")
    assert get(url + "/up")[1] != first
    below = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(PATIENCE_S)
    wait_for(lambda: not [pid for pid in below if alive(pid)], tmp_path / "server.log")
    assert "Traceback" not in (tmp_path / "server.log").read_text()


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["adopt", "enforce"])
def test_the_debugger_s_page_works(flask_run, browser, mode):
    url, _ = flask_run(APP.format(mode=mode))
    context = browser.new_context()
    try:
        page = context.new_page()
        broken = []
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.on(
            "console",
            lambda one: broken.append(one.text) if "Content Security" in one.text else None,
        )
        page.goto(url + "/broken")
        assert "meant to break" in page.title()
        frames = page.locator("div.traceback div.frame")
        assert page.locator("div.traceback div.frame img").count() >= frames.count() > 3
        number = frames.last.get_attribute("id").removeprefix("frame-")
        answer = page.evaluate(
            "id => fetch(makeDebugURL({cmd: 'secret', frm: id})).then(r => r.text())", number
        )
        assert "of this frame" in answer  # its console, in the frame that broke
        assert broken == []
    finally:
        context.close()

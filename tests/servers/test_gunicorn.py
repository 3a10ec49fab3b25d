"""Two workers under gunicorn share what they must, and outlive one of them."""

from __future__ import annotations

import collections
import json
import os
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.patience import HANG_S, PATIENCE_S, wait_until

pytestmark = pytest.mark.server

APP = """
import os
from pathlib import Path
from flask import Flask, render_template_string
from om_plugins import OpenManager

app = Flask(__name__, instance_path=str(Path(__file__).parent / "instance"))
app.config.update(
    OM_CSP_MODE="enforce",
    OM_ROUTES={"/ask": {"chain": "c", "rate": (20, 86_400)}, "/pid": {"chain": "c", "rate": None}},
)
om = OpenManager(app)

@om.engine("pid", chain="c", local=True, idempotent=True)
def pid(call):
    return {"pid": os.getpid()}

@app.get("/up")
def up():
    return render_template_string("<script>1</script>")
"""


def ask(url, data=b"{}"):
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["plain", "preload"])
def test_the_rate_of_a_client_counts_over_all_workers(gunicorn, tmp_path, preload):
    url, _ = gunicorn(APP, "--workers", "2", "--threads", "4", *preload)
    with ThreadPoolExecutor(8) as pool:
        while len({body["pid"] for _, body, _ in pool.map(ask, [url + "/pid"] * 16)}) < 2:
            time.sleep(0.05)  # the second worker is still booting
        answers = list(pool.map(ask, [url + "/ask"] * 30))
    counts = collections.Counter(status for status, _, _ in answers)
    assert counts == {200: 20, 429: 10}
    refused = next(headers for status, _, headers in answers if status == 429)
    assert int(refused["Retry-After"]) > 0
    (hub,) = tmp_path.rglob("hub.sqlite3")
    assert hub.stat().st_mode & 0o777 == 0o600


def test_a_killed_worker_takes_nothing_down(gunicorn):
    url, _ = gunicorn(APP, "--workers", "2", "--threads", "4")
    _, body, _ = ask(url + "/pid")
    os.kill(body["pid"], signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    answered = []
    while time.monotonic() < deadline and len(answered) < 40:
        try:
            answered.append(ask(url + "/pid")[0])
        except OSError:  # the connection that the dead worker held
            continue
    assert answered.count(200) == 40


def test_the_nonce_of_the_page_is_that_of_the_header(gunicorn):
    url, _ = gunicorn(APP, "--workers", "1")
    with urllib.request.urlopen(url + "/up", timeout=HANG_S) as answer:
        text = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
    nonce = text.partition('nonce="')[2].partition('"')[0]
    assert f"'nonce-{nonce}'" in policy


def test_a_key_is_asked_once_by_all_workers(gunicorn, tmp_path):
    source = APP + (
        '\n@om.engine("slow", chain="pay")\n'
        "def pay(call):\n"
        "    import time\n"
        "    while not os.path.exists('gate'): time.sleep(0.01)\n"
        "    with open('paid', 'a') as file:\n"
        "        file.write(call.idempotency_key + '\\n')\n"
        "    return {'pid': os.getpid()}\n"
    )
    source = source.replace('"/pid":', '"/pay": {"chain": "pay", "rate": None}, "/pid":')
    url, _ = gunicorn(source, "--workers", "2", "--threads", "4")

    def pay(number):
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k-1"}
        request = urllib.request.Request(url + "/pay", b"{}", headers)
        try:
            with urllib.request.urlopen(request, timeout=HANG_S) as answer:
                return answer.status, answer.headers.get("OM-Replayed")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(pay, number) for number in range(16)]
        wait_until(lambda: any(one.done() for one in asked))  # while the first still pays
        (tmp_path / "gate").touch()
        statuses = collections.Counter(one.result()[0] for one in asked)
    assert set(statuses) == {200, 409}
    assert pay(0) == (200, "?1")
    assert len((tmp_path / "paid").read_text().split()) == 1

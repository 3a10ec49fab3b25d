"""A server process does not grow: 20,000 requests of every kind, watched through /proc."""

from __future__ import annotations

import http.client
import os
import random
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.patience import HANG_S, PATIENCE_S

pytestmark = pytest.mark.proof

REQUESTS = int(os.environ.get("OM_GROWTH_REQUESTS", "20000"))
CLIENTS = 4
RESIDENT_KB = 1536  # what may come on top once everything was used: the allocator's arenas
WINDOWS_KB = 120 * 64  # monitoring keeps a histogram for each of the last 120 seconds

APP = """
import os
from pathlib import Path
from flask import Flask, Response, render_template_string, session
from om_plugins import OpenManager

app = Flask(__name__, instance_path=str(Path(__file__).parent / "instance"))
app.secret_key = "only here"
app.config.update(
    OM_CSP_MODE={mode!r},
    OM_MONITORING={monitoring!r},
    OM_ROUTES={{"/ask": {{"chain": "c", "rate": "1000000/min"}}}},
)
om = OpenManager(app)

@om.engine("broken", chain="c", tier=1, idempotent=True)
def broken(call):
    raise ValueError("always")

@om.engine("local", chain="c", tier=2, local=True, idempotent=True)
def local(call):
    return {{"answer": "here"}}

PAGE = "<!doctype html><style>p {{}}</style><script>1</script><p>{{{{ n }}}}"

@app.get("/up")
def up():
    return str(os.getpid())

@app.get("/page")
def page():
    return render_template_string(PAGE, n=1)

@app.get("/cached")
@om.cached(stale_time=0.2, cache_time=5)
def cached():
    return "<p>" + "x" * 5000

@app.get("/personal")
@om.cached()
def personal():
    session["n"] = session.get("n", 0) + 1
    return "yours"

@app.get("/stream")
def stream():
    return Response("x" * 100 for _ in range(20))

@app.get("/raise")
def broken_view():
    raise RuntimeError("meant")
"""

KINDS = [
    ("GET", "/page", None),
    ("GET", "/cached", None),
    ("GET", "/cached?page={n}", None),
    ("GET", "/personal", None),
    ("GET", "/stream", None),
    ("GET", "/nowhere/{r}", None),
    ("GET", "/raise", None),
    ("GET", "/_om/static/om.js", None),
    ("POST", "/ask", b'{"q": 1}'),
    ("POST", "/_om/csp", b'{"csp-report": {"blocked-uri": "https://x.example/{r}"}}'),
]


def ask_many(port, number):
    rng = random.Random(number)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    statuses = set()
    for _ in range(number):
        method, path, body = rng.choice(KINDS)
        path = path.format(n=rng.randrange(20), r=rng.random())
        body = body and body.replace(b"{r}", str(rng.random()).encode())
        kind = "application/csp-report" if path == "/_om/csp" else "application/json"
        for again in (True, False):
            try:
                connection.request(method, path, body, {"Content-Type": kind} if body else {})
                answer = connection.getresponse()
                answer.read()
                break
            except (http.client.HTTPException, OSError):  # a server may close what is idle
                connection.close()
                if not again:
                    raise
        statuses.add((path.partition("?")[0].partition("/nowhere")[0], answer.status))
    connection.close()
    return statuses


def state(pid):
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return {
        "threads": int(fields["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "resident_kb": int(fields["VmRSS"].split()[0]),
    }


def load(port, total):
    with ThreadPoolExecutor(CLIENTS) as pool:
        found = pool.map(lambda _: ask_many(port, total // CLIENTS), range(CLIENTS))
        return set().union(*found)


@pytest.mark.parametrize(
    ("mode", "monitoring"), [("adopt", True), ("enforce", False)], ids=["adopt", "enforce"]
)
@pytest.mark.parametrize(
    "arguments",
    [["-k", "sync"], ["-k", "gthread", "--threads", "4"], ["-k", "gevent"]],
    ids=["sync", "gthread", "gevent"],
)
def test_threads_files_and_memory_stay_what_they_are(gunicorn, capsys, mode, monitoring, arguments):
    if "gevent" in arguments:
        pytest.importorskip("gevent")
    url, process = gunicorn(
        APP.format(mode=mode, monitoring=monitoring),
        "--workers",
        "1",
        "--log-level",
        "critical",
        *arguments,
    )
    port = int(url.rpartition(":")[2])
    load(port, 4000)
    with urllib.request.urlopen(url + "/up", timeout=HANG_S) as answer:
        pid = int(answer.read())
    before = state(pid)
    statuses = load(port, REQUESTS)
    after = state(pid)
    with capsys.disabled():
        print(f"\ngrowth: {mode} {arguments[1]}: {before} -> {after}")
    assert ("/ask", 200) in statuses
    assert ("/_om/csp", 204) in statuses
    assert not {status for path, status in statuses if status >= 500 and path != "/raise"}
    assert after["threads"] <= before["threads"] + 1  # the pool may add a worker until it is full
    assert after["files"] <= before["files"] + 2
    allowed = RESIDENT_KB + (WINDOWS_KB if monitoring else 0)
    assert after["resident_kb"] - before["resident_kb"] < allowed
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_S)  # gunicorn would wait 30 seconds for what goes on
    assert not Path(f"/proc/{pid}").exists()

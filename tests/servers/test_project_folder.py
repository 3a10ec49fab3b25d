"""No command of a project writes into its folder what the same app without the line does not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.patience import HANG_S, PATIENCE_S, wait_until

pytestmark = pytest.mark.server

APP = """
from flask import Flask, render_template
from om_plugins import OpenManager

app = Flask(__name__)
app.secret_key = "of the test"
app.config["OM_ROUTES"] = {"/ask": {"chain": "c"}}
om = OpenManager(app)

@om.engine("one", chain="c", local=True)
def one(call):
    return {"answer": 1}

@app.get("/")
@om.cached(stale_time=60)
def index():
    om.notify("asked")
    return render_template("page.html")

@app.get("/broken")
def broken():
    raise RuntimeError("broken")
"""

TEST = """
from app import app, om

def test_all():
    client = app.test_client()
    assert client.get("/").status_code == 200
    assert client.post("/ask", json={}).json == {"answer": 1}
    om.hub.put("a", 1, ttl=60)
    assert om.hub.get("a") == 1
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "templates").mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "test_app.py").write_text(TEST)
    (folder / "templates/page.html").write_text("<script>1</script>")
    return folder


@pytest.fixture
def environ(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    mine = {name: value for name, value in os.environ.items() if name != "XDG_STATE_HOME"}
    return {**mine, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}


def list_folder(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "command",
    [
        "flask om doctor",
        "flask om engines",
        "pytest -q -p no:cacheprovider -p no:dash",
    ],
)
def test_a_command_leaves_the_folder_as_it_was(project, environ, command):
    before = list_folder(project)
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=project, env=environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert list_folder(project) == before


def serve(command, project, environ):
    """Serve the app, ask it some pages, and end the server as an operator does."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", *command.split(), f"127.0.0.1:{port}"]
    if command[2] == "flask":
        command[-1:] = ["--port", str(port)]
    with subprocess.Popen(
        command, cwd=project, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until(lambda: ask(f"http://127.0.0.1:{port}/") == 200, pause_s=0.05)
            assert ask(f"http://127.0.0.1:{port}/broken") == 500
            server.send_signal(signal.SIGINT)
            server.wait(PATIENCE_S)
        finally:
            server.kill()


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=HANG_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


@pytest.mark.parametrize("command", ["flask run", "gunicorn -w 2 app:app -b"])
def test_a_server_leaves_the_folder_as_it_was(project, environ, command):
    before = list_folder(project)
    serve(command, project, environ)
    assert list_folder(project) == before
    (directory,) = Path(environ["HOME"], ".local/state/om_plugins").iterdir()
    assert {one.name for one in directory.iterdir()} >= {"hub.sqlite3"}
    assert directory.stat().st_mode & 0o777 == 0o700

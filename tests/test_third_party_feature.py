"""A third party's distribution brings a whole feature: installed by pip, used, switched off.

The distribution is ``tests/third_party/visits``. It imports public names alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "third_party" / "visits"

APP = """
import sys
from flask import Flask
from om_plugins import OpenManager

app = Flask(__name__)
app.config.update(TESTING=True, OM_CONSOLE_AUTH="a-token-of-16-characters", OM_VISITS_FROM=40)
app.config["OM_CSP_MODE"] = "enforce"
app.config.from_prefixed_env()
om = OpenManager(app)

@app.get("/")
def page():
    return "page"
"""

ASK = """
import json
from shop import app
client = app.test_client()
token = {"Authorization": "Bearer a-token-of-16-characters"}
page = client.get("/")
seen = {
    "header": page.headers.get("X-Visit"),
    "policy": "Content-Security-Policy" in page.headers,
    "endpoint": client.get("/_om/visits").get_json(silent=True),
    "console": client.get("/_om/overview.json", headers=token).get_json()["cards"].get("visits"),
    "layers": list(app.extensions["om_plugins"].kit.layers),
    "plugins": {s.name: s.state for s in app.extensions["om_plugins"].plugins.get_statuses()},
}
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with the app, and one with the distribution, for ``PYTHONPATH``."""
    work = tmp_path_factory.mktemp("visits")
    shutil.copytree(SOURCE, work / "source", ignore=shutil.ignore_patterns("__pycache__"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*install, "--no-build-isolation", "--target", str(work / "site"), str(work / "source")],
        check=True,
        timeout=120,
    )
    (work / "shop.py").write_text(APP)
    return work


def run(shop, *command, **settings):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
    environment |= {f"FLASK_OM_{name.upper()}": value for name, value in settings.items()}
    environment["PYTHONPATH"] = os.pathsep.join([str(shop / "site"), str(shop)])
    return subprocess.run(
        [sys.executable, *command],
        cwd=shop, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def ask(shop, **settings):
    done = run(shop, "-c", ASK, **settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("strict", ["true", "false"])
def test_its_setting_layer_endpoint_and_card_work(shop, strict):
    seen = ask(shop, strict=strict)
    assert seen["header"] == "41"
    assert seen["policy"]
    assert seen["endpoint"] == {"visits": 42}
    assert seen["console"]["title"] == "Visits"
    assert seen["console"]["rows"] == [["this process", 43]]
    # composed from the inside: the layer is the next one inside that of the headers
    assert seen["layers"].index("visits") + 1 == seen["layers"].index("headers")
    assert seen["plugins"]["visits"] == "active"


def test_its_setting_is_checked(shop):
    done = run(shop, "-c", "import shop", visits_from="-1")
    assert "OM_VISITS_FROM -1: must be a whole number from 0 to 1e+06" in done.stderr


def test_its_command_is_listed_and_runs(shop):
    flask = ("-m", "flask", "--app", "shop", "om")
    assert "visits" in run(shop, *flask, "--help").stdout
    done = run(shop, *flask, "visits")
    assert (done.returncode, done.stdout) == (0, "40 visits\n"), done.stderr


@pytest.mark.parametrize("strict", ["true", "false"])
def test_it_is_switched_off_by_name(shop, strict):
    done = run(shop, "-c", ASK, plugins_disabled="visits", strict=strict)
    assert "OM_VISITS_FROM 40: unknown key" in done.stderr  # nobody declares it any more
    source = (shop / "shop.py").read_text()
    (shop / "shop.py").write_text(source.replace(", OM_VISITS_FROM=40", ""))
    try:
        seen = ask(shop, plugins_disabled="visits", strict=strict)
    finally:
        (shop / "shop.py").write_text(source)
    assert seen["header"] is seen["console"] is None
    assert seen["endpoint"]["status"] == 404
    assert seen["plugins"]["visits"] == "disabled"


def test_its_metric_and_finding_are_told(shop):
    told = run(shop, "-m", "flask", "--app", "shop", "om", "doctor")
    assert "Visits are counted." in told.stdout, told.stderr

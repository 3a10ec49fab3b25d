"""What others think of our headers: Google's csp_evaluator and Mozilla's HTTP Observatory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from example_app import create_app
from example_app.config import ROOT, DemoConfig
from om_plugins import Settings
from om_plugins.headers.feature import policy_from
from om_plugins.headers.layer import HeadersLayer
from tests.conftest import lacking

pytestmark = pytest.mark.proof

HERE = Path(__file__).parent / "judges"


@pytest.fixture(scope="module")
def judge():
    """Run ``judge(script, data)`` where the judges are installed; gives what it prints."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        lacking("node and npm (apt-get install nodejs npm)")
    home = ROOT / "build" / "judges"
    home.mkdir(parents=True, exist_ok=True)
    for file in HERE.iterdir():
        shutil.copy(file, home)
    options = [
        "--ignore-scripts",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--prefer-offline",
    ]
    installed = subprocess.run(
        [npm, "install", *options], cwd=home, capture_output=True, text=True, timeout=300
    )
    if installed.returncode:
        lacking(f"the npm packages of {HERE.name}/package.json ({installed.stderr[-300:]})")

    def run(script: str, data: object) -> Any:
        done = subprocess.run(
            [node, script], input=json.dumps(data), cwd=home, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def policy_sent(**settings: Any) -> str:
    """The policy of a page, as a browser gets it."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b""]

    seen: dict[str, str] = {}
    rules = policy_from(Settings(csp_mode="enforce", **settings), debug=False)
    environ = {"wsgi.url_scheme": "https", "SCRIPT_NAME": ""}
    HeadersLayer(app, rules)(environ, lambda status, headers, exc_info=None: seen.update(headers))
    return seen["Content-Security-Policy"]


def test_csp_evaluator_finds_nothing_in_the_strict_policy(judge) -> None:
    policies = [
        policy_sent(),
        policy_sent(csp_report_sample=1),
        policy_sent(csp={"require-trusted-types-for": ["'script'"], "trusted-types": ["'none'"]}),
        policy_sent(csp_preset="api"),
    ]
    answer = judge("evaluate.mjs", policies)
    for policy, findings in zip(policies, answer["findings"], strict=True):
        grave = [one for one in findings if one["severity"] < answer["info"]]
        assert grave == [], policy


def test_csp_evaluator_is_awake(judge) -> None:
    answer = judge("evaluate.mjs", ["script-src 'unsafe-inline'"])
    assert any(one["severity"] < answer["info"] for one in answer["findings"][0])


@pytest.fixture
def demo(tmp_path):
    """The demo behind TLS."""
    app = create_app(DemoConfig(tmp_path / "state", 1, start_analyst=False))
    app.config.update(OM_HSTS={"max_age": 63_072_000}, OM_FORCE_HTTPS=True, OM_SECURE_COOKIES=True)
    yield app
    app.extensions["om_plugins"].close()


def test_the_observatory_gives_the_demo_s_pages_at_least_115(judge, demo) -> None:
    client, pages = demo.test_client(), []
    for path in ("/", "/?lang=ko", "/questions", "/nothing-here", "/_om/"):
        plain = client.get(path, base_url="http://localhost/")
        page = client.get(path, base_url="https://localhost/")
        assert re.match("text/html", page.headers["Content-Type"])
        pages.append(
            {
                "address": f"https://localhost{path}",
                "status": page.status_code,
                "headers": list(page.headers),
                "body": page.text,
                "redirects": [
                    [f"http://localhost{path}", plain.status_code],
                    [plain.headers["Location"], page.status_code],
                ],
            }
        )
    for page, judged in zip(pages, judge("observatory.mjs", pages), strict=True):
        assert judged["score"] >= 115, (page["address"], judged)

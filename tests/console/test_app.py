"""The console's pages."""

from __future__ import annotations

import re
import subprocess
import sys
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Response

from om_plugins import OpenManagerMiddleware, Settings
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import EngineSpec, EngineTraits, Notification
from tests.patience import HANG_S

EVIL = "</script><script>alert(1)</script>"


class Evil:
    name = EVIL
    traits = EngineTraits(local=True)

    def call(self, call):
        raise ConnectionError(EVIL)


@pytest.fixture
def runtime():
    settings = Settings(
        hub_url="memory://",
        console_auth=lambda request: True,
        secret_key=b"x" * 32,
        csp_report_sample=1.0,
    )
    runtime = Runtime(settings, clock=FakeClock(), host=Host(testing=True))
    yield runtime
    runtime.close()


@pytest.fixture
def client(runtime):
    return Client(OpenManagerMiddleware(Response("the host's page"), runtime=runtime))


def test_the_prefix_alone_leads_to_the_page(client):
    answer = client.get("/_om")
    assert (answer.status_code, answer.headers["Location"]) == (308, "_om/")
    assert client.get("/_om", follow_redirects=True).status_code == 200


@pytest.mark.parametrize("root", ["//evil.example", "/app"])
def test_no_proxy_can_lead_it_elsewhere(client, root):
    answer = client.get("/_om", environ_overrides={"SCRIPT_NAME": root})
    assert answer.headers["Location"] == "_om/"
    page = client.get("/_om/", environ_overrides={"SCRIPT_NAME": root})
    assert "evil" not in page.text


def test_the_page_brings_a_stricter_policy_than_any_mode(client):
    page = client.get("/_om/")
    policy = page.headers["Content-Security-Policy"]
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe-inline" not in policy
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy


def test_the_tags_carry_the_nonce_of_all_its_policies(client):
    page = client.get("/_om/")
    nonces = set(re.findall(r'nonce="([0-9a-f]{32})"', page.text))
    assert len(nonces) == 1
    (one,) = nonces
    assert f"'nonce-{one}'" in page.headers["Content-Security-Policy"]
    assert f"'nonce-{one}'" in page.headers["Content-Security-Policy-Report-Only"]
    assert f'nonce="{one}"' not in client.get("/_om/").text


def test_what_engines_and_people_said_is_text(runtime, client):
    runtime.add_engine(EngineSpec(Evil(), EVIL))
    runtime.part_of("notifications")(Notification(kind="warning", message=EVIL))
    with pytest.raises(Exception, match="engine"):
        runtime.part_of("chains").get(EVIL).call({})
    runtime.scheduler.run_pending()
    page = client.get("/_om/").text
    assert "alert(1)" in page  # it is shown ...
    assert EVIL not in page
    assert "<script>alert" not in page  # ... as text


def test_readiness_does_not_depend_on_engines_but_on_the_end(runtime, client):
    runtime.add_engine(EngineSpec(Evil(), "assistant"))
    with pytest.raises(Exception, match="engine"):
        runtime.part_of("chains").get("assistant").call({})
    answer = client.get("/_om/ready")
    assert (answer.status_code, answer.json) == (200, {"status": "ready", "hub": "shared"})
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.post("/_om/ready").status_code == 405
    runtime.closed = True
    assert client.get("/_om/ready").status_code == 503


@pytest.mark.parametrize("path", ["/_om/", "/_om", "/_om/overview.json", "/_om/ready"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_it_keeps_to_wsgi(runtime, path, method):
    app = validator(OpenManagerMiddleware(Response("host"), runtime=runtime))
    environ = EnvironBuilder(path=path, method=method).get_environ()
    environ["SCRIPT_NAME"] = ""
    _, status, _ = run_wsgi_app(app, environ, buffered=True)
    assert status[:3] in ("200", "308", "405")


def test_it_needs_no_flask():
    program = (
        "import sys\n"
        "from werkzeug.test import Client\n"
        "from om_plugins import OpenManagerMiddleware, Settings\n"
        "settings = Settings(hub_url='memory://', console_auth=lambda request: True)\n"
        "def host(environ, start):\n"
        "    start('200 OK', []); return [b'']\n"
        "app = OpenManagerMiddleware(host, settings)\n"
        "assert Client(app).get('/_om/').status_code == 200\n"
        "app.runtime.close()\n"
        "sys.exit('flask' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=HANG_S).returncode == 0

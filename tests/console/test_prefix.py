"""What is served under the prefix."""

from __future__ import annotations

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from om_plugins.console.prefix import Pages, PrefixLayer


@pytest.fixture
def client():
    host = Response("the host's page")
    return Client(PrefixLayer(host, "/_om", Pages(dict)))


def test_health_is_alive_and_kept_by_nobody(client):
    answer = client.get("/_om/health")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})
    assert answer.headers["Cache-Control"] == "no-store"


def test_health_answers_head_and_refuses_other_methods(client):
    assert client.head("/_om/health").status_code == 200
    refused = client.post("/_om/health")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")

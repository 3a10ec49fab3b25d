"""What is served under the prefix."""

from __future__ import annotations

import gzip

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from om_plugins.console.prefix import Pages, PrefixLayer


@pytest.fixture
def client():
    host = Response("the host's page")
    return Client(PrefixLayer(host, "/_om", Pages({})))


def test_health_is_alive_and_kept_by_nobody(client):
    answer = client.get("/_om/health")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})
    assert answer.headers["Cache-Control"] == "no-store"


def test_health_answers_head_and_refuses_other_methods(client):
    assert client.head("/_om/health").status_code == 200
    refused = client.post("/_om/health")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")


def test_modules_are_served_as_modules_and_revalidated(client):
    answer = client.get("/_om/static/toasts.js")
    assert answer.content_type.startswith("text/javascript")
    again = client.get("/_om/static/toasts.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fmount.py", ".", "static"])
def test_other_files_are_not_served(client, name):
    assert client.get(f"/_om/static/{name}").status_code == 404


def test_the_toast_element_stays_within_its_4_kilobytes(client):
    served = client.get("/_om/static/toasts.js").data
    assert len(gzip.compress(served, 9, mtime=0)) <= 4096


def test_what_a_static_page_loads_for_toasts_stays_within_9_kilobytes(client):
    names = ("toasts", "toast_look", "toast_focus", "toast_swipe", "words")
    served = [client.get(f"/_om/static/{name}.js").data for name in names]
    assert sum(len(gzip.compress(one, 9, mtime=0)) for one in served) <= 9216

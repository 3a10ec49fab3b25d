"""The files that pages load; covers ``om_plugins.browser.feature``."""

from __future__ import annotations

import gzip
from importlib.resources import files

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from om_plugins import OpenManagerMiddleware, Settings


@pytest.fixture(scope="module")
def client():
    return Client(OpenManagerMiddleware(Response("the host's page"), Settings()))


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


def test_other_methods_are_refused(client):
    answer = client.post("/_om/static/toasts.js")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert client.head("/_om/static/toasts.js").status_code == 200


def test_the_files_of_another_feature_are_served_beside_them(client):
    assert client.get("/_om/static/console.css").content_type.startswith("text/css")


def test_no_two_folders_have_a_file_of_one_name():
    names = [
        file.name
        for folder in ("browser", "console")
        for file in (files("om_plugins") / folder / "static").iterdir()
    ]
    assert len(names) == len(set(names))

"""The form of an error page: a report without scripts, and only from this site."""

from __future__ import annotations

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from om_plugins import OpenManagerMiddleware, signals

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def runtime(make_runtime):
    return make_runtime()


@pytest.fixture
def client(runtime):
    return Client(OpenManagerMiddleware(Response("the host's page"), runtime=runtime))


def test_a_report_by_the_form_is_stored_with_a_number(client, runtime):
    heard = []

    def receiver(sender, report, **extra):
        heard.append(report)

    with signals.problem_reported.connected_to(receiver):
        reply = client.post(
            "/_om/report",
            data={"url": "/reports/day?secret=1", "reference": "f1e2"},
            headers={**SAME_SITE, "User-Agent": "A browser"},
        )
    assert reply.status_code == 201
    (report,) = runtime.part_of("notifications").problem_reports.read()
    assert heard == [report]
    assert f"Its number is {report.id}." in reply.text
    assert 'href="/reports/day?secret=1"' in reply.text
    assert (report.route, report.fingerprint) == ("/reports/day", "f1e2")
    assert report.message == "A page could not be shown"
    assert report.details["browser"] == "A browser"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost"}, 201),
    ],
)
def test_a_form_of_another_site_reports_nothing(client, runtime, headers, status):
    reply = client.post("/_om/report", data={"url": "/x"}, headers=headers)
    assert reply.status_code == status
    assert len(runtime.part_of("notifications").problem_reports.read()) == (status == 201)


def test_the_form_is_cut_cleaned_and_limited(client, runtime):
    assert client.get("/_om/report", headers=SAME_SITE).status_code == 405
    reply = client.post("/_om/report", data={"url": "x" * 9000}, headers=SAME_SITE)
    assert reply.status_code == 413
    reply = client.post("/_om/report", data={"url": "//evil.example"}, headers=SAME_SITE)
    assert "evil" not in reply.text
    assert runtime.part_of("notifications").problem_reports.read()[0].route == "/"
    many = "&".join(f"a{n}=1" for n in range(50))
    assert client.post("/_om/report", data=many.encode(), headers=SAME_SITE).status_code == 201
    statuses = [
        client.post("/_om/report", data={}, headers=SAME_SITE).status_code for _ in range(10)
    ]
    assert statuses[-1] == 429

"""A problem report is numbered, kept, told to operators, and cut where it is hostile."""

from __future__ import annotations

import json

import pytest
from werkzeug.test import Client
from werkzeug.wsgi import get_input_stream

from om_plugins import OpenManagerMiddleware, signals
from om_plugins.notifications.problem_reports import KEPT

HEADERS = {"X-OM": "1"}


def app(environ, start_response):
    get_input_stream(environ)
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


@pytest.fixture
def runtime(make_runtime):
    return make_runtime()


@pytest.fixture
def post(runtime):
    client = Client(OpenManagerMiddleware(app, runtime=runtime))

    def post(data, headers=HEADERS, **more):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        return client.post("/_om/problems", data=body, headers=headers, **more)

    return post


def test_a_report_is_numbered_kept_and_told(post, runtime):
    seen = []

    def receiver(sender, report, **extra):
        seen.append(report)

    said = {
        "message": "The assistant\nfailed\x00",
        "url": "/page?token=secret",
        "reference": "f1",
        "language": "ko",
        "details": {"tier": 2, "list": [1]},
    }
    with signals.problem_reported.connected_to(receiver):
        answer = post(said, {**HEADERS, "User-Agent": "Some Browser"})
    assert (answer.status_code, answer.json) == (201, {"id": "1"})
    assert post({"message": "again"}).json == {"id": "2"}
    newest, first = runtime.part_of("notifications").problem_reports.read()
    assert newest.message == "again"
    assert (first.message, first.route, first.fingerprint) == ("The assistantfailed", "/page", "f1")
    assert first.details == {"tier": 2, "language": "ko", "browser": "Some Browser"}
    assert seen == [first]
    assert [m.data["id"] for m in runtime.hub.read("problems")] == ["1", "2"]
    runtime.scheduler.run_pending()
    told = runtime.hub.read("notifications")[0].data
    assert (told["kind"], told["to"]) == ("warning", "operators")
    assert told["message"] == "Problem report 1: The assistantfailed (/page)"


def test_a_report_that_another_site_sends_is_refused(post, runtime):
    for headers in (
        {},
        {"X-OM": "0"},
        {**HEADERS, "Sec-Fetch-Site": "cross-site"},
        {**HEADERS, "Origin": "https://evil.example"},
    ):
        answer = post({"message": "x"}, headers)
        assert answer.status_code == 403
        assert answer.content_type == "application/problem+json"
    assert runtime.part_of("notifications").problem_reports.read() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 411),
        (b"nonsense", 400),
        (b"[1]", 400),
        (b"\xff\xfe", 400),
        (b'{"message": "' + b"x" * 9000 + b'"}', 413),
        (b"[" * 4000, 400),
    ],
)
def test_what_is_no_report_is_refused(post, runtime, body, status):
    more = {"environ_overrides": {"CONTENT_LENGTH": ""}} if not body else {}
    assert post(body, **more).status_code == status
    assert runtime.part_of("notifications").problem_reports.read() == []


def test_only_post_is_answered(runtime):
    client = Client(OpenManagerMiddleware(app, runtime=runtime))
    answer = client.get("/_om/problems", headers=HEADERS)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_a_hostile_report_is_cut(post, runtime):
    said = {
        "message": "m" * 3000,
        "url": 7,
        "reference": "r" * 500,
        "details": {f"k{n}": "v" * 20 for n in range(90)} | {"n": 10**30},
    }
    assert post(said).status_code == 201
    (report,) = runtime.part_of("notifications").problem_reports.read()
    assert (len(report.message), report.route, len(report.fingerprint)) == (1000, "", 100)
    assert len(report.details) <= 21


def test_a_client_reports_ten_times_a_minute(post):
    assert [post({"message": "x"}).status_code for _ in range(12)] == [201] * 10 + [429] * 2


def test_the_newest_reports_are_kept_and_listed(post, runtime, clock):
    runtime.hub.increment("problems:number", KEPT - 1, ttl=1000)
    for _ in range(3):
        post({"message": "x"})
    assert [report.id for report in runtime.part_of("notifications").problem_reports.read(2)] == [
        str(KEPT + 2),
        str(KEPT + 1),
    ]
    runtime.hub.put(
        "problem:000000000003", {"id": "3", "at": 1.0, "message": "old", "route": ""}, 60
    )
    post({"message": "x"})
    assert "3" not in [
        report.id for report in runtime.part_of("notifications").problem_reports.read()
    ]


def test_what_cannot_be_read_is_left_out_of_the_list(runtime):
    runtime.hub.put("problem:000000000001", "nonsense", 60)
    assert runtime.part_of("notifications").problem_reports.read() == []

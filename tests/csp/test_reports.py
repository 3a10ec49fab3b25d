import base64
import hashlib
import io
import json
import logging
from wsgiref.validate import validator

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.csp.reports import TOPIC, ReportEndpoint
from om_plugins.csp.violations import groups
from om_plugins.signals import csp_violation_received
from om_plugins.testing.fakes import FakeClock

LEGACY = {
    "csp-report": {
        "document-uri": "https://app.example/page?token=1#part",
        "effective-directive": "script-src-elem",
        "violated-directive": "script-src-elem",
        "blocked-uri": "https://user:secret@cdn.example:8443/lib.js?v=2",
        "source-file": "https://app.example/page?token=1",
        "line-number": 12,
        "column-number": 3,
        "script-sample": "alert(1)",
        "disposition": "enforce",
    }
}
MODERN = [
    {
        "type": "csp-violation",
        "age": 1,
        "url": "https://app.example/page?token=1",
        "body": {
            "documentURL": "https://app.example/page?token=1",
            "effectiveDirective": "style-src-attr",
            "blockedURL": "inline",
            "sourceFile": "https://app.example/page",
            "lineNumber": 4,
            "columnNumber": 5,
            "sample": "color: red",
            "disposition": "report",
        },
    }
]


class Hub:
    def __init__(self, failing=False):
        self.published = []
        self.failing = failing

    def publish(self, topic, data):
        if self.failing:
            raise OSError("gone")
        json.dumps(data)  # what a shared hub would do
        self.published.append((topic, data))
        return str(len(self.published))


class Room:
    """An endpoint, and all that came out of it."""

    def __init__(self, serve, **options):
        self.serve = serve
        self.hub = options.pop("hub", None) or Hub()
        self.clock = FakeClock()
        self.emitted = []
        self.endpoint = ReportEndpoint(hub=self.hub, emit=self._emit, clock=self.clock, **options)

    def _emit(self, signal, **details):
        assert signal is csp_violation_received
        self.emitted.append(details["violation"])

    def post(self, data, **environ):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        environ = {
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": "application/csp-report",
            "wsgi.input": io.BytesIO(body),
            **environ,
        }
        seen = self.serve(validator(self.endpoint), "/csp", method="POST", environ=environ)
        assert seen.status == "204 No Content"
        assert seen.body == b""
        return seen


@pytest.fixture
def room(serve):
    return Room(serve)


def legacy(**changes):
    return {"csp-report": {**LEGACY["csp-report"], **changes}}


def test_legacy_report_is_cleaned_published_and_told(room):
    room.post(LEGACY)
    (violation,) = room.emitted
    assert violation.directive == "script-src-elem"
    assert violation.blocked == "https://cdn.example:8443/lib.js"
    assert violation.document == "https://app.example/page"
    assert violation.source_file == "https://app.example/page"
    assert (violation.line, violation.column) == (12, 3)
    assert violation.sample == "alert(1)"
    assert violation.disposition == "enforce"
    assert violation.at == room.clock.time()
    ((topic, data),) = room.hub.published
    assert topic == TOPIC
    assert data["blocked"] == violation.blocked


def test_report_of_the_reporting_api_is_read(room):
    room.post(MODERN, CONTENT_TYPE="application/reports+json")
    (violation,) = room.emitted
    assert (violation.directive, violation.blocked) == ("style-src-attr", "inline")
    assert (violation.document, violation.line) == ("https://app.example/page", 4)
    assert violation.disposition == "report"


def test_reports_of_other_kinds_are_left_alone(room):
    room.post([{"type": "deprecation", "body": {}}, *MODERN])
    assert len(room.emitted) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
def test_other_methods_get_405(serve, room, method):
    seen = serve(validator(room.endpoint), "/csp", method=method)
    assert seen.status == "405 Method Not Allowed"
    assert seen.get("Allow") == "POST"
    assert (seen.body == b"") is (method == "HEAD")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"[[]]",
        b"7",
        b'"x"',
        b"\xff\xfe",
        b'{"csp-report": null}',
        b'{"csp-report": {}}',
        b'[{"type": "csp-violation"}]',
        b'[{"type": "csp-violation", "body": 1}]',
        b"[" * 8000,
        json.dumps(legacy(**{"script-sample": "\ud800"})).encode(),
        b'{"csp-report": {"effective-directive": "script-src", "line-number": 1e999}}',
        json.dumps(legacy(**{"effective-directive": "<script>"})).encode(),
        json.dumps(legacy(**{"effective-directive": ["script-src"]})).encode(),
    ],
    ids=lambda body: repr(body)[:60],
)
def test_nonsense_is_answered_the_same_and_dropped(room, body):
    room.post(body)
    assert all(one.directive == "script-src" for one in room.emitted)
    room.post(LEGACY)
    assert room.emitted[-1].directive == "script-src-elem"


class Counting(io.BytesIO):
    def __init__(self, data):
        super().__init__(data)
        self.taken = 0

    def read(self, size=-1):
        part = super().read(size)
        self.taken += len(part)
        return part


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"CONTENT_LENGTH": "", "wsgi.input_terminated": True},
    ],
    ids=["with a length", "chunked"],
)
def test_large_body_is_not_read_to_its_end(serve, environ):
    room = Room(serve)
    body = json.dumps(legacy(padding="x" * 200_000)).encode()
    source = Counting(body)
    given = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": source, **environ}
    seen = serve(room.endpoint, method="POST", environ=given)
    assert seen.status == "204 No Content"
    assert source.taken <= 16 * 1024 + 1
    assert room.emitted == []


def test_chunked_body_is_read(serve):
    room = Room(serve)
    source = io.BytesIO(json.dumps(LEGACY).encode())
    environ = {"CONTENT_LENGTH": "", "wsgi.input": source, "wsgi.input_terminated": True}
    serve(room.endpoint, method="POST", environ=environ)
    assert len(room.emitted) == 1


@pytest.mark.parametrize("length", ["", "x", "-1", "9" * 30])
def test_body_of_unknown_length_is_not_waited_for(serve, room, length):
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            raise AssertionError("read")

    environ = {"CONTENT_LENGTH": length, "wsgi.input": Endless()}
    seen = serve(room.endpoint, method="POST", environ=environ)
    assert seen.status == "204 No Content"


def test_at_most_ten_reports_of_a_request_are_taken(room):
    many = []
    for number in range(30):
        many.append({"type": "csp-violation", "body": {**MODERN[0]["body"], "lineNumber": number}})
    room.post(many)
    assert len(room.emitted) == 10


def test_same_report_is_taken_once_a_minute(room):
    for _ in range(3):
        room.post(LEGACY)
    room.clock.advance(59)
    room.post(LEGACY)
    assert len(room.emitted) == 1
    room.clock.advance(2)
    room.post(LEGACY)
    assert len(room.emitted) == 2


def test_rate_is_bounded_and_recovers(serve):
    room = Room(serve, rate=(5, 60))
    for number in range(20):
        room.post(legacy(**{"line-number": number}))
    assert len(room.emitted) == 5
    room.clock.advance(61)
    room.post(legacy(**{"line-number": 99}))
    assert len(room.emitted) == 6


def test_rate_bounds_the_reports_of_one_request_too(serve):
    room = Room(serve, rate=(3, 60))
    bodies = [{**MODERN[0]["body"], "lineNumber": number} for number in range(8)]
    room.post([{"type": "csp-violation", "body": body} for body in bodies])
    assert len(room.emitted) == 3


def test_body_is_not_even_read_when_the_rate_is_used_up(serve):
    room = Room(serve, rate=(1, 60))
    room.post(LEGACY)
    source = Counting(json.dumps(legacy(**{"line-number": 5})).encode())
    environ = {"CONTENT_LENGTH": "100", "wsgi.input": source}
    serve(room.endpoint, method="POST", environ=environ)
    assert source.taken == 0


def test_memory_is_bounded(serve):
    room = Room(serve, rate=(100_000, 60))
    for number in range(1500):
        room.post(legacy(**{"blocked-uri": f"https://h{number}.example/"}))
    assert len(room.emitted) == 1500
    assert len(room.endpoint._seen) <= 1000
    assert len(room.endpoint._kinds) <= 1000


@pytest.mark.parametrize("field", ["blocked-uri", "source-file"])
@pytest.mark.parametrize(
    "value",
    [
        "chrome-extension://abc/x.js",
        "moz-extension://abc",
        "safari-web-extension://abc",
        "CHROME-EXTENSION://abc",
        "chrome-extension",
        "about:blank",
        "about",
        "about:srcdoc",
    ],
)
def test_noise_of_extensions_is_dropped(room, field, value):
    room.post(legacy(**{field: value}))
    assert room.emitted == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("inline", "inline"),
        ("eval", "eval"),
        ("data", "data"),
        ("data:text/html,secret", "data"),
        ("blob:https://a.example/1", "blob"),
        ("https://a.example", "https://a.example"),
        ("https://A.example/p?q#f", "https://a.example/p"),
        ("wss://a.example/s", "wss://a.example/s"),
        ("http://[::1]:80/p", "http://[::1]:80/p"),
        ("https://a.example/" + "x" * 5000, "https://a.example/" + "x" * 282),
        ("https://a.example/\r\nInjected: 1", "https://a.example/Injected: 1"),
        ("javascript:alert(1)", "javascript"),
        ("http://[broken", ""),
        ("http://a.example:99999999/", ""),
        ("<script>alert(1)</script>", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_addresses_are_reduced_to_origin_and_path(room, given, kept):
    room.post(legacy(**{"blocked-uri": given}))
    (violation,) = room.emitted
    assert violation.blocked == kept


def test_texts_are_cut_and_lose_control_characters(room):
    room.post(legacy(**{"script-sample": "a\x00b\r\nc\u202ed" + "e" * 500}))
    (violation,) = room.emitted
    assert violation.sample == "abcd" + "e" * 96


@pytest.mark.parametrize(
    ("given", "kept"), [(-5, 0), (10**12, 10_000_000), (2.9, 2), (True, 0), ("7", 0), (None, 0)]
)
def test_numbers_are_clamped(room, given, kept):
    room.post(legacy(**{"line-number": given}))
    (violation,) = room.emitted
    assert violation.line == kept


def test_directive_may_come_with_its_sources(room):
    report = legacy(**{"violated-directive": "img-src 'self'", "effective-directive": None})
    room.post(report)
    assert room.emitted[0].directive == "img-src"


def test_a_report_names_its_route(serve):
    asked = []

    def route_of(host, path):
        asked.append((host, path))
        if path == "/boom":
            raise UnicodeError("no host name")
        return {"/page": "/<name>"}.get(path, "")

    room = Room(serve, route_of=route_of)
    for path in ("/root/page", "/root/forged", "/root/boom"):
        report = legacy(**{"document-uri": f"https://app.example{path}?secret=1"})
        room.post(report, SCRIPT_NAME="/root/_om")
    assert [one.route for one in room.emitted] == ["/<name>", "<unmatched>", "<unmatched>"]
    assert asked[0] == ("app.example", "/page")


def test_without_rules_numbers_in_a_path_are_one_route(room):
    room.post(legacy(**{"document-uri": "https://app.example/item/17/edit"}))
    assert room.emitted[0].route == "/item/*/edit"


@pytest.mark.parametrize(("sample", "known"), [("go()", True), ("x" * 40, False), (None, False)])
def test_the_hash_of_a_whole_inline_text_is_known(room, sample, known):
    room.post(legacy(**{"script-sample": sample}))
    digest = hashlib.sha256(str(sample).encode()).digest()
    expected = f"sha256-{base64.b64encode(digest).decode()}" if known else ""
    assert room.emitted[0].hash == expected


def test_repeated_reports_are_counted_though_told_once(serve):
    hub = MemoryHub("memory://", FakeClock())
    room = Room(serve, hub=hub)
    for _ in range(3):
        room.post(LEGACY)
    assert len(room.emitted) == 1
    assert [group.count for group in groups(hub)] == [3]


def test_failing_hub_does_not_stop_the_signal(serve):
    room = Room(serve, hub=Hub(failing=True))
    room.post(LEGACY)
    assert len(room.emitted) == 1


def test_first_of_a_kind_is_logged_in_one_line(room, caplog):
    caplog.set_level(logging.INFO, "om_plugins")
    for line in range(3):
        room.post(legacy(**{"line-number": line}))
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "script-src-elem does not allow https://cdn.example:8443/lib.js" in record.message
    assert "\n" not in record.message

from dataclasses import replace

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.csp.violations import KEEP_S, MAX_GROUPS, MAX_TEXTS, Violations, groups
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import CspViolation

ONE = CspViolation(
    directive="script-src-elem",
    blocked="https://cdn.example:8443/lib.js",
    document="https://app.example/page",
    source_file="https://app.example/static/app.js",
    line=7,
    sample="",
    at=100.0,
    route="/page",
)


@pytest.fixture
def room():
    clock = FakeClock()
    hub = MemoryHub("memory://", clock)
    return Violations(hub, clock), hub, clock


def test_reports_are_grouped_by_directive_blocked_origin_source_and_route(room):
    violations, hub, _ = room
    for change in (
        {},
        {"blocked": "https://cdn.example:8443/other.js", "line": 9, "at": 200.0},
        {"route": "/other"},
        {"directive": "img-src"},
        {"source_file": "https://other.example/x.js"},
        {"blocked": "inline", "source_file": ONE.document},
        {"blocked": "https://app.example/own.js"},
    ):
        violations.count(replace(ONE, **change))
    found = violations.groups()
    assert found == groups(hub)
    first = found[0]
    assert (first.count, first.line, first.first_at, first.last_at) == (2, 9, 100.0, 200.0)
    assert (first.blocked, first.source) == ("https://cdn.example:8443", "/static/app.js")
    assert first.address == "https://cdn.example:8443/other.js"
    assert len(found) == 6
    assert {(one.blocked, one.source) for one in found} >= {
        ("inline", ""),
        ("self", "/static/app.js"),
        ("https://cdn.example:8443", "https://other.example/x.js"),
    }


def test_inline_texts_are_told_apart_as_long_as_they_are_few(room):
    violations, hub, _ = room
    inline = replace(ONE, blocked="inline", source_file=ONE.document)
    for number in range(MAX_TEXTS + 5):
        violations.count(replace(inline, hash=f"sha256-{number}", line=number))
    violations.count(replace(inline, hash="sha256-3"))
    violations.count(inline)
    found = {one.hash: one.count for one in groups(hub)}
    assert found == {f"sha256-{number}": 1 for number in range(MAX_TEXTS)} | {"sha256-3": 2, "": 6}
    assert all(one.route == "/page" for one in groups(hub))
    violations.count(replace(ONE, blocked="eval", hash="sha256-1"))
    violations.count(replace(ONE, blocked="eval", hash="sha256-2"))
    assert [one.count for one in groups(hub) if one.blocked == "eval"] == [2]


def test_workers_count_together_and_old_reports_are_forgotten(room):
    violations, hub, clock = room
    other = Violations(hub, clock)
    violations.count(ONE)
    other.count(ONE)
    assert [one.count for one in groups(hub)] == [2]
    clock.advance(KEEP_S + 1)
    assert groups(hub) == []


def test_kinds_and_rate_are_bounded(room):
    violations, hub, clock = room
    for number in range(MAX_GROUPS + 50):
        violations.count(replace(ONE, route=f"/{number}"))
    assert len(groups(hub)) == MAX_GROUPS
    few = Violations(hub, clock, per_minute=2)
    for _ in range(5):
        few.count(replace(ONE, route="/few"))
    assert [one.count for one in groups(hub) if one.route == "/few"] == [2]
    clock.advance(61)
    few.count(replace(ONE, route="/few"))
    assert [one.count for one in groups(hub) if one.route == "/few"] == [3]


def test_what_another_version_wrote_is_passed_over(room):
    violations, hub, _ = room
    violations.count(ONE)
    hub.put("csp-group/a", "text", 60)
    hub.put("csp-group/b", {"directive": 7}, 60)
    hub.put("csp-group/c", {"directive": "img-src", "blocked": "a", "source": "", "route": "/",
                            "count": 9, "newer": 1}, 60)  # fmt: skip
    assert [one.count for one in groups(hub)] == [9, 1]

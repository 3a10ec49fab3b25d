"""What people are told is cut and cleaned, whoever said it."""

from __future__ import annotations

import math

import pytest

from om_plugins.notifications.limits import is_same_origin_path
from om_plugins.notifications.limits import limit_notification as limit
from om_plugins.types import Action, Notification


def test_an_endless_message_is_cut():
    note = limit(Notification(kind="info", message="x" * 10_000, title="t" * 900), 1.0)
    assert (len(note.message), len(note.title)) == (2000, 200)


def test_control_and_direction_characters_are_left_out_and_line_ends_stay():
    note = limit(Notification(kind="info", message="a\x00b\u202ec\nd", title="a\nb"), 1.0)
    assert (note.message, note.title) == ("abc\nd", "ab")


def test_a_kind_that_does_not_exist_is_an_info():
    assert limit(Notification(kind="evil", message=""), 1.0).kind == "info"


@pytest.mark.parametrize(("said", "meant"), [(-3, 0), (250, 100), (math.nan, 0), ("x", 0), (7, 7)])
def test_a_percent_is_one(said, meant):
    assert limit(Notification(kind="progress", message="", progress=said), 1.0).progress == meant


@pytest.mark.parametrize(
    "value",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "",
     "/a b", "/\t/evil.example"],
)  # fmt: skip
def test_links_that_leave_the_site_are_left_out(value):
    assert not is_same_origin_path(value)
    note = Notification(kind="info", message="", actions=(Action("Go", "link", value),))
    assert limit(note, 1.0).actions == ()


def test_links_within_the_site_and_other_actions_stay():
    actions = (Action("Go", "link", "/a?b=1#c"), Action("Report", "report", "f3"))
    assert limit(Notification(kind="info", message="", actions=actions), 1.0).actions == actions
    nonsense = (Action("Go", "explode"),)
    assert limit(Notification(kind="info", message="", actions=nonsense), 1.0).actions == ()


def test_data_that_json_cannot_say_becomes_text_and_too_much_is_left_out():
    class Thing:
        def __str__(self):
            return "thing"

    data = {"one": Thing(), "two": {1, 2}}
    found = limit(Notification(kind="info", message="", data=data), 1.0).data
    assert found == {"one": "thing", "two": [1, 2]}
    large = {"x": "x" * 10_000}
    assert limit(Notification(kind="info", message="", data=large), 1.0).data == {}
    circle = {}
    circle["self"] = circle
    assert limit(Notification(kind="info", message="", data=circle), 1.0).data == {}


def test_the_time_is_kept_or_given():
    assert limit(Notification(kind="info", message=""), 5.0).at == 5.0
    assert limit(Notification(kind="info", message="", at=2.0), 5.0).at == 2.0

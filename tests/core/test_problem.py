from __future__ import annotations

import json

from om_plugins.core.problem import build_problem, encode_problem, get_phrase


def test_problem_has_the_members_of_rfc_9457():
    document = build_problem(404, "", "There is no such page.")
    assert document.pop("instance") != build_problem(404, "", "x")["instance"]
    assert document == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no such page.",
    }


def test_more_members_are_added_unless_they_are_none():
    document = build_problem(429, "Slow down", "Wait.", retry_after=3, balance=None)
    assert document["title"] == "Slow down"
    assert json.loads(encode_problem(document))["retry_after"] == 3
    assert "balance" not in document


def test_status_without_a_phrase_has_a_title_all_the_same():
    assert (get_phrase(418), get_phrase(799)) == ("I'm a Teapot", "Unknown")

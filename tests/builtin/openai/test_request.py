"""Requests; tests/builtin/openai/test_engine.py has what payloads become."""

from __future__ import annotations

import pytest

from om_plugins.builtin.openai.request import ChatRequests
from om_plugins.types import Call


def requests_of(**options):
    given = {"model": "m", "models": None, "system": None, "limit": None, "limit_name": "",
             "ask_usage": True, **options}  # fmt: skip
    return ChatRequests("llm", **given)


def limits(requests, **payload):
    request = requests.build(Call({"question": "q", **payload}))
    return {name: value for name, value in request.items() if "tokens" in name}


@pytest.mark.parametrize(
    ("options", "payload", "sent"),
    [
        ({}, {}, {}),
        ({}, {"max_tokens": 5}, {"max_tokens": 5}),
        ({}, {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"limit": 9}, {"max_tokens": True}, {"max_tokens": 9}),
        ({"limit": 9}, {"max_tokens": 7, "max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"limit": 9, "limit_name": "max_completion_tokens"}, {}, {"max_completion_tokens": 9}),
        ({"limit": 9, "limit_name": "max_completion_tokens"}, {"max_tokens": 5},
         {"max_completion_tokens": 5}),
    ],
)  # fmt: skip
def test_the_limit_of_tokens_has_one_name(options, payload, sent):
    assert limits(requests_of(**options), **payload) == sent


def test_what_a_model_does_not_know_is_replaced_and_remembered_for_it():
    requests = requests_of(limit=9, models={"a": "m1", "b": "m2"})
    request = requests.build(Call({"question": "q", "model": "a"}, stream=True))
    changed = requests.replace(request, "max_tokens")
    assert changed["max_completion_tokens"] == 9
    assert "max_tokens" not in changed
    assert limits(requests, model="a") == {"max_tokens": 9}, "nobody has accepted it yet"
    requests.remember(request, changed)
    assert limits(requests, model="a") == {"max_completion_tokens": 9}
    assert limits(requests, model="a", max_tokens=5) == {"max_completion_tokens": 5}
    assert limits(requests, model="b") == {"max_tokens": 9}
    without = requests.replace(request, "stream_options")
    assert without == {k: v for k, v in request.items() if k != "stream_options"}
    requests.remember(request, without)
    assert "stream_options" not in requests.build(
        Call({"question": "q", "model": "a"}, stream=True)
    )
    assert "stream_options" in requests.build(Call({"question": "q", "model": "b"}, stream=True))


def test_a_limit_of_a_payload_gets_the_name_that_the_model_knows():
    requests = requests_of()
    request = requests.build(Call({"question": "q", "max_tokens": 5}))
    # "use max_completion_tokens instead" names the limit that was not sent
    requests.remember(request, requests.replace(request, "max_completion_tokens"))
    assert limits(requests, max_tokens=5) == {"max_completion_tokens": 5}


@pytest.mark.parametrize("parameter", ["", "temperature", "stream_options", "max_tokens", "model"])
def test_there_is_no_other_way_to_ask_without_what_was_not_sent(parameter):
    requests = requests_of()
    request = requests.build(Call({"question": "q", "temperature": 1}))
    assert requests.replace(request, parameter) is None

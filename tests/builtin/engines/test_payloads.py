"""How a payload is sent; ``test_http.py`` and ``test_wsgi.py`` send it."""

from __future__ import annotations

import pytest

from om_plugins.builtin.engines.payloads import encode_json, encode_payload, encode_query
from om_plugins.errors import InvalidRequest


@pytest.mark.parametrize(
    ("payload", "query"),
    [
        (None, ""), ({}, ""), ({"q": "x y&z"}, "q=x+y%26z"), ({"tag": ["p", "q"]}, "tag=p&tag=q"),
        ({"n": 3, "t": True, "none": None}, "n=3&t=true"), ({"d": {"k": 1}}, "d=%7B%22k%22%3A1%7D"),
        ({"l": [None, "a"]}, "l=a"), ({1: "가"}, "1=%EA%B0%80"),
    ],
)  # fmt: skip
def test_a_dict_is_a_query(payload, query):
    assert encode_query(payload, "up") == query


@pytest.mark.parametrize(
    "payload", ["text", ["a"], {"q": object()}, {"q": "\ud800"}, {"q": "x" * 40_000}]
)
def test_what_fits_no_query_is_an_invalid_request(payload):
    with pytest.raises(InvalidRequest, match=r"up: (the payload|a GET)") as caught:
        encode_query(payload, "up")
    assert caught.value.sent == "no"


def test_a_query_is_added_to_the_target_of_a_get_and_other_methods_have_a_body():
    assert encode_payload("GET", "/s", {"a": 1}, "up") == ("/s?a=1", None)
    assert encode_payload("GET", "/s?v=2", {"a": 1}, "up") == ("/s?v=2&a=1", None)
    assert encode_payload("GET", "/s", None, "up") == ("/s", None)
    assert encode_payload("POST", "/s", {"a": "가"}, "up") == ("/s", '{"a":"가"}'.encode())


def test_what_is_not_json_is_an_invalid_request():
    with pytest.raises(InvalidRequest, match="up: the payload is not JSON"):
        encode_json({"a": object()}, "up")

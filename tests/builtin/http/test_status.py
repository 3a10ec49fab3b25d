"""What the status of an upstream means; the whole table is asked in ``test_http.py``."""

from __future__ import annotations

import pytest

from om_plugins.builtin.http.status import find_status, map_status
from om_plugins.errors import Misconfigured, RateLimited, Transient, Unsupported


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (304, {}, Misconfigured),
        (418, {}, Unsupported),
        (429, {}, RateLimited),
        (503, {}, Transient),
        (503, {"retry-after": "5"}, RateLimited),
        (599, {}, Transient),
        (999, {}, Transient),
    ],
)
def test_a_status_without_an_entry_goes_by_its_class(status, headers, error):
    found = map_status(status, headers, "up")
    assert type(found) is error
    assert (found.status, found.sent) == (status, "yes")
    assert str(found).startswith(f"up: answered {status}")


def test_a_limit_that_begins_anew_says_how_long_a_429_waits_and_nothing_else():
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20s"}
    assert map_status(429, headers, "up").retry_after == 20
    assert map_status(500, headers, "up").retry_after is None
    assert type(map_status(503, headers, "up")) is Transient


IDENTIFIED = ["Authorization", "accept"]


@pytest.mark.parametrize("status", [401, 402, 403, 429])
def test_a_refusal_of_a_caller_who_is_known_concerns_that_caller(status):
    assert map_status(status, {}, "up", sent_names=IDENTIFIED).concerns_caller
    assert not map_status(status, {}, "up", sent_names=["accept"]).concerns_caller
    assert not map_status(status, {}, "up").concerns_caller


@pytest.mark.parametrize("status", [301, 404, 405, 407, 410, 500, 502, 503, 504])
def test_other_statuses_concern_nobody_in_particular(status):
    headers = {"retry-after": "5"}
    assert not map_status(status, headers, "up", sent_names=IDENTIFIED).concerns_caller


def test_the_body_may_say_how_long_to_wait():
    document = {"error": {"message": "Please try again in 20s."}}
    assert map_status(429, {}, "up", document).retry_after == 20
    found = map_status(503, {}, "up", {"error": "loading", "estimated_time": 20.0})
    assert (type(found), found.retry_after) == (RateLimited, 20)


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"code": 429}, 429), ({"error": {"code": "503"}}, 503), ({"status": 401.0}, 401),
        ({"statusCode": 504, "code": "x"}, 504), ({"error": {"error": {"status": 300}}}, 300),
        ({"code": 200}, None), ({"code": 600}, None), ({"code": True}, None),
        ({"code": float("inf")}, None), ({"code": float("nan")}, None),
        ({"code": "４２９"}, None), ({"error": "429"}, None), ([{"code": 429}], None), (429, None),
        ({"code": 429.5}, None), ({}, None),
    ],
)  # fmt: skip
def test_a_document_names_a_status_by_its_number(document, status):
    assert find_status(document) == status

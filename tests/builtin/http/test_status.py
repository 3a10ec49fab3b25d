"""What the status of an upstream means; the whole table is asked in ``test_http.py``."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from om_plugins.builtin.http.status import map_status, parse_retry_after
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


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0), ("12", 12), ("1.5", 1.5), ("999999", 3600), ("-5", None), ("soon", None),
        ("", None), ("5, 6", None), ("٣", None), ("nan", None), ("1" * 500, None),
        ("Mon, 99 Foo 9999 99:99:99 GMT", None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after_is_clamped_and_garbage_is_ignored(value, seconds):
    assert parse_retry_after({"retry-after": value}) == seconds


def test_retry_after_date_is_compared_with_the_answers_own_date():
    headers = {"retry-after": formatdate(1_000_090, usegmt=True)}
    headers["date"] = formatdate(1_000_000, usegmt=True)
    assert parse_retry_after(headers) == 90

"""The decisions of a shared cache: what is stored, for how long, and when it may be used."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from om_plugins.http_cache.fields import directives
from om_plugins.http_cache.rfc9111 import (
    ResponseFacts,
    StorageOptions,
    allows,
    cache_status,
    hop_by_hop,
    is_unsafe,
    judge,
    matches,
    same_response,
    update_headers,
)

NOW = 1_700_000_000.0


def date(seconds=0):
    return formatdate(NOW + seconds, usegmt=True)


def verdict(*headers, status=200, options=None, **facts):
    facts.setdefault("requested_at", NOW)
    return judge(
        ResponseFacts(status, headers, received_at=NOW, **facts), options or StorageOptions()
    )


def control(value, *more, **facts):
    return verdict(("Cache-Control", value), *more, **facts)


def test_max_age_is_freshness():
    found = control("max-age=60")
    assert found.refused == ""
    assert found.lifetime_s == 60


def test_s_maxage_counts_before_max_age_and_that_before_expires():
    assert control("max-age=60, s-maxage=10").lifetime_s == 10
    assert control("max-age=60", ("Expires", date(5)), ("Date", date())).lifetime_s == 60
    assert verdict(("Expires", date(5)), ("Date", date(-2))).lifetime_s == 7


@pytest.mark.parametrize("value", ["max-age=", "max-age=-1", "max-age='60'", "max-age=6.5"])
def test_malformed_freshness_is_none(value):
    assert control(value).lifetime_s == 0


def test_a_malformed_expires_is_in_the_past():
    assert verdict(("Expires", "0"), ("Date", date())).lifetime_s == 0
    assert verdict(("Expires", date(9)), ("Expires", date(9)), ("Date", date())).lifetime_s == 0


def test_expires_without_a_valid_date_counts_from_the_arrival():
    assert verdict(("Expires", date(9)), ("Date", "foo")).lifetime_s == 9


def test_the_longest_freshness_is_bounded():
    assert control("max-age=99999999999", options=StorageOptions(longest_s=3600)).lifetime_s == 3600


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "no-freshness"),
        ([("Cache-Control", "no-store, max-age=60")], "no-store"),
        ([("Cache-Control", "private, max-age=60")], "private"),
        ([("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")], "cookie"),
        ([("Cache-Control", "max-age=60"), ("Vary", "*")], "vary"),
        ([("Cache-Control", "max-age=60"), ("Vary", "Accept, Cookie")], "vary-cookie"),
        ([("Last-Modified", date(-1000))], "no-freshness"),
        ([("Cache-Control", "public")], "no-freshness"),
    ],
)
def test_what_is_not_stored(headers, reason):
    assert verdict(*headers).refused == reason


@pytest.mark.parametrize("status", [206, 304, 416, 101])
def test_parts_and_interim_responses_are_never_stored(status):
    assert control("max-age=60", status=status).refused == "status"


def test_a_response_to_authorization_needs_permission():
    assert control("max-age=60", authorized=True).refused == "authorization"
    for permission in ("public", "s-maxage=60", "must-revalidate"):
        assert control(f"max-age=60, {permission}", authorized=True).refused == ""


def test_a_request_can_forbid_storing():
    assert control("max-age=60", no_store=True).refused == "no-store"


def test_must_understand_lifts_no_store_where_the_status_is_understood():
    assert control("max-age=60, no-store, must-understand").refused == ""
    assert control("max-age=60, no-store, must-understand", status=599).refused == "status"
    assert control("max-age=60, must-understand", status=599).refused == "status"


def test_no_cache_is_stored_with_a_validator_and_never_used_without_asking():
    assert control("no-cache").refused == "no-freshness"
    found = control("no-cache", ("ETag", '"a"'))
    assert found.refused == ""
    assert found.validate


def test_fields_that_no_cache_and_private_name_are_left_out():
    found = control('max-age=60, no-cache="Set-Cookie, a", private="b"', ("Set-Cookie", "a=b"))
    assert found.refused == ""
    assert not found.validate
    assert {"set-cookie", "a", "b"} <= found.left_out


def test_compliance_stores_cookies():
    options = StorageOptions(ignore_cookies=True)
    assert control("max-age=60", ("Set-Cookie", "a=b"), options=options).refused == ""
    assert control("max-age=60", ("Vary", "Cookie"), options=options).refused == ""


def test_heuristic_freshness_is_a_tenth_of_the_age_and_only_by_setting():
    headers = [("Last-Modified", date(-1000)), ("Date", date())]
    options = StorageOptions(heuristic=True)
    assert verdict(*headers, options=options).lifetime_s == 100
    assert verdict(*headers, status=201, options=options).refused == "no-freshness"
    public = [*headers, ("Cache-Control", "public")]
    assert verdict(*public, status=599, options=options).lifetime_s == 100
    old = [("Last-Modified", date(-(10**8))), ("Date", date())]
    assert verdict(*old, options=options).lifetime_s == 86_400


def test_a_route_can_have_a_freshness_of_its_own():
    options = StorageOptions(default_s=30)
    assert verdict(options=options).lifetime_s == 30
    assert control("max-age=5", options=options).lifetime_s == 5
    assert control("private", options=options).refused == "private"


def test_a_targeted_field_replaces_cache_control_and_expires():
    targeted = ("CDN-Cache-Control", "max-age=60")
    assert control("no-store", targeted).lifetime_s == 60
    assert control("max-age=60", ("CDN-Cache-Control", "no-store")).refused == "no-store"
    assert control("max-age=60", ("CDN-Cache-Control", "max-age=60, &")).lifetime_s == 60
    assert control("no-store", ("CDN-Cache-Control", 'max-age="60"')).lifetime_s == 0
    only = verdict(("CDN-Cache-Control", "foo"), ("Expires", date(60)), ("Date", date()))
    assert only.refused == "no-freshness"


def test_the_age_is_the_largest_of_what_is_known():
    assert control("max-age=60", ("Age", "20")).age_s == 20
    assert control("max-age=60", ("Date", date(-30)), ("Age", "20")).age_s == 30
    assert control("max-age=60", ("Age", "20"), requested_at=NOW - 5).age_s == 25
    assert control("max-age=60", ("Date", date(30))).age_s == 0


def test_a_date_of_the_second_in_which_the_request_began_is_no_age():
    assert control("max-age=60", ("Date", date()), requested_at=NOW + 0.9).age_s == 0
    assert control("max-age=60", ("Date", date(-1)), requested_at=NOW + 0.9).age_s == 1


def test_stale_windows_are_those_of_rfc_5861():
    found = control("max-age=1, stale-while-revalidate=10, stale-if-error=20")
    assert (found.while_revalidating_s, found.if_error_s) == (10, 20)
    options = StorageOptions(stale_if_error_s=300)
    assert control("max-age=1", options=options).if_error_s == 300


@pytest.mark.parametrize("strict", ["must-revalidate", "proxy-revalidate", "no-cache"])
def test_strict_responses_are_never_served_stale(strict):
    found = control(f"max-age=1, {strict}, stale-while-revalidate=10, stale-if-error=10")
    assert (found.while_revalidating_s, found.if_error_s) == (0, 0)


def test_s_maxage_forbids_stale_unless_the_author_says_otherwise():
    options = StorageOptions(stale_if_error_s=300)
    assert control("s-maxage=1", options=options).if_error_s == 0
    assert control("s-maxage=1, stale-if-error=9", options=options).if_error_s == 9


def test_an_encoded_response_is_a_variant_even_when_it_forgot_to_say_so():
    found = control("max-age=60", ("Content-Encoding", "gzip"), ("Vary", "Accept"))
    assert found.vary == ("accept", "accept-encoding")


def test_fields_of_the_connection_are_left_out():
    found = control("max-age=60", ("Connection", "close, X-Hop"))
    assert {"connection", "x-hop", "keep-alive", "transfer-encoding"} <= found.left_out
    assert hop_by_hop() <= found.left_out


@pytest.mark.parametrize(
    ("asked", "age", "allowed"),
    [
        ("", 0, True),
        ("", 60, False),
        ("no-cache", 0, False),
        ("max-age=10", 10, True),
        ("max-age=10", 11, False),
        ("min-fresh=10", 50, True),
        ("min-fresh=10", 51, False),
        ("max-stale=10", 70, True),
        ("max-stale=10", 71, False),
        ("max-stale", 7000, True),
    ],
)
def test_a_request_can_ask_for_fresher_or_be_content_with_staler(asked, age, allowed):
    found = allows(directives(asked), age_s=age, lifetime_s=60, stale_allowed=True)
    assert found is allowed


def test_max_stale_does_not_override_the_response():
    asked = directives("max-stale=10")
    assert not allows(asked, age_s=61, lifetime_s=60, stale_allowed=False)


def test_a_client_that_has_the_response_is_recognised():
    def known(modified=None, made=NOW, **fields):
        return matches({f"HTTP_{k}": v for k, v in fields.items()}, '"a"', modified, made)

    assert known(IF_NONE_MATCH='"b", W/"a"')
    assert known(IF_NONE_MATCH="*")
    assert not known(IF_NONE_MATCH='"b"')
    assert not known(IF_NONE_MATCH='"b"', IF_MODIFIED_SINCE=date())
    assert known(modified=NOW - 60, IF_MODIFIED_SINCE=date(-60))
    assert not known(modified=NOW - 60, IF_MODIFIED_SINCE=date(-61))
    assert known(IF_MODIFIED_SINCE=date())
    assert not known(IF_MODIFIED_SINCE="yesterday")
    assert not known()


def test_a_304_updates_headers_but_not_what_describes_the_body():
    stored = [("ETag", '"a"'), ("Content-Length", "5"), ("X", "1"), ("X", "2"), ("Age", "7")]
    fresh = [("X", "3"), ("Content-Length", "0"), ("Content-Range", "x"), ("Connection", "Hop")]
    assert update_headers(stored, [*fresh, ("Hop", "1")]) == [
        ("ETag", '"a"'),
        ("Content-Length", "5"),
        ("X", "3"),
    ]


def test_a_304_about_another_response_is_recognised():
    def about(*headers):
        return same_response('"a"', NOW, ResponseFacts(304, headers, received_at=NOW))

    assert about()
    assert about(("ETag", 'W/"a"'))
    assert not about(("ETag", '"b"'))
    assert about(("Last-Modified", date()))
    assert not about(("Last-Modified", date(5)))


def test_cache_status_is_a_list_member_with_parameters():
    assert cache_status("om", [("hit", True), ("ttl", 5)]) == "om; hit; ttl=5"


def test_unknown_methods_are_unsafe():
    assert is_unsafe("POST")
    assert is_unsafe("M-SEARCH")
    assert not is_unsafe("HEAD")

"""Keys: two addresses never share one, and what is not trusted has none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import create_environ

from om_plugins.core.inputs import EnvironReader, InputRules
from om_plugins.http_cache.keys import (
    AddressKeys,
    is_of_client,
    read_address,
    read_query,
    read_url,
    remove_query,
)
from om_plugins.http_cache.variants import variant_key


def environ(path="/", query="", host="example.com", scheme="http", **fields):
    made = create_environ(path, f"{scheme}://{host}", query_string=query)
    return {**made, **fields}


def key(*arguments, trusted=None, **fields):
    return AddressKeys(trusted).build(environ(*arguments, **fields))


def test_a_key_begins_with_the_url():
    assert read_url(key("/a/b", "x=1")) == ("http://example.com", "/a/b")
    assert read_query(key("/a/b", "x=1")) == "x=1"


def test_scheme_host_path_and_query_all_count():
    keys = {
        key("/a"), key("/b"), key("/a", "x=1"), key("/a", host="other.example"),
        key("/a", scheme="https"),
    }  # fmt: skip
    assert len(keys) == 5


def test_the_default_port_and_the_case_of_the_host_do_not_count():
    assert key("/", host="EXAMPLE.com:80") == key("/")
    assert key("/", host="example.com:8080") != key("/")


def test_the_raw_path_counts_as_well_as_the_decoded_one():
    encoded = key("/a", RAW_URI="/%61", REQUEST_URI="/%61")
    assert encoded != key("/a")
    assert read_url(encoded)[1] == "/%61"
    slash = key("/a/b", RAW_URI="/a%2Fb", REQUEST_URI="/a%2Fb")
    assert slash != key("/a/b")


def test_a_server_that_does_not_tell_the_raw_path_gets_the_same_keys():
    sent = "/a%20b"
    assert key("/a b", RAW_URI="", REQUEST_URI="") == key("/a b", RAW_URI=sent, REQUEST_URI=sent)
    assert key("/a", RAW_URI="http://evil.example/x", REQUEST_URI="") == key("/a")


def test_a_prefix_of_a_proxy_is_part_of_the_path():
    assert read_url(key("/a", SCRIPT_NAME="/app"))[1] == "/app/a"


@pytest.mark.parametrize("host", ["exa mple.com", "example.com/evil", "a\nb", "user@example.com"])
def test_a_malformed_host_has_no_key(host):
    assert key("/", HTTP_HOST=host) is None


def test_only_trusted_hosts_have_keys():
    assert key("/", trusted=["example.com"]) is not None
    assert key("/", host="evil.example", trusted=["example.com"]) is None


def test_a_request_for_another_resource_by_header_has_no_key():
    assert key("/", HTTP_X_ORIGINAL_URL="/admin") is None
    assert key("/", HTTP_X_HTTP_METHOD_OVERRIDE="DELETE") is None


def test_what_an_application_may_take_for_its_host_is_part_of_the_key():
    assert key("/", HTTP_X_FORWARDED_HOST="evil.example") != key("/")
    assert read_query(key("/", "x=1", HTTP_X_FORWARDED_HOST="evil.example")) == "x=1"


def test_hosts_that_are_remembered_are_bounded():
    keys = AddressKeys()
    for number in range(2000):
        keys.build(environ(host=f"h{number}.example"))
    assert len(keys._origins) <= 256


@given(st.tuples(st.text(max_size=20), st.text(max_size=20)), st.tuples(st.text(), st.text()))
def test_two_addresses_never_share_a_key(one, other):
    keys = AddressKeys()

    def of(path, query):
        raw = "/" + path
        fields = {"PATH_INFO": raw, "QUERY_STRING": query, "RAW_URI": "", "REQUEST_URI": ""}
        return keys.build({**environ(), **fields})

    def clean(pair):
        return tuple(text.encode("ascii", "replace").decode() for text in pair)

    one, other = clean(one), clean(other)
    assert (of(*one) == of(*other)) == (one == other)
    assert (
        read_query(variant_key(of(*one), "ab12", ("vary:a",), EnvironReader({}), InputRules()))
        == one[1].partition("\n")[0]
    )


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/other", "/other"),
        ("other", "/a/other"),
        ("../other", "/other"),
        ("http://example.com/other", "/other"),
        ("//example.com:80/other", "/other"),
        ("", "/a/page"),
        ("?x=1", "/a/page"),
    ],
)
def test_locations_of_the_same_origin_have_keys(location, path):
    found = AddressKeys().build_for_url(environ("/a/page"), location)
    assert read_url(found) == ("http://example.com", path)
    query = "x=1" if "?" in location else ""
    assert found == key(path, query)


@pytest.mark.parametrize(
    "location", ["http://other.example/", "https://example.com/", "//[", "http://[x/", "x" * 9000]
)
def test_locations_of_another_origin_have_none(location):
    assert AddressKeys().build_for_url(environ("/a/page"), location) is None


def test_where_identities_count_each_client_has_a_key_below_that_for_everybody():
    keys = AddressKeys(inputs=InputRules(lambda: b"secret"))
    alice = environ("/a", "x=1", REMOTE_USER="alice")
    everybody, own = keys.build(alice, for_client=False), keys.build(alice)
    assert own.startswith(everybody + "\n")
    assert everybody == keys.build(environ("/a", "x=1"))
    assert "alice" not in own
    assert keys.build(environ("/a", "x=1", REMOTE_USER="bob")) not in (own, everybody)
    assert AddressKeys().build(alice) == everybody
    assert read_query(own) == "x=1"
    for key in (own, everybody):
        variant = variant_key(key, "ab12", ("vary:a",), EnvironReader({}), InputRules())
        assert read_address(variant) == read_address(key) == everybody
        assert is_of_client(key) is is_of_client(variant) is (key == own)


def test_a_query_is_removed_from_the_raw_uri_too():
    made = environ("/a", "x=1", RAW_URI="/a?x=1", REQUEST_URI="/a?x=1")
    changed = remove_query(made)
    assert (changed["QUERY_STRING"], changed["RAW_URI"], changed["REQUEST_URI"]) == ("", "/a", "/a")
    assert made["QUERY_STRING"] == "x=1"

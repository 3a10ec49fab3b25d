"""Which headers say who the caller is."""

from __future__ import annotations

import pytest

from om_plugins.builtin.engines.http import PASSED_HEADERS
from om_plugins.builtin.http.caller import brings_credentials, identifies_caller


@pytest.mark.parametrize(
    "name",
    ["Authorization", "authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "api-key",
     "APIKEY", "X-Auth-Token", "X-Access-Token", "x-goog-api-key", "Ocp-Apim-Subscription-Key",
     "X-Amz-Security-Token", "PRIVATE-TOKEN", "X-CSRF-Token", "X-Session-Id", "DPoP", "X-Secret",
     "X-Hub-Signature", "X-Forwarded-Access-Token"],
)  # fmt: skip
def test_a_header_with_credentials(name):
    assert brings_credentials(["accept", name])
    assert identifies_caller([name])


@pytest.mark.parametrize(
    "name",
    ["Accept", "Content-Type", "User-Agent", "Idempotency-Key", "Sec-WebSocket-Key", "Host", "ETag",
     "X-Keyword", "X-Author", "Tokenizer", "Cookie-Policy", "Keep-Alive", *PASSED_HEADERS],
)  # fmt: skip
def test_a_header_without_credentials(name):
    assert not brings_credentials([name])
    assert not identifies_caller([name])


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "x-real-ip", "Remote-User"])
def test_a_header_with_the_callers_address_or_name(name):
    assert not brings_credentials([name])
    assert identifies_caller([name])


def test_no_headers_say_nothing():
    assert not identifies_caller([])

"""Requests to engine routes: hostile ones are refused."""

from __future__ import annotations

import io

import pytest

from tests.gateway.conftest import AChain, Client


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff", b"NaN", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000,
        b'"\\ud800"', b"{} {}",
    ],
)  # fmt: skip
def test_malformed_json_is_400(body):
    client = Client(AChain())
    reply = client.ask(body=body)
    assert reply.status == 400
    assert reply.json["title"] == "Bad Request"
    assert not client.chain.calls


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "", "json"]
)
def test_body_that_is_not_json_is_415(kind):
    assert Client(AChain()).ask(CONTENT_TYPE=kind).status == 415


def test_json_content_types_are_accepted():
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/ld+json"):
        assert Client(AChain()).ask(CONTENT_TYPE=kind).status == 200


class Endless(io.RawIOBase):
    """An input that never ends and counts what was read."""

    def __init__(self):
        self.taken = 0

    def read(self, size=-1):
        assert size > 0
        self.taken += size
        return b"1" * size

    def readline(self, size=-1): ...

    def readlines(self, hint=-1): ...

    def __iter__(self): ...


def test_body_over_the_limit_is_413_unread():
    source = Endless()
    more = {"wsgi.input": source, "CONTENT_LENGTH": "1001"}
    reply = Client(AChain(), options={"max_body": 1000}).ask(**more)
    assert reply.status == 413
    assert "1,000 bytes" in reply.json["detail"]
    assert source.taken == 0


def test_endless_chunked_body_is_413_after_the_limit():
    source = Endless()
    more = {"wsgi.input": source, "CONTENT_LENGTH": None, "wsgi.input_terminated": True}
    assert Client(AChain(), options={"max_body": 1000}).ask(**more).status == 413
    assert source.taken <= 2000


def test_chunked_body_is_read():
    more = {"CONTENT_LENGTH": None, "wsgi.input_terminated": True}
    assert Client(AChain()).ask(body=[1], **more).json == {"you said": [1]}


def test_body_of_unknown_length_is_411():
    assert Client(AChain()).ask(CONTENT_LENGTH=None).status == 411


def test_body_that_ends_early_or_breaks_is_400():
    client = Client(AChain())
    assert client.ask(CONTENT_LENGTH="999").status == 400

    class Broken(Endless):
        def read(self, size=-1):
            raise OSError("the client left")

    assert client.ask(**{"wsgi.input": Broken(), "CONTENT_LENGTH": "9"}).status == 400


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é"])
def test_unfit_idempotency_key_is_400(key):
    client = Client(AChain())
    assert client.ask(headers={"Idempotency-Key": key}).status == 400
    assert not client.chain.calls

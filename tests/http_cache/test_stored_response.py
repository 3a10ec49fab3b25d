"""Stored responses: joined with a new nonce, and written for a store."""

from __future__ import annotations

import pytest

from om_plugins.http_cache.rfc9111 import CacheVerdict
from om_plugins.http_cache.stored_response import StoredResponse, split_at_nonce
from tests.http_cache.world import World

NONCE = "0123456789abcdef" * 2
OTHER = "f" * 32


def stored(body=b"hello", *headers, **more):
    verdict = CacheVerdict(lifetime_s=60.0, etag=dict(headers).get("ETag", ""), vary=("accept",))
    return StoredResponse(200, "200 OK", list(headers), body, verdict, 10.0, 11.0, **more)


def private(headers):
    return [(n, "private" if n == "Cache-Control" else v) for n, v in headers]


def test_an_answer_has_its_length():
    headers, body = stored(b"hello", ("A", "1")).render("")
    assert headers == [("A", "1"), ("Content-Length", "5")]
    assert body == b"hello"


def test_answers_do_not_share_their_headers():
    one = stored()
    one.render("")[0].append(("Age", "1"))
    assert len(one.render("")[0]) == 1


def test_a_page_is_joined_with_a_new_nonce_in_body_and_headers():
    body = b"<script nonce=%b></script>" % NONCE.encode() * 3
    found = split_at_nonce(
        stored(body, ("ETag", '"a"'), ("P", f"n-{NONCE}"), ("Cache-Control", "public")),
        NONCE,
        private,
    )
    headers, joined = found.render(OTHER)
    assert joined == body.replace(NONCE.encode(), OTHER.encode())
    assert dict(headers) == {
        "ETag": 'W/"a"',
        "P": f"n-{OTHER}",
        "Cache-Control": "private",
        "Content-Length": str(len(body)),
    }
    assert found.verdict.etag == 'W/"a"'


@pytest.mark.parametrize(
    ("body", "headers", "nonce"),
    [
        (b"no nonce here", (), NONCE),
        (NONCE.encode(), (("Content-Encoding", "gzip"),), NONCE),
        (b"short", (), "short"),
        (b"", (), "ü" * 32),
    ],
)
def test_a_page_whose_nonce_cannot_be_renewed_is_refused(body, headers, nonce):
    assert split_at_nonce(stored(body, *headers), nonce, list) is None


def test_a_response_without_a_body_has_no_length():
    one = StoredResponse(204, "204 No Content", [("A", "1")], b"", CacheVerdict(), 0.0, 0.0)
    assert one.render("") == ([("A", "1")], b"")


def test_its_language_is_known_when_it_is_one():
    assert stored(b"", ("Content-Language", "De")).language == "de"
    assert stored(b"", ("Content-Language", "de, en")).language == ""


def test_saved_bytes_and_hits_are_exact_and_survive_eviction():
    world = World()
    for _ in range(4):
        world.get()
    stats = world.cache.stats()
    assert (stats.hits, stats.bytes_saved, stats.stored, stats.misses) == (3, 15, 1, 1)
    world.cache.purge("/")
    again = world.cache.stats()
    assert (again.hits, again.bytes_saved, again.entries) == (3, 15, 0)

"""A body that is copied while it passes: what is stored of it, and what is not."""

from __future__ import annotations

import pytest

from tests.http_cache.world import World


def test_a_body_over_the_limit_is_not_stored_but_sent():
    world = World(max_body=10)
    world.origin.body = [b"12345678", b"12345678"]
    assert world.get().data == b"1234567812345678"
    assert world.number() == 2
    assert world.cache.refusals() == {"size": 2}


def test_a_body_that_breaks_off_is_not_stored():
    world = World()

    def broken(environ, start_response):
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        yield b"half"
        raise OSError("gone")

    world.origin.answer = broken
    with pytest.raises(OSError, match="gone"):
        world.get()
    world.origin.answer = None
    assert world.get().data == b"hello"


def test_a_client_that_leaves_early_stores_nothing():
    world = World()
    world.origin.body = [b"one", b"two"]
    environ = {"wsgi.url_scheme": "http", "HTTP_HOST": "localhost"}
    environ |= {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": ""}
    body = world.layer(environ, lambda status, headers, exc_info=None: None)
    next(iter(body))
    body.close()
    assert world.cache.stats().entries == 0


def test_a_file_goes_the_servers_own_way():
    world = World()

    class Wrapper:
        def __init__(self, file):
            self.file = file

        def __iter__(self):
            yield b"file"

    made = Wrapper(None)
    environ = {"wsgi.url_scheme": "http", "HTTP_HOST": "localhost", "REQUEST_METHOD": "GET"}
    environ |= {"PATH_INFO": "/", "QUERY_STRING": "", "wsgi.file_wrapper": Wrapper}
    world.origin.body = made
    assert world.layer(environ, lambda *arguments: None) is made
    assert world.cache.refusals() == {"file": 1}


def test_the_body_of_the_application_is_closed():
    closed = []

    class Body(list):
        def close(self):
            closed.append(self)

    world = World()
    world.origin.answer = lambda environ, start: (
        start("200 OK", [("Cache-Control", "max-age=60")]),
        Body([b"x"]),
    )[1]
    world.get()
    assert len(closed) == 1

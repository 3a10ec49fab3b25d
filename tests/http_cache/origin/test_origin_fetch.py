"""A request that goes to the application: validation, errors that are covered, collapsing."""

from __future__ import annotations

import threading

import pytest

from om_plugins.http_cache.rfc9111 import StorageOptions
from tests.http_cache.world import World, status_of
from tests.patience import HANG_S, PATIENCE_S, join

# --- start_response -------------------------------------------------------------------------------


def test_write_is_passed_on_and_never_stored():
    world = World()

    def imperative(environ, start_response):
        write = start_response("200 OK", [("Cache-Control", "max-age=60")])
        write(b"by ")
        return [b"hand"]

    world.origin.answer = imperative
    assert world.client.get("/").data == b"by hand"
    world.get()
    assert len(world.origin.asked) == 2


def test_a_generator_may_start_its_response_late():
    world = World()

    def late(environ, start_response):
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        yield b"la"
        yield b"te"

    world.origin.answer = late
    assert world.get().data == b"late"
    assert world.get().data == b"late"
    assert len(world.origin.asked) == 1


def test_a_second_start_replaces_the_first():
    world = World()

    def twice(environ, start_response):
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        try:
            raise ValueError
        except ValueError:
            import sys

            start_response("500 Oh No", [], sys.exc_info())
        return [b"oh no"]

    world.origin.answer = twice
    assert world.get().status == "500 Oh No"
    world.origin.answer = None
    assert world.get().status_code == 200


# --- validation -----------------------------------------------------------------------------------


def with_etag(world, control="max-age=60"):
    world.origin.headers = [("Cache-Control", control), ("ETag", '"a"'), ("X-Kept", "1")]
    world.get()


def test_a_stale_response_is_validated_and_freshened_by_a_304():
    world = World()
    with_etag(world)
    world.later(61)
    world.origin.status, world.origin.body = "304 Not Modified", []
    world.origin.headers = [("Cache-Control", "max-age=100"), ("X-New", "2")]
    response = world.get()
    assert world.origin.asked[1]["HTTP_IF_NONE_MATCH"] == '"a"'
    assert response.status_code == 200
    assert response.data == b"hello"
    assert status_of(response) == "fwd=stale; fwd-status=304"
    assert response.headers["X-Kept"] == "1"
    world.later(90)
    again = world.get()
    assert again.headers["X-New"] == "2"
    assert again.headers["Age"] == "90"
    assert len(world.origin.asked) == 2


def test_the_clients_own_condition_is_answered_after_the_validation():
    world = World()
    with_etag(world)
    world.later(61)
    world.origin.status, world.origin.body = "304 Not Modified", []
    assert world.get(If_None_Match='"a"').status_code == 304
    world.later(61)
    assert world.get(If_None_Match='"old"').status_code == 200
    assert world.origin.asked[2]["HTTP_IF_NONE_MATCH"] == '"a"'


def test_a_new_response_replaces_the_stale_one():
    world = World()
    with_etag(world)
    world.later(61)
    world.origin.body = [b"new"]
    assert world.get().data == b"new"
    assert world.get().data == b"new"
    assert len(world.origin.asked) == 2


def test_no_cache_is_validated_each_time():
    world = World()
    with_etag(world, "no-cache")
    world.origin.status, world.origin.body = "304 Not Modified", []
    world.origin.headers = [("Cache-Control", "no-cache"), ("ETag", '"a"')]
    assert world.get().data == b"hello"
    assert world.get().data == b"hello"
    assert len(world.origin.asked) == 3


def test_a_304_about_another_response_asks_for_the_whole():
    world = World()
    with_etag(world)
    world.later(61)

    def answer(environ, start_response):
        if "HTTP_IF_NONE_MATCH" in environ:
            start_response("304 Not Modified", [("ETag", '"other"')])
            return []
        start_response("200 OK", [("Cache-Control", "max-age=60"), ("ETag", '"other"')])
        return [b"other"]

    world.origin.answer = answer
    assert world.get().data == b"other"


def test_what_turned_personal_is_forgotten():
    world = World()
    world.get()
    world.later(61)
    world.origin.headers = [("Cache-Control", "private")]
    world.get()
    world.origin.headers = [("Cache-Control", "max-age=60")]
    assert world.number() == 3


def test_fields_that_no_cache_names_are_not_sent_again():
    world = World()
    world.origin.headers = [("Cache-Control", 'max-age=60, no-cache="X-Secret"')]
    world.origin.headers.append(("X-Secret", "1"))
    assert world.get().headers["X-Secret"] == "1"
    assert "X-Secret" not in world.get().headers


# --- stale-if-error -------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["raises", "503"])
def test_stale_if_error_covers_a_failure(failure):
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-if-error=30")]
    world.get()
    world.later(70)
    if failure == "raises":
        world.origin.error = OSError("down")
    else:
        world.origin.status = "503 Service Unavailable"
    response = world.get()
    assert response.status_code == 200
    assert response.data == b"hello"
    assert "fwd=stale" in status_of(response)
    world.later(30)
    if failure == "raises":
        with pytest.raises(OSError, match="down"):
            world.get()
    else:
        assert world.get().status_code == 503


@pytest.mark.parametrize("failure", ["raises", "503"])
@pytest.mark.parametrize(("after", "covered"), [(89, True), (91, False)])
def test_a_response_with_a_validator_covers_no_failure_past_its_window(failure, after, covered):
    world = World()
    control = "max-age=60, stale-if-error=30"
    world.origin.headers = [("Cache-Control", control), ("ETag", '"a"')]
    world.get()
    world.later(after)
    if failure == "raises":
        world.origin.error = OSError("down")
    else:
        world.origin.status = "503 Service Unavailable"
    if covered or failure == "503":
        assert world.get().status_code == (200 if covered else 503)
    else:
        with pytest.raises(OSError, match="down"):
            world.get()
    assert world.cache.stats().entries == 1  # it is stored still, for a 304


def test_a_request_for_a_range_is_not_covered():
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-if-error=30")]
    world.get()
    world.later(70)
    world.origin.status = "503 Service Unavailable"
    assert world.get(Range="bytes=0-1").status_code == 503
    assert world.get().status_code == 200


def test_must_revalidate_is_never_covered():
    world = World(options=StorageOptions(stale_if_error_s=300))
    world.origin.headers = [("Cache-Control", "max-age=60, must-revalidate"), ("ETag", '"a"')]
    world.get()
    world.later(61)
    world.origin.status = "503 Service Unavailable"
    assert world.get().status_code == 503


# --- between requests -----------------------------------------------------------------------------


def test_of_many_who_miss_one_goes_and_all_get_its_response():
    world = World()
    gate, started = threading.Event(), threading.Event()

    def slow(environ, start_response):
        started.set()
        assert gate.wait(HANG_S)
        start_response("200 OK", [("Cache-Control", "max-age=60"), ("Content-Type", "text/html")])
        return [b"slow"]

    world.origin.answer = slow
    found = []
    threads = [threading.Thread(target=lambda: found.append(world.get())) for _ in range(8)]
    threads[0].start()
    assert started.wait(PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    while world.cache.stats().misses < 8:
        threading.Event().wait(0.005)
    gate.set()
    for thread in threads:
        join(thread)
    assert [one.data for one in found] == [b"slow"] * 8
    assert len(world.origin.asked) == 1
    assert world.cache.stats().coalesced == 7


def test_a_personal_response_is_not_shared_with_those_who_waited():
    world = World()
    gate = threading.Event()
    numbers = iter(range(100))

    def personal(environ, start_response):
        number = next(numbers)
        if number == 0:
            assert gate.wait(HANG_S)
        start_response("200 OK", [("Cache-Control", "private"), ("X-Number", str(number))])
        return [b"x"]

    world.origin.answer = personal
    found = []
    threads = [threading.Thread(target=lambda: found.append(world.number())) for _ in range(4)]
    for thread in threads:
        thread.start()
    while world.cache.stats().misses < 4:
        threading.Event().wait(0.005)
    gate.set()
    for thread in threads:
        join(thread)
    assert sorted(found) == [0, 1, 2, 3]


def test_a_stream_reaches_those_who_wait_as_it_comes():
    world = World()
    first_sent, go_on = threading.Event(), threading.Event()

    def stream(environ, start_response):
        start_response("200 OK", [("Cache-Control", "max-age=60"), ("Content-Type", "text/csv")])

        def pieces():
            yield b"one,"
            first_sent.set()
            assert go_on.wait(HANG_S)
            yield b"two"

        return pieces()

    world.origin.answer = stream
    environ = {"wsgi.url_scheme": "http", "HTTP_HOST": "localhost", "REQUEST_METHOD": "GET"}
    environ |= {"PATH_INFO": "/", "QUERY_STRING": ""}
    leader = []
    thread = threading.Thread(target=lambda: leader.append(world.get()))
    thread.start()
    assert first_sent.wait(PATIENCE_S)
    said = []
    along = iter(world.layer(dict(environ), lambda status, headers: said.append(dict(headers))))
    assert next(along) == b"one,"
    assert said[0]["Cache-Status"] == "OpenManager; fwd=uri-miss; collapsed"
    go_on.set()
    assert b"".join(along) == b"two"
    join(thread)
    assert leader[0].data == b"one,two"
    assert world.get().data == b"one,two"
    assert len(world.origin.asked) == 1

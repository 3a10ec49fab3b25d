"""The layer: what a client gets, and what the application is asked, as RFC 9111 says."""

from __future__ import annotations

import threading
from email.utils import formatdate

import pytest
from werkzeug.test import Client

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.http_cache.cache import HttpCache
from om_plugins.http_cache.rfc9111 import StorageOptions
from om_plugins.http_cache.rules import CacheRules, PageHooks, RouteRule
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.scheduler import BackgroundScheduler


class Store:
    """Bytes in a dict, as a store that workers share."""

    def __init__(self):
        self.data = {}
        self.away = False

    def get(self, key):
        if self.away:
            raise ConnectionError("away")
        return self.data.get(key)

    def set(self, key, value, ttl):
        if self.away:
            raise ConnectionError("away")
        self.data[key] = value

    def delete(self, key):
        self.data.pop(key, None)


class Origin:
    """A WSGI app that answers with what is set, and remembers what it was asked.

    Attributes:
        asked: the environs of all requests, in order.
    """

    def __init__(self):
        self.asked = []
        self.status = "200 OK"
        self.headers = [("Cache-Control", "max-age=60")]
        self.body = [b"hello"]
        self.error = None
        self.answer = None

    def __call__(self, environ, start_response):
        self.asked.append(dict(environ))
        if self.error is not None:
            raise self.error
        if self.answer is not None:
            return self.answer(environ, start_response)
        headers = [*self.headers, ("X-Number", str(len(self.asked)))]
        start_response(self.status, headers)
        return list(self.body) if isinstance(self.body, list) else self.body


class World:
    """One worker: the cache, its layer, and a client."""

    def __init__(self, *, clock=None, hub=None, store=None, hooks=None, trusted=None, **rules):
        rules.setdefault("everything", True)
        self.clock = clock or FakeClock()
        self.hub = hub or MemoryHub("memory://", self.clock)
        self.scheduler = BackgroundScheduler(1, 100, self.clock, self.hub, synchronous=True)
        self.origin = Origin()
        self.cache = HttpCache(
            CacheRules(**rules),
            l1_bytes=10_000_000,
            clock=self.clock,
            scheduler=self.scheduler,
            hub=self.hub,
            store=store,
            hooks=hooks,
            trusted_hosts=trusted,
        )
        self.layer = self.cache.layer(self.origin)
        self.client = Client(self.layer)

    def get(self, path="/", method="GET", host="localhost", **headers):
        """The response; ``X-Number`` says which of the origin's answers it is."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(
            path, method=method, headers=fields, base_url=f"http://{host}", buffered=True
        )

    def number(self, *arguments, **headers):
        """Which of the origin's answers is sent."""
        return int(self.get(*arguments, **headers).headers["X-Number"])

    def later(self, seconds):
        self.clock.advance(seconds)

    def run(self):
        """Run the jobs of the background."""
        return self.scheduler.run_pending()


def status_of(response):
    return response.headers["Cache-Status"].partition("; ")[2]


# --- hits ---------------------------------------------------------------------------------------


def test_a_fresh_response_is_answered_without_the_application():
    world = World()
    first, second = world.get("/a"), world.get("/a")
    assert first.data == second.data == b"hello"
    assert len(world.origin.asked) == 1
    assert status_of(first) == "fwd=uri-miss; stored"
    assert status_of(second) == "hit; ttl=60"


def test_a_hit_tells_its_age_and_keeps_its_headers():
    world = World()
    world.origin.headers += [("X-Two", "1"), ("X-Two", "2"), ("Age", "5")]
    world.get()
    world.later(7)
    response = world.get()
    assert response.headers["Age"] == "12"
    assert response.headers.getlist("X-Two") == ["1", "2"]
    assert response.headers["Content-Length"] == "5"


def test_after_its_freshness_the_application_is_asked_again():
    world = World()
    world.get()
    world.later(59.9)
    assert world.number() == 1
    world.later(0.2)
    assert world.number() == 2


def test_head_is_answered_from_a_stored_get():
    world = World()
    world.get()
    response = world.get(method="HEAD")
    assert response.data == b""
    assert response.headers["Content-Length"] == "5"
    assert len(world.origin.asked) == 1


def test_a_head_that_misses_is_not_stored():
    world = World()
    world.get(method="HEAD")
    world.get()
    assert [e["REQUEST_METHOD"] for e in world.origin.asked] == ["HEAD", "GET"]


@pytest.mark.parametrize("path", ["/?x=1", "/b"])
def test_other_addresses_are_other_responses(path):
    world = World()
    world.get("/")
    assert world.number(path) == 2


def test_hosts_do_not_share():
    world = World()
    world.get(host="a.example")
    assert world.number(host="b.example") == 2


def test_an_untrusted_host_passes_by():
    world = World(trusted=["good.example"])
    assert [world.number(host="bad.example") for _ in range(2)] == [1, 2]
    assert "Cache-Status" not in world.get(host="bad.example").headers


def test_the_name_in_cache_status_can_be_left_out():
    world = World(name="")
    world.get()
    assert "Cache-Status" not in world.get().headers


# --- what is not stored -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "no-freshness"),
        ([("Cache-Control", "private, max-age=60")], "private"),
        ([("Cache-Control", "no-store")], "no-store"),
        ([("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")], "cookie"),
        ([("Cache-Control", "max-age=60"), ("Vary", "Cookie")], "vary-cookie"),
        ([("Cache-Control", "max-age=60"), ("Content-Length", "99")], "broken"),
    ],
)
def test_what_may_be_personal_or_broken_is_not_stored(headers, reason):
    world = World()
    world.origin.headers = headers
    world.get()
    assert world.number() == 2
    assert world.cache.refusals()[reason] >= 1


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


# --- Authorization ------------------------------------------------------------------------------


def test_a_response_to_authorization_is_not_stored_without_permission():
    world = World()
    world.get(Authorization="Basic x")
    assert world.number() == 2


def test_with_permission_it_is_everybodys():
    world = World()
    world.origin.headers = [("Cache-Control", "public, max-age=60")]
    world.get(Authorization="Basic x")
    assert world.number() == 1
    assert world.number(Authorization="Basic y") == 1


def test_a_stored_response_without_permission_does_not_answer_authorization():
    world = World()
    world.get()
    assert world.number(Authorization="Basic x") == 2
    assert world.number() == 1


# --- Vary ---------------------------------------------------------------------------------------


def vary(world, value="Accept-Language"):
    world.origin.headers = [("Cache-Control", "max-age=60"), ("Vary", value)]


def test_variants_are_kept_apart():
    world = World()
    vary(world)
    assert world.number(Accept_Language="en") == 1
    response = world.get(Accept_Language="de")
    assert status_of(response) == "fwd=vary-miss; stored"
    assert world.number(Accept_Language="EN") == 1
    assert world.number(Accept_Language="de") == 2
    assert world.number() == 3


def test_the_language_that_is_preferred_selects_the_response_in_it():
    world = World()
    vary(world)
    world.origin.headers.append(("Content-Language", "de"))
    world.get(Accept_Language="en, de")
    assert world.number(Accept_Language="fr;q=0.5, de") == 1


def test_compressed_variants_are_kept_apart():
    world = World()
    world.origin.headers.append(("Content-Encoding", "gzip"))
    world.get(Accept_Encoding="gzip, br")
    assert world.number(Accept_Encoding="br, gzip") == 1
    assert world.number(Accept_Encoding="identity") == 2


def test_a_plain_response_takes_no_compressed_ones_place():
    world = World()
    world.origin.headers.append(("Content-Encoding", "gzip"))
    world.get(Accept_Encoding="gzip")
    world.origin.headers.pop()
    assert world.number() == 2
    assert world.number(Accept_Encoding="gzip") == 1
    assert world.number() == 2
    assert world.get(Accept_Encoding="gzip").headers["Content-Encoding"] == "gzip"


def test_variants_are_bounded():
    world = World(variants=3)
    vary(world, "X-Any")
    for number in range(10):
        world.get(X_Any=str(number))
    assert world.cache.stats().entries == 3
    assert world.number(X_Any="9") == 10
    assert world.number(X_Any="0") == 11


def test_an_address_that_begins_to_vary_forgets_nothing_wrongly():
    world = World()
    world.get(X_Any="1")
    world.later(61)
    vary(world, "X-Any")
    assert world.number(X_Any="1") == 2
    assert world.number(X_Any="2") == 3
    assert world.number(X_Any="1") == 2


# --- conditional requests and ranges ------------------------------------------------------------


def test_a_client_that_has_the_response_gets_304():
    world = World()
    world.origin.headers += [("ETag", '"a"'), ("Content-Type", "text/html"), ("X-Other", "1")]
    world.get()
    response = world.get(If_None_Match='"a"')
    assert response.status_code == 304
    assert response.data == b""
    assert response.headers["ETag"] == '"a"'
    assert response.headers["Cache-Control"] == "max-age=60"
    assert "Age" in response.headers
    assert "X-Other" not in response.headers
    assert world.get(If_None_Match='"b"').status_code == 200
    assert len(world.origin.asked) == 1


def test_a_client_with_the_date_gets_304():
    world = World()
    modified = formatdate(world.clock.time() - 100, usegmt=True)
    world.origin.headers.append(("Last-Modified", modified))
    world.get()
    assert world.get(If_Modified_Since=modified).status_code == 304
    assert world.get(If_Modified_Since="nonsense").status_code == 200


def test_a_miss_of_a_client_that_has_the_page_fills_the_cache_later():
    world = World()
    world.origin.status = "304 Not Modified"
    world.origin.body = []
    world.origin.headers.append(("ETag", '"a"'))
    assert world.get(If_None_Match='"a"', Cookie="a=b").status_code == 304
    world.origin.status, world.origin.body = "200 OK", [b"hello"]
    world.run()
    assert "HTTP_IF_NONE_MATCH" not in world.origin.asked[1]
    assert "HTTP_COOKIE" not in world.origin.asked[1]
    assert world.get().data == b"hello"
    assert len(world.origin.asked) == 2


def test_a_full_response_to_a_client_that_has_it_leaves_as_304_and_is_stored():
    world = World()
    world.origin.headers.append(("ETag", '"a"'))
    assert world.get(If_None_Match='"a"').status_code == 304
    assert world.get().data == b"hello"
    assert len(world.origin.asked) == 1


@pytest.mark.parametrize(
    ("wanted", "status", "content_range", "body"),
    [
        ("bytes=0-1", 206, "bytes 0-1/5", b"he"),
        ("bytes=-2", 206, "bytes 3-4/5", b"lo"),
        ("bytes=3-", 206, "bytes 3-4/5", b"lo"),
        ("bytes=9-", 416, "bytes */5", b""),
        ("bytes=0-1, 3-4", 200, None, b"hello"),
        ("lines=1", 200, None, b"hello"),
    ],
)
def test_ranges_are_cut_from_a_stored_response(wanted, status, content_range, body):
    world = World()
    world.get()
    response = world.get(Range=wanted)
    assert response.status_code == status
    assert response.headers.get("Content-Range") == content_range
    assert response.data == body
    assert response.headers["Content-Length"] == str(len(body))
    assert len(world.origin.asked) == 1


def test_a_range_of_a_head_request_means_nothing():
    world = World()
    world.get()
    response = world.get(method="HEAD", Range="bytes=0-1")
    assert response.status_code == 200
    assert response.headers["Content-Length"] == "5"
    assert "Content-Range" not in response.headers


def test_if_range_asks_for_the_whole_when_it_changed():
    world = World()
    world.origin.headers.append(("ETag", '"a"'))
    world.get()
    assert world.get(Range="bytes=0-1", If_Range='"a"').status_code == 206
    assert world.get(Range="bytes=0-1", If_Range='"b"').status_code == 200
    assert world.get(Range="bytes=0-1", If_Range='W/"a"').status_code == 200


def test_a_range_that_misses_goes_to_the_application_and_is_not_stored():
    world = World()
    world.get(Range="bytes=0-1")
    assert world.origin.asked[0]["HTTP_RANGE"] == "bytes=0-1"
    assert world.number() == 2


def test_preconditions_are_the_applications_to_check():
    world = World()
    world.get()
    assert world.number(If_Match='"a"') == 2


# --- validation ---------------------------------------------------------------------------------


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


# --- serving stale ------------------------------------------------------------------------------


def test_a_stale_response_says_that_no_time_is_left_however_little_is_missing():
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-while-revalidate=30")]
    world.get()
    world.later(60.4)
    assert status_of(world.get()) == "hit; ttl=-1"


def test_stale_while_revalidate_answers_now_and_refreshes_once():
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-while-revalidate=30")]
    world.get(Cookie="a=b")
    world.later(70)
    response = world.get(Cookie="a=b")
    assert response.headers["X-Number"] == "1"
    assert status_of(response) == "hit; ttl=-10"
    world.get()
    assert len(world.origin.asked) == 1
    world.run()
    assert len(world.origin.asked) == 2
    assert "HTTP_COOKIE" not in world.origin.asked[1]
    assert world.number() == 2
    assert world.cache.stats().refreshes == 1


def test_after_its_window_it_is_not_served():
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-while-revalidate=30")]
    world.get()
    world.later(91)
    assert world.number() == 2


def test_a_refresh_that_fails_backs_off_and_keeps_the_page():
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-while-revalidate=3000")]
    world.get()
    world.later(70)
    world.origin.error = OSError("down")
    for _ in range(3):
        assert world.get().data == b"hello"
        world.run()
    assert len(world.origin.asked) == 2
    world.later(30)
    world.origin.error = None
    world.get()
    world.run()
    assert world.number() == 3
    assert world.cache.stats().failures >= 1


def test_a_refresh_that_turned_personal_takes_the_page_away():
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-while-revalidate=3000")]
    world.get()
    world.later(70)
    world.origin.headers = [("Cache-Control", "private")]
    world.get()
    world.run()
    assert world.cache.stats().entries == 0


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


def test_must_revalidate_is_never_covered():
    world = World(options=StorageOptions(stale_if_error_s=300))
    world.origin.headers = [("Cache-Control", "max-age=60, must-revalidate"), ("ETag", '"a"')]
    world.get()
    world.later(61)
    world.origin.status = "503 Service Unavailable"
    assert world.get().status_code == 503


# --- request directives -------------------------------------------------------------------------


def test_only_if_cached_is_504_when_there_is_nothing():
    world = World()
    assert world.get(Cache_Control="only-if-cached").status_code == 504
    world.get()
    assert world.get(Cache_Control="only-if-cached").status_code == 200
    assert len(world.origin.asked) == 1


def test_a_reload_does_not_reach_the_application_unless_it_may():
    for allowed, expected in ((False, 1), (True, 2)):
        world = World(client_directives=allowed)
        world.get()
        assert world.number(Cache_Control="no-cache") == expected
        world = World(client_directives=allowed)
        world.get()
        assert world.number(Pragma="no-cache") == expected


def test_no_store_of_a_request_is_obeyed():
    world = World()
    world.get(Cache_Control="no-store")
    assert world.number() == 2


def test_max_stale_and_min_fresh():
    world = World(client_directives=True)
    world.get()
    world.later(50)
    assert world.number(Cache_Control="min-fresh=20") == 2
    world.later(65)
    world.origin.headers = [("Cache-Control", "max-age=60, stale-if-error=1")]
    assert world.number(Cache_Control="max-stale=1") == 3


# --- unsafe methods -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"])
def test_a_successful_unsafe_request_takes_the_page_back(method):
    world = World()
    world.get("/a")
    world.get("/a", method=method)
    assert world.number("/a") == 3


def test_a_failed_one_does_not():
    world = World()
    world.get()
    world.origin.status = "500 Oh No"
    world.get(method="POST")
    assert world.number() == 1


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
def test_it_takes_back_what_its_location_names_on_the_same_origin(name):
    world = World()
    world.get("/list?page=2")
    world.origin.headers.append((name, "http://localhost/list?page=2"))
    world.get("/new", method="POST")
    world.origin.headers.pop()
    assert world.number("/list?page=2") == 3
    world.origin.headers.append((name, "http://other.example/list?page=2"))
    world.get("/new", method="POST")
    assert world.number("/list?page=2") == 3


def test_all_variants_are_taken_back():
    world = World()
    vary(world, "X-Any")
    world.get(X_Any="1")
    world.get(X_Any="2")
    world.get(method="POST")
    assert world.number(X_Any="1") == 4
    assert world.number(X_Any="2") == 5


def test_a_page_that_was_on_its_way_when_it_was_taken_back_is_not_stored():
    world = World()

    def slow(environ, start_response):
        world.cache.purge("/")
        start_response("200 OK", [("Cache-Control", "max-age=60"), ("X-Number", "0")])
        return [b"old"]

    world.origin.answer = slow
    assert world.get().data == b"old"
    world.origin.answer = None
    assert world.get().data == b"hello"


# --- rules --------------------------------------------------------------------------------------


def test_a_route_can_be_left_out():
    world = World(routes=(RouteRule("/private/*", store=False),))
    world.get("/private/x")
    assert world.number("/private/x") == 2
    world.get("/public")
    assert world.number("/public") == 3


def test_a_route_can_have_a_freshness_of_its_own():
    world = World(routes=(RouteRule("/news/*", options=StorageOptions(default_s=30)),))
    world.origin.headers = []
    world.get("/news/1")
    assert world.number("/news/1") == 1
    world.get("/other")
    assert world.number("/other") == 3


def test_a_route_can_ignore_its_query():
    world = World(routes=(RouteRule("/page", query=False),))
    world.get("/page?utm=1")
    assert world.number("/page?utm=2") == 1
    assert world.number("/page") == 1
    world.get("/page", method="POST")
    assert world.number("/page?utm=3") == 3


# --- nonces -------------------------------------------------------------------------------------

NONCES = iter(f"{number:032x}" for number in range(10_000))


def used(environ):
    return environ.get("nonce")


def fresh(environ):
    if "nonce" not in environ:
        environ["nonce"] = next(NONCES)
    return environ["nonce"]


@pytest.fixture
def nonced():
    world = World(hooks=PageHooks(used_nonce=used, fresh_nonce=fresh))

    def page(environ, start_response):
        value = fresh(environ)
        headers = [("Cache-Control", "max-age=60"), ("ETag", '"a"'), ("X-Policy", f"n-{value}")]
        body = f"<script nonce={value}></script>" * 3
        start_response("200 OK", [*headers, *world.more])
        return [body.replace(value, world.shown or value).encode()]

    world.more, world.shown = [], ""
    world.origin.answer = page
    return world


def nonce_of(response):
    found = set(response.get_data(as_text=True).replace("<script nonce=", "").split("></script>"))
    found.discard("")
    assert len(found) == 1
    return found.pop()


def test_each_hit_has_a_nonce_of_its_own(nonced):
    seen = [nonce_of(nonced.get()) for _ in range(4)]
    assert len(set(seen)) == 4
    assert len(nonced.origin.asked) == 1


def test_the_applications_own_header_gets_it_too(nonced):
    nonced.get()
    response = nonced.get()
    assert response.headers["X-Policy"] == f"n-{nonce_of(response)}"


def test_a_304_makes_no_nonce(nonced):
    nonced.get()
    before = next(NONCES)
    assert nonced.get(If_None_Match='"a"').status_code == 304
    assert int(next(NONCES), 16) == int(before, 16) + 1


def test_its_tag_is_a_weak_one_and_ranges_are_not_cut(nonced):
    nonced.get()
    response = nonced.get(Range="bytes=0-1")
    assert response.status_code == 200
    assert response.headers["ETag"] == 'W/"a"'


@pytest.mark.parametrize(("more", "shown"), [([("Content-Encoding", "br")], ""), ([], "x" * 32)])
def test_a_page_that_is_encoded_or_hides_its_nonce_is_not_stored(nonced, more, shown):
    nonced.more, nonced.shown = more, shown
    nonced.get()
    nonced.get()
    assert len(nonced.origin.asked) == 2
    assert nonced.cache.refusals() == {"nonce": 2}


def test_marks_of_the_page_come_back_with_it():
    seen = []
    world = World(hooks=PageHooks(marks=lambda environ: {"om.mark": environ["PATH_INFO"]}))
    layer = world.layer
    world.client.application = lambda environ, start: (
        layer(environ, start),
        seen.append(environ.get("om.mark")),
    )[0]
    world.get("/a")
    world.get("/a")
    assert seen == ["/a", "/a"]


# --- between requests ---------------------------------------------------------------------------


def test_of_many_who_miss_one_goes_and_all_get_its_response():
    world = World()
    gate, started = threading.Event(), threading.Event()

    def slow(environ, start_response):
        started.set()
        assert gate.wait(10)
        start_response("200 OK", [("Cache-Control", "max-age=60"), ("Content-Type", "text/html")])
        return [b"slow"]

    world.origin.answer = slow
    found = []
    threads = [threading.Thread(target=lambda: found.append(world.get())) for _ in range(8)]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    while world.cache.stats().misses < 8:
        threading.Event().wait(0.005)
    gate.set()
    for thread in threads:
        thread.join(10)
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
            assert gate.wait(10)
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
        thread.join(10)
    assert sorted(found) == [0, 1, 2, 3]


def test_a_stream_reaches_those_who_wait_as_it_comes():
    world = World()
    first_sent, go_on = threading.Event(), threading.Event()

    def stream(environ, start_response):
        start_response("200 OK", [("Cache-Control", "max-age=60"), ("Content-Type", "text/csv")])

        def pieces():
            yield b"one,"
            first_sent.set()
            assert go_on.wait(10)
            yield b"two"

        return pieces()

    world.origin.answer = stream
    environ = {"wsgi.url_scheme": "http", "HTTP_HOST": "localhost", "REQUEST_METHOD": "GET"}
    environ |= {"PATH_INFO": "/", "QUERY_STRING": ""}
    leader = []
    thread = threading.Thread(target=lambda: leader.append(world.get()))
    thread.start()
    assert first_sent.wait(10)
    said = []
    along = iter(world.layer(dict(environ), lambda status, headers: said.append(dict(headers))))
    assert next(along) == b"one,"
    assert said[0]["Cache-Status"] == "OpenManager; fwd=uri-miss; collapsed"
    go_on.set()
    assert b"".join(along) == b"two"
    thread.join(10)
    assert leader[0].data == b"one,two"
    assert world.get().data == b"one,two"
    assert len(world.origin.asked) == 1


# --- between workers ----------------------------------------------------------------------------


def test_workers_share_a_store():
    store = Store()
    one = World(store=store)
    two = World(store=store, clock=one.clock, hub=one.hub)
    vary(one, "X-Any")
    one.get("/a", X_Any="1")
    one.later(3)
    response = two.get("/a", X_Any="1")
    assert response.data == b"hello"
    assert response.headers["Age"] == "3"
    assert two.origin.asked == []
    two.get("/a", X_Any="2")
    assert len(two.origin.asked) == 1


@pytest.mark.parametrize("planted", [b"", b"garbage", b"OMC\x01\x00\x00\x00\x01\xc0", b"R\x90"])
def test_what_was_planted_in_the_store_is_a_miss(planted):
    store = Store()
    world = World(store=store)
    world.get()
    for key in store.data:
        store.data[key] = planted
    other = World(store=store, clock=world.clock, hub=world.hub)
    assert other.number() == 1
    assert len(other.origin.asked) == 1


def test_a_store_that_is_away_costs_nothing_but_sharing():
    store = Store()
    world = World(store=store)
    store.away = True
    world.get()
    world.later(6)
    assert world.number() == 1


def test_purges_reach_other_workers():
    one = World()
    two = World(clock=one.clock, hub=one.hub)
    for world in (one, two):
        world.get("/a")
    two.cache.store.hear()
    one.later(1)
    assert one.cache.purge("/a") == 1
    two.cache.store.hear()
    assert two.number("/a") == 2


def test_a_purge_holds_for_what_lies_in_the_store():
    store = Store()
    one = World(store=store)
    one.get("/a/1")
    one.later(10)  # over the time that memory answers on its own
    two = World(store=store, clock=one.clock, hub=one.hub)
    two.cache.purge(prefix="/a/")
    assert two.number("/a/1") == 1
    assert len(two.origin.asked) == 1


def test_an_unsafe_request_in_one_worker_is_heard_in_another():
    one = World()
    two = World(clock=one.clock, hub=one.hub)
    two.get("/a")
    one.later(1)
    one.get("/a", method="POST")
    one.run()
    two.cache.store.hear()
    assert two.number("/a") == 2


# --- purging ------------------------------------------------------------------------------------


def filled():
    world = World()
    for path in ("/a", "/a?x=1", "/a?x=2", "/ab", "/b/1", "/b/2"):
        world.get(path)
    world.get("/a", host="other.example")
    return world


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"url": "/a"}, 4),
        ({"url": "/a?x=1"}, 1),
        ({"url": "http://localhost/a"}, 3),
        ({"url": "http://other.example/a"}, 1),
        ({"prefix": "/b/"}, 2),
        ({"prefix": "http://other.example/"}, 1),
        ({"prefix": "/"}, 7),
        ({"url": "/nothing"}, 0),
        ({"tags": ["none"]}, 0),
    ],
)
def test_purging_by_address_and_prefix(arguments, count):
    world = filled()
    assert world.cache.purge(**arguments) == count
    assert world.cache.stats().entries == 7 - count


def test_a_soft_purge_leaves_the_page_while_a_new_one_is_fetched():
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-while-revalidate=60")]
    world.get()
    assert world.cache.purge("/", soft=True) == 1
    assert world.number() == 1
    world.run()
    assert world.number() == 2


@pytest.mark.parametrize("arguments", [{}, {"url": "a"}, {"prefix": "ftp://x"}])
def test_a_purge_must_say_what(arguments):
    with pytest.raises(ValueError, match=r"purge|neither"):
        World().cache.purge(**arguments)


def test_what_is_stored_can_be_listed():
    world = filled()
    urls = [one["url"] for one in world.cache.entries()]
    assert "http://localhost/a?x=1" in urls
    assert len(urls) == 7


def test_saved_bytes_and_hits_are_exact_and_survive_eviction():
    world = World()
    for _ in range(4):
        world.get()
    stats = world.cache.stats()
    assert (stats.hits, stats.bytes_saved, stats.stored, stats.misses) == (3, 15, 1, 1)
    world.cache.purge("/")
    again = world.cache.stats()
    assert (again.hits, again.bytes_saved, again.entries) == (3, 15, 0)

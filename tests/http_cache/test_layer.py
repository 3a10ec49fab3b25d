"""The layer: what a client gets from stored responses, as RFC 9111 says."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from om_plugins.core.request_state import KEY, RequestState, state_of
from om_plugins.csp.nonce import nonce
from tests.http_cache.world import Store, World, status_of, vary

# --- hits -----------------------------------------------------------------------------------------


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


# --- what is not stored ---------------------------------------------------------------------------


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


# --- Authorization --------------------------------------------------------------------------------


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


# --- Vary -----------------------------------------------------------------------------------------


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


# --- conditional requests and ranges --------------------------------------------------------------


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


# --- serving stale --------------------------------------------------------------------------------


def test_a_stale_response_says_that_no_time_is_left_however_little_is_missing():
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-while-revalidate=30")]
    world.get()
    world.later(60.4)
    assert status_of(world.get()) == "hit; ttl=-1"


def test_stale_while_revalidate_answers_now_and_refreshes_once():
    world = World()
    world.origin.headers = [("Cache-Control", "public, max-age=60, stale-while-revalidate=30")]
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


# --- request directives ---------------------------------------------------------------------------


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


# --- unsafe methods -------------------------------------------------------------------------------


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


# --- nonces ---------------------------------------------------------------------------------------


@pytest.fixture
def nonced():
    world = World()

    def page(environ, start_response):
        value = nonce(environ)
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
    state = RequestState(None)
    answer = nonced.get(If_None_Match='"a"', environ={KEY: state})
    assert answer.status_code == 304
    assert state.page_nonce is None


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
    world = World()
    layer = world.layer
    world.client.application = lambda environ, start: (
        layer(environ, start),
        seen.append(state_of(environ).route),
    )[0]

    def page(environ, start_response):
        state_of(environ).route = environ["PATH_INFO"]
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [b"x"]

    world.origin.answer = page
    world.get("/a")
    world.get("/a")
    assert seen == ["/a", "/a"]


def test_a_hit_of_a_page_without_marks_and_nonce_makes_no_state():
    seen = []
    world = World()
    layer = world.layer
    world.client.application = lambda environ, start: (
        layer(environ, start),
        seen.append(KEY in environ),
    )[0]
    world.origin.headers = [("Cache-Control", "max-age=60")]
    world.get("/a")
    world.get("/a")
    assert len(world.origin.asked) == 1
    assert seen == [True, False]


# --- between workers ------------------------------------------------------------------------------


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
    two.bus.read()
    one.later(1)
    assert one.cache.purge("/a") == 1
    two.bus.read()
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
    two.bus.read()
    assert two.number("/a") == 2

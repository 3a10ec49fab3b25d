"""Each browser hears what is said to it, and nothing else."""

from __future__ import annotations

import json
import threading
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, EnvironBuilder

from om_plugins import OpenManagerMiddleware
from om_plugins.notifications.event_stream import FIELDS


def app(environ, start_response):
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return [b""]


class Opened:
    """One stream, as a server would serve it."""

    def __init__(self, wsgi, path="/_om/events", method="GET", multithread=True, **headers):
        builder = EnvironBuilder(path, method=method, headers=headers, multithread=multithread)
        environ = builder.get_environ()
        if method == "GET":
            environ.pop("CONTENT_TYPE", None)
        self.parts = wsgi(environ, self._start)
        self.iterator = iter(self.parts)
        self.closed = False

    def _start(self, status, headers, exc_info=None):
        self.status = int(status[:3])
        self.headers = dict(headers)
        return

    def next(self):
        return next(self.iterator)

    def items(self):
        """What the next piece says."""
        return [
            json.loads(line[6:])
            for block in self.next().decode().split("\n\n")
            if "event: ready" not in block
            for line in block.split("\n")
            if line.startswith("data: ")
        ]

    def close(self):
        if not self.closed:
            self.closed = True
            self.parts.close()


@pytest.fixture
def runtime(make_runtime):
    return make_runtime(sse_max=10, notify_audience=audience)


def audience(request):
    user = request.headers.get("X-User")
    return [f"user:{user}", "role:editor"] if user else []


@pytest.fixture
def wsgi(runtime):
    return OpenManagerMiddleware(app, runtime=runtime)


@pytest.fixture
def open_stream(wsgi):
    made = []

    def open_(*args, **headers):
        made.append(Opened(wsgi, *args, **headers))
        return made[-1]

    yield open_
    for one in made:
        if hasattr(one.parts, "close"):
            one.close()


@pytest.fixture
def tell(runtime):
    def tell(message, to):
        runtime.part_of("notifications").info(message, to=to)
        runtime.scheduler.run_pending()

    return tell


@pytest.fixture
def poll(wsgi):
    client = Client(wsgi, use_cookies=False)

    def poll(after=None, cookie=""):
        query = {"poll": "1"} | ({} if after is None else {"after": after})
        return client.get("/_om/events", query_string=query, headers={"Cookie": cookie})

    return poll


def cookie_of(opened):
    return opened.headers["Set-Cookie"].partition(";")[0]


def test_a_browser_gets_a_cookie_once_and_then_what_is_said_to_it(runtime, open_stream, tell):
    first = open_stream()
    assert first.status == 200
    assert first.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert first.headers["Cache-Control"] == "no-store"
    assert first.headers["X-Accel-Buffering"] == "no"
    cookie = cookie_of(first)
    first.close()
    mine = open_stream(Cookie=cookie)
    assert "Set-Cookie" not in mine.headers
    assert mine.next().startswith(b"retry: 2000\n\nevent: ready\nid: 0\n")
    tell("for me", runtime.part_of("notifications").browsers.find_address(cookie))
    (item,) = mine.items()
    assert item["message"] == "for me"
    assert set(item) == {
        "id", "kind", "message", "title", "actions", "progress", "duration_s", "key", "at", "data",
    }  # fmt: skip


def test_other_browsers_do_not_hear_what_is_said_to_one(runtime, open_stream, tell):
    one, other = open_stream(), open_stream()
    one.next()
    other.next()
    for stream, name in ((one, "one"), (other, "other")):
        tell(
            f"for {name}", runtime.part_of("notifications").browsers.find_address(cookie_of(stream))
        )
    tell("for operators", "operators")
    tell("for all", "everyone")
    assert [item["message"] for item in one.items()] == ["for one", "for all"]
    assert [item["message"] for item in other.items()] == ["for other", "for all"]


def test_users_and_roles_hear_what_is_said_to_them(open_stream, tell):
    editor, guest = open_stream(**{"X-User": "7"}), open_stream()
    editor.next()
    guest.next()
    for to in ("user:7", "user:8", "role:editor", "role:admin", "everyone"):
        tell(to, to)
    assert [i["message"] for i in editor.items()] == ["user:7", "role:editor", "everyone"]
    assert [i["message"] for i in guest.items()] == ["everyone"]


def test_a_forged_cookie_is_replaced(runtime, open_stream, tell):
    cookie = cookie_of(open_stream())
    address = runtime.part_of("notifications").browsers.find_address(cookie)
    for forged in (cookie[:-3] + "AAA", cookie.partition(".")[0], f"om_sid={address[4:]}."):
        stream = open_stream(Cookie=forged)
        assert runtime.part_of("notifications").browsers.find_address(cookie_of(stream)) not in (
            "",
            address,
        )
        stream.next()
        tell("secret", address)
        tell("for all", "everyone")
        assert [item["message"] for item in stream.items()] == ["for all"]


@pytest.mark.parametrize("how", ["header", "query"])
def test_what_was_missed_is_replayed_once(open_stream, tell, how):
    first = open_stream()
    cookie = cookie_of(first)
    first.next()
    tell("one", "everyone")
    (one,) = first.items()
    first.close()
    tell("two", "everyone")
    tell("private", "operators")
    if how == "header":
        again = open_stream(Cookie=cookie, **{"Last-Event-ID": one["id"]})
    else:
        again = open_stream(f"/_om/events?after={one['id']}", Cookie=cookie)
    assert [item["message"] for item in again.items()] == ["two"]
    tell("three", "everyone")
    assert [item["message"] for item in again.items()] == ["three"]


def test_what_is_replayed_does_not_come_again_from_the_feed(open_stream, tell):
    first = open_stream()  # the feed goes on from here, and has read nothing yet
    first.next()
    tell("one", "everyone")
    late = open_stream(**{"Last-Event-ID": "0"})
    assert [item["message"] for item in late.items()] == ["one"]
    tell("two", "everyone")
    assert [item["message"] for item in late.items()] == ["two"]
    assert [item["message"] for item in first.items()] == ["one", "two"]


def test_what_is_old_is_not_replayed(open_stream, tell, clock):
    first = open_stream()
    first.next()
    tell("one", "everyone")
    (one,) = first.items()
    tell("old", "everyone")
    clock.advance(400)
    tell("new", "everyone")
    again = open_stream(**{"Last-Event-ID": one["id"]})
    assert [item["message"] for item in again.items()] == ["new"]


@pytest.mark.parametrize("after", ["x" * 100, "a\nb", "%00", "1;drop"])
def test_an_id_that_no_hub_gave_counts_for_nothing(open_stream, tell, after):
    tell("before", "everyone")
    stream = open_stream("/_om/events", **({"Last-Event-ID": after} if "\n" not in after else {}))
    assert stream.items() == []


def test_a_new_browser_begins_with_what_comes_now(open_stream, tell):
    tell("before", "everyone")
    stream = open_stream()
    assert stream.items() == []
    tell("now", "everyone")
    assert [item["message"] for item in stream.items()] == ["now"]


def test_a_stream_beats_and_ends_so_that_the_browser_connects_again(open_stream, clock):
    stream = open_stream()
    stream.next()
    clock.advance(10)
    assert stream.next() == b": \nid: 0\n\n"
    clock.advance(14.9)
    assert stream.next() == b": \nid: 0\n\n"
    clock.advance(0.2)
    with pytest.raises(StopIteration):
        stream.next()


def test_a_beat_moves_the_id_past_what_others_got(open_stream, tell, clock, runtime):
    stream = open_stream()
    stream.next()
    tell("private", "operators")
    threading.Timer(0.2, clock.advance, [10]).start()
    last = runtime.hub.last_id("notifications")
    assert stream.next() == f": \nid: {last}\n\n".encode()


def test_streams_end_when_the_application_is_closed(open_stream, runtime):
    stream = open_stream()
    stream.next()
    threading.Timer(0.1, runtime.close).start()
    with pytest.raises(StopIteration):
        stream.next()
    assert open_stream().status == 204


def test_a_server_with_one_thread_serves_no_stream(make_runtime, clock):
    wsgi = OpenManagerMiddleware(app, runtime=make_runtime())
    stream = Opened(wsgi, multithread=False)
    assert (stream.status, b"".join(stream.parts)) == (204, b"")
    assert "Set-Cookie" in stream.headers  # it polls, and is known then


def test_only_so_many_streams_are_served_and_a_closed_one_makes_room(make_runtime):
    wsgi = OpenManagerMiddleware(app, runtime=make_runtime())
    first = Opened(wsgi)
    assert (first.status, Opened(wsgi).status) == (200, 204)
    first.close()  # before it was read from, too
    second = Opened(wsgi)
    assert second.status == 200
    second.next()
    second.close()
    second.close()
    third = Opened(wsgi)
    assert third.status == 200
    third.close()


def test_polling_gives_what_is_new_and_where_to_go_on(poll, tell, runtime):
    answer = poll()
    assert answer.content_type == "application/json"
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    ((cursor),) = answer.json
    assert cursor == {"id": "0", "kind": "cursor"}
    tell("for me", runtime.part_of("notifications").browsers.find_address(cookie))
    tell("private", "operators")
    mine, cursor = poll("0", cookie).json
    assert (mine["message"], cursor["kind"]) == ("for me", "cursor")
    assert poll(cursor["id"], cookie).json == []
    tell("for all", "everyone")
    (last,) = poll(cursor["id"], cookie).json
    assert last["message"] == "for all"
    assert poll(cookie=cookie).json == [{"id": last["id"], "kind": "cursor"}]


def test_polling_looks_past_many_that_are_for_others(poll, tell, runtime):
    for n in range(500):
        runtime.hub.publish("notifications", {"to": "operators", "message": str(n)})
    tell("for all", "everyone")
    (item,) = poll("0").json
    assert item["message"] == "for all"


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}]
)
def test_other_sites_cannot_listen(open_stream, headers):
    stream = open_stream(**headers)
    assert stream.status == 403
    assert "Set-Cookie" not in stream.headers


def test_only_get_is_answered(open_stream):
    stream = open_stream("/_om/events", "POST")
    assert (stream.status, stream.headers["Allow"]) == (405, "GET")
    assert b"".join(open_stream("/_om/events", "HEAD").parts) == b""


def test_the_cookie_is_for_the_place_where_the_application_is_mounted(wsgi):
    answer = Client(wsgi).get("/_om/events?poll=1", base_url="https://site.example/shop")
    assert "Path=/shop/;" in answer.headers["Set-Cookie"] + ";"
    assert "Secure" in answer.headers["Set-Cookie"]


def test_what_is_in_the_hub_that_is_no_notification_is_left_out(open_stream, runtime, tell):
    stream = open_stream()
    stream.next()
    for data in (None, [1], {"to": ["everyone"]}, "x"):
        runtime.hub.publish("notifications", data)
    tell("good", "everyone")
    assert [item["message"] for item in stream.items()] == ["good"]


def test_the_endpoint_is_valid_wsgi(wsgi, clock):
    checked = validator(wsgi)
    for path in ("/_om/events?poll=1", "/_om/events"):
        opened = Opened(checked, path)
        clock.advance(26)
        assert b"".join(opened.iterator)
        opened.close()


def test_the_fields_of_the_contract_are_those_of_a_notification():
    from om_plugins.types import Notification

    assert set(FIELDS) < set(Notification.__dataclass_fields__)


# --- what changed in the cache ------------------------------------------------------------------


def changed(piece):
    """The keys of the ``changed`` event in a piece; ``None`` when there is none."""
    for block in piece.decode().split("\n\n"):
        if block.startswith("event: changed\n"):
            return json.loads(block.partition("data: ")[2])["keys"]
    return None


def test_a_live_key_is_told_to_who_may_know_and_its_value_to_nobody(runtime, open_stream):
    everyone, seven = open_stream(), open_stream(X_User="7")
    for stream in (everyone, seven):
        assert changed(stream.next()) is None
    runtime.part_of("cache").query("load", lambda: "a value", live=True)
    runtime.part_of("cache").query(("inbox", 7), lambda: "a letter", scope="7", live="user:7")
    runtime.part_of("cache").query("private", lambda: "a secret")
    pieces = {}
    for stream, count in ((everyone, 1), (seven, 2)):
        piece, keys = b"", []
        while len(keys) < count:
            piece += stream.next()
            keys = changed(piece) or []
        pieces[stream] = piece
        assert b"id: " not in piece  # nothing to go on from
        assert not any(word in piece for word in (b"a value", b"a letter", b"secret", b"private"))
    assert changed(pieces[everyone]) == ["load"]
    assert changed(pieces[seven]) == ["load", ["inbox", 7]]


def test_who_comes_later_is_told_what_changed_in_the_last_minute(runtime, open_stream, wsgi):
    runtime.part_of("cache").query("load", lambda: 1, live=True)
    assert changed(open_stream().next()) == ["load"]
    polled = Client(wsgi).get("/_om/events?poll=1").json
    assert polled[0] == {"kind": "changed", "keys": ["load"]}
    assert polled[-1]["kind"] == "cursor"

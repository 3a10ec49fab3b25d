"""``Idempotency-Key``: sent again is answered again, never asked again, and never for others."""

from __future__ import annotations

import threading

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.errors import ChainExhausted, HubError, InvalidRequest, RateLimited, Transient
from om_plugins.gateway import idempotency
from om_plugins.gateway.idempotency import IdempotencyKeys
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Answer, Attempt, Caller
from tests.gateway.conftest import AChain, Chunks, Client
from tests.patience import HANG_S, PATIENCE_S, join

KEY = {"Idempotency-Key": "k-1"}
EVENTS = {**KEY, "Accept": "text/event-stream"}


def exhausted(*errors):
    attempts = [Attempt("e", 1, n, error, error.sent, 0.1) for n, error in enumerate(errors, 1)]
    return ChainExhausted("none", list(errors), "assistant", attempts)


def test_the_same_question_is_answered_again_and_not_asked_again():
    client = Client(AChain())
    first = client.ask(body={"a": 1, "b": 2}, headers=KEY)
    again = client.ask(body=b'{"b": 2,   "a": 1}', headers=KEY)
    assert len(client.chain.calls) == 1
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["om-engine"] == "echo"
    assert again.headers["om-replayed"] == "?1"
    assert "om-replayed" not in first.headers


def test_without_a_key_every_question_is_asked():
    client = Client(AChain())
    client.ask()
    client.ask()
    assert len(client.chain.calls) == 2


def test_the_quotes_of_a_structured_field_are_no_part_of_the_key():
    client = Client(AChain())
    client.ask(headers=KEY)
    assert client.ask(headers={"Idempotency-Key": '"k-1"'}).headers["om-replayed"] == "?1"


def test_another_question_with_that_key_is_422():
    client = Client(AChain())
    client.ask(body={"a": 1}, headers=KEY)
    reply = client.ask(body={"a": 2}, headers=KEY)
    assert (reply.status, len(client.chain.calls)) == (422, 1)
    assert "Use a new one" in reply.json["detail"]
    assert client.ask(body={"a": 1}, headers=EVENTS).status == 422  # a stream is another answer


def test_while_the_first_is_under_way_the_second_is_409():
    client = Client(AChain())
    seen = []

    def call(payload, **options):
        seen.append(client.ask(headers=KEY))
        seen.append(client.ask(body={"other": 1}, headers=KEY))
        return Answer("done", engine="e")

    client.chain.call = call
    assert client.ask(headers=KEY).status == 200
    assert [reply.status for reply in seen] == [409, 422]
    assert seen[0].headers["retry-after"] == "1"
    assert client.ask(headers=KEY).headers["om-replayed"] == "?1"


def test_of_many_at_once_one_is_asked():
    client = Client(AChain())
    gate, inside = threading.Event(), threading.Event()
    calls = []

    def call(payload, **options):
        calls.append(1)
        inside.set()
        gate.wait(HANG_S)
        return Answer("done", engine="e")

    client.chain.call = call
    replies = []
    threads = [
        threading.Thread(target=lambda: replies.append(client.ask(headers=KEY).status))
        for _ in range(8)
    ]
    threads[0].start()
    inside.wait(PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    for thread in threads[1:]:
        join(thread)
    gate.set()
    join(threads[0])
    assert len(calls) == 1
    assert sorted(replies) == [200] + [409] * 7


def test_it_holds_in_another_worker():
    clock = FakeClock()
    hub = MemoryHub("memory://", clock)
    one, two = (Client(AChain(), clock=clock, hub=hub) for _ in range(2))
    one.ask(headers=KEY)
    assert two.ask(headers=KEY).headers["om-replayed"] == "?1"
    assert two.chain.calls == []


@pytest.mark.parametrize(
    "other",
    [
        {"headers": {**KEY, "Authorization": "Bearer other"}},
        {"headers": {**KEY, "Cookie": "session=other"}},
        {"headers": KEY, "REMOTE_ADDR": "198.51.100.8"},
        {"headers": KEY, "path": "/질문"},
    ],
)
def test_another_client_or_route_never_gets_the_answer(other):
    client = Client(AChain())
    client.ask(headers=KEY)
    assert "om-replayed" not in client.ask(**other).headers
    keys = [options["idempotency_key"] for _, options in client.chain.calls]
    assert len(set(keys)) == 2  # nor does the engine take the two for one


def test_what_auth_says_is_who_the_client_is():
    def auth(request):
        user = request.headers.get("X-User")
        return Caller(user) if user else False

    client = Client(AChain(), options={"auth": auth, "rate": None})
    ann = {**KEY, "X-User": "ann"}
    client.ask(headers=ann)
    reply = client.ask(headers={**ann, "Cookie": "new=1"}, REMOTE_ADDR="203.0.113.9")
    assert reply.headers["om-replayed"] == "?1"
    assert "om-replayed" not in client.ask(headers={**KEY, "X-User": "bob"}).headers
    assert client.ask(headers=KEY).status == 401


def test_no_address_key_or_question_can_be_read_in_the_hub():
    client = Client(AChain())
    client.ask(headers={**KEY, "Cookie": "session=secret"})
    ((name, record),) = client.hub.scan("idempotency:").items()
    for secret in ("198.51.100.7", "k-1", "session"):
        assert secret not in name + repr({k: v for k, v in record.items() if k != "body"})


def test_a_name_has_the_length_of_each_of_its_parts():
    keys = IdempotencyKeys("/a", 60, None, lambda: b"k", FakeClock())
    parts = [["ab", "c"], ["a", "bc"], ["abc"], ["", "abc"], [b"abc", ""], ["1:a", "bc"]]
    assert len({keys.build_name("k", part) for part in parts}) == len(parts)
    assert keys.build_name("k", ["x"]) != keys.build_name("kx", [])


def test_an_answer_is_kept_as_long_as_said():
    client = Client(AChain(), options={"idempotency_time": 100})
    client.ask(headers=KEY)
    client.clock.advance(99)
    assert client.ask(headers=KEY).headers["om-replayed"] == "?1"
    client.clock.advance(2)
    assert "om-replayed" not in client.ask(headers=KEY).headers


def test_it_can_be_switched_off():
    client = Client(AChain(), options={"idempotency_time": 0})
    client.ask(headers=KEY)
    client.ask(headers=KEY)
    assert len(client.chain.calls) == 2
    assert client.hub.scan("idempotency") == {}


def test_a_key_can_be_asked_for():
    client = Client(AChain(idempotent=True), options={"require_key": True})
    reply = client.ask()
    assert reply.status == 400
    assert "Idempotency-Key" in reply.json["detail"]
    assert client.ask(headers=KEY).status == 200
    assert client.ask(method="GET").status == 200


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("no", sent="yes"),
        exhausted(Transient("refused", sent="no")),
        exhausted(RateLimited("wait", sent="yes")),
    ],
)
def test_what_was_not_done_may_be_tried_again(error):
    client = Client(AChain(error))
    assert client.ask(headers=KEY).status >= 400
    client.chain.answer = None
    reply = client.ask(headers=KEY)
    assert reply.status == 200
    assert "om-replayed" not in reply.headers


def test_what_may_have_been_done_is_not_tried_again():
    client = Client(AChain(exhausted(Transient("no", sent="no"), Transient("?", sent="maybe"))))
    first = client.ask(headers=KEY)
    client.chain.answer = None
    again = client.ask(headers=KEY)
    assert (first.status, again.status) == (503, 503)
    assert again.headers["om-replayed"] == "?1"
    assert again.json == first.json
    assert len(client.chain.calls) == 1


def test_what_does_no_harm_twice_is_always_tried_again():
    client = Client(AChain(exhausted(Transient("?", sent="maybe")), idempotent=True))
    assert client.ask(headers=KEY).status == 503
    client.chain.answer = None
    assert client.ask(headers=KEY).status == 200


def test_a_worker_that_died_frees_the_key_when_its_time_is_over():
    client = Client(AChain(KeyboardInterrupt()), options={"timeout": 5})

    def dies(payload, **options):
        raise SystemExit

    asks, client.chain.call = client.chain.call, dies
    with pytest.raises(SystemExit):
        client.ask(headers=KEY)
    client.chain.call, client.chain.answer = asks, None
    assert client.ask(headers=KEY).status == 409
    client.clock.advance(21)
    assert client.ask(headers=KEY).status == 200


class Lost:
    """A hub that is out of reach."""

    def __getattr__(self, name):
        def fails(*args, **options):
            raise HubError("gone")

        return fails


def test_without_the_hub_the_call_goes_on_and_it_is_said_once(caplog):
    client = Client(AChain(), hub=Lost(), options={"rate": None})
    assert [client.ask(headers=KEY).status for _ in range(3)] == [200] * 3
    assert len(client.chain.calls) == 3
    assert caplog.text.count("are not kept for their Idempotency-Key") == 1


# --- bounds ---------------------------------------------------------------------------------------


def test_what_is_too_large_is_not_asked_again_and_that_is_said(monkeypatch):
    monkeypatch.setattr(idempotency, "MAX_STORED_BYTES", 10)
    client = Client(AChain(Answer("x" * 100, engine="e")))
    assert client.ask(headers=KEY).status == 200
    reply = client.ask(headers=KEY)
    assert (reply.status, len(client.chain.calls)) == (409, 1)
    assert "cannot be given again" in reply.json["detail"]
    assert "retry-after" not in reply.headers


def test_the_room_of_a_route_is_bounded(monkeypatch):
    monkeypatch.setattr(idempotency, "MAX_ROUTE_BYTES", 30)
    client = Client(AChain(Answer("x", engine="e")), options={"rate": None})
    for number in range(3):
        client.ask(headers={"Idempotency-Key": f"k-{number}"})
    records = client.hub.scan("idempotency:").values()
    assert sorted(record["state"] for record in records) == ["answered", "answered", "not kept"]


# --- streams --------------------------------------------------------------------------------------


def test_a_stream_that_ended_is_given_again():
    client = Client(AChain(Answer(chunks=Chunks("a", "b"), engine="e")))
    first = client.ask(headers=EVENTS)
    again = client.ask(headers=EVENTS)
    assert [name for name, _ in first.events] == ["meta", "chunk", "chunk", "done"]
    assert again.events == first.events
    assert again.headers["content-type"].startswith("text/event-stream")
    assert again.headers["om-replayed"] == "?1"
    assert len(client.chain.calls) == 1


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_stream_that_broke_off_is_refused_unless_it_does_no_harm(idempotent):
    answer = Answer(chunks=Chunks("a", Transient("cut")), engine="e")
    client = Client(AChain(answer, idempotent=idempotent))
    assert client.ask(headers=EVENTS).events[-1][0] == "error"
    client.chain.answer = None
    reply = client.ask(headers=EVENTS)
    assert reply.status == (200 if idempotent else 409)


def test_a_client_that_left_the_stream_frees_no_key():
    chunks = Chunks("a", "b")
    client = Client(AChain(Answer(chunks=chunks, engine="e")))
    body, _ = client.open(headers=EVENTS)
    next(iter(body))
    body.close()
    assert chunks.closed
    assert client.ask(headers=EVENTS).status == 409


def test_a_long_stream_holds_its_key():
    clock = FakeClock()

    def slow():
        for _ in range(10):
            clock.advance(10)
            yield "a"

    client = Client(AChain(Answer(chunks=slow(), engine="e")), clock=clock, options={"timeout": 20})
    body, _ = client.open(headers=EVENTS)
    for _ in body:
        assert client.hub.scan("idempotency:")
        assert client.ask(headers=EVENTS).status == 409
    body.close()
    assert client.ask(headers=EVENTS).headers["om-replayed"] == "?1"

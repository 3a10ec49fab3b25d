"""The rate limit, seen through an engine route."""

from __future__ import annotations

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.errors import (
    HubError,
)
from om_plugins.testing.fakes import FakeClock
from tests.gateway.conftest import AChain, Client


def test_rate_is_counted_per_client_and_over_workers():
    clock = FakeClock(now=6000.0)
    hub = MemoryHub("memory://", clock)
    one = Client(AChain(), clock=clock, hub=hub, options={"rate": "2/min"})
    two = Client(AChain(), clock=clock, hub=hub, options={"rate": "2/min"})
    assert one.ask().headers["ratelimit"] == '"default";r=1;t=60'
    assert two.ask().status == 200
    clock.advance(20)
    refused = one.ask()
    assert (refused.status, refused.headers["retry-after"]) == (429, "40")
    assert refused.json["retry_after"] == 40
    assert two.ask().status == 429
    assert one.ask(REMOTE_ADDR="203.0.113.9").status == 200
    clock.advance(40)
    assert one.ask().status == 200


def test_addresses_of_one_ipv6_customer_are_one_client():
    client = Client(AChain(), options={"rate": "1/min"})
    assert client.ask(REMOTE_ADDR="2001:db8::1").status == 200
    assert client.ask(REMOTE_ADDR="2001:db8::ffff:2").status == 429
    assert client.ask(REMOTE_ADDR="2001:db8:0:1::1").status == 200
    assert client.ask(REMOTE_ADDR="::ffff:192.0.2.1").status == 200
    assert client.ask(REMOTE_ADDR="192.0.2.1").status == 429
    assert client.ask(REMOTE_ADDR="not:an:address").status == 200
    assert client.ask(REMOTE_ADDR=None).status == 200


class RecordingHub:
    def __init__(self, error=None):
        self.keys = []
        self.error = error

    def increment(self, key, amount=1, ttl=60.0):
        self.keys.append(key)
        if self.error:
            raise self.error
        return len(self.keys)


def test_no_address_reaches_the_hub_and_a_flood_does_not_either():
    client = Client(AChain(), hub=RecordingHub(), options={"rate": "3/min"})
    assert [client.ask().status for _ in range(8)] == [200] * 3 + [429] * 5
    assert len(client.hub.keys) == 4
    assert not any("198.51" in key for key in client.hub.keys)


def test_lost_hub_never_fails_a_request(caplog):
    client = Client(AChain(), hub=RecordingHub(HubError("gone")))
    assert [client.ask().status for _ in range(3)] == [200] * 3
    assert caplog.text.count("is not counted") == 1, "said once, not for every request"


def test_rate_can_be_switched_off():
    client = Client(AChain(), hub=RecordingHub(HubError("gone")), options={"rate": None})
    client.ask()
    assert not client.hub.keys

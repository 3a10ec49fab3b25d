"""CORS: which other sites may call an engine route."""

from __future__ import annotations

from om_plugins.errors import (
    ChainExhausted,
    Transient,
)
from tests.gateway.conftest import AChain, Client


def test_allowed_origin_may_ask_and_read():
    client = Client(AChain(), options={"cors": ["https://pal.example"]})
    pal = {"Origin": "https://pal.example", "Sec-Fetch-Site": "cross-site"}
    reply = client.ask(headers=pal)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == "https://pal.example"
    assert reply.headers["vary"] == "Origin"
    client.chain.answer = ChainExhausted("x", [Transient()])
    assert "access-control-allow-origin" in client.ask(headers=pal).headers
    other = client.ask(headers={"Origin": "https://other.example"})
    assert (other.status, other.headers["vary"]) == (403, "Origin")
    assert "access-control-allow-origin" not in other.headers


def test_preflight_is_answered_for_allowed_origins_only():
    client = Client(AChain(), options={"cors": ["https://pal.example"]})
    asked = {"Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "cross-site"}
    reply = client.ask(method="OPTIONS", headers={"Origin": "https://pal.example", **asked})
    assert reply.status == 204
    assert reply.headers["access-control-allow-methods"] == "POST"
    assert "Content-Type" in reply.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in reply.headers
    reply = client.ask(method="OPTIONS", headers={"Origin": "https://evil.example", **asked})
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_star_allows_every_site():
    reply = Client(AChain(), options={"cors": "*"}).ask(headers={"Origin": "https://any.example"})
    assert reply.headers["access-control-allow-origin"] == "*"

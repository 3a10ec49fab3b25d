"""One bad caller among good ones, through every shipped engine: no good call leaves the first tier.

The bad caller gets each status twice. It brings credentials where the engine passes them on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

import om_plugins
from om_plugins import (
    CallableEngine,
    ChainPolicy,
    EngineChain,
    EngineSpec,
    HttpEngine,
    OpenAIEngine,
    ProxyApp,
    ProxyEngine,
    StaticEngine,
    WsgiEngine,
)
from om_plugins.builtin.http.status import map_status
from om_plugins.errors import (
    InvalidRequest,
    Misconfigured,
    OpenManagerError,
    RateLimited,
    TooLong,
    Unsupported,
)
from om_plugins.types import HttpRequest

UNNAMED = (419, 420, 430, 440, 444, 450, 494, 495, 498, 499, 509, 520, 522, 526, 529, 530, 599)
STATUSES = sorted({status.value for status in HTTPStatus if status >= 300} | {*UNNAMED})
FAILURES = {408, 425, 429, *range(500, 600)}
"""These say something about the upstream, and a breaker opens when half of the calls end so. The
bad caller gets them between more good calls; of all others, two for one good call."""

Ask = Callable[[int | None, bool], tuple[int, object]]
"""Makes one call, bad with a status or good; returns the tier and the answer."""


def status_in(text: str) -> int | None:
    found = re.search(r"BAD-(\d{3})", text)
    return int(found[1]) if found else None


def reply(request) -> tuple[int, dict[str, str], bytes]:
    """Answer as an upstream that refuses what contains ``BAD-`` and a status."""
    text = f"{request['path']} {request['body'].decode()} {request['headers']}"
    status = status_in(text)
    if status is not None:
        return status, {}, b"" if status == 304 else b'{"error": "no"}'
    if "chat" not in request["path"]:
        return 200, {}, b'{"answer": "good"}'
    if b'"stream"' not in request["body"]:
        message = {"role": "assistant", "content": "good"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return 200, {}, json.dumps({"choices": [choice]}).encode()
    choice = {"index": 0, "delta": {"content": "good"}, "finish_reason": "stop"}
    events = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
    return 200, {"Content-Type": "text/event-stream"}, events.encode()


def app(environ, start_response) -> list[bytes]:
    """The same as a WSGI application."""
    request = {
        "path": f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}",
        "body": environ["wsgi.input"].read(),
        "headers": {key: value for key, value in environ.items() if key.startswith("HTTP_")},
    }
    status, headers, body = reply(request)
    start_response(f"{status} X", [("Content-Type", "application/json"), *headers.items()])
    return [body]


def refuse(call) -> dict[str, str]:
    """A function that judges the status of what it asks as the engines do."""
    status = status_in(str(call.payload))
    if status is not None:
        raise map_status(status, {}, "up", sent_names=call.headers or ())
    return {"answer": "good"}


def refuse_in_a_stream(call) -> Iterator[str]:
    yield refuse(call)["answer"]


async def refuse_later(call) -> dict[str, str]:
    return refuse(call)


class WithAnotherClient:
    """A function that asks with the HTTP client of the standard library."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, call) -> dict[str, str]:
        try:
            with urlopen(f"{self.url}/{call.payload['question']}") as response:
                return json.load(response)
        except HTTPError as error:
            error.close()
            raise


REFUSALS = (
    Misconfigured("not yours"),
    Unsupported("not here"),
    TooLong("too long"),
    InvalidRequest("wrong"),
    RateLimited("slower, please", concerns_caller=True),
    Misconfigured("signed out", concerns_caller=True),
)


def refuse_as_a_third_party(call) -> dict[str, str]:
    """Any error with which an engine may refuse a call."""
    status = status_in(str(call.payload))
    if status is not None:
        raise REFUSALS[status % len(REFUSALS)]
    return {"answer": "good"}


def chain_with(engine: object) -> EngineChain:
    chain = EngineChain("chain", ChainPolicy(retries=0))
    chain.add(EngineSpec(engine, "chain", 1))
    chain.add(EngineSpec(StaticEngine("second", {"answer": "second"}), "chain", 2))
    return chain


def json_calls(engine: object) -> Ask:
    chain = chain_with(engine)

    def ask(bad: int | None, stream: bool) -> tuple[int, object]:
        payload = {"question": "good" if bad is None else f"BAD-{bad}"}
        headers = {"authorization": f"Bearer {bad}"}
        answer = chain.call(payload, stream=stream, headers=headers)
        return answer.tier, list(answer) if answer.streamed else answer.payload

    return ask


def whole_requests(engine: object) -> Ask:
    chain = chain_with(engine)

    def ask(bad: int | None, stream: bool) -> tuple[int, object]:
        target = "/good" if bad is None else f"/BAD-{bad}"
        request = HttpRequest("GET", target, [("Host", "x"), ("Cookie", f"user={bad}")])
        answer = chain.call(request, stream=stream, method="GET")
        return answer.tier, list(answer)

    return ask


def requests_of_an_app(ask_for: object) -> Ask:
    application = ProxyApp(ask_for)

    def ask(bad: int | None, stream: bool) -> tuple[int, object]:
        builder = EnvironBuilder("/good" if bad is None else f"/BAD-{bad}")
        pieces, status, _ = run_wsgi_app(application, builder.get_environ(), buffered=True)
        body = b"".join(pieces)
        return (1 if status.startswith("200") and b'"good"' in body else 2), body

    return ask


PASSED = {"pass_headers": ["authorization"]}
ENGINES: dict[str, Callable[[str], Ask]] = {
    "HttpEngine, POST": lambda url: json_calls(HttpEngine("e", url, **PASSED)),
    "HttpEngine, GET": lambda url: json_calls(HttpEngine("e", url, method="GET", **PASSED)),
    "HttpEngine, streaming": lambda url: json_calls(HttpEngine("e", url, streaming=True, **PASSED)),
    "HttpEngine, with a health_url": lambda url: json_calls(
        HttpEngine("e", url, health_url=f"{url}/health", **PASSED)
    ),
    "HttpEngine, whose health_url is wrong": lambda url: json_calls(
        HttpEngine("e", url, health_url=f"{url}/BAD-404", **PASSED)
    ),
    "OpenAIEngine": lambda url: json_calls(OpenAIEngine("e", f"{url}/v1", "m")),
    "ProxyEngine": lambda url: whole_requests(ProxyEngine("e", url)),
    "ProxyEngine, that fails on all": lambda url: whole_requests(
        ProxyEngine("e", url, fail_on=range(400, 600))
    ),
    "ProxyApp of a chain": lambda url: requests_of_an_app(
        chain_with(ProxyEngine("e", url, fail_on=range(400, 600)))
    ),
    "ProxyApp of an engine": lambda url: requests_of_an_app(ProxyEngine("e", url)),
    "WsgiEngine": lambda url: json_calls(WsgiEngine("e", app)),
    "WsgiEngine, whole requests": lambda url: whole_requests(WsgiEngine("e", app)),
    "WsgiEngine, that fails on all": lambda url: whole_requests(
        WsgiEngine("e", app, fail_on=range(400, 600))
    ),
    "CallableEngine": lambda url: json_calls(CallableEngine("e", refuse)),
    "CallableEngine, stream": lambda url: json_calls(CallableEngine("e", refuse_in_a_stream)),
    "CallableEngine, async": lambda url: json_calls(CallableEngine("e", refuse_later)),
    "CallableEngine, pool": lambda url: json_calls(CallableEngine("e", refuse, max_threads=2)),
    "CallableEngine, interrupt": lambda url: json_calls(
        CallableEngine("e", refuse, interrupt=True)
    ),
    "CallableEngine, another client": lambda url: json_calls(
        CallableEngine("e", WithAnotherClient(url))
    ),
    "StaticEngine": lambda url: json_calls(StaticEngine("e", refuse)),
    "any error of a third party": lambda url: json_calls(
        CallableEngine("e", refuse_as_a_third_party)
    ),
}
LOCAL_COPIES = {"StaleEngine"}
"""It asks nobody, and has only answers of other engines."""
# Of 429 without a word of who asks, a service means everybody: the engine cools down.
UNKNOWN_CALLERS = {"OpenAIEngine", "WsgiEngine"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ENGINES)
def test_every_good_call_is_answered_by_the_first_tier(upstream, name, stream):
    upstream.reply = reply
    ask = ENGINES[name](upstream.url)
    statuses = [s for s in STATUSES if not (s == 429 and name in UNKNOWN_CALLERS)]
    good = [ask(None, stream)]
    for status in sorted(statuses, key=lambda status: status in FAILURES):
        for again in (False, True):
            try:
                tier, answer = ask(status, stream)
            except OpenManagerError:  # wrong for everybody
                pass
            else:
                assert tier == 2 or "good" not in str(answer)
            if again or status in FAILURES:
                good += [ask(None, stream)]
            if status in FAILURES:
                good += [ask(None, stream)]
    assert {tier for tier, _ in good} == {1}
    assert all("good" in str(answer) for _, answer in good)


def test_every_shipped_engine_is_among_them():
    shipped = {name for name in om_plugins.__all__ if name.endswith("Engine")} - LOCAL_COPIES
    assert shipped <= {name.partition(",")[0] for name in ENGINES}


OWN = {"headers": {"Authorization": "Bearer own"}}


@pytest.mark.parametrize(
    ("make", "headers", "cools"),
    [
        (lambda url: HttpEngine("e", url, **PASSED), {"authorization": "Bearer a"}, False),
        (lambda url: HttpEngine("e", url, **PASSED), {"accept-language": "ko"}, True),
        (lambda url: HttpEngine("e", url), {"authorization": "Bearer a"}, True),
        (lambda url: HttpEngine("e", url, **PASSED, **OWN), {"authorization": "Bearer a"}, True),
        (lambda url: HttpEngine("e", url, pass_headers=["X-Api-Key"]), {"x-api-key": "a"}, False),
        (lambda url: WsgiEngine("e", app), {"authorization": "Bearer a"}, True),
    ],
)
def test_a_limit_of_the_engines_own_credentials_cools_it_and_that_of_a_caller_does_not(
    upstream, make, headers, cools
):
    upstream.reply = reply
    chain = chain_with(make(upstream.url))
    for stream in (False, True):
        assert chain.call({"q": "BAD-429"}, headers=headers, stream=stream).tier == 2
        assert (chain.states[0].cooldown.until > 0) is cools


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/xhtml+xml"])
@pytest.mark.parametrize("passes", [True, False])
def test_a_page_to_sign_in_concerns_the_caller_whose_session_is_over(
    upstream, passes, kind, streaming
):
    page = b"<!doctype html><title>Sign in</title>"

    def answer(request):
        if "bad" in request["headers"].get("cookie", "") or not passes:
            return 200, {"Content-Type": kind}, page
        return 200, {}, b'{"answer": "good"}'

    upstream.reply = answer
    engine = HttpEngine(
        "e", upstream.url, streaming=streaming, pass_headers=["cookie"] if passes else []
    )
    chain = EngineChain("chain", ChainPolicy(retries=0, breaker_min_calls=2))
    chain.add(EngineSpec(engine, "chain", 1))
    chain.add(EngineSpec(StaticEngine("second", "second"), "chain", 2))
    for _ in range(5):
        tier = chain.call({}, headers={"cookie": "user=bad"}, stream=streaming).tier
        assert tier == 2
        if passes:
            assert chain.call({}, headers={"cookie": "user=good"}, stream=streaming).tier == 1
    assert bool(chain.states[0].breaker.permit) is passes


@pytest.mark.parametrize(
    ("sent", "cools"),
    [
        ([("Authorization", "Bearer a")], True),  # the engine's own replaces it
        ([("Authorization", "Bearer a"), ("Cookie", "a=1")], False),
        ([("X-Forwarded-For", "192.0.2.1")], False),
        ([("Forwarded", "for=192.0.2.1")], False),
        ([("Accept", "text/html"), ("Idempotency-Key", "k")], True),
    ],
)
@pytest.mark.parametrize("kind", ["ProxyEngine", "WsgiEngine"])
def test_a_limit_of_one_callers_whole_requests_cools_nobodys_engine(upstream, kind, sent, cools):
    upstream.reply = reply
    engine = (
        ProxyEngine("e", upstream.url, fail_on=[429], **OWN)
        if kind == "ProxyEngine"
        else WsgiEngine("e", app, fail_on=[429], **OWN)
    )
    chain = chain_with(engine)
    request = HttpRequest("GET", "/BAD-429", [("Host", "x"), *sent])
    assert chain.call(request, method="GET").tier == 2
    assert (chain.states[0].cooldown.until > 0) is cools

"""The browser's way to ask an engine route, in a real browser under a strict policy."""

from __future__ import annotations

import importlib.resources
import threading

import pytest
from werkzeug.serving import make_server

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.core.clock import SystemClock
from om_plugins.errors import ChainExhausted, Transient
from om_plugins.gateway.layer import EngineRoutes
from om_plugins.gateway.options import RouteOptions
from om_plugins.types import Answer, ModelRefusal
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.browser

MODULES = importlib.resources.files("om_plugins") / "browser" / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
MAIN = b"""
import { ask } from "/om.js";
const log = [];
try {
  const options = {
    onMeta: (meta) => log.push(["meta", meta]),
    onChunk: (piece) => log.push(["chunk", piece]),
  };
  if (location.hash === "#stop") {
    const stop = new AbortController();
    options.signal = stop.signal;
    options.onChunk = () => stop.abort();
  }
  const result = await ask("/ask", { q: location.hash.slice(1) }, options);
  log.push(["result", result]);
} catch (error) {
  log.push(["error", error.name, error.message, error.status ?? null, error.retryAfter ?? null]);
}
document.body.dataset.log = JSON.stringify(log);
"""
META = {"engine": "e", "tier": 2, "attempts": 1, "degraded": True, "stale": False}


class AChain:
    name = "assistant"
    idempotent = False

    def __init__(self):
        self.closed = threading.Event()

    def call(self, payload=None, **options):
        kind = payload["q"]
        if kind == "down":
            raise ChainExhausted("x", [Transient("s3cret")], "assistant", [], 7.0)
        if kind == "whole":
            return Answer({"answer": "all"}, engine="e", tier=2, degraded=True)
        if kind == "refusal":
            return Answer(ModelRefusal("I may not."), engine="e", tier=2, degraded=True)
        return Answer(chunks=self.chunks(kind), engine="e", tier=2, degraded=True)

    def chunks(self, kind):
        try:
            yield "디스크 "
            yield "<img src=x onerror=alert(1)>"
            if kind == "broken":
                raise Transient("s3cret")
            while kind == "stop":
                yield "on and on"
        finally:
            self.closed.set()


@pytest.fixture(scope="module")
def site():
    def pages(environ, start_response):
        path = environ["PATH_INFO"]
        kind, body = {
            "/om.js": ("text/javascript", (MODULES / "om.js").read_bytes()),
            "/ask.js": ("text/javascript", (MODULES / "ask.js").read_bytes()),
            "/main.js": ("text/javascript", MAIN),
        }.get(path, ("text/html", b'<script type="module" src="/main.js"></script><body>'))
        start_response("200 OK", [("Content-Type", kind), ("Content-Security-Policy", POLICY)])
        return [body]

    chain, clock = AChain(), SystemClock()
    app = EngineRoutes(
        pages, {"/ask": RouteOptions(chain="assistant")}, lambda name: chain,
        hub=MemoryHub("memory://", clock), secret=lambda: b"for tests only", clock=clock,
    )  # fmt: skip
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.port}", chain
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def outcome(browser, site):
    """What the page's module saw, for a kind of question; fails on any console error."""
    context = browser.new_context()

    def ask(kind, allowed=()):
        page = context.new_page()
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{site[0]}/page#{kind}")
        page.wait_for_selector("body[data-log]")
        unexpected = [text for text in said if not any(word in text for word in allowed)]
        assert not unexpected
        return page.evaluate("JSON.parse(document.body.dataset.log)")

    yield ask
    context.close()


def test_stream_arrives_in_pieces_under_a_strict_policy(outcome):
    text = "디스크 <img src=x onerror=alert(1)>"
    assert outcome("stream", allowed=["favicon", "icon"]) == [
        ["meta", META],
        ["chunk", "디스크 "],
        ["chunk", "<img src=x onerror=alert(1)>"],
        ["result", {"text": text, "payload": {"answer": text}, "meta": META}],
    ]


def test_whole_answer_is_one_piece(outcome):
    result = {"text": "all", "payload": {"answer": "all"}, "meta": META}
    assert outcome("whole", allowed=["favicon", "icon"]) == [
        ["meta", META], ["chunk", {"answer": "all"}], ["result", result]
    ]  # fmt: skip


def test_a_refusal_of_a_model_is_shown_as_what_it_says(outcome):
    refusal = {"refusal": "I may not.", "answer": "", "model": ""}
    result = {"text": "I may not.", "payload": refusal, "meta": META}
    assert outcome("refusal", allowed=["favicon", "icon"]) == [
        ["meta", META], ["chunk", refusal], ["result", result]
    ]  # fmt: skip


def test_exhausted_chain_rejects_with_plain_words(outcome):
    words = "The service cannot answer at the moment. Please try again in 7 seconds."
    assert outcome("down", allowed=["503", "icon"]) == [["error", "AskError", words, 503, 7]]


def test_answer_that_breaks_off_rejects_after_its_pieces(outcome):
    seen = outcome("broken", allowed=["icon"])
    assert [one[0] for one in seen] == ["meta", "chunk", "chunk", "error"]
    assert seen[-1][2] == "The answer broke off. Please try again."


def test_aborting_closes_the_answer_on_the_server(outcome, site):
    site[1].closed.clear()
    assert outcome("stop", allowed=["icon"])[-1][:2] == ["error", "AbortError"]
    assert site[1].closed.wait(PATIENCE_S)

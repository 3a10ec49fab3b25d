"""A small server with the server's part of notifications, and pages under a strict policy."""

from __future__ import annotations

import json
import threading
import time

import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from om_plugins.browser.static_files import StaticFiles
from om_plugins.console.prefix import Pages, PrefixLayer
from tests.patience import PATIENCE_S, wait_until

POLICY = (
    "default-src 'none'; script-src 'nonce-abc' 'strict-dynamic'; connect-src 'self'; "
    "base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE = """<!doctype html>
<html lang="{lang}" dir="{dir}">
<meta charset="utf-8"><title>A page</title>
<script type="module" src="/_om/static/om.js" nonce="abc" {live}></script>
<script type="module" src="/main.js" nonce="abc"></script>
<button id="first">first</button> <input id="field" value="text">
<dialog id="dialog"><button id="inside">inside</button>
<dialog id="inner"><button>innermost</button></dialog></dialog>
"""
MAIN = """
import { toast } from "/_om/static/toasts.js";
window.violations = [];
addEventListener("securitypolicyviolation", (event) => {
  violations.push([event.violatedDirective, event.blockedURI, event.sourceFile]);
});
window.toast = toast;
import { query } from "/_om/static/om.js";
window.query = query;
window.heard = 0; // how often the server said that something changed
addEventListener("om-changed", () => heard++);
"""
# How many tabs of a browser hold the stream, or wait for it.
IN_LINE = """() => navigator.locks.query().then(({ held, pending }) =>
  [...held, ...pending].filter(({ name }) => name === "om-leader /_om").length)"""
CURSOR = "() => JSON.parse(sessionStorage.getItem('om-last /_om'))?.id"


def changed_event(keys):
    return f"event: changed\ndata: {json.dumps({'keys': keys})}\n\n".encode()


class Backend:
    """What the server has to say; a test changes it while pages are open."""

    def __init__(self):
        self.changed = threading.Condition()
        self.streams = 0  # open now
        self.begin()

    def begin(self):
        with self.changed:
            self.notes = []
            self.changes = []  # each a list of keys, told to the streams that are open
            self.recent = []  # told to a stream that begins
            self.value = {"n": 1}
            self.answers = []  # the status of each answer at /api/value
            self.failing = 0  # so many answers of 503 come first
            self.streaming = True  # False: 204 to streams
            self.down = False  # True: 503 to everything
            self.asked = []  # the `after` of each request for events
            self.polls = 0
            self.reports = []
            self.refuse_reports = False
            self.forgetful = False  # True: every stream begins with all there ever was
            self.closing = False

    def send(self, kind, message, **more):
        """Send a notification. Its toast stays, however long the test takes."""
        with self.changed:
            note = {"kind": kind, "message": message, "duration_s": 0, **more}
            self.notes.append({"id": f"n{len(self.notes) + 1}", **note})
            self.changed.notify_all()

    def tell_changed(self, *keys):
        with self.changed:
            self.changes.append(list(keys))
            self.changed.notify_all()

    def api(self, request):
        if self.down or self.failing:
            self.failing = max(0, self.failing - 1)
            response = Response(status=503)
        else:
            response = Response(json.dumps(self.value), content_type="application/json")
            response.add_etag()
            response.make_conditional(request)
        self.answers.append(response.status_code)
        return response

    def end_streams(self):
        with self.changed:
            self.closing = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: not self.streams, PATIENCE_S)
            self.closing = False

    def last(self):
        return self.notes[-1]["id"] if self.notes else "n0"

    def since(self, after):
        ids = [note["id"] for note in self.notes]
        return self.notes[ids.index(after) + 1 if after in ids else 0 :]

    @Request.application
    def health(self, request):
        return Response(b"{}", 503 if self.down else 200)

    @Request.application
    def events(self, request):
        after = request.headers.get("Last-Event-ID") or request.args.get("after", "")
        self.asked.append(after)
        if self.down:
            return Response(status=503)
        if "poll" in request.args:
            self.polls += 1
            items = self.since(after) if after else [{"id": self.last(), "kind": "cursor"}]
            items = [{"kind": "changed", "keys": self.recent}, *items] if self.recent else items
            return Response(json.dumps(items), content_type="application/json")
        if not self.streaming:
            return Response(status=204)
        return Response(self.stream(after), content_type="text/event-stream")

    def stream(self, after):
        with self.changed:  # a stream that counts misses nothing
            after = "" if self.forgetful else after or self.last()
            told = len(self.changes)
            self.streams += 1
        try:
            yield f"retry: 100\nevent: ready\nid: {after or 'n0'}\ndata: {{}}\n\n".encode()
            if self.recent:
                yield changed_event(self.recent)
            while not (self.closing or self.down):
                with self.changed:
                    new = self.since(after)
                    if not new and told == len(self.changes):
                        self.changed.wait(0.1)
                while told < len(self.changes):
                    yield changed_event(self.changes[told])
                    told += 1
                for note in new:
                    after = note["id"]
                    yield f"id: {after}\ndata: {json.dumps(note)}\n\n".encode()
                yield b": still here\n\n"  # a closed tab is noticed by writing
        finally:
            with self.changed:
                self.streams -= 1
                self.changed.notify_all()

    @Request.application
    def problems(self, request):
        if self.refuse_reports or request.headers.get("X-OM") != "1":
            return Response(status=503)
        self.reports.append(request.get_json())
        return Response('{"id": "12"}', 201, content_type="application/json")

    @Request.application
    def page(self, request):
        if request.path == "/main.js":
            return Response(MAIN, content_type="text/javascript")
        if request.path == "/api/value":
            return self.api(request)
        text = PAGE.format(
            lang=request.args.get("lang", "en"),
            dir=request.args.get("dir", "ltr"),
            live="data-om-live" if "live" in request.args else "",
        )
        headers = {"Content-Security-Policy": POLICY}
        return Response(text, content_type="text/html", headers=headers)


@pytest.fixture(scope="session")
def serving():
    backend = Backend()
    endpoints = {
        "/health": backend.health,
        "/events": backend.events,
        "/problems": backend.problems,
        "/static/<name>": StaticFiles(),
    }
    server = make_server(
        "127.0.0.1", 0, PrefixLayer(backend.page, "/_om", Pages(lambda: endpoints)), threaded=True
    )
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield backend, f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    backend.end_streams()
    server.server_close()


@pytest.fixture
def backend(serving):
    """The server's part, as new."""
    serving[0].begin()
    yield serving[0]
    serving[0].end_streams()


@pytest.fixture
def leads(backend):
    """``leads(page)``: wait until a page holds the only stream, and knows where it stands."""

    def wait(page):
        wait_until(lambda: backend.streams == 1)
        wait_until(lambda: page.evaluate(CURSOR))

    return wait


@pytest.fixture
def open_page(browser, serving, backend):
    """``open_page("?live", color_scheme="dark")``: a page of a new browser context.

    ``beside=page`` opens it in that page's context. With ``clock=True`` the page's time stands
    still until the test moves it. No page may break the policy or log an error that was not
    allowed for.
    """
    contexts, pages, said, allowed = [], [], [], ["favicon"]

    def open_it(query="", *, beside=None, allow=(), clock=False, **options):
        allowed.extend(allow)
        if beside is None:
            contexts.append(browser.new_context(**options))
        context = beside.context if beside else contexts[-1]
        page = context.new_page()
        page.on(
            "console",
            lambda message: said.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: said.append(str(error)))
        if clock:
            page.clock.install()
            page.clock.pause_at(time.time() + 1)
        page.goto(f"{serving[1]}/page{query}")
        wait_until(lambda: page.evaluate("'heard' in window"))
        if "live" in query:  # also a page that does not lead hears what the others say
            wait_until(lambda: page.evaluate(IN_LINE) == len(context.pages))
        pages.append(page)
        return page

    yield open_it
    for page in pages:
        if not page.is_closed():
            assert page.evaluate("violations") == []
    for context in contexts:
        context.close()
    assert [text for text in said if not any(word in text for word in allowed)] == []

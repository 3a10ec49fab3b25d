"""Two sites for a browser: the one whose owner adds the line, and another one around it.

The other site shows pages of the first one in frames and popups, and is asked for scripts, images
and forms. Browsers tell the two apart by their names, ``127.0.0.1`` and ``localhost``.
"""

from __future__ import annotations

import io
import struct
import threading
import wave
import zlib

from flask import Flask, Response, redirect, render_template_string, request
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.proof.adopt.pages import PAGES

WASM = b"\0asm\1\0\0\0"

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><style>rect{fill:red}</style>'
    '<rect width="9" height="9"/><script>parent.postMessage("drawing", "*")</script></svg>'
)
SAYS = "(window.opener || parent).postMessage('%s', '*')"


def pixel():
    """Return a PNG of one pixel."""

    def chunk(kind, data):
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0\xff\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tone():
    """Return half a second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(8000)
        out.writeframes(b"\x80" * 4000)
    return file.getvalue()


def script(text):
    return text, "text/javascript"


def html(text):
    return "<!doctype html><title>-</title>" + text, "text/html; charset=utf-8"


FILES: dict[str, tuple[str | bytes, str | None]] = {
    "chart.svg": (SVG, "image/svg+xml"),
    "pixel.png": (pixel(), "image/png"),
    "tone.wav": (tone(), "audio/wav"),
    "data.json": ('{"a": 1}', "application/json"),
    "notes.txt": ("notes", "text/plain; charset=utf-8"),
    "unnamed": ("<!doctype html><p>sniffed</p>", None),
    "lib.js": script("window.lib = 'lib'"),
    "module.js": script("export const name = 'module'"),
    "jsonp": script("answer({'a': 1})"),
    "worker.js": script("onmessage = e => postMessage('worker ' + e.data)"),
    "eval-worker.js": script("postMessage(eval('1+1') + ' ' + (new Function('return 3'))())"),
    "fetching-worker.js": script(
        "fetch('data.json').then(r => r.json()).then(d => postMessage('worker fetched ' + d.a))"
    ),
    "importing-worker.js": script("importScripts('lib-of-worker'); postMessage(self.libOfWorker)"),
    "lib-of-worker": ("self.libOfWorker = 'imported'", "text/javascript"),
    "shared-worker.js": script("onconnect = e => e.ports[0].postMessage('shared')"),
    "sw.js": script(
        "addEventListener('install', e => skipWaiting());"
        "addEventListener('activate', e => e.waitUntil(clients.claim()));"
        "addEventListener('fetch', e => { if (e.request.url.endsWith('/made-by-worker'))"
        " e.respondWith(new Response('made by the worker')) })"
    ),
    "script-as-html": ("done('ran as html')", "text/html; charset=utf-8"),
    "script-as-plain": ("done('ran as plain')", "text/plain"),
    "script-as-nothing": ("done('ran as nothing')", None),
    "script-as-bytes": ("done('ran as bytes')", "application/octet-stream"),
    "script-as-json": ("done('ran as json')", "application/json"),
    "script-as-image": ("done('ran as image')", "image/png"),
    "style.css": ("#p { color: rgb(1, 2, 3) }", "text/css"),
    "style-as-plain": ("#p { color: rgb(1, 2, 3) }", "text/plain"),
    "style-as-html": ("#p { color: rgb(1, 2, 3) }", "text/html"),
    "image-as-plain": (pixel(), "text/plain"),
    "image-as-html": (pixel(), "text/html"),
    "module.wasm": (WASM, "application/wasm"),
    "font.ttf": (b"no font", "font/ttf"),
    "app.webmanifest": ('{"name": "The app", "start_url": "/"}', "application/manifest+json"),
    "manifest-as-plain": ('{"name": "The app", "start_url": "/"}', "text/plain"),
    "inner": html("<p id=p>inner</p>"),
    "styled-inner": html("<style>#p { color: rgb(1, 2, 3) }</style><p id=p>inner</p>"),
    "says": html(f"<script>{SAYS % 'said'}</script>"),
    "says-opener": html(
        "<script>if (opener) { onmessage = e => opener.postMessage('opener: ' + e.data, '*');"
        " opener.postMessage('ready', '*') }</script>"
    ),
    "tells-referrer": html("<script>window.result = 'referrer ' + document.referrer</script>"),
    "events": ("data: event\n\n", "text/event-stream"),
}  # fmt: skip


def make_app(**config):
    """Build the site whose owner adds the line; ``other`` is set before it is asked."""
    app = Flask("site")
    app.config.update({"OM_HUB_URL": "memory://", "SECRET_KEY": "x" * 32, **config})
    add_files(app)

    @app.get("/page/<name>")
    def page(name):
        places = {"here": request.host_url.rstrip("/"), "other": app.config["OTHER"]}
        return render_template_string(PAGES[name], **places)

    @app.get("/out")
    def out():
        return redirect(f"{app.config['OTHER']}/{request.args['to']}")

    @app.get("/download")
    def download():
        return Response(
            "text", mimetype="text/plain", headers={"Content-Disposition": "attachment"}
        )

    @app.post("/form")
    def form():
        return html(f"<script>{SAYS % 'own form'}</script>")[0]

    return app


def make_other():
    """Build the other site. It has no line."""
    app = Flask("other")
    add_files(app)

    @app.after_request
    def allow(response):
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    @app.route("/echo", methods=["GET", "POST"])
    def echo():
        said = request.values.get("word", "")
        return html(
            f"<script>window.result = 'other site got {request.method} {said}';"
            "if (parent !== window) parent.postMessage(result, '*')</script>"
        )[0]

    @app.get("/referrer")
    def referrer():
        return request.headers.get("Referer", "none")

    @app.get("/embedder/<name>")
    def embedder(name):
        return render_template_string(PAGES[name], here=request.args["here"], other="")

    return app


def add_files(app):
    """Serve :data:`FILES`."""

    @app.get("/<name>")
    def file(name):
        if name not in FILES:
            return html("<p>missing</p>")[0], 404
        data, kind = FILES[name]
        response = Response(data)
        if kind is None:
            del response.headers["Content-Type"]
        else:
            response.headers["Content-Type"] = kind
        return response


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args):
        """Say nothing."""


class Served:
    """An app on a free port of this machine, until :meth:`close`.

    Args:
        app: the WSGI application.
        name: the host's name by which browsers ask for it.
    """

    def __init__(self, app, name):
        self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
        self.url = f"http://{name}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)

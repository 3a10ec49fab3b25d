"""The analyst's HTTP face: chat completions as OpenAI-compatible servers speak them.

``POST /v1/chat/completions`` (whole, or as server-sent events with ``"stream": true``),
``GET /v1/models`` and ``GET /healthz``. Its faults are switched in the state folder.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ..state import StateDir
from ..system import Sampler
from .history import History
from .talk import reply

__all__ = ["MODEL", "AnalystServer"]

MODEL = "analyst"
MAX_BODY = 1_000_000
SLOW_S = 4.0
_PACE_S = 0.012


class AnalystServer(ThreadingHTTPServer):
    """Serves until it is shut down; one thread per connection.

    Args:
        port: to listen on, on 127.0.0.1; 0 for any free one.
        state: where the faults are switched.
        sampler: reads the machine.
        history: the readings so far.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, state: StateDir, sampler: Sampler, history: History) -> None:
        self.state = state
        self.sampler = sampler
        self.history = history
        self.stopping = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)

    def shutdown(self) -> None:
        """End slow answers too, then stop listening."""
        self.stopping.set()
        super().shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "analyst"
    sys_version = ""
    timeout = 30
    server: AnalystServer

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._send_json(HTTPStatus.OK, {"status": "ok"})
        elif self.path == "/v1/models":
            self._send_json(
                HTTPStatus.OK,
                {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "demo"}]},
            )
        else:
            self._fail(HTTPStatus.NOT_FOUND, f"there is nothing at {self.path[:100]}")

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        if self.path != "/v1/chat/completions":
            self._fail(HTTPStatus.NOT_FOUND, f"there is nothing at {self.path[:100]}")
            return
        try:
            questions, stream = _questions(body)
        except ValueError as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
            return
        faults = self.server.state.read("faults")
        if faults.get("slow") is True:
            self.server.stopping.wait(SLOW_S)
        if faults.get("garble") is True:
            self._send_garbled(stream)
            return
        text = reply(questions, self.server.sampler.snapshot(max_age_s=0.5), self.server.history)
        if stream:
            self._send_stream(text)
        else:
            self._send_json(HTTPStatus.OK, _completion(text, questions))

    def _body(self) -> bytes | None:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            self.close_connection = True
            self._fail(HTTPStatus.LENGTH_REQUIRED, "a Content-Length is needed")
            return None
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            self._fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY} bytes")
            return None
        return self.rfile.read(length)

    def _send_stream(self, text: str) -> None:
        self._start_events()
        for event in _chunks(text):
            self._chunk(f"data: {event}\n\n".encode())
            time.sleep(_PACE_S)
        self._chunk(b"")

    def _send_garbled(self, stream: bool) -> None:
        """Not an error status: nonsense where an answer should be."""
        if not stream:
            self._send(HTTPStatus.OK, b'{"id": "chatcmpl-0", "choices": [{"mess\x00\xff')
            return
        self._start_events()
        self._chunk(b'data: {"id": "chatcmpl-0", "choi\x00\xff\n\n')
        self._chunk(b"")

    def _start_events(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _fail(self, status: HTTPStatus, message: str) -> None:
        self._send_json(
            status, {"error": {"message": message, "type": "invalid_request_error", "code": None}}
        )

    def _send_json(self, status: HTTPStatus, data: object) -> None:
        self._send(status, json.dumps(data, ensure_ascii=False).encode())

    def _send(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Quiet: a line per question would say what people ask."""

    def handle(self) -> None:
        """A caller that hangs up early is nothing to report."""
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True


def _questions(body: bytes) -> tuple[list[str], bool]:
    """What the user said, oldest first, and whether the answer should be streamed."""
    try:
        data = json.loads(body)
    except ValueError as error:
        raise ValueError("the body is not JSON") from error
    messages = data.get("messages") if isinstance(data, dict) else None
    if not isinstance(messages, list):
        raise ValueError("'messages' must be a list")
    questions = [
        message["content"]
        for message in messages[-60:]
        if isinstance(message, dict)
        and message.get("role") == "user"
        and isinstance(message.get("content"), str)
    ]
    if not questions:
        raise ValueError("'messages' holds no question of the user")
    return questions, data.get("stream") is True


_numbers = itertools.count(1)


def _completion(text: str, questions: list[str]) -> dict[str, object]:
    asked, answered = len(" ".join(questions).split()), len(text.split())
    return {
        "id": f"chatcmpl-{next(_numbers)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": answered,
            "total_tokens": asked + answered,
        },
    }


def _chunks(text: str) -> Iterator[str]:
    """The events of a stream: the role, the words with the space behind them, the end."""
    head = {
        "id": f"chatcmpl-{next(_numbers)}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": MODEL,
    }

    def event(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return json.dumps({**head, "choices": [choice]}, ensure_ascii=False)

    yield event({"role": "assistant"})
    for word in re.findall(r"\S+\s*|\s+", text):
        yield event({"content": word})
    yield event({}, "stop")
    yield "[DONE]"

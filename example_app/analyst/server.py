"""The analyst's HTTP server: chat completions in the OpenAI-compatible format.

It serves ``POST /v1/chat/completions`` (one response, or server-sent events with
``"stream": true``), ``GET /v1/models`` and ``GET /healthz``. A file in the state folder turns its
faults on and off.
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
from .conversation import reply
from .history import History

__all__ = ["MODEL", "AnalystServer"]

MODEL = "analyst"
MAX_BODY = 1_000_000
SLOW_S = 4.0
_PACE_S = 0.012


class AnalystServer(ThreadingHTTPServer):
    """The server; it uses one thread per connection.

    Args:
        port: of 127.0.0.1; 0 for any free one.
        state: the folder with the switches of the faults.
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
        """End slow answers, then stop listening."""
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
        body = self._read_body()
        if body is None:
            return
        if self.path != "/v1/chat/completions":
            self._fail(HTTPStatus.NOT_FOUND, f"there is nothing at {self.path[:100]}")
            return
        try:
            questions, stream = _parse_request(body)
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
            self._send_json(HTTPStatus.OK, _make_completion(text, questions))

    def _read_body(self) -> bytes | None:
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
        self._send_event_headers()
        for event in _make_events(text):
            self._send_chunk(f"data: {event}\n\n".encode())
            time.sleep(_PACE_S)
        self._send_chunk(b"")

    def _send_garbled(self, stream: bool) -> None:
        """Send invalid data with status 200 instead of an answer."""
        if not stream:
            self._send(HTTPStatus.OK, b'{"id": "chatcmpl-0", "choices": [{"mess\x00\xff')
            return
        self._send_event_headers()
        self._send_chunk(b'data: {"id": "chatcmpl-0", "choi\x00\xff\n\n')
        self._send_chunk(b"")

    def _send_event_headers(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send_chunk(self, data: bytes) -> None:
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
        """Log nothing: the lines would reveal the questions."""

    def handle(self) -> None:
        """Ignore clients that close the connection early."""
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True


def _parse_request(body: bytes) -> tuple[list[str], bool]:
    """Return the user's messages, oldest first, and whether to stream the answer.

    Raises:
        ValueError: the body is not a valid request.
    """
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
        raise ValueError("'messages' has no question of the user")
    return questions, data.get("stream") is True


_numbers = itertools.count(1)


def _make_completion(text: str, questions: list[str]) -> dict[str, object]:
    prompt_words, answer_words = len(" ".join(questions).split()), len(text.split())
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
            "prompt_tokens": prompt_words,
            "completion_tokens": answer_words,
            "total_tokens": prompt_words + answer_words,
        },
    }


def _make_events(text: str) -> Iterator[str]:
    """Yield the events of a stream: the role, each word with the space after it, the end."""
    head = {
        "id": f"chatcmpl-{next(_numbers)}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": MODEL,
    }

    def format_event(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return json.dumps({**head, "choices": [choice]}, ensure_ascii=False)

    yield format_event({"role": "assistant"})
    for word in re.findall(r"\S+\s*|\s+", text):
        yield format_event({"content": word})
    yield format_event({}, "stop")
    yield "[DONE]"

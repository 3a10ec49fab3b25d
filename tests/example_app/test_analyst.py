"""The analyst as a real process over real HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from example_app.config import ROOT
from example_app.state import StateDir
from tests.patience import HANG_S, PATIENCE_S, wait_until

pytestmark = pytest.mark.server


def start(state: Path, *options: str) -> tuple[subprocess.Popen[bytes], int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "example_app.analyst", "--state", str(state), *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    known = StateDir(state)
    try:
        wait_until(lambda: known.read("analyst").get("pid") == process.pid, patience_s=HANG_S)
    except AssertionError:
        process.kill()
        process.wait()
        raise
    return process, int(str(known.read("analyst")["port"]))


@pytest.fixture(scope="module")
def analyst(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, StateDir]]:
    state = tmp_path_factory.mktemp("analyst")
    process, port = start(state, "--owner", str(os.getpid()))
    yield port, StateDir(state)
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def post(port: int, body: object, path: str = "/v1/chat/completions") -> tuple[int, str, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        connection.close()


def get(port: int, path: str) -> tuple[int, dict[str, object]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def make_messages(*questions: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": q} for q in questions]


def test_an_answer_is_a_chat_completion(analyst: tuple[int, StateDir]) -> None:
    status, kind, body = post(
        analyst[0], {"model": "m", "messages": make_messages("how much memory?")}
    )
    document = json.loads(body)
    assert (status, kind) == (200, "application/json")
    assert document["object"] == "chat.completion"
    message = document["choices"][0]["message"]
    assert message["role"] == "assistant"
    total = psutil.virtual_memory().total / 2**30
    assert f"{total:.1f} GiB" in message["content"]
    assert document["usage"]["total_tokens"] > 0


def test_a_streamed_answer_has_several_events_and_an_end(analyst: tuple[int, StateDir]) -> None:
    body = {"stream": True, "messages": make_messages("디스크 얼마나 남았어?")}
    status, kind, raw = post(analyst[0], body)
    assert (status, kind) == (200, "text/event-stream")
    events = [line[6:] for line in raw.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    documents = [json.loads(event) for event in events[:-1]]
    assert documents[0]["choices"][0]["delta"] == {"role": "assistant"}
    assert documents[-1]["choices"][0]["finish_reason"] == "stop"
    pieces = [d["choices"][0]["delta"].get("content", "") for d in documents]
    assert len(pieces) > 5
    assert "남았습니다" in "".join(pieces)


def test_it_answers_a_follow_up(analyst: tuple[int, StateDir]) -> None:
    messages = make_messages("which process uses the most memory?", "and the second one?")
    document = json.loads(post(analyst[0], {"messages": messages})[2])
    assert "second most memory" in document["choices"][0]["message"]["content"]


def test_it_serves_its_models_and_health(analyst: tuple[int, StateDir]) -> None:
    assert get(analyst[0], "/healthz") == (200, {"status": "ok"})
    status, models = get(analyst[0], "/v1/models")
    assert status == 200
    assert "analyst" in json.dumps(models)
    assert get(analyst[0], "/nothing")[0] == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        ({"messages": []}, 400),
        ({"messages": [{"role": "user", "content": 5}]}, 400),
        ({"messages": "hello"}, 400),
    ],
)
def test_an_invalid_body_gets_an_error_in_the_openai_format(
    body: object, status: int, analyst: tuple[int, StateDir]
) -> None:
    got, _, answer = post(analyst[0], body)
    assert got == status
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"


def test_a_too_large_body_is_not_read(analyst: tuple[int, StateDir]) -> None:
    with socket.create_connection(("127.0.0.1", analyst[0]), timeout=PATIENCE_S) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert b" 413 " in raw.recv(1000)


def test_the_faults_are_real(analyst: tuple[int, StateDir]) -> None:
    port, state = analyst
    state.write("faults", {"garble": True})
    try:
        status, _, body = post(port, {"messages": make_messages("memory?")})
        assert status == 200
        with pytest.raises(ValueError):
            json.loads(body)
        body = post(port, {"stream": True, "messages": make_messages("memory?")})[2]
        assert b"[DONE]" not in body
        state.write("faults", {"slow": True})
        began = time.monotonic()
        assert post(port, {"messages": make_messages("memory?")})[0] == 200
        assert time.monotonic() - began > 3.5
    finally:
        state.write("faults", {})


def test_a_used_port_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        process, port = start(tmp_path / "state", "--port", str(wanted))
        try:
            assert port != wanted
            assert get(port, "/healthz")[0] == 200
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def test_it_ends_with_its_owner_and_deletes_the_state(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    state = tmp_path / "state"
    process, _ = start(state, "--owner", str(owner.pid))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert owner.stdin is not None
    owner.stdin.close()
    assert process.wait(PATIENCE_S) == 0
    assert not state.exists()

"""A machine with known readings, and the running demo in a browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from example_app.config import ROOT
from example_app.system import Cpu, Disk, Memory, Network, Process, Snapshot, Swap, Temperature
from tests.patience import HANG_S, PATIENCE_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

GIB = 2**30


@pytest.fixture
def machine() -> Snapshot:
    return Snapshot(
        at=1_700_000_000.0,
        cpu=Cpu(37.5, (25.0, 50.0), 2, 1, (0.5, 0.25, 0.125)),
        memory=Memory(8 * GIB, 2 * GIB, 6 * GIB, 75.0),
        swap=Swap(4 * GIB, GIB, 3 * GIB, 25.0),
        disks=(
            Disk("/", "/dev/a", 100 * GIB, 80 * GIB, 20 * GIB, 80.0),
            Disk("/srv", "/dev/b", 500 * GIB, 50 * GIB, 450 * GIB, 10.0),
        ),
        network=Network(3 * GIB, 5 * GIB, 2048.0, 1024.0 * 1024),
        processes=(
            Process(1, "init", 10 * 2**20, 0.0),
            Process(7, "python", 3 * GIB, 12.5),
            Process(8, "python", GIB, 80.0),
            Process(9, "nginx", 64 * 2**20, 3.0),
        ),
        boot_time=1_700_000_000.0 - 2 * 86400 - 3 * 3600,
        temperatures=(Temperature("cpu", 48.0),),
        hostname="box",
        system="Linux 6.1",
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "gunicorn.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "example_app/gunicorn.conf.py",
             "example_app:create_app()"],
            cwd=ROOT,
            env={**os.environ, "OM_DEMO_PORT": str(port), "OM_DEMO_STATE": str(folder / "state")},
            stdout=output,
            stderr=output,
        )  # fmt: skip
        try:
            wait_for(port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            family = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(PATIENCE_S)
            finally:
                server.kill()
                server.wait()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert not alive, "all processes of the demo end with it"
    assert not (folder / "state").exists()
    text = log.read_text()
    expected = text.count("'panel:disks' failed")
    assert text.count("Traceback") == expected, text


def wait_for(port: int, log: Path) -> None:
    end = time.monotonic() + HANG_S
    while time.monotonic() < end:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/api/status")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise AssertionError(f"the demo does not answer:\n{log.read_text()}")


class Opened:
    """A page, and the messages of its console."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        options = {"locale": "en-US", "viewport": {"width": 1280, "height": 900}, **options}
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def ask(self, question: str) -> tuple[str, str]:
        """Ask a question and return the answer's text and its badge."""
        answers = self.page.locator(".turn.answer")
        before = answers.count()
        self.page.locator("#question").fill(question)
        self.page.locator("#question").press("Enter")
        answer = answers.nth(before)
        answer.locator(".badge").wait_for()
        return answer.locator(".text").inner_text(), answer.locator(".badge").inner_text()

    def go(self, address: str) -> None:
        """Open a page, and wait until it gets notifications and knows where its stream stands."""
        with self.page.expect_response("**/_om/events*"):
            self.page.goto(address)
        self.page.wait_for_function("() => sessionStorage.getItem('om-last /_om')")

    def note(self, text: str, times: int = 1) -> dict[str, Any]:
        """Wait for so many notifications that contain a text; return the last one.

        A toast may be replaced by the next one before anybody sees it.
        """
        found = "(text) => notes.filter(({ message }) => message.includes(text))"
        self.page.wait_for_function(
            f"([text, times]) => ({found})(text).length >= times", arg=[text, times]
        )
        note: dict[str, Any] = self.page.evaluate(found, text)[-1]
        return note

    def toast(self, text: str) -> Locator:
        """Find the toast that contains a text."""
        return self.page.locator("om-toasts li:not([inert])").filter(has_text=text)

    def run_scenario(self, name: str) -> None:
        self.page.locator(f"[data-scenario={name}] button").click()

    def press(self, fault: str, button: str, state: str) -> None:
        row = self.page.locator(f"[data-fault={fault}]")
        row.get_by_role("button", name=button, exact=True).click()
        row.locator("[data-state]", has_text=state).wait_for()


@pytest.fixture
def opened(browser: Browser) -> Callable[..., Opened]:
    """Open a new browser context: ``with opened(locale="ko-KR") as demo``."""
    return lambda **options: Opened(browser, **options)

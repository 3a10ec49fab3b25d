"""Measures monitoring: the layer on a WSGI callable and on Flask, and processing a sample."""

from __future__ import annotations

from collections.abc import Callable

from bench_stack import make_hello, make_request
from flask import Flask
from measure import alternate
from werkzeug.test import EnvironBuilder

from om_plugins.core.clock import SystemClock
from om_plugins.monitoring.collector import Collector
from om_plugins.monitoring.layer import MonitoringLayer

CLOCK = SystemClock()
BATCH = 1000


def make_monitored_flask() -> Flask:
    app = make_hello()
    app.wsgi_app = MonitoringLayer(app.wsgi_app, Collector(CLOCK), clock=CLOCK)  # type: ignore[method-assign]
    return app


def make_callable_request(monitored: bool) -> Callable[[], None]:
    """Return a function that sends one request to a WSGI callable and reads the body."""
    template = EnvironBuilder("/").get_environ()

    def app(environ, start_response):  # type: ignore[no-untyped-def]
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<p>hello</p>"]

    layer = MonitoringLayer(app, Collector(CLOCK), clock=CLOCK) if monitored else app

    def start_response(status, headers, exc_info=None):  # type: ignore[no-untyped-def]
        return lambda data: None

    def run() -> None:
        body = layer(dict(template), start_response)
        for _ in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()

    return run


def make_fold() -> Callable[[], None]:
    """Return a function that processes a batch of samples, as the background job does."""
    collector = Collector(CLOCK)
    sample = ("/", "GET", "200 OK", 0.012, 100, CLOCK.monotonic(), False)

    def run() -> None:
        collector.waiting.extend([sample] * BATCH)
        collector.fold()

    return run


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure microseconds per request: the minimum of ``repeats`` rounds."""
    results = alternate(
        {
            "bare WSGI callable": make_callable_request(False),
            "monitored WSGI callable": make_callable_request(True),
        },
        repeats,
        number=1000,
    )
    results |= alternate(
        {
            "bare Flask": make_request(make_hello()),
            "monitored Flask": make_request(make_monitored_flask()),
        },
        repeats,
        number=200,
    )
    folded = alternate({"fold": make_fold()}, repeats, number=5)
    return {"process a sample in the background": folded["fold"] / BATCH} | results


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:40} {value:8.2f} µs")

"""What watching costs: the layer on a bare WSGI callable and on Flask, and folding a sample."""

from __future__ import annotations

from collections.abc import Callable

from bench_stack import hello, request_of
from flask import Flask
from measure import alternate
from werkzeug.test import EnvironBuilder

from om_plugins.core.clock import SystemClock
from om_plugins.monitoring.collector import Collector
from om_plugins.monitoring.layer import MonitoringLayer

CLOCK = SystemClock()
BATCH = 1000


def watched_flask() -> Flask:
    app = hello()
    app.wsgi_app = MonitoringLayer(app.wsgi_app, Collector(CLOCK), clock=CLOCK)  # type: ignore[method-assign]
    return app


def callable_request(watched: bool) -> Callable[[], None]:
    """One request through a WSGI callable, body read and closed."""
    template = EnvironBuilder("/").get_environ()

    def app(environ, start_response):  # type: ignore[no-untyped-def]
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<p>hello</p>"]

    layer = MonitoringLayer(app, Collector(CLOCK), clock=CLOCK) if watched else app

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


def folding() -> Callable[[], None]:
    """Fold a batch of samples, as the background job does once a second."""
    collector = Collector(CLOCK)
    sample = ("/", "GET", "200 OK", 0.012, 100, CLOCK.monotonic(), False)

    def run() -> None:
        collector.waiting.extend([sample] * BATCH)
        collector.fold()

    return run


def measure(repeats: int = 30) -> dict[str, float]:
    """Microseconds per request, the minimum of ``repeats`` alternating rounds."""
    results = alternate(
        {
            "bare WSGI callable": callable_request(False),
            "watched WSGI callable": callable_request(True),
        },
        repeats,
        number=1000,
    )
    results |= alternate(
        {"bare Flask": request_of(hello()), "watched Flask": request_of(watched_flask())},
        repeats,
        number=200,
    )
    folded = alternate({"fold": folding()}, repeats, number=5)
    return {"folding a sample, in the background": folded["fold"] / BATCH} | results


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:40} {value:8.2f} µs")

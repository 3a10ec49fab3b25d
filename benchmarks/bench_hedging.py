"""Measures tail latency with hedging: 5 % of the upstream's answers take 250 ms longer."""

from __future__ import annotations

import http.server
import itertools
import threading
import time

from om_plugins import HttpEngine
from om_plugins.chains.chain import ChainPolicy, EngineChain
from om_plugins.types import EngineSpec

QUICK_S = 0.002
SLOW_S = 0.250
CALLS = 600


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    number = itertools.count(1)

    def do_GET(self) -> None:
        time.sleep(QUICK_S + (SLOW_S if next(Upstream.number) % 20 == 0 else 0.0))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that closed the connection early."""


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure the percentiles of a call in microseconds, without and with a hedge."""
    server = Server(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rows: dict[str, float] = {}
    try:
        for name, hedge in (("bare chain, no hedge", 0.0), ("hedge at 0.9", 0.9)):
            chain = EngineChain("bench", ChainPolicy(hedge=hedge))
            url = f"http://127.0.0.1:{server.server_port}/"
            chain.add(EngineSpec(HttpEngine("one", url, method="GET"), "bench"))
            for _ in range(200):
                chain.call()
            asked = next(Upstream.number)
            times = sorted(chain.call().elapsed_s * 1e6 for _ in range(CALLS))
            sent = (next(Upstream.number) - asked - 1) / CALLS
            for share in (0.50, 0.95, 0.96, 0.99):
                at = f"p{share * 100:.0f} ({sent:.2f} requests a call)"
                rows[f"{name}: {at}"] = times[int(share * CALLS)]
            chain.close()
    finally:
        server.shutdown()
        server.server_close()
    return rows


if __name__ == "__main__":
    for subject, cost in measure().items():
        print(f"{subject:<60} {cost:10.0f} µs")

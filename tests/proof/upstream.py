"""A real HTTP upstream for the soak: fails, hangs and rate-limits at the rates it is told.

``python upstream.py PORT FAIL HANG LIMIT``: shares of calls, 0 to 1. ``GET`` tells how many there
were.
"""

import itertools
import json
import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, fail, hang, limit = int(sys.argv[1]), *map(float, sys.argv[2:5])
posts, looks = itertools.count(1), itertools.count()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(200, next(posts) - 1 - next(looks))  # looking counts one, too

    def do_POST(self):
        next(posts)
        self.rfile.read(int(self.headers["Content-Length"]))
        dice = random.random()
        if dice < hang:
            time.sleep(30)
        elif dice < hang + limit:
            self.answer(429, {}, ("Retry-After", "1"))
        elif dice < hang + limit + fail:
            self.answer(500, {})
        else:
            self.answer(200, {"port": port})

    def answer(self, status, payload, *headers):
        body = json.dumps(payload).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", port), Handler).serve_forever()

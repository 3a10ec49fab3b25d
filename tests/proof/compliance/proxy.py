"""A plain WSGI reverse proxy: sends each request to ``ORIGIN`` and its response back, as they are.

Under the middleware it is what the suite of HTTP cache tests runs against.
"""

from __future__ import annotations

import http.client
import os

ORIGIN = os.environ["ORIGIN"]

NOT_FORWARDED = {"connection", "keep-alive", "transfer-encoding", "upgrade", "expect"}
http.client._MAXHEADERS = 200


def request_headers(environ):
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            field = name[5:].replace("_", "-").lower()
            if field not in NOT_FORWARDED:
                yield field, value
    if environ.get("CONTENT_TYPE"):
        yield "content-type", environ["CONTENT_TYPE"]


def proxy(environ, start_response):
    host, _, port = ORIGIN.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        size = environ.get("CONTENT_LENGTH") or ""
        body = environ["wsgi.input"].read(int(size)) if size else None
        connection.putrequest(
            environ["REQUEST_METHOD"], environ["RAW_URI"], skip_host=True, skip_accept_encoding=True
        )
        for name, value in request_headers(environ):
            connection.putheader(name, value.encode("latin-1"))
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException) as error:
        text = f"the origin cannot be reached: {error!r}".encode()
        start_response("502 Bad Gateway", [("Content-Length", str(len(text)))])
        return [text]
    finally:
        connection.close()
    start_response(f"{response.status} {response.reason}", response.getheaders())
    return [data]

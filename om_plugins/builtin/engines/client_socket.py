"""Whether the client of a WSGI request is still there, where the server lets one look."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


def watch_client(environ: WSGIEnvironment) -> Callable[[], bool] | None:
    """A function that says, without waiting, whether the client has closed its connection.

    Known are gunicorn, Werkzeug's server and waitress. ``None`` for other servers, and where the
    server itself speaks TLS: what it may read is then not what the client sent.

    Set it as :data:`om_plugins.core.call.caller_gone` around a call, and an HTTP engine that waits
    for its upstream gives up within half a second of the client's leaving.
    """
    told = environ.get("waitress.client_disconnected")
    if callable(told):
        return lambda: bool(told())
    for name in _SOCKETS:
        found = environ.get(name)
        if isinstance(found, socket.socket) and not isinstance(found, ssl.SSLSocket):
            sock = found
            return lambda: has_closed(sock)
    return None


def has_closed(sock: socket.socket) -> bool:
    """Whether the other side has closed a connection; bytes that wait to be read stay there."""
    try:
        waiting = select.poll()
        waiting.register(sock, select.POLLIN)
        if not waiting.poll(0):
            return False
        return not sock.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):  # reset, or closed on this side
        return True

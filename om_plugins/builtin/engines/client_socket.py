"""Detects that the client of a WSGI request has disconnected, where the server allows it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..http.network import can_read

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


def watch_client(environ: WSGIEnvironment) -> Callable[[], bool] | None:
    """A function that returns at once whether the client has closed its connection.

    It works with gunicorn, Werkzeug's server and waitress.

    Returns:
        ``None`` for other servers, and where the server itself terminates TLS: the socket then
        carries TLS records and not what the client sent.

    Set the result as :data:`om_plugins.core.call.caller_gone` around a call. An HTTP engine that
    waits for its upstream then gives up within half a second after the client has left.
    """
    is_gone = environ.get("waitress.client_disconnected")
    if callable(is_gone):
        return lambda: bool(is_gone())
    for name in _SOCKETS:
        found = environ.get(name)
        if isinstance(found, socket.socket) and not isinstance(found, ssl.SSLSocket):
            sock = found
            return lambda: has_closed(sock)
    return None


def has_closed(sock: socket.socket) -> bool:
    """Whether the peer has closed the connection. Unread bytes stay in the socket."""
    try:
        return can_read(sock, 0) and not sock.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):  # reset, or closed on this side
        return True

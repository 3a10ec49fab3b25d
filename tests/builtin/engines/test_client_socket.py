"""Whether the client of a WSGI request is still there."""

from __future__ import annotations

import socket

from om_plugins.builtin.engines.client_socket import has_closed, watch_client


def test_a_socket_is_watched_without_taking_its_bytes():
    ours, theirs = socket.socketpair()
    gone = watch_client({"gunicorn.socket": ours})
    assert not gone()
    theirs.sendall(b"next request")
    assert not gone()
    assert ours.recv(100) == b"next request"
    theirs.close()
    assert gone()
    ours.close()
    assert has_closed(ours)


def test_waitress_is_asked_and_other_servers_are_not():
    assert watch_client({"waitress.client_disconnected": lambda: True})()
    assert watch_client({}) is None
    assert watch_client({"gunicorn.socket": "no socket"}) is None

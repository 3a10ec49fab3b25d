"""What the tests of this room share: serve one request, and take responses apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from wsgiref.validate import validator

import pytest
from werkzeug.test import create_environ

from om_plugins.headers.layer import HeadersLayer
from tests.opening import ACCEPT


@dataclass
class Seen:
    status: str = ""
    headers: list = field(default_factory=list)
    body: bytes = b""
    environ: dict = field(default_factory=dict)

    def all(self, name):
        return [value for one, value in self.headers if one.lower() == name.lower()]

    def get(self, name):
        found = self.all(name)
        assert len(found) <= 1, f"{name} stands there {len(found)} times"
        return found[0] if found else None

    @property
    def csp(self):
        return self.get("Content-Security-Policy")

    @property
    def reported(self):
        return self.get("Content-Security-Policy-Report-Only")


@pytest.fixture
def serve() -> Callable[..., Seen]:
    """Serve one request as a server does: first piece, then the headers, then the rest."""

    def run(app, path="/", *, method="GET", environ=None, script_name="") -> Seen:
        seen = Seen()
        seen.environ = create_environ(path, "https://localhost/", method=method)
        seen.environ["SCRIPT_NAME"] = script_name
        seen.environ["HTTP_ACCEPT"] = ACCEPT
        seen.environ.update(environ or {})
        parts: list[bytes] = []

        def start_response(status, headers, exc_info=None):
            seen.status, seen.headers = status, headers
            return parts.append

        body = app(seen.environ, start_response)
        try:
            parts.extend(body)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        seen.body = b"".join(parts)
        return seen

    return run


@pytest.fixture
def through() -> Callable[..., object]:
    """The layer with a validator on both sides."""

    def wrap(app, policy):
        return validator(HeadersLayer(validator(app), policy))

    return wrap

"""The request by which a stored page is refreshed: the same address, nobody's in particular."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

__all__ = ["CONDITIONS", "anonymous_request"]

CONDITIONS = (
    "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_IF_RANGE", "HTTP_RANGE",
)  # fmt: skip

_NEVER = frozenset(
    {
        *CONDITIONS,
        "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE",
        "HTTP_CACHE_CONTROL", "HTTP_PRAGMA",
        "werkzeug.request", "werkzeug.socket", "gunicorn.socket", "flask._preserve_context",
        "wsgi.file_wrapper", "wsgi.early_hints", "wsgi.input_terminated",
    }
)  # fmt: skip
_PERSONAL = frozenset(
    {"HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "REMOTE_USER", "AUTH_TYPE"}
)


def anonymous_request(environ: dict[str, Any], *, keep_user: bool = False) -> dict[str, Any]:
    """A GET for the address of ``environ``, to be made in the background.

    Cookies and credentials are left out, and so are conditions, ranges, the body, and everything
    that a server or this package put there for the one request.

    Args:
        keep_user: leave cookies and credentials in, for a page that is kept for one user.
    """
    return {
        name: value
        for name, value in environ.items()
        if name not in _NEVER
        and (keep_user or name not in _PERSONAL)
        and not name.startswith("om_plugins.")
    } | {"REQUEST_METHOD": "GET", "wsgi.input": BytesIO(), "wsgi.errors": sys.stderr}

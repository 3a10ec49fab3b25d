"""The address of an HTTP service and the headers of each request to it, as a setting has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from ..errors import ConfigError

Origin = tuple[str, str, int]
"""Scheme, host and port."""

_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
_FRAMING = ("content-length", "transfer-encoding")


def parse_url(key: str, url: str, *, hidden: bool = False) -> tuple[Origin, str]:
    """The origin and the target of a URL.

    Args:
        key: the setting's name, for errors.
        url: ``http`` or ``https``.
        hidden: the URL often is a password: errors do not show it. Other characters than ASCII, and
            spaces, are encoded.

    Raises:
        ConfigError: it is no such URL, or it holds credentials.
    """
    shown = "…" if hidden else url
    must = "must be a URL such as 'https://host/path'"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if hidden:
            host = host.encode("idna").decode("ascii")
    except ValueError as error:
        raise ConfigError(key, shown, must if hidden else f"is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(key, "…", "must not hold credentials; put them in headers")
    if port is None:
        port = _PORTS.get(parts.scheme, 0)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if hidden:
        target = quote(target, safe="!#$%&'()*+,/:;=?@[]~")  # its escapes stay as they are
    plain = url if not hidden else host + target
    if parts.scheme not in _PORTS or not port or not host:
        raise ConfigError(key, shown, must)
    if not plain.isascii() or not plain.isprintable() or " " in plain:
        raise ConfigError(key, shown, must)
    return (parts.scheme, host, port), target


def check_headers(key: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of each request, checked: each is one line, and none frames the body.

    Args:
        key: the setting's name, for errors.

    Raises:
        ConfigError: a header cannot be sent. The error does not show the value, which may be a
            password.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(key, name, "is not a header name")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise ConfigError(key, name, "its value must be one line of ASCII text")
        if name.lower() in _FRAMING:
            raise ConfigError(key, name, "is set for each request; leave it out")
    return dict(headers)

"""The forward proxy through which connections to an upstream go, and which hosts it is not for.

The environment variables ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` are read
as curl and requests read them, and only where an operator asks for it: otherwise whoever sets a
variable of the process would see all that it sends.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError

FROM_ENVIRONMENT = "environment"
"""The value of ``proxy`` that reads the variables of the environment."""

DIRECT = "direct"
"""The value of ``proxy`` that overrules the setting of the application."""

_EXAMPLE = "must be 'environment', 'direct' or a URL such as 'http://proxy.internal:3128'"


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """A forward proxy that speaks plain HTTP/1.1.

    Attributes:
        host, port: its address.
        authorization: the value of ``Proxy-Authorization``; never shown.
    """

    host: str
    port: int
    authorization: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.host}:{self.port}>"

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of a request that are for the proxy alone."""
        value = self.authorization
        return [] if value is None else [("Proxy-Authorization", value)]


def find_proxy(
    key: str,
    setting: str | None,
    scheme: str,
    host: str,
    port: int,
    environ: Mapping[str, str] | None = None,
) -> OutboundProxy | None:
    """The proxy for an origin.

    Args:
        key: the setting's name, for errors.
        setting: ``None`` or ``direct`` for no proxy, the URL of one for every origin, or
            ``environment``.
        scheme, host, port: the origin.
        environ: instead of the environment of the process.

    Returns:
        ``None`` for a direct connection.

    Raises:
        ConfigError: the proxy's URL is wrong. The error shows no credentials.
    """
    if setting is None or setting == DIRECT:
        return None
    if not isinstance(setting, str) or not setting:
        raise ConfigError(key, setting, _EXAMPLE)
    if setting != FROM_ENVIRONMENT:
        if "://" not in setting:
            raise ConfigError(key, _hide(setting), _EXAMPLE)
        return parse_proxy(key, setting)
    if environ is None:
        environ = os.environ
    if is_excluded(_read(environ, "no_proxy")[1], host, port):
        return None
    for name in (f"{scheme}_proxy", "all_proxy"):
        variable, value = _read(environ, name)
        if value:
            return parse_proxy(variable, value if "://" in value else f"http://{value}")
    return None


def parse_proxy(key: str, url: str) -> OutboundProxy:
    """A proxy from its URL, such as ``http://user:password@proxy.internal:3128``.

    Raises:
        ConfigError: the URL is wrong, or its scheme is not ``http``.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, 80 if parts.port is None else parts.port
    except ValueError:
        raise ConfigError(key, _hide(url), _EXAMPLE) from None
    if parts.scheme != "http":
        raise ConfigError(
            key, _hide(url), f"{parts.scheme!r} proxies are not supported; it {_EXAMPLE}"
        )
    if not host or not port or parts.path not in ("", "/") or not _is_plain(host):
        raise ConfigError(key, _hide(url), _EXAMPLE)
    if "?" in url or "#" in url:  # most often those of a password, which must be %3F and %23
        raise ConfigError(key, _hide(url), _EXAMPLE)
    if parts.username is None and parts.password is None:
        return OutboundProxy(host, port)
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return OutboundProxy(host, port, "Basic " + base64.b64encode(pair.encode()).decode("ascii"))


def is_excluded(no_proxy: str, host: str, port: int) -> bool:
    """Whether ``NO_PROXY`` names an origin.

    Its entries are separated by commas or spaces. ``*`` names all; a name names itself and all
    below it, with or without a dot in front; an address names itself, and a network
    (``10.0.0.0/8``) its addresses. A port after an entry narrows it to that port. Nothing is looked
    up in the DNS.
    """
    name = _to_ascii(host.lower().rstrip("."))
    address = _to_address(name)
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        if entry == "*":
            return True
        pattern, entry_port = _split_port(entry)
        if entry_port not in (None, port) or not pattern:
            continue
        if address is not None:
            if _covers(pattern, address):
                return True
            continue
        domain = _to_ascii(pattern.removeprefix("*").removeprefix(".").rstrip("."))
        if domain and (name == domain or name.endswith(f".{domain}")):
            return True
    return False


def _read(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable and its value, the lower-case one first.

    A CGI program gets the header ``Proxy`` of a request as ``HTTP_PROXY`` (CVE-2016-5385), so there
    that name is not believed.
    """
    if name in environ:
        return name, environ[name].strip()
    upper = name.upper()
    if upper == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
        return upper, ""
    return upper, environ.get(upper, "").strip()


def _split_port(entry: str) -> tuple[str, int | None]:
    """An entry of ``NO_PROXY`` without brackets, and its port."""
    found = re.fullmatch(r"(\[[^\]]*\](?:/\d+)?|[^:]*)(?::(\d{1,5}))?", entry)
    if found is None:  # an IPv6 address without brackets
        return entry, None
    return found[1].replace("[", "").replace("]", ""), int(found[2]) if found[2] else None


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _to_address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return _unmap(address)


def _unmap(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 one stands for."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _covers(pattern: str, address: _Address) -> bool:
    try:
        network = ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False
    if network.num_addresses == 1:
        return _unmap(network.network_address) == address
    return address.version == network.version and address in network


def _to_ascii(name: str) -> str:
    """A name as engines ask the DNS for it (IDNA)."""
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def _is_plain(host: str) -> bool:
    is_name = host.isascii() and host.isprintable() and " " not in host
    return is_name and ("%" not in host or ":" in host)  # the zone of an IPv6 address


def _hide(url: str) -> str:
    """A URL for an error message, without its credentials."""
    return re.sub(r"^([^/]*//)?.*@", r"\1…@", url)

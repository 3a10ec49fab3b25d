"""Which headers of a message go on to the next hop, and what a gateway adds.

After RFC 9110 section 7.6 (message forwarding) and RFC 7239 (Forwarded). Whatever frames a message
or belongs to one connection ends here; names and values that could end a line are refused in a
request and mended in an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Headers = list[tuple[str, str]]

HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info",
    "proxy-authorization", "proxy-connection", "te", "trailer", "trailers", "transfer-encoding",
    "upgrade", "http2-settings",
})  # fmt: skip
"""Fields of one connection, which are neither passed on nor stored (RFC 9110 sections 7.6.1 and
11.7, RFC 9111 section 3.1, and what RFC 2616 named besides)."""

_NEVER_HOP_BY_HOP = frozenset({"content-length", "host", "date", "content-type", "cache-control"})
# meant for every recipient: a Connection header that names one is wrong (section 7.6.1)

_PROXY_HEADERS = re.compile(
    r"forwarded|x-forwarded-.*|x-real-ip|x-client-ip|x-cluster-client-ip|true-client-ip|"
    r"cf-connecting-ip|x-envoy-.*|x-original-(url|host)|x-rewrite-url"
)
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_BAD_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_FOLD = re.compile(r"\r?\n[ \t]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class BadHeaderError(ValueError):
    """A header that must not be sent on."""


def drop_hop_by_hop(headers: Iterable[tuple[str, str]], *, drop: Iterable[str] = ()) -> Headers:
    """The headers of a message without those that belong to its connection.

    Args:
        drop: more names, in lower case.
    """
    headers = list(headers)
    dropped = HOP_BY_HOP.union(drop)
    named = {
        one.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for one in value.split(",")
    }
    dropped |= named - _NEVER_HOP_BY_HOP
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def check_request_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """The headers of a request, each one line.

    Raises:
        BadHeaderError: a name is no token, or a value has a line break or another control
            character in it, or a letter beyond Latin-1. The value is not repeated.
    """
    found = list(headers)
    for name, value in found:
        if not _NAME.fullmatch(name):
            raise BadHeaderError(f"{name[:40]!r} is not a header name")
        if _BAD_VALUE.search(value):
            raise BadHeaderError(f"the value of the header {name[:40]!r} is not one line of text")
    return found


def clean_response_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """The headers of an answer, each one line: a folded one is unfolded (RFC 9112 section 5.2),
    a control character becomes a space (RFC 9110 section 5.5), one without a name goes."""
    return [
        (name, _BAD_VALUE.sub(" ", _FOLD.sub(" ", value)).strip(" \t"))
        for name, value in headers
        if _NAME.fullmatch(name)
    ]


def wants_websocket(connection: str, upgrade: str) -> bool:
    """Whether a request asks for a WebSocket. Any other upgrade may be ignored, and must be:
    clients that could speak HTTP/2 ask for it each time (RFC 9110 section 7.8)."""
    return "upgrade" in connection.lower() and "websocket" in upgrade.lower()


def add_forwarded(
    headers: Sequence[tuple[str, str]],
    *,
    client: str,
    host: str,
    scheme: str,
    prefix: str = "",
    peer: str = "",
    trusted: bool = False,
) -> Headers:
    """The headers of a request with what a gateway tells of the client.

    ``Forwarded`` (RFC 7239) and its forerunners ``X-Forwarded-For``, ``-Host``, ``-Proto`` and
    ``-Prefix`` say the same.

    Args:
        client: who asks, "" when it is not known.
        host, scheme: as the client asked.
        prefix: the path under which the gateway stands.
        peer: the proxy that asks for ``client``, where its ``X-Forwarded-For`` said who that is;
            "" when ``client`` asks itself.
        trusted: the peer is a proxy that is believed: what it told is kept and added to. What
            anybody else told is dropped, with all other headers by which proxies tell.
    """
    told: dict[str, str] = {}
    kept: Headers = []
    for name, value in headers:
        lower = name.lower()
        if not _PROXY_HEADERS.fullmatch(lower):
            kept.append((name, value))
        elif trusted and lower in ("forwarded", "x-forwarded-for"):
            told[lower] = f"{told[lower]}, {value}" if lower in told else value
        elif trusted:
            told.setdefault(lower, value)
            kept.append((name, value))
    elements = [f"for={_format_node(client)};host={_quote(host)};proto={scheme}"]
    if peer:  # speaks X-Forwarded-*: a Forwarded beside it may be the client's own
        elements.append(f"for={_format_node(peer)}")
    elif "forwarded" in told:
        elements.insert(0, told["forwarded"])
    addresses = [peer or client or "unknown"]  # each station adds whom it was asked by
    if "x-forwarded-for" in told:
        addresses.insert(0, told["x-forwarded-for"])
    kept.append(("Forwarded", ", ".join(elements)))
    kept.append(("X-Forwarded-For", ", ".join(addresses)))
    for name, value in (
        ("X-Forwarded-Host", host),
        ("X-Forwarded-Proto", scheme),
        ("X-Forwarded-Prefix", prefix),
    ):
        if value and name.lower() not in told:
            kept.append((name, value))
    return kept


def add_via(headers: Sequence[tuple[str, str]], received: str, pseudonym: str) -> Headers:
    """The headers with this gateway in ``Via`` (RFC 9110 section 7.6.3).

    Args:
        received: the protocol version of the message: ``1.1``.
        pseudonym: what this gateway is called.
    """
    stations = [value for name, value in headers if name.lower() == "via" and value]
    kept = [(name, value) for name, value in headers if name.lower() != "via"]
    return [*kept, ("Via", ", ".join([*stations, f"{received} {pseudonym}"]))]


def count_via(headers: Iterable[tuple[str, str]], pseudonym: str) -> int:
    """How often a message has come by a gateway of this name: a request that goes in a circle
    comes by again and again."""
    return sum(
        station.split()[1:2] == [pseudonym]
        for name, value in headers
        if name.lower() == "via"
        for station in value.split(",")
    )


def _format_node(address: str) -> str:
    """A node identifier (RFC 7239 section 6)."""
    if not address:
        return "unknown"
    return _quote(f"[{address}]" if ":" in address else address)


def _quote(text: str) -> str:
    if _TOKEN.fullmatch(text):
        return text
    return '"' + re.sub(r'([\\"])', r"\\\1", text) + '"'

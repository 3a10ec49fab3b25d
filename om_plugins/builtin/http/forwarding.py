"""Which headers of a message a gateway passes to the next hop, and which it adds.

It follows RFC 9110 section 7.6 (message forwarding) and RFC 7239 (Forwarded). Headers that frame a
message or belong to one connection are dropped. A name or value that could end a line is refused in
a request and cleaned in a response.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Headers = list[tuple[str, str]]

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
"""The methods whose requests may be sent again (RFC 9110 section 9.2.2)."""

HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info",
    "proxy-authorization", "proxy-connection", "te", "trailer", "trailers", "transfer-encoding",
    "upgrade", "http2-settings",
})  # fmt: skip
"""Fields of one connection, which are neither passed on nor stored (RFC 9110 sections 7.6.1 and
11.7, RFC 9111 section 3.1, and what RFC 2616 named besides)."""

_NEVER_HOP_BY_HOP = frozenset({"content-length", "host", "date", "content-type", "cache-control"})
# meant for every recipient: a Connection header must not name them (section 7.6.1)

_PROXY_HEADERS = re.compile(
    r"forwarded|x-forwarded-.*|x-real-ip|x-client-ip|x-cluster-client-ip|true-client-ip|"
    r"cf-connecting-ip|x-envoy-.*|x-original-(url|host)|x-rewrite-url"
)
_BAD_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_FOLD = re.compile(r"\r?\n[ \t]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class BadHeaderError(ValueError):
    """A header that must not be passed on."""


def drop_hop_by_hop(headers: Iterable[tuple[str, str]], *, drop: Iterable[str] = ()) -> Headers:
    """The headers of a message without the hop-by-hop ones.

    These are :data:`HOP_BY_HOP` and the names in the ``Connection`` header.

    Args:
        drop: more names to drop, in lower case.
    """
    headers = list(headers)
    dropped = HOP_BY_HOP.union(drop)
    named = {
        option.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for option in value.split(",")
    }
    dropped |= named - _NEVER_HOP_BY_HOP
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def join_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers by name in lower case, repeated ones joined by commas (RFC 9110 section 5.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        found[lower] = f"{found[lower]}, {value}" if lower in found else value
    return found


def check_request_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """The headers of a request, checked: each is one line.

    Raises:
        BadHeaderError: a name is not a token, or a value contains a line break, another control
            character, or a character outside Latin-1. The message does not contain the value.
    """
    found = list(headers)
    for name, value in found:
        if not _TOKEN.fullmatch(name):
            raise BadHeaderError(f"{name[:40]!r} is not a header name")
        if _BAD_VALUE.search(value):
            raise BadHeaderError(f"the value of the header {name[:40]!r} is not one line of text")
    return found


def clean_response_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """The headers of a response, each as one line.

    Folded lines are unfolded (RFC 9112 section 5.2), control characters become spaces (RFC 9110
    section 5.5), and headers whose name is not a token are dropped.
    """
    return [
        (name, _BAD_VALUE.sub(" ", _FOLD.sub(" ", value)).strip(" \t"))
        for name, value in headers
        if _TOKEN.fullmatch(name)
    ]


def parse_keep_alive(value: str) -> float:
    """How many seconds a connection may be idle, from ``Keep-Alive: timeout=5`` (RFC 2068 section
    19.7.1): less than the sender says, because its close may be under way. Infinite without one."""
    for part in value.split(","):
        name, _, number = part.partition("=")
        seconds = number.strip(' \t"')
        if name.strip().lower() == "timeout" and seconds.isascii() and seconds.isdecimal():
            said = int(seconds[:9])
            return max(said - 1.0, said / 2)
    return float("inf")


def wants_websocket(connection: str, upgrade: str) -> bool:
    """Whether a request asks for a WebSocket.

    Other upgrades must be ignored: clients that could use HTTP/2 ask for it with every request (RFC
    9110 section 7.8).
    """
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
    """The headers of a request, plus those in which a gateway describes the client.

    ``Forwarded`` (RFC 7239) and the older ``X-Forwarded-For``, ``-Host``, ``-Proto`` and
    ``-Prefix`` have the same content.

    Args:
        client: the address of the client, "" when it is not known.
        host, scheme: of the client's request.
        prefix: the path at which the gateway is mounted.
        peer: the address of the proxy that sent the request for ``client``, if the client's address
            comes from its ``X-Forwarded-For``; "" when the client connects directly.
        trusted: the peer is a trusted proxy: its headers are kept and extended. Otherwise these
            headers are dropped, with all others in which proxies describe a client.
    """
    known: dict[str, str] = {}
    kept: Headers = []
    for name, value in headers:
        lower = name.lower()
        if not _PROXY_HEADERS.fullmatch(lower):
            kept.append((name, value))
        elif trusted and lower in ("forwarded", "x-forwarded-for"):
            known[lower] = f"{known[lower]}, {value}" if lower in known else value
        elif trusted:
            known.setdefault(lower, value)
            kept.append((name, value))
    elements = [f"for={_format_node(client)};host={_quote(host)};proto={scheme}"]
    if peer:  # it uses X-Forwarded-*: a Forwarded beside these may come from the client
        elements.append(f"for={_format_node(peer)}")
    elif "forwarded" in known:
        elements.insert(0, known["forwarded"])
    addresses = [peer or client or "unknown"]  # each proxy adds the address of its peer
    if "x-forwarded-for" in known:
        addresses.insert(0, known["x-forwarded-for"])
    kept.append(("Forwarded", ", ".join(elements)))
    kept.append(("X-Forwarded-For", ", ".join(addresses)))
    for name, value in (
        ("X-Forwarded-Host", host),
        ("X-Forwarded-Proto", scheme),
        ("X-Forwarded-Prefix", prefix),
    ):
        if value and name.lower() not in known:
            kept.append((name, value))
    return kept


def add_via(headers: Sequence[tuple[str, str]], received: str, pseudonym: str) -> Headers:
    """The headers with this gateway in ``Via`` (RFC 9110 section 7.6.3).

    Args:
        received: the protocol version of the message, such as ``1.1``.
        pseudonym: the name of this gateway.
    """
    earlier = [value for name, value in headers if name.lower() == "via" and value]
    kept = [(name, value) for name, value in headers if name.lower() != "via"]
    return [*kept, ("Via", ", ".join([*earlier, f"{received} {pseudonym}"]))]


def count_via(headers: Iterable[tuple[str, str]], pseudonym: str) -> int:
    """How often a message has passed a gateway of this name, to detect a loop."""
    return sum(
        entry.split()[1:2] == [pseudonym]
        for name, value in headers
        if name.lower() == "via"
        for entry in value.split(",")
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

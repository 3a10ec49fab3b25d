"""Under which key a response is stored: its address, then what ``Vary`` names.

The key of an address is text: scheme, host, raw path, query and, last, their lengths, so that two
addresses never share one. It begins with the URL as people write it, which is how purging finds
it; a store gets a digest. Variants are told apart by a digest of the request fields that ``Vary``
names, brought to one form first (RFC 9111 section 4.1), so that ``gzip, br`` and ``br,gzip`` share.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from werkzeug.exceptions import SecurityError
from werkzeug.sansio.utils import get_host

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = [
    "AddressKeys",
    "environ_name",
    "favourite_language",
    "origin_and_path",
    "query_of",
    "variant",
]

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_MOST_HOSTS = 256
_PORTS = {"http": ":80", "https": ":443"}

# An application that looks at these answers by them, whether or not it says so in Vary: what they
# say is part of the key ...
_FORWARDED = ("HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PREFIX", "HTTP_X_FORWARDED_PROTO")
# ... and these ask for another resource than the address says, so nothing is looked up
_OVERRIDING = ("HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL", "HTTP_X_HTTP_METHOD_OVERRIDE")
_TELLING = frozenset((*_FORWARDED, *_OVERRIDING))


class AddressKeys:
    """Makes keys of requests.

    Args:
        trusted_hosts: host names to answer for; ``None`` for all that are well-formed.
    """

    def __init__(self, trusted_hosts: Sequence[str] | None = None) -> None:
        self._trusted = trusted_hosts
        self._origins: dict[tuple[str, str], str] = {}

    def of(self, environ: WSGIEnvironment) -> str | None:
        """The key of a request's address.

        Returns:
            ``None`` when the request must not meet the cache: its host is malformed or not
            trusted, or it asks for another resource by a header.
        """
        scheme = environ["wsgi.url_scheme"]
        host = environ.get("HTTP_HOST") or _server(environ)
        origin = self._origins.get((scheme, host))
        if origin is None:
            origin = self._checked(scheme, host)
        if not origin:
            return None
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
        if "?" in raw:
            raw = raw.partition("?")[0]
        if raw != path:
            path = _two_paths(raw, path, environ.get("SCRIPT_NAME", ""))
        query = environ.get("QUERY_STRING", "")
        if not environ.keys().isdisjoint(_TELLING):
            if any(name in environ for name in _OVERRIDING):
                return None
            query = _with_forwarded(environ, query)
        return f"{origin}{path}\n{query}\n{len(path)}.{len(query)}"

    def of_url(self, environ: WSGIEnvironment, location: str) -> str | None:
        """The key of another address of the same origin, as ``Location`` names it.

        Returns:
            ``None`` when it is of another origin, or cannot be read.
        """
        own = self.of(environ)
        if own is None or len(location) > 8192:
            return None
        origin, path = origin_and_path(own)
        try:
            parts = urlsplit(location)
        except ValueError:
            return None
        if parts.scheme or parts.netloc:
            scheme = (parts.scheme or origin.partition(":")[0]).lower()
            if self._checked(scheme, parts.netloc) != origin:
                return None
        raw = parts.path or ("/" if parts.netloc else path)
        if not raw.startswith("/"):
            raw = path.rpartition("/")[0] + "/" + raw
        raw = _without_dots(raw)
        inner: WSGIEnvironment = {
            name: environ[name] for name in ("HTTP_HOST", *_FORWARDED) if name in environ
        }
        for name in ("SERVER_NAME", "SERVER_PORT", "wsgi.url_scheme"):
            inner[name] = environ.get(name, "")
        root = environ.get("SCRIPT_NAME", "")
        decoded = unquote(raw, "latin-1")
        inner["SCRIPT_NAME"] = root if decoded.startswith(root) else ""
        inner["PATH_INFO"] = decoded[len(inner["SCRIPT_NAME"]) :]
        inner["RAW_URI"] = raw
        inner["QUERY_STRING"] = parts.query
        return self.of(inner)

    def _checked(self, scheme: str, host: str) -> str:
        """``https://example.com``; "" when there is nothing to be cached for this host."""
        found = ""
        if scheme in _PORTS and _HOST.fullmatch(host):
            try:
                get_host(scheme, host, None, self._trusted)
                found = f"{scheme}://{host.lower().removesuffix(_PORTS[scheme])}"
            except SecurityError:
                pass  # the application says itself what it does with such a request
        if len(self._origins) >= _MOST_HOSTS:
            self._origins.clear()
        self._origins[scheme, host] = found
        return found


def _server(environ: WSGIEnvironment) -> str:
    return f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"


def _two_paths(raw: str, path: str, root: str) -> str:
    """The path as it was sent, and as the application sees it: it may look at either."""
    if not raw.startswith("/"):
        raw = quote(path, safe="/:@!$&'()*+,;=~-._", encoding="latin-1")
    elif root and not raw.startswith(root):
        raw = root + raw  # a prefix that a proxy took off
    return raw if raw == path else f"{raw}\n{path}"


def _with_forwarded(environ: WSGIEnvironment, query: str) -> str:
    said = [str(environ.get(name, "")) for name in _FORWARDED]
    return f"{query}\n" + "".join(f"{len(one)}:{one}" for one in said)


def _without_dots(path: str) -> str:
    done: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if len(done) > 1:
                done.pop()
        elif part != ".":
            done.append(part)
    return "/".join(done)


def origin_and_path(ident: str) -> tuple[str, str]:
    """``("https://example.com", "/raw/path")`` of a key."""
    url = ident.partition("\n")[0]
    slash = url.find("/", 8)
    return (url, "") if slash < 0 else (url[:slash], url[slash:])


def query_of(ident: str) -> str:
    """The query of a key of an address or of one of its variants."""
    lines = ident.split("\n")
    for at in range(len(lines) - 1, 0, -1):
        size, dot, rest = lines[at].partition(".")
        if dot and size.isdigit() and rest.isdigit():
            whole = "\n".join(lines[:at])
            return whole[len(whole) - int(rest) :].partition("\n")[0] if int(rest) else ""
    return ""


# --- variants -----------------------------------------------------------------------------------

_COMMA = re.compile(r"[ \t]*,[ \t]*")
_MOST_LANGUAGES = 30


def environ_name(field: str) -> str:
    """``accept-encoding`` → ``HTTP_ACCEPT_ENCODING``."""
    name = field.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + name


def variant(
    ident: str, generation: str, names: Sequence[str], environ: Mapping[str, object]
) -> str:
    """The key of the variant that a request selects.

    Args:
        ident: the key of the address.
        generation: changes when all variants of the address are to be forgotten.
        names: of the request fields, in lower case.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        value = environ.get(environ_name(name))
        text = "-" if not isinstance(value, str) else "+" + _one_form(name, value)
        data = f"{name}={text}".encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(data), data))
    return f"{ident}\n{generation}\n{digest.hexdigest()}"


def _one_form(name: str, value: str) -> str:
    if name == "accept-encoding":
        return ",".join(sorted(token for token, q in _weighted(value) if q > 0))
    if name == "accept-language":
        return ",".join(sorted(f"{token};{q:g}" for token, q in _weighted(value)))
    return _COMMA.sub(",", value.strip(" \t"))


def _weighted(value: str) -> list[tuple[str, float]]:
    """The members of an ``Accept-…`` field with their weights (RFC 9110 section 12.4.2)."""
    found = []
    for part in value.lower().split(",")[:_MOST_LANGUAGES]:
        token, _, parameters = part.partition(";")
        token = token.strip(" \t")
        if not token:
            continue
        weight = 1.0
        match = _WEIGHT.fullmatch(parameters.strip(" \t")) if parameters else None
        if match is not None:
            weight = float(match[1])
        found.append((token, weight))
    return found


_WEIGHT = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")


def favourite_language(value: str) -> str:
    """The one language that ``Accept-Language`` prefers to all others; "" when there is none."""
    found = sorted(_weighted(value), key=lambda one: -one[1])
    if not found or found[0][1] <= 0 or (len(found) > 1 and found[1][1] == found[0][1]):
        return ""
    return found[0][0]

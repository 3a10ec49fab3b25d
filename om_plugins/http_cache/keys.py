"""Keys of the addresses of requests.

The key of an address is text: scheme, host, raw path, query, and last the lengths of path and
query. The lengths keep two addresses from sharing a key. The key begins with the URL as people
write it, because a purge compares URLs. A shared store gets a digest of the key.

Where the application is observed, a client that says who it is
(:data:`om_plugins.core.inputs.IDENTITIES`) has addresses of its own: their keys end with a keyed
digest of its identities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from werkzeug.exceptions import SecurityError
from werkzeug.sansio.utils import get_host

from ..core.inputs import InputRules, environ_input

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_MOST_HOSTS = 256
_PORTS = {"http": ":80", "https": ":443"}

# An application that reads these fields answers by them, whether or not it names them in Vary.
# Their values are part of the key.
_FORWARDED = ("HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PREFIX", "HTTP_X_FORWARDED_PROTO")
FORWARDED_INPUTS = tuple(environ_input(name) for name in _FORWARDED)
"""The names of these fields as inputs."""
# These fields ask for another resource than the address names. Such a request bypasses the cache.
_OVERRIDING = ("HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL", "HTTP_X_HTTP_METHOD_OVERRIDE")
_TELLING = frozenset((*_FORWARDED, *_OVERRIDING))


class AddressKeys:
    """Builds the keys of addresses.

    Args:
        trusted_hosts: host names to answer for; ``None`` for every well-formed one.
        inputs: say which variables are identities; ``None`` for keys without identities.

    Attributes:
        query_ignored: some responses are stored under a key without a query, so a look-up must
            try that key as well.
    """

    def __init__(
        self, trusted_hosts: Sequence[str] | None = None, inputs: InputRules | None = None
    ) -> None:
        self._trusted = trusted_hosts
        self._inputs = inputs
        self._special = _TELLING if inputs is None else _TELLING | inputs.identities
        self.query_ignored = False
        self._origins: dict[tuple[str, str], str] = {}

    def build(self, environ: WSGIEnvironment, *, for_client: bool = True) -> str | None:
        """Build the key of a request's address.

        Args:
            environ: the request.
            for_client: the key for this client, who may say who it is; else the key for everybody.
                The keys of all clients begin with that key and a line break.

        Returns:
            The key, or ``None`` when the request must bypass the cache: its host is malformed or
            not trusted, or a header asks for another resource.
        """
        scheme = environ["wsgi.url_scheme"]
        host = environ.get("HTTP_HOST") or _server_address(environ)
        origin = self._origins.get((scheme, host))
        if origin is None:
            origin = self._check_origin(scheme, host)
        if not origin:
            return None
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
        if "?" in raw:
            raw = raw.partition("?")[0]
        if raw != path:
            path = _join_paths(raw, path, environ.get("SCRIPT_NAME", ""))
        query = environ.get("QUERY_STRING", "")
        if not environ.keys().isdisjoint(self._special):
            return self._build_special(environ, origin, path, query, for_client=for_client)
        return f"{origin}{path}\n{query}\n{len(path)}.{len(query)}"

    def _build_special(
        self, environ: WSGIEnvironment, origin: str, path: str, query: str, *, for_client: bool
    ) -> str | None:
        if any(name in environ for name in _OVERRIDING):
            return None
        if any(name in environ for name in _FORWARDED):
            query = _add_forwarded(environ, query)
        client = ""
        if for_client and self._inputs is not None:
            client = self._inputs.digest_identities(environ)
        key = f"{origin}{path}\n{query}\n{len(path)}.{len(query)}"
        return f"{key}\n{client}" if client else key

    def build_without_query(
        self, environ: WSGIEnvironment, *, for_client: bool = True
    ) -> str | None:
        """Build the key of an address whose query does not select the response.

        Args and result are those of :meth:`build`.
        """
        self.query_ignored = True
        return self.build(remove_query(environ), for_client=for_client)

    def build_for_url(self, environ: WSGIEnvironment, location: str) -> str | None:
        """Build the key of another address on the same origin, as ``Location`` names it.

        Args:
            environ: the request that the response with this ``Location`` belongs to.
            location: an absolute URL, or a reference relative to the request's address.

        Returns:
            The key, or ``None`` when the URL has another origin or cannot be parsed.
        """
        own = self.build(environ, for_client=False)
        if own is None or len(location) > 8192:
            return None
        origin, path = read_url(own)
        try:
            parts = urlsplit(location)
        except ValueError:
            return None
        if parts.scheme or parts.netloc:
            scheme = (parts.scheme or origin.partition(":")[0]).lower()
            if self._check_origin(scheme, parts.netloc) != origin:
                return None
        raw = parts.path or ("/" if parts.netloc else path)
        if not raw.startswith("/"):
            raw = path.rpartition("/")[0] + "/" + raw
        raw = _remove_dots(raw)
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
        return self.build(inner)

    def _check_origin(self, scheme: str, host: str) -> str:
        """Return ``https://example.com``; "" when nothing may be cached for this host."""
        found = ""
        if scheme in _PORTS and _HOST.fullmatch(host):
            try:
                get_host(scheme, host, None, self._trusted)
                found = f"{scheme}://{host.lower().removesuffix(_PORTS[scheme])}"
            except SecurityError:
                pass  # the application decides what it does with such a request
        if len(self._origins) >= _MOST_HOSTS:
            self._origins.clear()
        self._origins[scheme, host] = found
        return found


def _server_address(environ: WSGIEnvironment) -> str:
    return f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"


def _join_paths(raw: str, path: str, root: str) -> str:
    """Join the path as sent and as the application sees it: it may answer by either one."""
    if not raw.startswith("/"):
        raw = quote(path, safe="/:@!$&'()*+,;=~-._", encoding="latin-1")
    elif root and not raw.startswith(root):
        raw = root + raw  # a proxy removed this prefix
    return raw if raw == path else f"{raw}\n{path}"


def _add_forwarded(environ: WSGIEnvironment, query: str) -> str:
    values = [str(environ.get(name, "")) for name in _FORWARDED]
    return f"{query}\n" + "".join(f"{len(value)}:{value}" for value in values)


def _remove_dots(path: str) -> str:
    done: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if len(done) > 1:
                done.pop()
        elif part != ".":
            done.append(part)
    return "/".join(done)


def read_url(key: str) -> tuple[str, str]:
    """Return origin and path of a key: ``("https://example.com", "/raw/path")``."""
    url = key.partition("\n")[0]
    slash = url.find("/", 8)
    return (url, "") if slash < 0 else (url[:slash], url[slash:])


def read_query(key: str) -> str:
    """Return the query of the key of an address or of one of its variants."""
    whole, _, lengths = read_address(key).rpartition("\n")
    digits = lengths.rpartition(".")[2]
    size = int(digits) if whole and digits.isdecimal() else 0
    return whole[len(whole) - size :].partition("\n")[0] if size else ""


def read_address(key: str) -> str:
    """Return the key for everybody of the address that a key belongs to."""
    lines = key.split("\n")
    for at in range(len(lines) - 1, 0, -1):
        size, dot, rest = lines[at].partition(".")
        if dot and size.isdecimal() and rest.isdecimal():
            return "\n".join(lines[: at + 1])
    return key


def is_of_client(key: str) -> bool:
    """Whether a key is that of a client who says who it is."""
    return key[len(read_address(key)) :].count("\n") % 2 == 1  # a variant adds two lines


def remove_query(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return a copy of an environ whose query is empty, also in the raw URI."""
    changed: WSGIEnvironment = {**environ, "QUERY_STRING": ""}
    for name in ("RAW_URI", "REQUEST_URI"):
        if name in changed:
            changed[name] = str(changed[name]).partition("?")[0]
    return changed

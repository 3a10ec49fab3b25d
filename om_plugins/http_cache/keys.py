"""Keys of stored responses: the address of a request, then the fields that ``Vary`` names.

The key of an address is text: scheme, host, raw path, query, and last the lengths of path and
query. The lengths keep two addresses from sharing a key. The key begins with the URL as people
write it, because a purge compares URLs. A shared store gets a digest of the key.

The key of a variant adds a digest of the request fields that ``Vary`` names. The fields are
normalized first (RFC 9111 section 4.1), so that ``gzip, br`` and ``br,gzip`` share a variant.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from werkzeug.exceptions import SecurityError
from werkzeug.sansio.utils import get_host

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_MOST_HOSTS = 256
_PORTS = {"http": ":80", "https": ":443"}

# An application that reads these fields answers by them, whether or not it names them in Vary.
# Their values are part of the key.
_FORWARDED = ("HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PREFIX", "HTTP_X_FORWARDED_PROTO")
# These fields ask for another resource than the address names. Such a request bypasses the cache.
_OVERRIDING = ("HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL", "HTTP_X_HTTP_METHOD_OVERRIDE")
_TELLING = frozenset((*_FORWARDED, *_OVERRIDING))


class AddressKeys:
    """Builds the keys of addresses.

    Args:
        trusted_hosts: host names to answer for; ``None`` for every well-formed one.

    Attributes:
        query_ignored: some responses are stored under a key without a query, so a look-up must
            try that key as well.
    """

    def __init__(self, trusted_hosts: Sequence[str] | None = None) -> None:
        self._trusted = trusted_hosts
        self.query_ignored = False
        self._origins: dict[tuple[str, str], str] = {}

    def build(self, environ: WSGIEnvironment) -> str | None:
        """Build the key of a request's address.

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
        if not environ.keys().isdisjoint(_TELLING):
            if any(name in environ for name in _OVERRIDING):
                return None
            query = _add_forwarded(environ, query)
        return f"{origin}{path}\n{query}\n{len(path)}.{len(query)}"

    def build_without_query(self, environ: WSGIEnvironment) -> str | None:
        """Build the key of an address whose query does not select the response.

        Returns:
            The key, or ``None`` as in :meth:`build`.
        """
        self.query_ignored = True
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
        return self.build({**environ, "QUERY_STRING": "", "RAW_URI": raw.partition("?")[0]})

    def build_for_url(self, environ: WSGIEnvironment, location: str) -> str | None:
        """Build the key of another address on the same origin, as ``Location`` names it.

        Args:
            environ: the request that the response with this ``Location`` belongs to.
            location: an absolute URL, or a reference relative to the request's address.

        Returns:
            The key, or ``None`` when the URL has another origin or cannot be parsed.
        """
        own = self.build(environ)
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
    lines = key.split("\n")
    for at in range(len(lines) - 1, 0, -1):
        size, dot, rest = lines[at].partition(".")
        if dot and size.isdigit() and rest.isdigit():
            whole = "\n".join(lines[:at])
            return whole[len(whole) - int(rest) :].partition("\n")[0] if int(rest) else ""
    return ""


# --- variants -----------------------------------------------------------------------------------

_MOST_MEMOIZED = 256
_MOST_NAME_SETS = 4


@dataclass(slots=True)
class VariantIndex:
    """The variants that are stored at one address (RFC 9111 section 4.1).

    Attributes:
        names: the sets of request fields that responses named in ``Vary``, newest first.
        generation: part of the variants' keys; a new index makes all old variants unreachable.
        keys: the keys of the variants, oldest first.
        languages: the key of a variant by its ``Content-Language``, for variants that are selected
            by ``Accept-Language`` alone.
        memo: keys by the selecting fields' values as sent; saves normalizing them for each request.
    """

    names: list[tuple[str, ...]]
    generation: str
    keys: list[str] = field(default_factory=list)
    languages: dict[str, str] = field(default_factory=dict)
    memo: dict[tuple[object, ...], str] = field(default_factory=dict)

    def candidates(self, key: str, environ: Mapping[str, object]) -> list[str]:
        """Return the keys of the variants that may answer a request, best first.

        Args:
            key: the key of the address.
            environ: the request.
        """
        found = [self._memoized(key, names, environ) for names in self.names]
        wanted = environ.get("HTTP_ACCEPT_LANGUAGE")
        if isinstance(wanted, str) and wanted and self.languages:
            by_language = self.languages.get(preferred_language(wanted))
            if by_language:
                found.append(by_language)
        return found

    def _memoized(self, key: str, names: tuple[str, ...], environ: Mapping[str, object]) -> str:
        values = (names, *(environ.get(environ_name(name)) for name in names))
        found = self.memo.get(values)
        if found is None:
            found = variant_key(key, self.generation, names, environ)
            if len(self.memo) >= _MOST_MEMOIZED:
                self.memo.clear()
            self.memo[values] = found
        return found

    def add(self, variant: str, names: tuple[str, ...], language: str) -> VariantIndex:
        """Return an index that lists a variant as the newest one; ``self`` if it does already.

        Args:
            variant: the key of the variant.
            names: the request fields that select it.
            language: its ``Content-Language``; "" when it has none.
        """
        if variant in self.keys and self.names[:1] == [names]:
            return self
        languages = dict(self.languages)
        if names == ("accept-language",) and language:
            languages[language] = variant
        return VariantIndex(
            [names, *(other for other in self.names if other != names)][:_MOST_NAME_SETS],
            self.generation,
            [*(key for key in self.keys if key != variant), variant],
            languages,
        )


_COMMA = re.compile(r"[ \t]*,[ \t]*")
_MOST_LANGUAGES = 30


def environ_name(name: str) -> str:
    """Return the environ key of a field: ``HTTP_ACCEPT_ENCODING`` for ``accept-encoding``."""
    upper = name.upper().replace("-", "_")
    return upper if upper in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + upper


def variant_key(
    key: str, generation: str, names: Sequence[str], environ: Mapping[str, object]
) -> str:
    """Return the key of the variant that a request selects.

    Args:
        key: the key of the address.
        generation: of the address's :class:`VariantIndex`; a new one makes all old variants
            unreachable.
        names: the request fields that select the variant, in lower case.
        environ: the request.
    """
    return f"{key}\n{generation}\n{selecting_digest(names, environ)}"


def selecting_digest(names: Sequence[str], environ: Mapping[str, object]) -> str:
    """Digest the normalized request fields that select a response; "" without fields.

    Two requests with the same digest select the same response (RFC 9111 section 4.1).
    """
    if not names:
        return ""
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        value = environ.get(environ_name(name))
        text = "-" if not isinstance(value, str) else "+" + _normalize(name, value)
        data = f"{name}={text}".encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(data), data))
    return digest.hexdigest()


def _normalize(name: str, value: str) -> str:
    if name == "accept-encoding":
        return ",".join(sorted(token for token, q in _parse_weights(value) if q > 0))
    if name == "accept-language":
        return ",".join(sorted(f"{token};{q:g}" for token, q in _parse_weights(value)))
    return _COMMA.sub(",", value.strip(" \t"))


def _parse_weights(value: str) -> list[tuple[str, float]]:
    """Parse the members of an ``Accept-…`` field and their weights (RFC 9110 section 12.4.2)."""
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


def preferred_language(value: str) -> str:
    """Return the one language that ``Accept-Language`` prefers to all others; "" without one."""
    found = sorted(_parse_weights(value), key=lambda one: -one[1])
    if not found or found[0][1] <= 0 or (len(found) > 1 and found[1][1] == found[0][1]):
        return ""
    return found[0][0]

"""The inputs of a request: what its response may depend on, found by looking.

HTTP's ``Vary`` (RFC 9110 section 12.5.5) declares which request headers select a response. Here the
inputs are observed instead: :mod:`.observed` notes which inputs any code of a request looked at,
with the values that the request brought. A cache keeps a response under these names and values,
and answers only requests that bring the same values. Every cache of this package, the idempotency
keys and the background refreshes ask this module what counts, and how to compare it.

An input has a name:

======================================  ==========================================================
``cookie:NAME``, ``cookies``            one cookie; all cookies
``header:name``                         a request header, its name in lower case
``vary:name``                           a header that a response's ``Vary`` names, normalized
``accept:name:METHOD:[arguments]``      the answer of a method of werkzeug's ``Accept``
``address``                             the client's address
``environ:NAME``                        another variable of the WSGI environ
``session:KEY``, ``session?``           a key of the session; whether the session is empty
``session``                             the whole session
``query``                               the query as it was sent, with the order of its parameters
======================================  ==========================================================

Some inputs are always part of the key: scheme, host, path, query and :data:`IDENTITIES`. They are
not noted.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from werkzeug.datastructures import Accept, CharsetAccept, LanguageAccept, MIMEAccept
from werkzeug.http import parse_accept_header
from werkzeug.sansio.http import parse_cookie

if TYPE_CHECKING:
    pass

IDENTITIES = frozenset(
    {"REMOTE_USER", "AUTH_TYPE", "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"}
    | {"SSL_CLIENT_VERIFY", "SSL_CLIENT_S_DN", "SSL_CLIENT_CERT", "SSL_CLIENT_M_SERIAL"}
)
"""Variables that say who the client is (RFC 3875 section 4.1, mod_ssl). With one of mod_ssl's, all
that begin with ``SSL_CLIENT_`` count."""
_CLIENT_CERTIFICATE = "SSL_CLIENT_"
_NOBODY = frozenset({("SSL_CLIENT_VERIFY", "NONE")})

_ADDRESS = (
    "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "PATH_INFO",
    "QUERY_STRING", "REQUEST_METHOD",
)  # fmt: skip
_IN_KEY = frozenset(_ADDRESS) - {"SERVER_NAME", "SERVER_PORT"}  # the key has the host alone
_OF_THE_ADDRESS = frozenset(
    {"RAW_URI", "REQUEST_URI", "SERVER_PROTOCOL", "SERVER_NAME", "SERVER_PORT"}
)
_OF_THE_CLIENT = ("REMOTE_ADDR", "REMOTE_PORT", "REMOTE_HOST")
_OF_THE_SERVER = frozenset(
    {"wsgi.version", "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "wsgi.errors"}
    | {"wsgi.input", "wsgi.input_terminated", "wsgi.file_wrapper", "SERVER_SOFTWARE"}
    | {"GATEWAY_INTERFACE"}
)
"""Variables that are the same for every request without a body."""
_OF_FRAMEWORKS = ("om_plugins.", "werkzeug.request", "werkzeug.debug.", "flask._")
ACCEPTS: Mapping[str, type[Accept]] = {
    "accept": MIMEAccept,
    "accept-charset": CharsetAccept,
    "accept-encoding": Accept,
    "accept-language": LanguageAccept,
}
_ABSENT = b""

Reader = tuple[str, str]
"""The module and the name of a function that looks at an input."""


class IncomparableInput(Exception):
    """An input has a value that cannot be compared with another request's."""


# --- values -------------------------------------------------------------------------------------


def encode_value(value: object) -> bytes:
    """Encode a value so that equal bytes mean equal values of the same types.

    Raises:
        IncomparableInput: the value, or a part of it, is not known to be plain data.
    """
    try:
        return marshal.dumps(value, 2)  # type: ignore[arg-type]  # this version does not depend on reference counts
    except ValueError:
        return repr(_to_plain(value, 0)).encode("utf-8", "surrogatepass")


_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_AS_TEXT = frozenset(
    {"datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta"}
    | {"uuid.UUID", "decimal.Decimal", "markupsafe.Markup"}
)
_DEEPEST = 50


def _to_plain(value: object, depth: int) -> object:
    kind = type(value)
    if kind in _PLAIN:
        return value
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name in _AS_TEXT:
        return [name, str.__str__(value) if isinstance(value, str) else repr(value)]
    if depth < _DEEPEST:
        if isinstance(value, dict) and kind is dict:
            pairs = value.items()
            return [name, [[_to_plain(k, depth + 1), _to_plain(v, depth + 1)] for k, v in pairs]]
        if kind is list or kind is tuple:
            return [name, [_to_plain(one, depth + 1) for one in value]]  # type: ignore[attr-defined]
    raise IncomparableInput(f"a value of the type {name} cannot be compared")


def environ_input(name: str) -> str:
    """Return the name of the input that a variable of the environ is; "" when it is none.

    A variable is no input when it is always part of the key, or the same for every request.
    """
    if name in _IN_KEY or name in IDENTITIES or name in _OF_THE_SERVER:
        return ""
    if name == "HTTP_COOKIE":
        return "cookies"
    if name == "REMOTE_ADDR":
        return "address"
    if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        header = name.removeprefix("HTTP_").lower().replace("_", "-")
        if header_variable(header) == name:  # not so for HTTP_CONTENT_TYPE, or for HTTP_x
            return f"header:{header}"
    return "" if name.startswith(_OF_FRAMEWORKS) else f"environ:{name}"


def header_variable(name: str) -> str:
    """Return the environ variable of a header: ``HTTP_ACCEPT`` for ``accept``."""
    upper = name.upper().replace("-", "_")
    return upper if upper in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + upper


class InputReader(Protocol):
    """Reads the values that one request brought."""

    def read(self, name: str) -> bytes:
        """Return the encoded value of an input.

        Raises:
            IncomparableInput: the value cannot be compared, or cannot be read here.
        """


class EnvironReader:
    """Reads inputs from a WSGI environ. The session is the framework's, and cannot be read here."""

    _cookies: Any = None

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def read(self, name: str) -> bytes:
        """See :class:`InputReader`."""
        kind, _, rest = name.partition(":")
        environ = self.find_environ()
        match kind:
            case "cookie":
                if self._cookies is None:
                    self._cookies = parse_cookie(environ.get("HTTP_COOKIE", ""))
                found = self._cookies.getlist(rest)
                return encode_value(found) if found else _ABSENT
            case "cookies":
                return encode_value(environ.get("HTTP_COOKIE", ""))
            case "header":
                return _encode_variable(environ, header_variable(rest))
            case "vary":
                value = environ.get(header_variable(rest))
                text = normalize_header(rest, value) if isinstance(value, str) else None
                return _ABSENT if text is None else encode_value(text)
            case "accept":
                return encode_value(answer_accept(rest, environ))
            case "address":
                return _encode_variable(environ, "REMOTE_ADDR")
            case "environ":
                return _encode_variable(environ, rest)
            case "query":
                return _encode_variable(environ, "QUERY_STRING")
        raise IncomparableInput(f"{name} cannot be read from the environ")

    def find_environ(self) -> Mapping[str, Any]:
        """Return the environ.

        Raises:
            IncomparableInput: the request is over.
        """
        return self._environ


def _encode_variable(environ: Mapping[str, Any], name: str) -> bytes:
    return encode_value(environ[name]) if name in environ else _ABSENT


_ANSWERING = frozenset({"best_match", "quality", "__contains__"})


def answer_accept(question: str, environ: Mapping[str, Any]) -> object:
    """Answer ``accept-language:best_match:[["de", "en"], null]`` as werkzeug's ``Accept`` does.

    Raises:
        IncomparableInput: nobody asks that.
    """
    header, _, rest = question.partition(":")
    method, _, given = rest.partition(":")
    kind = ACCEPTS.get(header)
    if kind is None or method not in _ANSWERING:
        raise IncomparableInput(f"accept:{question} cannot be answered")
    accept: Any = parse_accept_header(environ.get(header_variable(header)), kind)
    try:
        arguments = json.loads(given)
    except ValueError:
        raise IncomparableInput(f"accept:{question} cannot be answered") from None
    try:
        return getattr(accept, method)(*arguments)
    except ValueError as error:  # the application asked with a malformed type
        return str(error)
    except (TypeError, AttributeError):
        raise IncomparableInput(f"accept:{question} cannot be answered") from None


def normalize_header(name: str, value: str) -> str:
    """Normalize a selecting header (RFC 9111 section 4.1): ``gzip, br`` is ``br,gzip``."""
    if name == "accept-encoding":
        return ",".join(sorted(token for token, q in parse_weights(value) if q > 0))
    if name == "accept-language":
        return ",".join(sorted(f"{token};{q:g}" for token, q in parse_weights(value)))
    return ",".join(part.strip(" \t") for part in value.strip(" \t").split(","))


_MOST_MEMBERS = 30


def parse_weights(value: str) -> list[tuple[str, float]]:
    """Parse the members of an ``Accept-…`` field and their weights (RFC 9110 section 12.4.2)."""
    found = []
    for part in value.lower().split(",")[:_MOST_MEMBERS]:
        token, _, parameters = part.partition(";")
        token = token.strip(" \t")
        if not token:
            continue
        weight = 1.0
        name, equals, digits = parameters.strip(" \t").partition("=")
        if name == "q" and equals and len(digits) <= 5 and digits[:1] in ("0", "1"):
            try:
                weight = float(digits)
            except ValueError:
                weight = 1.0
        found.append((token, weight))
    return found


# --- what is always in the key ------------------------------------------------------------------


def read_location(environ: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Return scheme, host, root path, path and query of a request.

    The server's own name counts only for a request without ``Host``: each machine may have another.
    """
    get = environ.get
    return (
        get("wsgi.url_scheme", ""),
        get("HTTP_HOST") or f"{get('SERVER_NAME', '')}:{get('SERVER_PORT', '')}",
        get("SCRIPT_NAME", ""),
        get("PATH_INFO", ""),
        get("QUERY_STRING", ""),
    )


def has_body(environ: Mapping[str, Any]) -> bool:
    """Whether a request brings a body (RFC 9112 section 6). A cached GET never does."""
    return environ.get("CONTENT_LENGTH") not in (None, "", "0") or (
        "HTTP_TRANSFER_ENCODING" in environ
    )


# other characters end a pair in the parsers of some frameworks
_PLAIN_COOKIE = re.compile(r"[ \t]*([^\s=,;\"]+)=([^\s,;\"]*)[ \t]*")
_OVERRIDES = ("HTTP_X_FORWARDED", "HTTP_X_ORIGINAL", "HTTP_X_REWRITE")
_OVERRIDE = frozenset({"HTTP_FORWARDED", "HTTP_X_HTTP_METHOD_OVERRIDE", "HTTP_X_HOST"})


def brings_override(environ: Mapping[str, Any]) -> bool:
    """Whether a header says that the request has another address or method than it shows.

    An application may answer by such a header (RFC 7239, ``X-Forwarded-Host``, ``X-Original-URL``,
    ``X-HTTP-Method-Override``), and nobody sees that where it is not observed.
    """
    return any(name.startswith(_OVERRIDES) or name in _OVERRIDE for name in environ)


@dataclass(frozen=True, slots=True)
class KnownReader:
    """A function that looks at inputs and keeps them to itself: no response depends on them.

    Attributes:
        reason: why that is so, in one sentence.
        callers: the prefix of the module that must have called the function; "" for any.
        applies: whether that is so for this request, given its
            :class:`~om_plugins.core.observed.ObservedInputs`; ``None`` for always.
        works_on: whether that is so for what the function works on, given its local variables;
            ``None`` for always.
    """

    reason: str
    callers: str = ""
    applies: Callable[[Any], bool] | None = None
    works_on: Callable[[Mapping[str, Any]], bool] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class InputRules:
    """How the inputs of one application's requests are compared.

    Attributes:
        secret: the key of the digests. Without it, nobody can guess a value from its digest.
        identities: the variables that say who the client is.
        readers: the known readers, which keep to themselves what they look at; see
            :class:`KnownReader`. It may grow until the first request.
        variants: how many responses are kept at one address.
    """

    secret: Callable[[], bytes] = lambda: b""
    identities: frozenset[str] = IDENTITIES
    readers: dict[Reader, KnownReader] = field(default_factory=dict)
    variants: int = 1000

    def read_identities(self, environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Return the variables of a request that say who the client is, with their values."""
        if environ.keys().isdisjoint(self.identities):
            return ()
        names = {name for name in self.identities if name in environ}
        if any(name.startswith(_CLIENT_CERTIFICATE) for name in names):
            names |= {name for name in environ if name.startswith(_CLIENT_CERTIFICATE)}
        return tuple((name, str(environ[name])) for name in sorted(names))

    def brings_identity(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request says who its client is. What servers always set does not count."""
        found = self.read_identities(environ)
        return any(one not in _NOBODY for one in found if one[1])

    def read_address(self, environ: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what is always in the key of a request: its address, and who the client is."""
        found = [str(environ.get(name, "")) for name in _ADDRESS]
        for name, value in self.read_identities(environ):
            found += [name, value]
        return tuple(found)

    def digest_identities(self, environ: Mapping[str, Any]) -> str:
        """Return a keyed digest of :meth:`read_identities`; "" for a client that says nothing."""
        if environ.keys().isdisjoint(self.identities):
            return ""
        return self.digest(encode_value(one) for one in self.read_identities(environ))

    def is_anonymous(self, environ: Mapping[str, Any], ours: Collection[str] = ()) -> bool:
        """Whether a request says nothing of its client: it has no identity and no cookie.

        Where nobody observes the application, only such requests may share a response, unless the
        response says that it is public.

        Args:
            environ: the request.
            ours: names of cookies that no response of the application depends on.
        """
        if self.brings_identity(environ):
            return False
        sent = environ.get("HTTP_COOKIE")
        if not sent:
            return True
        pairs = [_PLAIN_COOKIE.fullmatch(pair) for pair in sent.split(";")]
        return all(pair is not None and pair[1] in ours for pair in pairs)

    def digest(self, values: Iterable[bytes]) -> str:
        """Return a keyed digest of values, each with its length."""
        secret = self.secret()
        key = secret if len(secret) <= 64 else hashlib.blake2b(secret, digest_size=64).digest()
        found = hashlib.blake2b(digest_size=16, key=key, person=b"om-inputs")
        for value in values:
            found.update(b"%d:%b" % (len(value), value))
        return found.hexdigest()

    def select_inputs(
        self, environ: Mapping[str, Any], names: Iterable[str], session_cookie: str = ""
    ) -> dict[str, Any]:
        """Return the variables of a request for the same response, with these inputs and no others.

        Args:
            environ: a request for the response.
            names: the inputs that a making of the response looked at, also those of known readers.
            session_cookie: the name of the cookie that the session comes from.
        """
        names = set(names)
        always = _OF_THE_ADDRESS.union(name for name, _ in self.read_identities(environ))
        kept = {
            name: value
            for name, value in environ.items()
            if name in always or not environ_input(name) or environ_input(name) in names
        }
        for name in names:
            if name.startswith(("accept:", "vary:")):
                variable = header_variable(name.split(":")[1])
                if variable in environ:
                    kept[variable] = environ[variable]
        cookies = list_cookies(names, session_cookie)
        if cookies and "HTTP_COOKIE" in environ:
            pairs = str(environ["HTTP_COOKIE"]).split(";")
            wanted = [
                p for p in pairs if "" in cookies or p.partition("=")[0].strip(" \t") in cookies
            ]
            if wanted:
                kept["HTTP_COOKIE"] = ";".join(wanted).strip()
        if "address" in names:
            kept |= {name: environ[name] for name in _OF_THE_CLIENT if name in environ}
        return kept


# --- a request for the same response ------------------------------------------------------------

_SESSION = frozenset({"session", "session?"})


def is_session(name: str) -> bool:
    """Whether an input is the session, or a part of it."""
    return name in _SESSION or name.startswith("session:")


def is_identity(name: str) -> bool:
    """Whether an input may say who the client is: all but single headers and the query."""
    return not name.startswith(("header:", "vary:", "accept:")) and name != "query"


def list_cookies(names: Iterable[str], session_cookie: str) -> tuple[str, ...]:
    """Return the names of the cookies among some inputs, as they are in the environ.

    Args:
        names: of the inputs.
        session_cookie: the name of the cookie that the session comes from.

    Returns:
        The names; ``("",)``, which every cookie header contains, when all cookies count.
    """
    found = set()
    for name in names:
        if name == "cookies":
            return ("",)
        if name.startswith("cookie:"):
            found.add(name[7:])
        elif is_session(name):
            found.add(session_cookie)
    return tuple(sorted(found))


def brings_cookie(environ: Mapping[str, Any], cookies: tuple[str, ...]) -> bool:
    """Whether a request brings one of these cookies; see :func:`list_cookies`."""
    sent = environ.get("HTTP_COOKIE")
    if not sent or not cookies:
        return False
    if "" in cookies:
        return True
    if not any(name in sent for name in cookies):
        return False
    # the parser of requests: what is a space, and where a quoted value ends, decides it alone
    return not parse_cookie(sent).keys().isdisjoint(cookies)

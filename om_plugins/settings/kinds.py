"""The kinds of values that settings may have: numbers, choices, policies, nested tables.

Each check is a :class:`~om_plugins.settings.table.Check`.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from .. import errors
from ..errors import ConfigError, suggest
from .callbacks import explain_callback
from .paths import explain_placeholder
from .table import Check, Table

_WORDS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False, "false": False, "no": False, "off": False
}  # fmt: skip


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        value = _WORDS.get(value.strip().lower(), value)
    elif type(value) is int and value in (0, 1):  # Flask reads FLASK_OM_ENABLED=0 as JSON
        value = bool(value)
    if not isinstance(value, bool):
        raise ValueError
    return value


BOOL = Check("true or false", _boolean, "bool")


def number(low: float = 0.0, high: float = math.inf, unit: str = "") -> Check:
    """Make the check for a finite float within bounds."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        result = float(value)
        if not (low <= result <= high) or math.isnan(result) or math.isinf(result):
            raise ValueError
        return result

    return Check("a number" + (f" of {unit}" if unit else "") + _between(low, high), read, "float")


def integer(low: int = 0, high: float = math.inf, unit: str = "") -> Check:
    """Make the check for a whole number within bounds."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError
        result = int(value)
        if not low <= result <= high:
            raise ValueError
        return result

    return Check(
        "a whole number" + (f" of {unit}" if unit else "") + _between(low, high), read, "int"
    )


def _between(low: float, high: float) -> str:
    return f" from {low:g} to {high:g}" if high != math.inf else f" of at least {low:g}"


def choice(*allowed: str) -> Check:
    """Make the check for one of some words."""

    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(suggest(value, allowed, ""))
        return str(value)

    return Check(
        ", ".join(repr(a) for a in allowed[:-1]) + f" or {allowed[-1]!r}",
        read,
        f"Literal[{', '.join(repr(a) for a in allowed)}]",
        choices=allowed,
    )


def auto_or(check: Check) -> Check:
    """Make the check for ``auto`` or what ``check`` allows."""
    return Check(
        f"'auto' or {check.allowed}",
        lambda value: value if value == "auto" else check.read(value),
        f"{check.accepts} | Literal['auto']",
    )


def text(pattern: str = "", allowed: str = "text") -> Check:
    """Make the check for text; with ``pattern``, the whole text must match it."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or (pattern and not re.fullmatch(pattern, value)):
            raise ValueError
        return value

    return Check(allowed, read, "str")


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError
    if not all(isinstance(item, str) for item in value):
        raise ValueError("every item must be text")
    return tuple(value)


STRINGS = Check("a list of texts, or one text with commas", _strings, "Collection[str]")


# of PEP 3333 and RFC 3875; other variables may be in small letters, as the "eppn" of Shibboleth
_CGI = frozenset({
    "AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "GATEWAY_INTERFACE", "PATH_INFO",
    "PATH_TRANSLATED", "QUERY_STRING", "REMOTE_ADDR", "REMOTE_HOST", "REMOTE_IDENT", "REMOTE_PORT",
    "REMOTE_USER", "REQUEST_METHOD", "REQUEST_URI", "SCRIPT_NAME", "SERVER_NAME", "SERVER_PORT",
    "SERVER_PROTOCOL", "SERVER_SOFTWARE", "SSL_CLIENT_CERT", "SSL_CLIENT_S_DN",
    "SSL_CLIENT_VERIFY",
})  # fmt: skip


def _variables(value: Any) -> tuple[str, ...]:
    names = _strings(value)
    for name in names:
        if not re.fullmatch(r"[A-Za-z][\w.]*", name, re.ASCII):
            raise ValueError(
                f"{name!r} is no variable of the WSGI environ; the header X-User is 'HTTP_X_USER'"
            )
        capitals = name.upper()
        if name != capitals and (capitals.startswith("HTTP_") or capitals in _CGI):
            raise ValueError(f"no WSGI environ has {name!r}: the variable is written {capitals!r}")
    return names


VARIABLES = Check("a list of variables of the WSGI environ", _variables, "Collection[str]")


def _functions(value: Any) -> tuple[str, ...]:
    names = _strings(value)
    for name in names:
        if not re.fullmatch(r"\w+(\.\w+)*:(\w+|<lambda>)", name):
            raise ValueError(f"{name!r} is no function; write 'module:function'")
    return names


FUNCTIONS = Check("a list of functions, each as 'module:function'", _functions, "Collection[str]")


def _path_patterns(value: Any) -> tuple[str, ...]:
    paths = _strings(value)
    for path in paths:
        if not re.fullmatch(r"/[^*]*\*?", path):
            raise ValueError(f"{path!r} does not begin with '/', or has a '*' before its end")
        problem = explain_placeholder(path)
        if problem:
            raise ValueError(problem)
    return paths


PATH_PATTERNS = Check(
    "a list of paths such as '/up' or '/status/*'", _path_patterns, "Collection[str]"
)


def _trusted_paths(value: Any) -> tuple[str, ...]:
    if value == "trusted":
        return ("/*",)
    if isinstance(value, str) and value and not value.startswith("/"):
        raise ValueError("for all pages write 'trusted', for some of them their paths")
    return _path_patterns(value)


TRUSTED_PATHS = Check(
    "'trusted', or a list of paths such as '/report' or '/charts/*'",
    _trusted_paths,
    "Collection[str]",
)


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def _methods(value: Any) -> tuple[str, ...]:
    found = tuple(one.upper() for one in _strings(value))
    unknown = next((one for one in found if one not in _METHODS), None)
    if unknown is not None:
        raise ValueError(f"there is no {unknown!r}")
    return found


METHODS = Check(f"a list of {', '.join(_METHODS)}", _methods, "Collection[str]")


def _statuses(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError
    status = integer(500, 599)
    return tuple(sorted({status.read(one) for one in value}))


STATUSES = Check("a list of HTTP statuses from 500 to 599", _statuses, "Collection[int] | str")


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("as text it must be a JSON object") from None
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise ValueError
    return dict(value)


MAPPING = Check("a dict with text keys", _mapping, "Mapping[str, object] | str")


def single(cls: type[Table], name: str) -> Check:
    """Make the check for one nested table: ``{options}``.

    For a table with a ``SWITCH``, true and false are allowed as well and set that key.
    """

    def read(value: Any) -> Table:
        if isinstance(value, cls):
            return value
        if cls.SWITCH:
            try:
                return cls(**{cls.SWITCH: _boolean(value)})
            except ValueError:
                pass  # it is no boolean, so it must be a dict
        return cls.from_mapping(_mapping(value), where=f"{name}.")

    return Check(
        f"{'true, false, or ' if cls.SWITCH else ''}a dict with the keys {', '.join(cls.keys())}",
        read,
        accepts=f"{'bool | ' if cls.SWITCH else ''}Mapping[str, object] | Table | str",
        table=cls,
    )


def table(cls: type[Table], name: str) -> Check:
    """Make the check for a dict of nested tables: ``{"name": {options}}``."""

    def one(inner: str, options: Any) -> Table:
        if isinstance(options, cls):
            return options
        if cls.SHORT and isinstance(options, list | tuple):
            options = {cls.SHORT: options}
        try:
            options = _mapping(options)
        except ValueError:
            short = f"a list of {cls.SHORT}, or " if cls.SHORT else ""
            raise ConfigError(
                f"{name}[{inner!r}]",
                options,
                f"must be {short}a dict with the keys {', '.join(cls.keys())}",
            ) from None
        return cls.from_mapping(options, where=f"{name}[{inner!r}].")

    def read(value: Any) -> dict[str, Any]:
        return {inner: one(inner, options) for inner, options in _mapping(value).items()}

    allowed = f"a dict from a name to a dict with the keys {', '.join(cls.keys())}"
    return Check(allowed, read, "Mapping[str, object] | str", table=cls)


def partial(cls: type[Table], name: str) -> Check:
    """Make the check for a dict of dicts with some keys of a table: ``{"name": {options}}``."""

    def one(inner: str, options: Any) -> dict[str, Any]:
        where = f"{name}[{inner!r}]"
        try:
            given = _mapping(options)
        except ValueError:
            keys = ", ".join(cls.keys())
            raise ConfigError(where, options, f"must be a dict with keys of {keys}") from None
        return cls.read_some(given, where=f"{where}.")

    def read(value: Any) -> dict[str, dict[str, Any]]:
        return {inner: one(inner, options) for inner, options in _mapping(value).items()}

    allowed = f"a dict from a name to a dict with the keys {', '.join(cls.keys())}"
    return Check(allowed, read, "Mapping[str, object] | str", table=cls)


def _seconds(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError
    second = number(0, 3600)
    return tuple(second.read(one) for one in value)


SECONDS = Check("a list of numbers of seconds from 0 to 3600", _seconds, "Sequence[float] | str")


def _secret(value: Any) -> bytes:
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes) or len(value) < 8:
        raise ValueError
    return value


_PROXY_KEYS = ("x_for", "x_proto", "x_host", "x_port", "x_prefix")


def _proxies(value: Any) -> dict[str, int]:
    count = integer(0, 16)
    if isinstance(value, Mapping):
        unknown = set(value) - set(_PROXY_KEYS)
        if unknown:
            raise ValueError(f"unknown {min(unknown)!r}; known are {', '.join(_PROXY_KEYS)}")
        return {name: count.read(n) for name, n in value.items()}
    n = count.read(value)
    return {"x_for": n, "x_proto": n, "x_host": n} if n else {}


_RATE = re.compile(r"([1-9]\d{0,8})\s*/\s*(s|sec|second|min|minute|h|hour)")
_PERIODS = {"s": 1, "m": 60, "h": 3600}


def _rate(value: Any) -> tuple[int, int] | None:
    if value in (None, "", "off", 0, False):
        return None
    if isinstance(value, tuple) and len(value) == 2:
        return integer(1).read(value[0]), integer(1).read(value[1])
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError
    return int(found[1]), _PERIODS[found[2][0]]


def _callback(value: Any, may_yield: bool = False) -> Callable[..., Any]:
    problem = explain_callback(value, 1, may_yield=may_yield)
    if problem:
        raise ValueError(problem)
    return value  # type: ignore[no-any-return]


def _cors(value: Any) -> tuple[str, ...]:
    origins = _strings(value)
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s,;*]+", origin):
            raise ValueError(f"{origin!r} is not an origin such as 'https://app.example'")
    return origins


def _csp(value: Any, removes: bool = False) -> dict[str, Any]:
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        parts = [part.split() for part in value.split(";") if part.strip()]
        names = [part[0] for part in parts]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} stands there twice; browsers read the first one only")
        return {part[0]: tuple(part[1:]) for part in parts}
    result: dict[str, Any] = {}
    for directive, sources in _mapping(value).items():
        try:
            result[directive] = (
                tuple(sources.split())
                if isinstance(sources, str)
                else None
                if sources is None and removes
                else _strings(sources)
            )
        except ValueError:
            raise ValueError(
                f"{directive!r} has {sources!r}: write a list of texts, [] where no value belongs"
            ) from None
    if removes:  # a builder lists what it leaves out
        result.update(dict.fromkeys(getattr(value, "dropped", ())))
    return result


def _exceptions(value: Any) -> tuple[type[Exception], ...]:
    if isinstance(value, str):
        value = _strings(value)
    if isinstance(value, type):
        value = (value,)
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError
    return tuple(_exception(one) for one in value)


def _exception(value: Any) -> type[Exception]:
    if isinstance(value, str):
        module, _, name = value.rpartition(".")
        homes = [module] if module else [errors.__name__, "builtins"]
        for home in homes:
            try:
                found = getattr(importlib.import_module(home), name, None)
            except ImportError:
                found = None
            if found is not None:
                value = found
                break
        else:
            hint = suggest(value, vars(errors), "name a class of om_plugins.errors")
            raise ValueError(f"there is no {value!r}; {hint}")
    if not isinstance(value, type) or not issubclass(value, Exception):
        raise ValueError(f"{value!r} is no class of exceptions")
    return value


EXCEPTIONS = Check(
    "a list of exception classes, or of their names such as 'Transient' or 'my_app.errors.Busy'",
    _exceptions,
    "type[Exception] | Collection[type[Exception] | str] | str",
)
CSP = Check(
    "a policy as text, or a dict from a directive to its sources",
    _csp,
    "Mapping[str, object] | str",
)
CSP_CHANGES = Check(
    "a policy as text, or a dict from a directive to its sources, or to None to leave it out",
    functools.partial(_csp, removes=True),
    "Mapping[str, object] | str",
)


def _policies(value: Any) -> tuple[dict[str, tuple[str, ...]], ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = json.loads(value)
    if isinstance(value, str | Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(_csp(one) for one in value)


POLICIES = Check(
    "a list of policies, each as text or as a dict",
    _policies,
    "Sequence[Mapping[str, object] | str] | Mapping[str, object] | str",
)


def _paths(value: Any) -> dict[str, dict[str, Any]]:
    return {path: _mapping(change) for path, change in _mapping(value).items()}


CSP_PATHS = Check(
    "a dict from a path such as '/admin/*' to a dict with update, replace, exempt or report_only",
    _paths,
    "Mapping[str, Mapping[str, object]] | str",
)


def _features(value: Any) -> dict[str, tuple[str, ...]]:
    result = {}
    for feature, allowed in _mapping(value).items():
        result[feature] = tuple(allowed.split()) if isinstance(allowed, str) else _strings(allowed)
    return result


FEATURES = Check(
    "a dict from a feature to who may use it: [] for nobody, or 'self', '*' and origins",
    _features,
    "Mapping[str, object] | str",
)


def _headers(value: Any) -> dict[str, str | None]:
    result = _mapping(value)
    for name, one in result.items():
        if not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise ValueError(f"{name!r} is not a header name")
        if sum(other.lower() == name.lower() for other in result) > 1:
            raise ValueError(f"{name!r} stands there twice")
        if one is not None and (
            not isinstance(one, str) or not one.isascii() or not one.isprintable()
        ):
            raise ValueError(f"the value of {name!r} must be one line of ASCII text, or None")
        if one is not None and not one.strip():
            raise ValueError(f"the value of {name!r} is empty; None leaves the header out")
    return result


def _names(value: Any) -> dict[str, str | dict[str, str]]:
    result = _mapping(value)
    for name in result.values():
        said = _mapping(name) if isinstance(name, dict) else {"": name}
        if not said or not all(isinstance(one, str) and one for one in said.values()):
            raise ValueError("every name must be text, or a dict from a language to text")
    return result


NAMES = Check(
    "a dict from text to text, or to a dict from a language to text",
    _names,
    "Mapping[str, str | Mapping[str, str]] | str",
)
_TAKES_REQUEST = "a function that takes a werkzeug Request"
CALLBACK = Check(_TAKES_REQUEST, _callback, "Callable[..., object]")
LISTING_CALLBACK = Check(
    _TAKES_REQUEST, lambda value: _callback(value, may_yield=True), "Callable[..., object]"
)
RATE = Check("a rate such as '60/min', or None", _rate, "str | tuple[int, int] | None")
CORS = Check("a list of origins such as 'https://app.example', or '*'", _cors, "Collection[str]")
HEADERS = Check(
    "a dict from a header's name to its value, or None to leave it out",
    _headers,
    "Mapping[str, str | None] | str",
)
PROXIES = Check(
    f"a number of proxies from 0 to 16, or a dict with {', '.join(_PROXY_KEYS)}",
    _proxies,
    "int | Mapping[str, int]",
)
SECRET = Check("text or bytes of at least 8 characters", _secret, "str | bytes", secret=True)


def _access(value: Any) -> Callable[..., Any] | str:
    if isinstance(value, str):
        # a header and a form must both be able to carry it
        if len(value) < 16 or not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError
        return value
    return _callback(value)


ACCESS = Check(
    "a function that takes a werkzeug Request, or a token: at least 16 ASCII characters without "
    "white space",
    _access,
    "Callable[..., object] | str",
    secret=True,
)

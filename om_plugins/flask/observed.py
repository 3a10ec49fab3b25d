"""Observes what the code of a Flask request looks at: its headers, cookies, environ and session.

:func:`observe` gives the request object and the session a class that answers as before and notes
each look in the request's :class:`~om_plugins.core.observed.ObservedInputs`. It is called when the
session is open and the URL matched, before the first hook, so Flask's own look-ups are not noted.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable
from copy import copy
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from weakref import ref

from flask import Flask, Request, g
from flask.ctx import RequestContext
from flask.sessions import SecureCookieSessionInterface
from werkzeug.datastructures import Accept, EnvironHeaders
from werkzeug.http import parse_accept_header
from werkzeug.sansio.http import parse_cookie
from werkzeug.utils import cached_property

from ..core.inputs import (
    ACCEPTS,
    EnvironReader,
    IncomparableInput,
    InputRules,
    encode_value,
    header_variable,
)
from ..core.observed import ObservedEnviron, ObservedInputs
from ..core.request_state import RequestState
from .current import plain_environ
from .observation.readers import KNOWN_READERS
from .observation.session import (
    INPUTS,
    ObservedMapping,
    find_observed_class,
    find_session,
    is_observed,
    observe_session,
    read_own_attributes,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_ABSENT = b""


class FlaskInputs(ObservedInputs):
    """What the code of one Flask request looks at.

    It refers weakly to the request and to the session, which refer to it: a circle would leave
    every request to the garbage collector.
    """

    def __init__(self, request: Request, session: Any, rules: InputRules) -> None:
        self._request = ref(request)
        self.begin(session, rules)

    def begin(self, session: Any, rules: InputRules) -> None:
        """Set what is known only when the session is open."""
        self.rules = rules
        try:
            self._session = ref(session)
        except TypeError:  # no session, or of a class without weak references
            self._session = lambda: session  # type: ignore[assignment]

    def read(self, name: str) -> bytes:
        if not name.startswith("session"):
            request = self._request()
            if request is None:
                raise IncomparableInput("the request is over")
            reader = self.reader
            if reader is None:
                reader = self.reader = _RequestReader(self._request)
            return reader.read(name)
        session: Any = self._session()
        if session is None and isinstance(self._session, ref):
            raise IncomparableInput("the session is over")
        if not isinstance(session, dict):
            return encode_value(None if session is None else dict(session))
        kind, colon, key = name.partition(":")
        if colon:
            found = dict.get(session, key, self)
            return _ABSENT if found is self else encode_value(found)
        if kind == "session?":
            return encode_value(dict.__len__(session) == 0)
        return encode_value([dict(dict.items(session)), read_own_attributes(session)])


class _RequestReader(EnvironReader):
    def __init__(self, request: ref[Request]) -> None:
        self._request = request

    def find_environ(self) -> WSGIEnvironment:
        request = self._request()
        if request is None:
            raise IncomparableInput("the request is over")
        return plain_environ(request)


# --- cookies and the query ----------------------------------------------------------------------


class _ObservedMultiDict(ObservedMapping):
    """The cookies, or the parameters of the query."""

    def _om_note(self, key: str | None) -> None:
        inputs, kind = self.__dict__[INPUTS]
        inputs.take_back(kind)
        if kind == "query":
            if key is None:
                inputs.note_query()
            else:
                inputs.parameters |= {key}
        else:
            inputs.note("cookies" if key is None else f"cookie:{key}")

    def getlist(self, key: str, *args: Any, **kwargs: Any) -> Any:
        self._om_look_at(key)
        return super().getlist(key, *args, **kwargs)  # type: ignore[misc]

    def lists(self) -> Any:
        self._om_note(None)
        return super().lists()  # type: ignore[misc]

    def listvalues(self) -> Any:
        self._om_note(None)
        return super().listvalues()  # type: ignore[misc]

    def to_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._om_note(None)
        return super().to_dict(*args, **kwargs)  # type: ignore[misc]


def _make_plain(base: Any) -> Any:
    """Return what makes an object of the class ``base`` where code calls the class of an observed
    one."""
    return lambda cls, *args, **kwargs: base(*args, **kwargs)


@functools.cache
def _observed_multi_dict(base: Any) -> type:
    namespace: dict[str, Any] = {
        "__new__": _make_plain(base),
        "fromkeys": base.fromkeys,
    }
    if base.__hash__ is not None:
        namespace["__hash__"] = base.__hash__  # goes through items()
    return type(base.__name__, (_ObservedMultiDict, base), namespace)


def _observe_multi_dict(found: Any, inputs: ObservedInputs, kind: str) -> Any:
    try:
        found.__class__ = _observed_multi_dict(type(found))  # type: ignore[arg-type]
        found.__dict__[INPUTS] = (inputs, kind)
    except (TypeError, AttributeError):  # a class that cannot be observed by key
        _ObservedMultiDict._om_note(_Whole(inputs, kind), None)  # type: ignore[arg-type]
    return found


class _Whole:
    def __init__(self, inputs: ObservedInputs, kind: str) -> None:
        self.__dict__[INPUTS] = (inputs, kind)


# --- the request --------------------------------------------------------------------------------


class _ObservedHeaders(EnvironHeaders):
    """The headers of a request. Each look goes through the observed environ."""

    def getlist(self, key: str, type: Any = None, as_bytes: bool = False) -> Any:  # noqa: A002
        found = self.get(key)
        if found is None:
            return []
        if type is None:
            return [found]
        try:
            return [type(found)]
        except ValueError:
            return []

    get_all = getlist  # type: ignore[assignment]


class _ObservedAccept(Accept):
    """Notes the answers that code gets from an ``Accept`` header, or a look at the whole header."""

    def _om_ask(self, method: str, *args: Any) -> Any:
        inputs, header, plain = self.__dict__[INPUTS]
        inputs.take_back(f"header:{header}")
        try:
            inputs.note(f"accept:{header}:{method}:{json.dumps(args)}")
        except TypeError:
            inputs.note(f"header:{header}")
        return getattr(plain, method)(*args)

    def _om_look(self) -> Any:
        inputs, header, plain = self.__dict__[INPUTS]
        inputs.take_back(f"header:{header}")
        inputs.note(f"header:{header}")
        return plain

    def best_match(self, matches: Iterable[str], default: Any = None) -> Any:
        return self._om_ask("best_match", list(matches), default)

    def quality(self, key: str) -> Any:
        return self._om_ask("quality", key)

    def __contains__(self, value: Any) -> bool:
        return bool(self._om_ask("__contains__", value))

    def __getitem__(self, key: Any) -> Any:
        return self.quality(key) if isinstance(key, str) else self._om_look()[key]

    @property
    def best(self) -> Any:
        return self._om_look().best

    @property
    def provided(self) -> Any:
        return self._om_look().provided

    @provided.setter
    def provided(self, value: bool) -> None:
        """Werkzeug's constructor sets it; the plain object has its own."""

    def __iter__(self) -> Any:
        return iter(self._om_look())

    def __reversed__(self) -> Any:
        return reversed(self._om_look())

    def __len__(self) -> int:
        return len(self._om_look())

    def __bool__(self) -> bool:
        return bool(self._om_look())

    def __eq__(self, other: object) -> bool:
        return bool(self._om_look() == other)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self._om_look())

    def index(self, key: Any) -> Any:  # type: ignore[override]
        return self._om_look().index(key)

    def count(self, value: Any) -> int:
        return int(self._om_look().count(value))

    def copy(self) -> Any:
        return self._om_look().copy()

    def __reduce_ex__(self, protocol: object) -> Any:
        plain = self._om_look()
        return type(plain), (list(plain),)


def _pass_on(name: str) -> Any:
    def call(self: _ObservedAccept, *args: Any) -> Any:
        return getattr(list(self._om_look()), name)(*args)

    return call


for _name in ("__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__add__", "__mul__", "__rmul__"):
    setattr(_ObservedAccept, _name, _pass_on(_name))


@functools.cache
def _observed_accept(base: Any) -> type:
    return type(base.__name__, (_ObservedAccept, base), {"__new__": _make_plain(base)})


def _accept_property(header: str) -> property:
    def read(self: Any) -> Any:
        values = self.__dict__
        found = values.get(f"_om_{header}")
        if found is None:
            environ = values["environ"]
            plain = parse_accept_header(environ.get(header_variable(header)), ACCEPTS[header])
            if INPUTS not in values and _begin_early(self) is None:
                return plain
            found = list.__new__(_observed_accept(type(plain)))
            list.extend(found, list(plain))
            found.__dict__[INPUTS] = (values[INPUTS], header, plain)
            values[f"_om_{header}"] = found
        if INPUTS in values:
            values[INPUTS].hand_out(f"header:{header}")
        return found

    return _kept_property(f"_om_{header}", read)


def _kept_property(name: str, read: Callable[[Any], Any]) -> property:
    """Return a property that may be written and deleted, as werkzeug's ``cached_property``."""

    def write(self: Any, value: Any) -> None:
        self.__dict__[name] = value

    def delete(self: Any) -> None:
        self.__dict__.pop(name, None)

    return property(read, write, delete)


_OPENING = ("flask.", "flask_session.", "om_plugins.")
"""Modules whose looks before the first hook are not noted: they match the URL and open sessions."""
_FLASKS_CODE = frozenset(
    {
        Request.__init__.__code__,
        Flask.create_url_adapter.__code__,
        SecureCookieSessionInterface.open_session.__code__,
        RequestContext.pop.__code__,
    }
)
"""What looks at every request, found without a look at its module."""


def _begin_early(request: Any) -> FlaskInputs | None:
    """Begin to observe a request that the application's code looks at before the first hook.

    A converter of the URL, or a session interface of the application, does.
    """
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("werkzeug."):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__", "").startswith(_OPENING):
        return None
    inputs = request.__dict__[INPUTS] = FlaskInputs(request, None, request._om_rules)
    inputs.opening = True
    return inputs


class _ObservedRequest:
    """Notes what code reads from a request. It is mixed into the application's request class.

    Until :func:`observe` was called for a request, it reads as any other.
    """

    _om_rules = InputRules(readers=KNOWN_READERS)

    @property
    def environ(self) -> Any:
        values = self.__dict__
        found = values.get("_om_environ")
        if found is None:
            plain = values["environ"]
            if sys._getframe(1).f_code in _FLASKS_CODE:
                return plain
            inputs = values.get(INPUTS)
            if inputs is None:
                inputs = _begin_early(self)
                if inputs is None:
                    return plain
            found = values["_om_environ"] = ObservedEnviron(plain, inputs)
        return found

    @environ.setter
    def environ(self, value: Any) -> None:
        values = self.__dict__
        values["environ"] = value
        values.pop("_om_environ", None)

    @property
    def headers(self) -> Any:
        values = self.__dict__
        found = values.get("_om_headers")
        if found is None:
            if INPUTS not in values and _begin_early(self) is None:
                return values["headers"]
            found = values["_om_headers"] = _ObservedHeaders(self.environ)
        return found

    @headers.setter
    def headers(self, value: Any) -> None:
        values = self.__dict__
        values["headers"] = value
        if INPUTS in values:
            values["_om_headers"] = value

    @property
    def remote_addr(self) -> Any:
        inputs = self.__dict__.get(INPUTS) or _begin_early(self)
        if inputs is not None:
            inputs.note("address")
        return self.__dict__["remote_addr"]

    @remote_addr.setter
    def remote_addr(self, value: Any) -> None:
        self.__dict__["remote_addr"] = value

    @property
    def query_string(self) -> Any:
        values = self.__dict__
        if INPUTS in values and "_om_parsing" not in values:
            values[INPUTS].note_query()
        return values["query_string"]

    @query_string.setter
    def query_string(self, value: Any) -> None:
        self.__dict__["query_string"] = value


def _read_cookies(self: Any) -> Any:
    values = self.__dict__
    found = values.get("_om_cookies")
    if found is None:
        found = parse_cookie(values["environ"].get("HTTP_COOKIE", ""), cls=self.dict_storage_class)
        inputs = values.get(INPUTS)
        if inputs is None and sys._getframe(1).f_code not in _FLASKS_CODE:
            inputs = _begin_early(self)
        if inputs is not None:
            found = values["_om_cookies"] = _observe_multi_dict(found, inputs, "cookies")
    if INPUTS in values:
        values[INPUTS].hand_out("cookies")
    return found


def _args_property(base: type) -> property:
    plain = base.args  # type: ignore[attr-defined]

    def read(self: Any) -> Any:
        values = self.__dict__
        found = values.get("_om_args")
        if found is None:
            values["_om_parsing"] = True
            try:
                found = plain.__get__(self, type(self))
            finally:
                del values["_om_parsing"]
            values.pop("args", None)
            inputs = values.get(INPUTS)
            if inputs is not None:
                found = values["_om_args"] = _observe_multi_dict(found, inputs, "query")
        if INPUTS in values:
            values[INPUTS].hand_out("query")
        return found

    return _kept_property("_om_args", read)


_READ_AHEAD = frozenset(
    {"cookies", "access_route", "user_agent", "authorization", "accept_mimetypes", "cache_control"}
    | {"accept_charsets", "accept_encodings", "accept_languages", "if_none_match", "if_match"}
    | {"if_modified_since", "if_unmodified_since", "if_range", "range", "pragma", "args"}
    | {"full_path", "url", "values", "content_length", "_parsed_content_type"}
)
"""What a request keeps once it was read. It is read again, so that the look is noted."""
_FLASKS_OWN = frozenset(
    {"environ", "headers", "host", "json_module", "method", "path", "query_string", "remote_addr"}
    | {"root_path", "routing_exception", "scheme", "server", "shallow", "url_rule", "view_args"}
    | {"base_url", "data", "files", "form", "host_url", "root_url", "stream", "url_root"}
    | {"_cached_data", "_cached_json", "max_content_length", "trusted_hosts", INPUTS}
    | {"_charset", "_encoding_errors", "_url_charset"}  # werkzeug < 3
)
"""What Flask and werkzeug give a request besides, which depends on what is always in the key."""


@functools.cache
def _observed_request(base: Any) -> type[Request] | None:
    """Return the observed form of a request class; ``None`` when it cannot be observed."""
    kinds = (
        ("cookies", _kept_property("_om_cookies", _read_cookies)),
        ("args", _args_property(base)),
        ("accept_mimetypes", _accept_property("accept")),
        ("accept_charsets", _accept_property("accept-charset")),
        ("accept_encodings", _accept_property("accept-encoding")),
        ("accept_languages", _accept_property("accept-language")),
    )
    # a property of the application's own reads what is observed anyway
    namespace = {name: kind for name, kind in kinds if _is_werkzeugs(base, name)}
    if any(hasattr(base, name) for name in ("environ", "headers", "remote_addr", "query_string")):
        return None
    try:
        return type(base.__name__, (_ObservedRequest, base), namespace)
    except Exception:  # noqa: BLE001 - whatever the class does when it gets a subclass
        return None


def _is_werkzeugs(base: type, name: str) -> bool:
    found = next(kind for kind in base.__mro__ if name in kind.__dict__)
    return found.__module__.partition(".")[0] in ("werkzeug", "flask")


def _observe_own_attributes(request: Any, names: Iterable[str]) -> None:
    """Observe what the application gave a request before, in ``__init__`` or ``open_session``.

    What a property keeps is read again. What any other attribute depends on cannot be known.
    """
    kind = type(request)
    unknown = []
    for name in names:
        if isinstance(getattr(kind, name, None), (functools.cached_property, cached_property)):
            del request.__dict__[name]
        else:
            unknown.append(name)
    if unknown:
        request.__class__ = _with_unknown_attributes(kind, frozenset(unknown))  # type: ignore[arg-type]


@functools.cache
def _with_unknown_attributes(base: Any, names: frozenset[str]) -> type:
    return type(base.__name__, (base,), {name: _unknown_attribute(name) for name in names})


def _unknown_attribute(name: str) -> property:
    def read(self: Any) -> Any:
        values = self.__dict__
        if name not in values:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        values[INPUTS].refuse(f"request.{name}, which was set before the first hook")
        return values[name]

    def write(self: Any, value: Any) -> None:
        self.__dict__[name] = value

    def delete(self: Any) -> None:
        del self.__dict__[name]

    return property(read, write, delete)


def observe(context: Any, state: RequestState, rules: InputRules) -> ObservedInputs | None:
    """Begin to observe a request.

    Args:
        context: Flask's request context, whose session is open.
        state: of the request.
        rules: how inputs are compared.

    Returns:
        What its code looks at from now on; ``None`` when it cannot be observed.
    """
    request = context.request
    kind = type(request)
    if not issubclass(kind, _ObservedRequest):  # its class was chosen after the first request
        observed = _observed_request(kind)  # type: ignore[arg-type]
        if observed is None:
            return None
        request.__class__ = observed
    values = request.__dict__
    if state.inputs is not None:
        return state.inputs
    session = find_session(context)
    inputs: FlaskInputs | None = values.get(INPUTS)
    if inputs is None:
        inputs = values[INPUTS] = FlaskInputs(request, session, rules)
    else:
        inputs.opening = False
        inputs.begin(session, rules)
    state.inputs = inputs
    if not _FLASKS_OWN.issuperset(values):
        for name in _READ_AHEAD.intersection(values):
            del values[name]
        _observe_own_attributes(request, values.keys() - _FLASKS_OWN)
    seen = is_observed(session)
    observe_session(session, inputs)
    opener = type(context.app.session_interface)
    if not seen and _has_own_opening(opener) and list(g):  # type: ignore[arg-type]
        inputs.count("session")  # what opens the session may have put it into flask.g
    return inputs


@functools.cache
def _has_own_opening(interface: Any) -> bool:
    """Whether the application itself opens the session."""
    definer = next((one for one in interface.__mro__ if "open_session" in vars(one)), None)
    return definer is None or definer.__module__.partition(".")[0] not in ("flask", "flask_session")


def observe_context(context: Any, rules: InputRules) -> ObservedInputs | None:
    """Observe a request that is not being dispatched, see :func:`observe`."""
    return observe(context, RequestState(None), rules)


def prepare_app(app: Flask, rules: InputRules) -> None:
    """Give an app classes of requests and sessions that can be observed.

    Args:
        app: the app.
        rules: how inputs are compared.

    A request could get its class when it is observed, too, but then the interpreter runs the code
    of Flask and werkzeug more slowly, because it meets objects of two classes.
    """
    if not issubclass(app.request_class, _ObservedRequest):
        observed = _observed_request(app.request_class)  # type: ignore[arg-type]
        if observed is not None:
            app.request_class = type(observed.__name__, (observed,), {"_om_rules": rules})
    interface = app.session_interface
    if isinstance(interface, SecureCookieSessionInterface):
        kind = find_observed_class(interface.session_class)
        if kind is not None:
            interface = copy(interface)  # Flask has one for all apps
            interface.session_class = kind
            app.session_interface = interface


def find_session_cookie(app: Any) -> str:
    """Return the cookie that the sessions of an app come from; "" when that is not known."""
    interface = app.session_interface
    known = isinstance(interface, SecureCookieSessionInterface) or any(
        kind.__module__.startswith("flask_session.") for kind in type(interface).__mro__
    )
    return str(interface.get_cookie_name(app)) if known else ""


def has_session_in_cookie(app: Any) -> bool:
    """Whether the cookie is the session, and not only the id of one that is kept on the server."""
    interface = type(app.session_interface)
    return getattr(interface, "open_session", None) is SecureCookieSessionInterface.open_session


def list_parameters(request: Request) -> list[tuple[str, str]]:
    """Return the parameters of the query, without a note of the look."""
    query = str(plain_environ(request).get("QUERY_STRING", ""))
    return parse_qsl(query, keep_blank_values=True, encoding="latin-1")

"""Observes which inputs the code of one request looks at; see :mod:`.inputs`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .inputs import (
    EnvironReader,
    IncomparableInput,
    InputReader,
    InputRules,
    Reader,
    environ_input,
    is_identity,
    is_session,
)

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed.wsgi import WSGIEnvironment

_ABSENT = b""
_PLUMBING = (
    "werkzeug.local", "werkzeug.datastructures", "_collections_abc", "om_plugins.flask.observed",
    "om_plugins.flask.observation",
    __name__,
)  # fmt: skip
"""Modules that pass a look on. Who called them is the reader."""
_WITH_QUERY = frozenset({"QUERY_STRING", "RAW_URI", "REQUEST_URI"})
_FRAMEWORKS = ("werkzeug.", "flask.", "jinja2.", "om_plugins.")
_OUTERMOST = ("flask.app", "wsgi_app")


class ObservedInputs:
    """The inputs that the code of one request looked at.

    Args:
        reader: reads what the request brought.
        rules: of the application.

    Attributes:
        rules: of the application.
        address: what is always in the key, as the application sees it. Who observes the request
            writes it when a layer in front of the application may keep the response.
        session_cookie: the cookie that the session comes from; "" when that is not known.
        session_in_cookie: the cookie is the session itself, and not the id of one on the server.
        cookies: the cookie header as the application saw it; written with the address.
        counted: the inputs that the response may depend on, with their encoded values.
        known: inputs that known readers looked at, each with its first such reader.
        handed_out: inputs whose objects code got, and has not looked at yet.
        parameters: the parameters of the query that code looked at; ``None`` for all of them.
        where: who looked at an input first: module, function, and line.
        refused: why no response to this request can be kept; "" when nothing forbids it.
        session_changed: the session is not what the request brought.
        opening: Flask has not opened the session yet.
        identities: the variables that say who the client is, as far as code looked at them. They
            are always in the key, but caches further out must be told.
        identified: code looked at one that the request brought, or that is no header.
        compared: what look-ups of parts compared that found nothing.
    """

    # A request that looks at nothing pays for none of these: each is made by the first look.
    counted: dict[str, bytes] | Mapping[str, bytes] = MappingProxyType({})
    known: dict[str, Reader] | Mapping[str, Reader] = MappingProxyType({})
    where: dict[str, tuple[str, str, int]] | Mapping[str, tuple[str, str, int]] = MappingProxyType(
        {}
    )
    parameters: frozenset[str | None] = frozenset()
    reader: InputReader | None = None
    address: tuple[str, ...] = ()
    session_cookie = ""
    session_in_cookie = False
    cookies = ""
    refused = ""
    session_changed = False
    opening = False
    identified = False
    identities: frozenset[str] = frozenset()
    compared: frozenset[str] = frozenset()
    handed_out: frozenset[str] = frozenset()
    _incomparable: frozenset[str] = frozenset()
    _digests: dict[tuple[str, ...], str | None] | None = None

    def __init__(self, reader: InputReader | None, rules: InputRules) -> None:
        self.reader = reader
        self.rules = rules

    def read(self, name: str) -> bytes:
        """Return the encoded value that the request brought.

        Raises:
            IncomparableInput: it cannot be compared.
        """
        if self.reader is None:
            raise IncomparableInput("there is no request")
        return self.reader.read(name)

    def note(self, name: str) -> None:
        """Note that the running code looks at an input."""
        if name in self.counted or not name:
            return
        frame = _find_reader(sys._getframe(1))
        if frame is not None and self._is_known(frame):
            if name not in self.known:
                self.known = {**self.known, name: _identify(frame)}
            return
        self.where = {**self.where, name: _describe(frame)}
        self.count(name)

    def count(self, name: str) -> None:
        """Count an input as looked at, whoever looked."""
        if name in self.counted:
            return
        try:
            value = self.read(name)
        except IncomparableInput as error:
            value = _ABSENT
            self.refused = self.refused or str(error)
            self._incomparable |= {name}
        self.counted = {**self.counted, name: value}

    def note_query(self) -> None:
        """Note that the running code looks at the whole query."""
        self.note("query")
        if "query" in self.counted:
            self.parameters |= {None}

    def hand_out(self, name: str) -> None:
        """Note that the running code gets an object that stands for an input.

        Encoders written in C read such an object without a look that could be seen, so the input
        counts when no look follows.
        """
        self.settle_one(name)
        self.handed_out |= {name}

    def take_back(self, name: str) -> None:
        """Note that the running code looks at such an object in a way that is seen."""
        if name in self.handed_out:
            self.handed_out -= {name}

    def settle_one(self, name: str) -> None:
        """Count an input that was handed out, and not looked at."""
        if name in self.handed_out:
            self.handed_out -= {name}
            if name == "query":
                self.parameters |= {None}
            self.count(name)

    def settle(self) -> None:
        """Count all that was handed out, and not looked at."""
        for name in self.handed_out:
            self.settle_one(name)

    def brings(self, name: str) -> bool:
        """Return whether the request brings an input, without a note of the look."""
        try:
            return self.read(name) != _ABSENT
        except IncomparableInput:
            return True

    def refuse(self, reason: str) -> None:
        """Note that the running code looked at something that cannot be compared."""
        if not self.refused:
            frame = _find_reader(sys._getframe(1))
            if frame is not None and self._is_known(frame):
                return
            self.where = {reason: _describe(frame), **self.where}
            self.refused = reason

    def note_identity(self, name: str, *, brought: bool) -> None:
        """Note a look at a variable that says who the client is.

        Args:
            name: of the variable.
            brought: whether the request brings it.
        """
        self.identities |= {name}
        if brought or not name.startswith("HTTP_"):
            self.identified = True

    def list_vary(self) -> list[str]:
        """Return the request headers that caches further out must compare, in lower case."""
        found = {
            name[5:].lower().replace("_", "-") for name in self.identities if name[:5] == "HTTP_"
        }
        for name in self.counted:
            kind, _, rest = name.partition(":")
            if kind in ("header", "vary", "accept"):
                found.add(rest.partition(":")[0])
        return sorted(found)

    def is_personal(self) -> bool:
        """Whether code looked at something that may say who the client is."""
        return self.identified or any(map(is_identity, self.counted))

    def names(self) -> tuple[str, ...]:
        """Return the names of the inputs that count, sorted."""
        self.settle()
        return tuple(sorted(self.counted))

    def digest(self, names: tuple[str, ...]) -> str | None:
        """Return a digest of this request's values, which do not count as looked at by that.

        Returns:
            The digest; "" for no names; ``None`` when a value cannot be compared.
        """
        if not names:
            return ""
        digests = self._digests
        if digests is None:
            digests = self._digests = {}
        if names not in digests:
            digests[names] = self._build_digest(names)
        return digests[names]

    def _build_digest(self, names: tuple[str, ...]) -> str | None:
        if not self._incomparable.isdisjoint(names):
            return None
        values = []
        for name in names:
            value = self.counted.get(name)
            try:
                values.append(self.read(name) if value is None else value)
            except IncomparableInput:
                return None
        return self.rules.digest(values)

    def count_all(self, names: Iterable[str]) -> None:
        """Count inputs as looked at, because the response of their values is sent or made."""
        for name in names:
            self.count(name)

    def _is_known(self, frame: FrameType) -> bool:
        row = self.rules.readers.get(_identify(frame))
        if row is None:
            return False
        if row.callers:
            caller = _find_reader(frame.f_back)
            module = "" if caller is None else caller.f_globals.get("__name__", "")
            if not (module == row.callers or module.startswith(row.callers + ".")):
                return False
        if row.works_on is not None and not row.works_on(frame.f_locals):
            return False
        return row.applies is None or row.applies(self)


def _find_reader(frame: FrameType | None) -> FrameType | None:
    """Return the frame that looks at an input, past the modules that only pass the look on."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(_PLUMBING):
            return frame
        frame = frame.f_back
    return None


def _identify(frame: FrameType) -> Reader:
    return frame.f_globals.get("__name__", ""), frame.f_code.co_name


def _describe(frame: FrameType | None) -> tuple[str, str, int]:
    """Return module, function and line of the application's code that looks at an input.

    A template has no module: its name stands for it, without function and line.
    """
    found = frame
    while found is not None and found.f_globals.get("__name__", "").startswith(_FRAMEWORKS):
        found = None if _identify(found) == _OUTERMOST else found.f_back
    found = found or frame
    if found is None:
        return "", "", 0
    module = found.f_globals.get("__name__")
    if not module:
        named = found.f_globals.get("name")  # jinja2 gives it to the code of a template
        return f"template {named}" if isinstance(named, str) else "a template", "", 0
    return module, found.f_code.co_name, found.f_lineno


class ObservedEnviron(dict[str, Any]):
    """A copy of an environ that notes what is looked at, and writes to the original as well."""

    def __init__(self, environ: WSGIEnvironment, inputs: ObservedInputs) -> None:
        super().__init__(environ)
        self.original = environ
        self._inputs = inputs

    def _look(self, name: object) -> None:
        if isinstance(name, str):
            if name in _WITH_QUERY:
                self._inputs.note_query()
            if name in self._inputs.rules.identities:
                self._inputs.note_identity(name, brought=super().__contains__(name))
            self._inputs.note(environ_input(name))

    def _look_at_all(self) -> None:
        self._inputs.refuse("all variables of the environ")

    def __getitem__(self, name: str) -> Any:
        self._look(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._look(name)
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._look(name)
        return super().get(name, default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        self._look(name)
        if not super().__contains__(name):
            self[name] = default
        return super().__getitem__(name)

    def pop(self, name: str, *default: Any) -> Any:
        self._look(name)
        self.original.pop(name, None)
        return super().pop(name, *default)

    def __setitem__(self, name: str, value: Any) -> None:
        self.original[name] = value
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self._look(name)
        super().__delitem__(name)
        self.original.pop(name, None)

    def update(self, *args: Any, **kwargs: Any) -> None:
        changes = dict(*args, **kwargs)
        self.original.update(changes)
        super().update(changes)

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def clear(self) -> None:
        self.original.clear()
        super().clear()

    def popitem(self) -> tuple[str, Any]:
        self._look_at_all()
        name, value = super().popitem()
        self.original.pop(name, None)
        return name, value

    def __iter__(self) -> Iterator[str]:
        self._look_at_all()
        return super().__iter__()

    def __len__(self) -> int:
        self._look_at_all()
        return super().__len__()

    def __reversed__(self) -> Iterator[str]:
        self._look_at_all()
        return super().__reversed__()

    def __eq__(self, other: object) -> bool:
        self._look_at_all()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        self._look_at_all()
        return super().__ne__(other)

    __hash__ = None

    def __bool__(self) -> bool:
        return super().__len__() > 0  # so it is for every request

    def __or__(self, other: Any) -> Any:
        return dict(self.items()) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self.items())

    def __repr__(self) -> str:
        self._look_at_all()
        return super().__repr__()

    def keys(self) -> Any:
        self._look_at_all()
        return super().keys()

    def values(self) -> Any:
        self._look_at_all()
        return super().values()

    def items(self) -> Any:
        self._look_at_all()
        return super().items()

    def copy(self) -> dict[str, Any]:
        self._look_at_all()
        return super().copy()

    def __copy__(self) -> dict[str, Any]:
        return self.copy()

    def __reduce_ex__(self, protocol: object) -> Any:
        return dict, (dict(self.items()),)


# --- a cache in front of the application --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FrontNames:
    """Under which inputs a layer in front of the application can keep a response.

    Attributes:
        names: of the inputs, sorted.
        refused: why the response cannot be kept there; "" when it can.
        cause: the input that is the reason; "" when it is none.
    """

    names: tuple[str, ...] = ()
    refused: str = ""
    cause: str = ""


def name_in_front(
    inputs: ObservedInputs, reader: InputReader, address: tuple[str, ...]
) -> FrontNames:
    """Return under which inputs a layer in front of the application can keep a response.

    Such a layer can compare request headers and cookies only, and the session as its cookie.

    Args:
        inputs: what the application looked at.
        reader: reads what the layer saw of the request.
        address: what is always in the key, as the layer saw it.
    """
    if inputs.refused:
        return FrontNames(refused=inputs.refused, cause=inputs.refused)
    if inputs.session_changed:
        return FrontNames(refused="the session was changed", cause="session")
    if inputs.address != address:
        return FrontNames(refused="middleware changed the address of the request")
    names = set()
    sent = EnvironReader({"HTTP_COOKIE": inputs.cookies})
    for name, value in inputs.counted.items():
        if is_session(name):
            if not inputs.session_cookie:
                reason = "the session does not come from a cookie that is known"
                return FrontNames(refused=reason, cause=name)
            cookie = f"cookie:{inputs.session_cookie}"
            value = sent.read(cookie)
            if value != _ABSENT and not inputs.session_in_cookie:
                reason = "the session is kept on the server, so its cookie does not tell what it is"
                return FrontNames(refused=reason, cause=name)
            name = cookie
        if name == "address" or name.startswith("environ:"):
            return FrontNames(refused=f"it depends on {name}", cause=name)
        if reader.read(name) != value:
            return FrontNames(refused=f"middleware changed {name}", cause=name)
        if name != "query":  # it is always in the key
            names.add(name)
    return FrontNames(tuple(sorted(names)))


def leave_out_renewal(
    headers: Sequence[tuple[str, str]], inputs: ObservedInputs
) -> Sequence[tuple[str, str]]:
    """Return the headers without the cookie of a session that was only made to last longer.

    Flask sends the cookie of a permanent session in every answer. It is for this client alone.
    """
    if inputs.session_changed or not inputs.session_cookie:
        return headers
    start = inputs.session_cookie + "="
    return [
        (name, value)
        for name, value in headers
        if name.lower() != "set-cookie" or not value.startswith(start)
    ]

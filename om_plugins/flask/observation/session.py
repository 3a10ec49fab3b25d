"""Observes what code looks at in a session, and whether it changes it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from copy import copy, deepcopy
from typing import Any

from flask.sessions import SecureCookieSessionInterface

from ...core.inputs import IncomparableInput, encode_value
from ...core.observed import ObservedInputs

INPUTS = "_om_inputs"
"""The attribute of an observed object that says where to note looks."""
_SAME = "_om_same"
_EARLY = "_om_early"


class ObservedMapping(dict[str, Any]):
    """A dictionary that notes looks at its keys. It is mixed into the class that it observes."""

    def _om_note(self, key: str | None) -> None:
        """Note a look at one key; ``None`` for a look at everything."""
        raise NotImplementedError

    def _om_look_at(self, key: object) -> None:
        self._om_note(key if isinstance(key, str) else None)

    def __getitem__(self, key: str) -> Any:
        self._om_look_at(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._om_look_at(key)
        return super().__contains__(key)

    def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        self._om_look_at(key)
        return super().get(key, *args, **kwargs)

    def __bool__(self) -> bool:
        self._om_note(None)
        return dict.__len__(self) > 0

    def __len__(self) -> int:
        self._om_note(None)
        return super().__len__()

    def __iter__(self) -> Iterator[str]:
        self._om_note(None)
        return super().__iter__()

    def __reversed__(self) -> Iterator[str]:
        self._om_note(None)
        return super().__reversed__()

    def keys(self, *args: Any) -> Any:
        self._om_note(None)
        return super().keys(*args)

    def values(self, *args: Any, **kwargs: Any) -> Any:
        self._om_note(None)
        return super().values(*args, **kwargs)

    def items(self, *args: Any, **kwargs: Any) -> Any:
        self._om_note(None)
        return super().items(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        self._om_note(None)
        return super().__eq__(other)

    __hash__ = None

    def __ne__(self, other: object) -> bool:
        self._om_note(None)
        return super().__ne__(other)

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self.items())

    def __repr__(self) -> str:
        self._om_note(None)
        return super().__repr__()

    def copy(self) -> Any:
        self._om_note(None)
        return super().copy()

    def __copy__(self) -> Any:
        return copy(self._om_twin())

    def __deepcopy__(self, memo: Any) -> Any:
        return deepcopy(self._om_twin(), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._om_twin().__reduce_ex__(protocol)

    def _om_twin(self) -> Any:
        """Return the same dictionary as an object of the class that is observed."""
        self._om_note(None)
        kind: Any = next(one for one in type(self).__mro__ if not issubclass(one, ObservedMapping))
        twin = kind.__new__(kind)
        dict.update(twin, dict.items(self))
        own = {name: value for name, value in self.__dict__.items() if name[:4] != "_om_"}
        twin.__dict__.update(own)
        return twin


_SAVING = SecureCookieSessionInterface.save_session.__code__
_OF_EVERY_SESSION = frozenset({"modified", "accessed", "permanent", "on_update"})


def read_own_attributes(session: Any) -> dict[str, Any]:
    """Return what a kind of session adds to Flask's, such as the id of a stored session."""
    return {
        name: value
        for name, value in vars(session).items()
        if name not in _OF_EVERY_SESSION and not name.startswith("_om_")
    }


class _ObservedSession(ObservedMapping):
    """Notes looks at a session that is a ``dict``, and changes of it."""

    def _om_note(self, key: str | None) -> None:
        self._om_note_input("session" if key is None else f"session:{key}")

    def _om_note_input(self, name: str) -> None:
        state = self.__dict__
        inputs = state.get(INPUTS)
        if inputs is not None:
            if "session" in inputs.handed_out and not _is_flask_saving():
                inputs.take_back("session")
            inputs.note(name)
        elif not _is_opening():
            state.setdefault(_EARLY, set()).add(name)

    def _om_change(self) -> None:
        state = self.__dict__
        inputs = state.get(INPUTS)
        if inputs is not None:
            inputs.take_back("session")
            inputs.session_changed = True

    # Flask >= 3.1.3 sets it when code gets the session. When no look follows, the code may have
    # read the session in a way that cannot be observed, as encoders written in C do.
    @property
    def accessed(self) -> bool:
        return bool(self.__dict__.get("accessed", False))

    @accessed.setter
    def accessed(self, value: bool) -> None:
        state = self.__dict__
        if value and INPUTS in state:
            getter = sys._getframe(1)
            # a session's own methods may set it too; their looks are seen
            if getter.f_globals.get("__name__") == "flask.ctx":
                inputs = state[INPUTS]
                inputs.settle_one("session")
                if _is_bare_access(getter.f_back):
                    inputs.hand_out("session")
        state["accessed"] = value

    def __bool__(self) -> bool:
        # a known reader as well, but Flask saves the session of every request
        if sys._getframe(1).f_code is not _SAVING:
            self._om_note_input("session?")
        return dict.__len__(self) > 0

    def __reduce_ex__(self, protocol: object) -> Any:
        return dict, (dict(self.items()),)

    # Set by the dictionary's own methods, and by code that changed a value inside of the session.
    @property
    def modified(self) -> Any:
        values = self.__dict__
        return values["modified"] if "modified" in values else super().modified  # type: ignore[misc]

    @modified.setter
    def modified(self, value: Any) -> None:
        values = self.__dict__
        values["modified"] = value
        if value is True and INPUTS in values and _SAME not in values:
            values[INPUTS].session_changed = True

    def __setitem__(self, key: str, value: Any) -> None:
        values = self.__dict__
        if INPUTS in values and _is_same(self, key, value):
            if key != "_permanent":  # it says only how long the session lasts
                self._om_look_at(key)  # the session of a visitor without it would be changed
            # many apps set session.permanent in each request
            values[_SAME] = True
            try:
                super().__setitem__(key, value)
            finally:
                del values[_SAME]
            return
        self._om_change()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._om_change()
        super().__delitem__(key)

    def __ior__(self, other: Any) -> Any:
        self._om_change()
        return super().__ior__(other)

    def update(self, *args: Any, **kwargs: Any) -> None:
        self._om_change()
        super().update(*args, **kwargs)

    def clear(self) -> None:
        self._om_change()
        super().clear()

    def popitem(self) -> tuple[str, Any]:
        self._om_change()
        return super().popitem()

    def pop(self, key: str, *default: Any) -> Any:
        self._om_look_at(key)
        if dict.__contains__(self, key):
            self._om_change()
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        self._om_look_at(key)
        if not dict.__contains__(self, key):
            self._om_change()
        return super().setdefault(key, default)


def _is_same(session: Any, key: str, value: Any) -> bool:
    """Whether a session came with this very value under a key.

    Code that has looked at the value before may have changed it in its place.
    """
    counted = session.__dict__[INPUTS].counted
    if "session" in counted or not dict.__contains__(session, key):
        return False
    try:
        before = counted.get(f"session:{key}")
        if before is None:
            before = encode_value(dict.__getitem__(session, key))
        return bool(before == encode_value(value))
    except IncomparableInput:
        return False


def _is_flask_saving() -> bool:
    """Whether Flask itself looks at the session, to save it."""
    return _find_looking_module() == "flask.sessions"


def _is_opening() -> bool:
    """Whether a session interface that is known looks at the session, to open it."""
    return _find_looking_module().startswith(("flask.", "flask_session."))


def _find_looking_module() -> str:
    frame: Any = sys._getframe(3)
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "_collections_abc"):
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _is_bare_access(frame: Any) -> bool:
    """Whether code gets the session itself, of which no further look needs to be seen.

    What the proxy ``flask.session`` passes on is seen. Flask puts the session into the context of
    every template; a look at it there is seen as well.
    """
    module = frame.f_globals.get("__name__")
    if module == "werkzeug.local":
        module = frame.f_back.f_globals.get("__name__")
        return bool(module != "werkzeug.local")
    return bool(module != "flask.templating")


def _observe_attribute(name: str) -> property:
    def read(self: _ObservedSession) -> Any:
        self._om_note(None)
        return self.__dict__[name]

    def write(self: _ObservedSession, value: Any) -> None:
        self._om_change()
        self.__dict__[name] = value

    return property(read, write)


_NO_ATTRIBUTES: frozenset[str] = frozenset()


_KNOWN_CLASSES = frozenset(
    {"flask", "werkzeug", "flask_session", "builtins", "collections", "typing", "abc"}
)
"""Packages whose classes of sessions look at their keys by the methods of a dictionary."""


def _is_own_member(name: str) -> bool:
    """Whether a member that an application's class of sessions adds may look at keys unseen."""
    known = name in _OF_EVERY_SESSION or name in vars(ObservedMapping)
    return name == "__getattr__" or not (known or name.startswith("__") or hasattr(dict, name))


def _observe_member(base: Any, name: str) -> property:
    """Return a property that notes a look at the whole session when code uses a member."""

    def read(self: _ObservedSession) -> Any:
        self._om_note(None)
        return getattr(super(_find_observed(type(self)), self), name)

    def write(self: _ObservedSession, value: Any) -> None:
        self._om_change()
        for kind in base.__mro__:
            found = vars(kind).get(name)
            if hasattr(found, "__set__"):
                found.__set__(self, value)
                return
        self.__dict__[name] = value

    return property(read, write)


def _find_observed(kind: Any) -> Any:
    """Return the class that observes, which may have subclasses."""
    return next(one for one in kind.__mro__ if "_om_observes" in vars(one))


@functools.cache
def make_observed(base: Any, attributes: frozenset[str] = _NO_ATTRIBUTES) -> Any:
    """Return the observed form of a class of sessions.

    Args:
        base: the class. It may have that form already.
        attributes: what it adds to the attributes of Flask's sessions.
    """
    if issubclass(base, _ObservedSession):
        return base
    namespace = {name: _observe_attribute(name) for name in attributes}
    for kind in base.__mro__:
        if kind.__module__.partition(".")[0] not in _KNOWN_CLASSES:
            members = [name for name in vars(kind) if _is_own_member(name)]
            namespace |= {name: _observe_member(base, name) for name in members}
    namespace["_om_observes"] = True  # type: ignore[assignment]
    return type(base.__name__, (_ObservedSession, base), namespace)


def find_session(context: Any) -> Any:
    """Return the session of a request context without counting that as access."""
    # Flask >= 3.1.3 counts reading context.session as access, so read what it is kept in
    found = context.__dict__.get("_session")
    return found if found is not None else context.__dict__.get("session")


@functools.cache
def _reads_as_dict(base: Any) -> bool:
    """Whether ``dict(session)`` gives what its methods give.

    It reads the dictionary itself unless a class has its own ``__iter__``, as the observed ones
    have. A class that opens its values in ``__getitem__`` would be saved with open values.
    """
    return not any(
        kind.__module__.partition(".")[0] not in _KNOWN_CLASSES
        and not vars(kind).keys().isdisjoint(("__getitem__", "__iter__", "keys"))
        for kind in base.__mro__
    )


def observe_session(session: Any, inputs: ObservedInputs) -> None:
    """Note from now on what code looks at in a session."""
    if session is None:
        return
    if getattr(session, "__dict__", {}).get("accessed") is True:
        inputs.count("session")  # a URL converter may have read it
    try:
        values = session.__dict__
        if isinstance(session, _ObservedSession):
            before = values.get(INPUTS)
            if before is not None:
                # one object serves several requests: whose code looks at it cannot be told
                before.count("session")
                inputs.count("session")
        else:
            if not _reads_as_dict(type(session)):  # type: ignore[arg-type]
                raise TypeError
            own = frozenset(read_own_attributes(session))
            session.__class__ = make_observed(type(session), own)  # type: ignore[arg-type]
        values[INPUTS] = inputs
        for name in values.pop(_EARLY, ()):  # a session interface of the application read it
            inputs.count(name)
    except Exception:  # noqa: BLE001 - not a dict, or of a class that cannot be changed
        inputs.count("session")
        return
    if values.get("modified") is True:
        inputs.session_changed = True


def find_observed_class(base: Any) -> Any:
    """Return the observed form of a class of sessions; ``None`` when it cannot be observed."""
    if not _reads_as_dict(base):
        return None
    try:
        return make_observed(base)
    except Exception:  # noqa: BLE001 - whatever the class does when it gets a subclass
        return None


def is_observed(session: Any) -> bool:
    """Whether looks at a session are seen since it was made."""
    return isinstance(session, _ObservedSession)


def check_session(session: Any, inputs: ObservedInputs) -> bool:
    """Return whether the session is not what the request brought."""
    inputs.settle()
    if (
        session is not None
        and not isinstance(session, _ObservedSession)
        and getattr(session, "modified", False) is not False
    ):
        inputs.session_changed = True
    return inputs.session_changed

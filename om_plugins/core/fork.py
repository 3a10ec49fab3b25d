"""What is done when a process forks or ends: locks are made again, applications are closed.

A lock that another thread held while the process forked stays locked in the child for ever (the
same trap that :mod:`logging` avoids in the same way).
"""

from __future__ import annotations

import atexit
import functools
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Generic, Protocol, TypeVar, overload
from weakref import WeakSet, WeakValueDictionary

T = TypeVar("T")


class PerProcess(Generic[T]):
    """An object for each process, made on first use. A forked child never gets its parent's.

    The parent's object stays in a child, unused: the child must not close what it shares with it.

    Args:
        make: makes the object of a process.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """The object of this process."""
        pid = os.getpid()
        found = self._made.get(pid)
        if found is None:  # setdefault is atomic: two threads get the same object
            found = self._made.setdefault(pid, self._make())
        return found

    def pop(self) -> T | None:
        """Forget the object of this process and return it; ``None`` when none was made."""
        return self._made.pop(os.getpid(), None)


class ForkAware(Protocol):
    """Something with locks, or with permits that only the parent's threads could give back."""

    def after_fork(self) -> None:
        """Called in the child, before any other code of ours."""


class ClosesBeforeFork(ForkAware, Protocol):
    """Something that must not be open while the process forks."""

    def before_fork(self) -> None:
        """Called in the thread that forks, before it does."""

    def after_fork_in_parent(self) -> None:
        """Called in the same thread of the parent, afterwards."""


def hold_forks() -> AbstractContextManager[object]:
    """Return the lock under which something is made or imported.

    While a thread holds it, a fork in another thread waits. A child has no thread that would end an
    import, or a computation under a lock, which another thread of its parent had begun.
    """
    return _making


class CachedProperty(Generic[T]):
    """A property that is computed once for each object, as :func:`functools.cached_property`.

    The lock of that one stays locked in a child that is forked while a thread computes a value; in
    Python 3.11 all objects of a class share it. Here a fork waits for the value.

    Args:
        compute: the method that returns the value; a method of a class whose objects have a
            ``__dict__``.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> CachedProperty[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> CachedProperty[T] | T:
        if instance is None:
            return self
        with hold_forks():  # once there is a value, the object's own dict answers first
            found: dict[str, T] = instance.__dict__
            if self._name not in found:
                found[self._name] = self._compute(instance)
            return found[self._name]


class Closable(Protocol):
    """Something that gives back what it has."""

    def close(self) -> None:
        """Called at the end of the process."""


# The interpreter can neither list nor take back its fork hooks, and keeps a place for each exit
# hook, so one hook serves every object and holds none of them alive. They are the only things here
# that outlive an application.
_alive: WeakSet[ForkAware] = WeakSet()
_closing: WeakSet[ClosesBeforeFork] = WeakSet()
_started: WeakValueDictionary[int, Closable] = WeakValueDictionary()
_making = threading.RLock()
_held: dict[int, bool] = {}
"""Whether the thread that forks holds it, by the thread's id: two may fork at once."""
_LONGEST_HOLD_S = 5.0


def renew_after_fork(thing: ForkAware) -> None:
    """Have ``thing.after_fork()`` called in every child of this process."""
    _alive.add(thing)


def close_before_fork(thing: ClosesBeforeFork) -> None:
    """Have the methods of ``thing`` called around every fork of this process."""
    _closing.add(thing)
    _alive.add(thing)


def close_at_exit(thing: Closable) -> None:
    """Have ``thing.close()`` called when the interpreter ends, of the last one first."""
    _call_at_exit()
    _started[id(thing)] = thing


@functools.cache
def _call_at_exit() -> None:
    # with the first start, so that it runs before the hooks of what the application imported
    atexit.register(_end_all)


def _end_all() -> None:
    with ExitStack() as stack:  # the last one first, and each one whatever others raise
        for thing in list(_started.values()):
            stack.callback(thing.close)


def _renew_all() -> None:
    global _making
    _making = threading.RLock()
    _held.clear()
    for thing in list(_alive):
        thing.after_fork()


def _close_all() -> None:
    _held[threading.get_ident()] = _making.acquire(timeout=_LONGEST_HOLD_S)
    for thing in list(_closing):
        thing.before_fork()


def _reopen_all() -> None:
    for thing in list(_closing):
        thing.after_fork_in_parent()
    if _held.pop(threading.get_ident(), False):
        _making.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_close_all, after_in_parent=_reopen_all, after_in_child=_renew_all)

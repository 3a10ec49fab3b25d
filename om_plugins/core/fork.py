"""Locks after ``fork``: what a child process must make anew before it uses an object.

A lock that another thread held while the process forked stays locked in the child for ever (the
same trap that :mod:`logging` mends in the same way).
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """Something with locks, or with permits that only the parent's threads could give back."""

    def after_fork(self) -> None:
        """Called in the child, before any other code of ours."""


# The interpreter can neither list nor take back its fork hooks, so one hook serves every object
# and holds none of them alive. It is the only thing here that outlives an application.
_alive: WeakSet[ForkAware] = WeakSet()


def renew_after_fork(thing: ForkAware) -> None:
    """Have ``thing.after_fork()`` called in every child of this process."""
    _alive.add(thing)


def _renew_all() -> None:
    for thing in list(_alive):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew_all)

"""How tests wait, and bound a wait, so that a busy machine changes nothing.

What must come is waited for as long as :data:`PATIENCE_S`. What must be cut off would last
:data:`HANG_S` without the cut, or for ever.
"""

from __future__ import annotations

import contextlib
import time

PATIENCE_S = 20.0
"""What must come has come after so many seconds, however busy the machine is."""

HANG_S = 60.0
"""How long what must be cut off would last."""

_EARLY_S = 0.01
"""How much too early a wait of the operating system may end."""


def wait_until(condition, what="it never happened", *, pause_s=0.005, patience_s=PATIENCE_S):
    """Ask again until the condition holds; return what it returned.

    Args:
        condition: is called without arguments, again and again.
        what: the message when it does not come; a function that makes it, too.
        pause_s: seconds between two looks.
        patience_s: seconds until it is given up.
    """
    end = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(pause_s)
    return found


@contextlib.contextmanager
def cut_off(at_least_s=0.0):
    """The block ends long before what it waits for does, but not before so many seconds."""
    began = time.monotonic()
    yield
    took_s = time.monotonic() - began
    assert at_least_s - _EARLY_S <= took_s < PATIENCE_S


def join(*threads):
    """Wait for threads that must end."""
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), f"{thread.name} goes on"

"""What the server at hand can bear: how many streams, and whether it is about to stop.

A stream holds a worker's thread for as long as it lasts: four streams on four threads and the site
answers no more. And a server that stops waits for its threads.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def stream_limit(environ: WSGIEnvironment, setting: str | int) -> int | None:
    """How many streams this process may serve at once; ``None`` for any number.

    Args:
        setting: ``OM_SSE_MAX``. ``auto`` is none where the server has one thread, any number
            where threads are greenlets, else one.
    """
    if isinstance(setting, int):
        return setting
    if _greenlets():
        return None
    return 0 if has_one_thread(environ) else 1


def has_one_thread(environ: WSGIEnvironment) -> bool:
    """True where a request that waits keeps all others of its process waiting."""
    if _greenlets():
        return False
    if not environ.get("wsgi.multithread"):
        return True
    threads = getattr(getattr(_worker(), "cfg", None), "threads", 2)
    return isinstance(threads, int) and threads < 2


def stopping() -> bool:
    """True when the server was told to stop and waits for its threads.

    Gunicorn's workers handle SIGTERM with a method of theirs, and say in ``alive`` whether they
    go on. Other servers end threads by themselves, or wait until the stream is rotated.
    """
    return getattr(_worker(), "alive", True) is False


def grace_s() -> float:
    """How long a server that was told to stop waits for its threads: gunicorn's
    ``graceful_timeout``, which is 30 seconds unless it says otherwise."""
    said = getattr(getattr(_worker(), "cfg", None), "graceful_timeout", 30)
    return float(said) if isinstance(said, int | float) else 30.0


def _worker() -> object:
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)


def _greenlets() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))

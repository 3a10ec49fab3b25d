"""What the WSGI server can do: how many threads it has, and whether it is stopping.

An event stream holds a thread of its worker for as long as it lasts: four streams on four threads,
and the site answers nobody. A server that stops waits for its threads, too.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def stream_limit(
    environ: WSGIEnvironment, setting: str | int, *, least_threads: int = 2
) -> int | None:
    """Return how many streams this process may serve at once; ``None`` for any number.

    Args:
        environ: a request to the server.
        setting: ``OM_SSE_MAX``, a number or ``auto``. ``auto`` is any number where threads are
            greenlets, one where the server has enough threads, and none elsewhere.
        least_threads: how many threads are enough.
    """
    if isinstance(setting, int):
        return setting
    if _has_greenlets():
        return None
    threads = _count_threads(environ)
    return 1 if threads is None or threads >= least_threads else 0


def has_one_thread(environ: WSGIEnvironment) -> bool:
    """Return whether a request that waits blocks all others of its process."""
    return not _has_greenlets() and _count_threads(environ) == 1


def stopping() -> bool:
    """Return whether the server was asked to stop and waits for its threads.

    Gunicorn's workers handle SIGTERM with a method of their own and keep in ``alive`` whether they
    go on. Other servers end their threads themselves, or wait until a stream ends by its rotation.
    """
    return getattr(_find_gunicorn_worker(), "alive", True) is False


def grace_s() -> float:
    """Return how many seconds a server that was asked to stop waits for its threads.

    This is gunicorn's ``graceful_timeout``, and 30 seconds under servers that do not tell.
    """
    timeout = getattr(getattr(_find_gunicorn_worker(), "cfg", None), "graceful_timeout", 30)
    return float(timeout) if isinstance(timeout, int | float) else 30.0


def _count_threads(environ: WSGIEnvironment) -> int | None:
    """Return the number of the server's threads; ``None`` for several of unknown number."""
    if not environ.get("wsgi.multithread"):
        return 1
    threads = getattr(getattr(_find_gunicorn_worker(), "cfg", None), "threads", None)
    return max(1, threads) if isinstance(threads, int) else None


def _find_gunicorn_worker() -> object:
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)


def _has_greenlets() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))

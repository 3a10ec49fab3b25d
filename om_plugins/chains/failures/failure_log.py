"""The log of why engines fail: one line a minute for each cause.

A chain that falls back answers its caller, so nobody else would say what happened. The line names
the chain, the engine and the error, and says how many failures of the same cause had no line. At
level DEBUG the traceback follows. Passwords, keys and tokens in the texts of errors are masked.
"""

from __future__ import annotations

import logging
import threading
import traceback

from ...builtin.logging import escape_controls
from ...core.fork import renew_after_fork
from ...errors import without_secrets
from ...policies.error_table import is_about_caller
from ...protocols import Clock

logger = logging.getLogger("om_plugins")

EVERY_S = 60.0
"""How long a cause is silent after its line."""
MAX_CAUSES = 1000
"""The causes that are remembered; when there are more, all are forgotten."""
_MAX_TEXT = 300
_MAX_TRACEBACK = 20_000


class FailureLog:
    """Writes the failures of the engines of one chain to the log ``om_plugins``.

    A failure that says nothing about the engine (an unsupported call, a caller who gave up) is
    written at level INFO, every other one at WARNING.

    Args:
        chain: the chain's name.
        clock: its monotonic time measures the minute.
    """

    def __init__(self, chain: str, clock: Clock) -> None:
        self._chain = chain
        self._clock = clock
        self._causes: dict[tuple[str, str, str], list[float]] = {}
        """From a cause to when its next line is due, and how many failures had no line."""
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def record(self, engine: str, error: Exception, *, probe: bool = False) -> None:
        """Write a line, unless the same engine failed with the same class of error a minute ago.

        Args:
            engine: the engine's name.
            error: what it raised.
            probe: a probe raised it, and no call.
        """
        level = logging.INFO if is_about_caller(error) else logging.WARNING
        if not logger.isEnabledFor(level):
            return
        kind = type(error).__name__
        suppressed = self._count((engine, kind, "probe" if probe else "call"))
        if suppressed is None:
            return
        text = _describe(error)
        logger.log(
            level,
            "chain %r: %s engine %r failed: %s%s%s",
            self._chain,
            "a probe of" if probe else "the",
            engine,
            kind,
            f": {text}" if text and text != kind else "",
            f" ({suppressed} more since the last line)" if suppressed else "",
        )
        if logger.isEnabledFor(logging.DEBUG):
            lines = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]
            # as text: with exc_info, a handler would write what is masked here
            logger.debug("engine %r failed here:\n%s", engine, without_secrets(lines).rstrip())

    def _count(self, cause: tuple[str, str, str]) -> int | None:
        """Return how many failures of a cause had no line; ``None`` when this one gets none."""
        now = self._clock.monotonic()
        with self._lock:
            found = self._causes.get(cause)
            if found is not None and now < found[0]:
                found[1] += 1
                return None
            if len(self._causes) >= MAX_CAUSES:
                self._causes.clear()
            self._causes[cause] = [now + EVERY_S, 0]
        return 0 if found is None else int(found[1])


def _describe(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return "it has no text"
    text = escape_controls(without_secrets(text[:2_000]))
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"

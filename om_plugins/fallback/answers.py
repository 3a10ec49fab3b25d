"""What answers in place of one path or view: copies and chains, in the order of its options."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..chains.http_call import call_chain, describe_answer, render_payload
from ..errors import ConfigError
from ..protocols import Cache, Chain, Clock, Scheduler
from ..types import Answer
from .last_good import Copies
from .options import STALE, FallbackOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Found", "Guard"]

logger = logging.getLogger("om_plugins")

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Found:
    """What answers instead of a view.

    Attributes:
        kind: ``stale``, ``engine`` or ``page``.
        engine, chain: the names of the engine and its chain; "" when it was none.
    """

    kind: str
    status: int
    headers: Headers
    body: bytes
    engine: str = ""
    chain: str = ""


class Guard:
    """One path's options, made ready.

    Args:
        path: for logs.
        options: what answers, and when.
        chain: gives the chain of a name.
        cache, scheduler, clock: see :class:`.copies.Copies`.

    Attributes:
        failing: the statuses that count as failed, as text.
        copies: the copies of good answers; ``None`` when none are kept.
    """

    __slots__ = ("_chain", "copies", "failing", "options", "path")

    def __init__(
        self,
        path: str,
        options: FallbackOptions,
        chain: Callable[[str], Chain],
        cache: Cache,
        scheduler: Scheduler,
        clock: Clock,
    ) -> None:
        self.path = path
        self.options = options
        self._chain = chain
        self.failing = frozenset(str(one) for one in options.statuses)
        self.copies = Copies(options, cache, scheduler, clock) if STALE in options.answers else None

    def answer(self, environ: WSGIEnvironment) -> Found | None:
        """The answer of the first that has one; ``None`` when nothing does."""
        method = environ.get("REQUEST_METHOD", "")
        for place, name in enumerate(self.options.answers, 1):
            try:
                if name == STALE:
                    copy = self._copy(environ, method)
                    if copy is not None:
                        answer = Answer(engine=STALE, tier=place, stale=True, degraded=True)
                        return Found("stale", 200, [*copy[0], *describe_answer(answer)], copy[1])
                elif method in self.options.methods:
                    return self._ask(environ, name, method)
            except ConfigError as error:  # it never will; the next one may
                logger.warning("the fallback of %s cannot ask %r: %s", self.path, name, error)
            except Exception:  # the next one may know
                logger.info("the fallback of %s: %r did not answer", self.path, name, exc_info=True)
        return None

    def _copy(self, environ: WSGIEnvironment, method: str) -> tuple[Headers, bytes] | None:
        if self.copies is None or method not in ("GET", "HEAD"):
            return None
        return self.copies.find(environ)

    def _ask(self, environ: WSGIEnvironment, name: str, method: str) -> Found:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        payload = {
            "method": method,
            "path": path.encode("latin-1", "replace").decode("utf-8", "replace"),
            "query": environ.get("QUERY_STRING", ""),
        }
        answer = call_chain(self._chain(name), environ, payload, timeout=self.options.timeout)
        answer.degraded = True
        return Found("engine", *render_payload(answer), answer.engine, name)

"""What answers in place of a failed view: copies and chains, in the order of the options."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

from ..chains.http_call import call_chain, describe_answer, render_payload
from ..core.inputs import InputRules
from ..errors import ConfigError
from ..protocols import Cache, Chain, Clock, Scheduler
from ..types import Answer
from .copy_inputs import Key
from .last_good import LastGoodCopies
from .options import STALE, FallbackOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("om_plugins")

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class FallbackAnswer:
    """A response in place of a view's own.

    Attributes:
        kind: ``stale``, ``engine`` or ``page``.
        engine, chain: the names of the engine and its chain; "" for the other kinds.
    """

    kind: str
    status: int
    headers: Headers
    body: bytes
    engine: str = ""
    chain: str = ""


@dataclass(slots=True, eq=False, repr=False)
class PathFallback:
    """The fallback of one path or view.

    Args:
        path: for logs.
        options: what answers, and when.
        chain: returns the chain of a name.
        cache, scheduler, clock, rules, observes: see :class:`.last_good.LastGoodCopies`.

    Attributes:
        failing: the statuses that count as failed, as text.
        copies: the copies of good responses; ``None`` when ``stale`` is not among the answers.
    """

    path: str
    options: FallbackOptions
    chain: Callable[[str], Chain]
    cache: InitVar[Cache]
    scheduler: InitVar[Scheduler]
    clock: InitVar[Clock]
    rules: InitVar[InputRules]
    observes: InitVar[bool]
    failing: frozenset[str] = field(init=False)
    copies: LastGoodCopies | None = field(init=False, default=None)

    def __post_init__(
        self,
        cache: Cache,
        scheduler: Scheduler,
        clock: Clock,
        rules: InputRules,
        observes: bool,
    ) -> None:
        self.failing = frozenset(str(one) for one in self.options.statuses)
        if STALE in self.options.answers:
            self.copies = LastGoodCopies(self.options, cache, scheduler, clock, rules, observes)

    def answer(self, environ: WSGIEnvironment, key: Key | None) -> FallbackAnswer | None:
        """Return the first answer that can be found; ``None`` when there is none.

        Args:
            environ: the environ that the application got.
            key: of the request's copies; ``None`` for a request that gets none.
        """
        method = environ.get("REQUEST_METHOD", "")
        for number, name in enumerate(self.options.answers, 1):
            try:
                if name == STALE:
                    copy = None if key is None else self._find_copy(key, environ)
                    if copy is not None:
                        answer = Answer(engine=STALE, tier=number, stale=True, degraded=True)
                        headers = [*copy[0], *describe_answer(answer)]
                        return FallbackAnswer("stale", 200, headers, copy[1])
                elif method in self.options.methods:
                    return self._ask_chain(environ, name, method)
            except ConfigError as error:  # this chain never answers, but the next one may
                logger.warning("the fallback of %s cannot ask %r: %s", self.path, name, error)
            except Exception:  # the next one may answer
                logger.info("the fallback of %s: %r did not answer", self.path, name, exc_info=True)
        return None

    def _find_copy(self, key: Key, environ: WSGIEnvironment) -> tuple[Headers, bytes] | None:
        return None if self.copies is None else self.copies.find(key, environ)

    def _ask_chain(self, environ: WSGIEnvironment, name: str, method: str) -> FallbackAnswer:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        payload = {
            "method": method,
            "path": path.encode("latin-1", "replace").decode("utf-8", "replace"),
            "query": environ.get("QUERY_STRING", ""),
        }
        answer = call_chain(self.chain(name), environ, payload, timeout=self.options.timeout)
        answer.degraded = True
        return FallbackAnswer("engine", *render_payload(answer), answer.engine, name)

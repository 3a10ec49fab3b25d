"""The stale engine: it repeats the last good answer to the same question when others fail.

::

    om.add_engine(StaleEngine("memory"), chain="assistant", tier=9)

It stores the answers of the other engines of its chain in the application's cache. When the chain
asks it, it returns the stored answer, marked ``stale``.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ...errors import ConfigError, Unsupported
from ...protocols import PluginContext
from ...settings.arguments import check_arguments
from ...settings.callbacks import describe_result, explain_callback
from ...types import Answer, Call, EngineTraits
from ..http.caller import brings_credentials
from .counts import Counts

_LEARN_EVERY_S = 1.0
_MAX_WAITING = 256
_MAX_SEEN = 4096
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_MAX_DEPTH = 64
_to_bytes = msgspec.msgpack.Encoder().encode
_to_stable_bytes = msgspec.msgpack.Encoder(order="deterministic").encode
_from_bytes: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode


class StaleEngine:
    """Answers with the last good answer to the same question, whichever engine gave it.

    Two questions are the same when chain, method and payload are equal in type and value. Only
    answers that are **the same for every caller** may be stored: when they depend on the caller,
    on a language or on a header, pass ``vary``. Without ``vary``, and where it returns ``None``, a
    call with credentials (``Authorization``, ``Cookie``) is neither learned from nor answered.

    Args:
        name: its name in the chain.
        keep: seconds for which an answer is stored.
        max_age: the age in seconds from which a stored answer is not returned any more;
            ``keep`` when not given.
        key: a function of the call that returns plain data, which is compared instead of the
            payload, or ``None`` to store nothing for this call. For payloads that are not plain
            data, or that contain an id or a time that makes no difference to the answer.
        vary: a function of the call that returns plain data; calls with different values are
            different questions: ``vary=lambda call: call.headers.get("x-user")``.
        learn_degraded: also store what a lower tier answered for a higher one.
        max_bytes: larger answers are not stored.

    Raises:
        ConfigError: an argument is wrong.

    Answers are stored in the background, at most once a second for each question, so that a healthy
    chain pays for a hash and no more. The cache bounds their number and drops the least used. After
    a restart they are lost with ``memory://``, but not with a store that workers share.
    """

    traits = EngineTraits(idempotent=True, local=True, hedge_safe=True)

    @check_arguments(
        "StaleEngine",
        usage="StaleEngine('memory')",
        renamed={"keep_s": "keep=", "max_age_s": "max_age="},
    )
    def __init__(
        self,
        name: str,
        *,
        keep: float = 86_400.0,
        max_age: float | None = None,
        key: Callable[[Call], object] | None = None,
        vary: Callable[[Call], object] | None = None,
        learn_degraded: bool = False,
        max_bytes: int = 262_144,
    ) -> None:
        for option, value in (
            ("keep", keep),
            ("max_age", max_age),
            ("max_bytes", max_bytes),
        ):
            if value is not None and (isinstance(value, bool) or not 0 < value < 2**40):
                raise ConfigError(f"engine {name!r}: {option}", value, "must be a number above 0")
        if max_age is not None and max_age > keep:
            raise ConfigError(
                f"engine {name!r}: max_age", max_age,
                f"is longer than keep {keep!r}, after which the answer is gone",
            )  # fmt: skip
        for option, function in (("key", key), ("vary", vary)):
            problem = "" if function is None else explain_callback(function, 1)
            if problem:
                raise ConfigError(
                    f"engine {name!r}: {option}", function,
                    f"must be a function of the call: {problem}",
                )  # fmt: skip
        self.name = name
        self._keep_s = keep
        self._max_age_s = keep if max_age is None else max_age
        self._key = key
        self._vary = vary
        self._learn_degraded = learn_degraded
        self._max_bytes = max_bytes
        self._context: PluginContext | None = None
        self._reset()

    def _reset(self) -> None:
        self._waiting: deque[tuple[str, str, dict[str, object]]] = deque()
        self._queued_in = 0  # the process whose scheduler has the job that empties the queue
        self._seen: dict[str, float] = {}
        self._told = False
        self._counts = Counts("learned", "refused", "dropped", "answered", "unknown")

    def attach(self, context: PluginContext) -> StaleEngine:
        """A copy of this engine that stores its answers in the cache of the application."""
        mine = copy.copy(self)
        mine._context = context
        mine._reset()
        return mine

    def call(self, call: Call) -> Answer:
        """The last good answer, marked stale; ``metadata`` has ``age_s`` and ``answered_by``.

        Raises:
            Unsupported: no answer is stored, or it is too old.
        """
        context = self._context
        if context is None:
            raise Unsupported(f"engine {self.name!r}: it has no application's cache", sent="no")
        question = self._hash_question(call)
        if question is None:
            raise Unsupported(f"engine {self.name!r}: a question that is not kept", sent="no")
        found = context.cache.get(self._cache_key(question))
        known = self._restore(found, context.clock.time())
        if known is None:
            self._counts.add(unknown=1)
            raise Unsupported(f"engine {self.name!r}: no answer is known", sent="no")
        self._counts.add(answered=1)
        return known

    def learn(self, call: Call, answer: Answer) -> None:
        """Store a good answer of another engine in the background."""
        try:
            self._queue(call, answer)
        except Exception:  # the caller has an answer; a failure here must not replace it
            self._counts.add(refused=1)
            if self._context is not None:
                level = logging.DEBUG if self._told else logging.ERROR
                self._told = True
                self._context.logger.log(level, "an answer was not learned", exc_info=True)

    def stats(self) -> dict[str, int]:
        """Counts of this process: ``learned``, ``refused`` (not plain data, or too large),
        ``dropped`` (the queue was full), ``answered``, ``unknown``."""
        return self._counts.snapshot()

    # --- learning ---

    def _queue(self, call: Call, answer: Answer) -> None:
        context = self._context
        if context is None or answer.stale or answer.chunks is not None or answer.payload is None:
            return
        if (answer.degraded and not self._learn_degraded) or not 200 <= answer.status < 300:
            return
        question = self._hash_question(call)
        if question is None:
            return
        now = context.clock.monotonic()
        last = self._seen.get(question)
        if last is not None and now - last < _LEARN_EVERY_S:
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._counts.add(dropped=1)
            return
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen[question] = now
        payload = answer.payload
        if not is_plain(payload):
            self._counts.add(refused=1)
            return
        data = _to_bytes(payload)  # at once: the caller may change the payload
        if len(data) > self._max_bytes:
            self._counts.add(refused=1)
            return
        kept: dict[str, object] = {
            "data": data,
            "status": answer.status,
            "by": answer.engine,
            "at": context.clock.time(),
        }
        self._waiting.append((question, call.chain, kept))
        pid = os.getpid()
        if self._queued_in != pid:
            self._queued_in = pid
            if not context.scheduler.submit(self._store, name=f"learn:{self.name}"):
                self._queued_in = 0

    def _store(self) -> None:
        """Move the queued answers to the cache. Runs in the background."""
        context = self._context
        assert context is not None  # noqa: S101 - for mypy; only an attached engine learns
        self._queued_in = 0
        while self._waiting:
            try:
                question, chain, kept = self._waiting.popleft()
            except IndexError:  # another job took the last one
                return
            context.cache.set(
                self._cache_key(question),
                kept,
                stale_time=self._keep_s,
                cache_time=self._keep_s,
                tags=(f"chain:{chain}",),
            )
            self._counts.add(learned=1)

    # --- questions and answers ---

    def _hash_question(self, call: Call) -> str | None:
        apart = None if self._vary is None else self._ask("vary", self._vary, call)
        if apart is None and brings_credentials(call.headers or ()):
            return None  # nothing says whose answer it would be
        if self._key is None:
            return hash_question(call, call.payload, apart)
        asked = self._ask("key", self._key, call)
        return None if asked is None else hash_question(call, asked, apart)

    def _ask(self, option: str, function: Callable[[Call], object], call: Call) -> object:
        """Return what ``key`` or ``vary`` says of a call.

        Raises:
            TypeError: it is no plain data: no question would ever be the same as another.
        """
        said = function(call)
        if is_plain(said):
            return said
        problem = describe_result(said)
        raise TypeError(f"engine {self.name!r}: {option} {problem}; return plain data, or None")

    def _cache_key(self, question: str) -> str:
        return f"om-stale:{self.name}:{question}"

    def _restore(self, found: object, now: float) -> Answer | None:
        """The answer of a cache entry. It is checked, because others may write to the store."""
        if not isinstance(found, dict):
            return None
        data, at, status, by = (found.get(name) for name in ("data", "at", "status", "by"))
        if not isinstance(data, bytes) or not isinstance(at, float) or not isinstance(status, int):
            return None
        age_s = max(now - at, 0.0)
        if age_s > self._max_age_s:
            return None
        try:
            payload = _from_bytes(data)
        except (ValueError, RecursionError, msgspec.DecodeError):
            return None
        metadata = {"age_s": round(age_s, 3), "answered_by": str(by or "")[:200]}
        return Answer(payload, status=status, stale=True, metadata=metadata)


def is_plain(value: Any, depth: int = _MAX_DEPTH) -> bool:
    """Whether a value is plain data: ``None``, bool, int, float, str, bytes, and lists, tuples and
    dicts (with str keys) of these. Subclasses, and nesting deeper than 64 levels, are not."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if depth <= 0:
        return False
    if kind is dict:
        return all(
            type(key) is str and (type(one) in _PLAIN or is_plain(one, depth - 1))
            for key, one in value.items()
        )
    if kind is list or kind is tuple:
        return all(type(one) in _PLAIN or is_plain(one, depth - 1) for one in value)
    return False


def hash_question(call: Call, asked: object, apart: object = None) -> str | None:
    """A digest of what a call asks: equal for the same question, different for any other.

    It is 160 bits of BLAKE2b in hexadecimal. Only plain data counts as a question, by exact type,
    and ``repr`` is never used: ``1``, ``True``, ``"1"`` and ``1.0`` are four questions. The order
    of a dict's keys makes no difference, and a tuple is a list, as it is in JSON.

    Args:
        call: its chain and method are part of the question.
        asked: the payload, or the result of ``key``.
        apart: the result of ``vary``.

    Returns:
        ``None`` when the question is not plain data, or contains an int of more than 64 bits.
    """
    whole = (call.chain, call.method, asked, apart)
    if not is_plain(whole):
        return None
    try:
        return hashlib.blake2b(_to_stable_bytes(whole), digest_size=20).hexdigest()
    except (OverflowError, ValueError):  # an int over 64 bits, a lone surrogate
        return None

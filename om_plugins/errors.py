"""The exception tree: what can go wrong, and what a chain of engines does about it.

::

    OpenManagerError
    ├── ConfigError (ValueError)         a setting is wrong: key, value, what is allowed
    │   └── MissingExtra                 an optional package is not installed
    ├── PluginError                      a plugin could not be loaded or failed
    ├── HubError                         the shared store cannot be reached
    ├── CacheError                       a value cannot be cached
    ├── CallerDeadline (TimeoutError)    the caller's own time ran out
    ├── Cancelled                        the caller does not want the answer any more
    ├── EngineError                      an engine did not answer
    │   ├── Transient                    it may work on the next attempt
    │   ├── RateLimited                  the engine asks for patience
    │   ├── AttemptTimeout               one attempt took too long
    │   ├── InvalidRequest               the call itself is wrong: no engine can answer it
    │   ├── Unsupported                  this engine cannot do it, another may
    │   ├── TooLong                      too long for this engine, another may take it
    │   ├── Misconfigured                wrong key, wrong address: an operator must act
    │   └── EngineUnavailable            skipped without a call: offline, open breaker, full
    └── ChainExhausted (ExceptionGroup)  every engine of a chain failed or was skipped

Each class says in its attributes what a chain does when an engine raises it: the rows of the error
table. A subclass has the row of its base, and may change single attributes of it. An exception of
any other kind has the row of :class:`OpenManagerError` itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import ClassVar, Literal, Self

from .core.engine import Attempt, HttpResponse
from .core.engine import Sent as Sent


class Retry(Enum):
    """When one call may ask the same engine again."""

    NEVER = "never"
    IF_SAFE = "if it was not sent, or the call is idempotent"
    IF_IDEMPOTENT = "if the call is idempotent"
    AFTER_WAIT = "if the engine's Retry-After fits the deadline"


class NextTier(Enum):
    """When one call may ask the next engine."""

    NEVER = "never"
    ALWAYS = "always: the engine refused, so nothing was done"
    UNLESS_SPENT = "unless the chain is at_most_once and the call may have been sent"


class OpenManagerError(Exception):
    """Base of every error that this package raises.

    Attributes:
        retry: when a call may ask the engine that raised it again.
        next_tier: when a call may ask the next engine.
        trips: the breaker counts it as a failure.
        cooldown: how the engine is left alone: ``"cooling down"`` for its Retry-After,
            ``"offline"`` until a probe succeeds because an operator must act, "" not at all.
        callers_fault: it says nothing about the engine, so that recovery does not count it.
        http_status: the status that an HTTP client gets, where the error ends its request.
    """

    retry: ClassVar[Retry] = Retry.IF_IDEMPOTENT
    next_tier: ClassVar[NextTier] = NextTier.UNLESS_SPENT
    trips: ClassVar[bool] = True
    cooldown: ClassVar[Literal["", "cooling down", "offline"]] = ""
    callers_fault: ClassVar[bool] = False
    http_status: ClassVar[int] = 500

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, kind in (("retry", Retry), ("next_tier", NextTier)):
            if not isinstance(getattr(cls, name), kind):
                raise TypeError(f"{cls.__name__}.{name} must be one of {kind.__name__}")


class ConfigError(OpenManagerError, ValueError):
    """A setting is wrong.

    Args:
        key: the name as the operator wrote it, for example ``OM_CSP_MODE``.
        value: the value that was found; a password in a URL is not shown.
        reason: what is wrong and what is allowed, in one sentence.
    """

    def __init__(self, key: str, value: object, reason: str) -> None:
        super().__init__(f"{key} {_short(value)}: {reason}")
        self.key = key
        self.value = value
        self.reason = reason


class MissingExtra(ConfigError):
    """An optional package is needed and not installed.

    Args:
        key: the setting or feature that needs it.
        value: the value that asked for it.
        extra: the extra that brings the package (``pip install "om-plugins[extra]"``).
    """

    def __init__(self, key: str, value: object, extra: str) -> None:
        super().__init__(
            key,
            value,
            f"needs an optional package; install it with: pip install 'om-plugins[{extra}]'",
        )
        self.extra = extra


class PluginError(OpenManagerError):
    """A plugin could not be loaded, or failed in a hook.

    Args:
        plugin: the plugin's name.
        reason: what happened and the way out.
    """

    def __init__(self, plugin: str, reason: str) -> None:
        super().__init__(f"plugin {plugin!r}: {reason}")
        self.plugin = plugin
        self.reason = reason


class HubError(OpenManagerError):
    """The shared store cannot be reached. Never leaves the package on a request's path."""


class CacheError(OpenManagerError):
    """A value cannot be cached (its type has no encoding, it is over the size limit)."""


class CallerDeadline(OpenManagerError, TimeoutError):
    """The caller's total deadline passed. Nothing is retried, no breaker counts it.

    Attributes:
        attempts: what a chain had tried by then, as of :class:`ChainExhausted`.
    """

    retry = Retry.NEVER
    next_tier = NextTier.NEVER
    trips = False
    callers_fault = True
    http_status = 504

    attempts: Sequence[Attempt] = ()


class Cancelled(OpenManagerError):
    """The caller gave up (client disconnected, shutdown). Nothing is retried."""

    retry = Retry.NEVER
    next_tier = NextTier.NEVER
    trips = False
    callers_fault = True
    http_status = 503


class EngineError(OpenManagerError):
    """An engine did not answer.

    Args:
        message: what happened, for logs. Never shown to end users.
        sent: whether the request may have reached the engine: ``"no"`` makes a retry safe even
            for a call that is not idempotent.
        retry_after: seconds the engine asks to wait, ``None`` when it said nothing.
        status: the upstream's HTTP status, when there was one.

    Attributes:
        response: the upstream's own answer, an :class:`~om_plugins.types.HttpResponse`, when a raw
            HTTP engine kept it; whoever serves HTTP may pass it on when no engine answers.
    """

    http_status = 502

    response: HttpResponse | None = None

    def __init__(
        self,
        message: str = "",
        *,
        sent: Sent = "maybe",
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message or type(self).__name__)
        self.sent: Sent = sent
        self.retry_after = retry_after
        self.status = status


class Transient(EngineError):
    """It failed in a way that may pass: a refused connection, a 502, a dropped body."""

    retry = Retry.IF_SAFE


class RateLimited(EngineError):
    """The engine asks for patience (HTTP 429, or 503 with Retry-After)."""

    retry = Retry.AFTER_WAIT
    next_tier = NextTier.ALWAYS
    trips = False
    cooldown = "cooling down"


class AttemptTimeout(EngineError):
    """One attempt took longer than its share of the deadline."""

    http_status = 504


class InvalidRequest(EngineError):
    """The call itself is wrong (HTTP 400, 422): asking another engine would not help."""

    retry = Retry.NEVER
    next_tier = NextTier.NEVER
    trips = False
    callers_fault = True
    http_status = 400


class Unsupported(EngineError):
    """This engine cannot answer this call; another may."""

    retry = Retry.NEVER
    next_tier = NextTier.ALWAYS
    trips = False
    callers_fault = True


class TooLong(EngineError):
    """The call is too long for this engine (context length); another may take it."""

    retry = Retry.NEVER
    next_tier = NextTier.ALWAYS
    trips = False
    callers_fault = True
    http_status = 413


class Misconfigured(EngineError):
    """Wrong credentials or address (HTTP 401, 403, 404): an operator must act."""

    retry = Retry.NEVER
    next_tier = NextTier.ALWAYS
    trips = False
    cooldown = "offline"


class EngineUnavailable(EngineError):
    """The engine was skipped without being asked.

    Args:
        engine: its name.
        reason: ``"offline"``, ``"breaker open"``, ``"forced open"``, ``"bulkhead full"``,
            ``"cooling down"``, ``"switched off"``.
        retry_after: seconds until it may be asked again, when known.
    """

    retry = Retry.NEVER
    next_tier = NextTier.ALWAYS
    trips = False

    def __init__(self, engine: str, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{engine}: {reason}", sent="no", retry_after=retry_after)
        self.engine = engine
        self.reason = reason


class ChainExhausted(OpenManagerError, ExceptionGroup[Exception]):
    """Every engine of a chain failed or was skipped.

    The group's exceptions are the attempts' errors in order; a skipped engine is an
    :class:`EngineUnavailable`, so the group is never empty.

    Attributes:
        chain: the chain's name.
        attempts: one :class:`~om_plugins.types.Attempt` per attempt or skip.
        retry_after: the least number of seconds after which an engine may answer again,
            ``None`` when no engine said so.
    """

    # A chain inside a chain has retried already, and nested retries multiply.
    retry = Retry.NEVER
    http_status = 503

    chain: str
    attempts: Sequence[Attempt]
    retry_after: float | None

    def __new__(
        cls,
        message: str,
        exceptions: Sequence[Exception],
        chain: str = "",
        attempts: Sequence[Attempt] = (),
        retry_after: float | None = None,
    ) -> Self:
        self = super().__new__(cls, message, exceptions)
        self.chain = chain
        self.attempts = attempts
        self.retry_after = retry_after
        return self

    def __init__(self, *args: object) -> None:
        super().__init__(*args[:2])  # type: ignore[arg-type]

    def derive(self, excs: Sequence[Exception], /) -> ChainExhausted:  # type: ignore[override]
        return ChainExhausted(self.message, excs, self.chain, self.attempts, self.retry_after)

    @property
    def all_rate_limited(self) -> bool:
        """True when every attempt ended in :class:`RateLimited` (or was cooling down after it)."""
        return all(
            isinstance(e, RateLimited)
            or (isinstance(e, EngineUnavailable) and e.reason == "cooling down")
            for e in self.exceptions
        )


def suggest(
    name: object, known: Iterable[str], otherwise: str | None = None, *, cutoff: float = 0.6
) -> str:
    """Return the known name that is most similar, as ``did you mean 'redis'?``.

    Args:
        name: the unknown name.
        known: the names that are allowed.
        otherwise: what to return when no name is similar; the list of all names when not given.
        cutoff: how similar a name must be, 0 to 1 (see :func:`difflib.get_close_matches`).
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=cutoff)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are {', '.join(names)}" if otherwise is None else otherwise


def without_password(text: str) -> str:
    """``redis://user:secret@host`` and ``?password=secret`` without it, for logs and errors."""
    text = re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&]\w*password=)[^&#\s'\"]*", r"\1***", text)


def _short(value: object, limit: int = 120) -> str:
    text = without_password(repr(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"

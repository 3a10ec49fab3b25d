"""The tree of exceptions, and what a chain of engines does when an engine raises one.

::

    OpenManagerError
    ├── ConfigError (ValueError)         a setting is not valid: key, value, what is allowed
    │   └── MissingExtra                 an optional package is not installed
    ├── PluginError                      a plugin could not be loaded or failed
    ├── HubError                         the shared store cannot be reached
    ├── CacheError                       a value cannot be cached
    ├── CallerDeadline (TimeoutError)    the total deadline of the caller passed
    ├── Cancelled                        the caller cancelled the call
    ├── EngineError                      an engine did not answer
    │   ├── Transient                    the next attempt may succeed
    │   ├── RateLimited                  the engine gets too many requests
    │   ├── AttemptTimeout               one attempt took too long
    │   ├── NoAnswer                     the engine returned nothing, or its probe False
    │   ├── InvalidRequest               the call is not valid: no engine can answer it
    │   ├── Unsupported                  this engine cannot answer the call, another one may
    │   ├── TooLong                      the call is too long for this engine, but not for others
    │   ├── Misconfigured                refused: wrong key, wrong address, or not for this caller
    │   └── EngineUnavailable            skipped without a call: offline, open breaker, full
    └── ChainExhausted (ExceptionGroup)  every engine of a chain failed or was skipped

The attributes of each class define what a chain does when an engine raises it. They are one row of
the error table. A subclass inherits the row and may change single attributes. Any other exception
has the row of :class:`OpenManagerError`.
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
    """When a call may try the same engine again."""

    NEVER = "never"
    IF_SAFE = "if it was not sent, or the call is idempotent"
    IF_IDEMPOTENT = "if the call is idempotent"
    AFTER_WAIT = "if the engine's Retry-After fits the deadline"


class NextTier(Enum):
    """When a call may try the next engine."""

    NEVER = "never"
    ALWAYS = "always: the engine refused, so nothing was done"
    UNLESS_SPENT = "unless the chain is at_most_once and the call may have been sent"


class OpenManagerError(Exception):
    """Base of every error that this package raises.

    Attributes:
        retry: when a call may try the engine that raised the error again.
        next_tier: when a call may try the next engine.
        trips: the breaker counts the error as a failure.
        cooldown: how long the engine then gets no calls: ``"cooling down"`` for its Retry-After,
            ``"offline"`` until a probe succeeds, because an operator must act, "" for not at all.
            A call alone takes no engine offline: the chain asks the engine's own ``probe``, and
            only when that is refused as well, the engine is offline.
        callers_fault: the error says nothing about the engine, so recovery does not count it.
        http_status: the status that an HTTP client gets when the error ends its request.
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
    """A setting is not valid.

    Args:
        key: the name as the operator wrote it, for example ``OM_CSP_MODE``.
        value: the value. The message does not show a password in a URL.
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
        reason: what happened, and what to do about it.
    """

    def __init__(self, plugin: str, reason: str) -> None:
        super().__init__(f"plugin {plugin!r}: {reason}")
        self.plugin = plugin
        self.reason = reason


class HubError(OpenManagerError):
    """The shared store cannot be reached. No request of a user fails with this error."""


class CacheError(OpenManagerError):
    """A value cannot be cached: its type has no encoding, or it exceeds the size limit."""


class CallerDeadline(OpenManagerError, TimeoutError):
    """The total deadline of the caller passed. The chain retries nothing, and no breaker counts it.

    Attributes:
        attempts: the attempts of the chain until then, as in :class:`ChainExhausted`.
    """

    retry = Retry.NEVER
    next_tier = NextTier.NEVER
    trips = False
    callers_fault = True
    http_status = 504

    attempts: Sequence[Attempt] = ()


class Cancelled(OpenManagerError):
    """The call was cancelled: the client disconnected, or the server stops. Nothing is retried."""

    retry = Retry.NEVER
    next_tier = NextTier.NEVER
    trips = False
    callers_fault = True
    http_status = 503


class EngineError(OpenManagerError):
    """An engine did not answer.

    Args:
        message: what happened, for logs. End users never see it.
        sent: whether the engine may have received the request. After ``"no"`` a retry is safe even
            for a call that is not idempotent.
        retry_after: how many seconds the engine asks to wait; ``None`` when it did not ask.
        status: the HTTP status of the upstream, when there was one.
        concerns_caller: the engine refused this caller: the request carried credentials or an
            address of the caller's own. The error then says nothing about the engine: it does not
            cool down, no breaker counts the error, and recovery does not count it.

    Attributes:
        response: the response of the upstream (:class:`~om_plugins.types.HttpResponse`), where a
            raw HTTP engine stored it. A gateway may send it when no engine answers.
        parameter: the parameter of the call that this engine does not know, where it named one; ""
            otherwise.
    """

    http_status = 502

    response: HttpResponse | None = None
    parameter: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        sent: Sent = "maybe",
        retry_after: float | None = None,
        status: int | None = None,
        concerns_caller: bool = False,
    ) -> None:
        super().__init__(message or type(self).__name__)
        self.sent: Sent = sent
        self.retry_after = retry_after
        self.status = status
        self.concerns_caller = concerns_caller


class Transient(EngineError):
    """A failure that may be temporary: a refused connection, a 502, a body that ended early."""

    retry = Retry.IF_SAFE


class RateLimited(EngineError):
    """The engine gets too many requests (HTTP 429, or 503 with Retry-After)."""

    retry = Retry.AFTER_WAIT
    next_tier = NextTier.ALWAYS
    trips = False
    cooldown = "cooling down"


class AttemptTimeout(EngineError):
    """One attempt took longer than its share of the deadline."""

    http_status = 504


class NoAnswer(EngineError):
    """The engine returned no answer: ``None``, as a function without ``return`` does, a coroutine,
    a generator that nobody asked for, a model's answer without a word; or its probe returned
    anything but ``None`` or ``True``.

    An engine whose answer is ``None`` returns ``Answer(None)``.
    """

    retry = Retry.NEVER


class InvalidRequest(EngineError):
    """The call is not valid (HTTP 400, 422): no other engine can answer it either."""

    retry = Retry.NEVER
    next_tier = NextTier.NEVER
    trips = False
    callers_fault = True
    http_status = 400


class Unsupported(EngineError):
    """This engine cannot answer this call; another engine may."""

    retry = Retry.NEVER
    next_tier = NextTier.ALWAYS
    trips = False
    callers_fault = True


class TooLong(EngineError):
    """The call is too long for this engine (context length); another engine may accept it."""

    retry = Retry.NEVER
    next_tier = NextTier.ALWAYS
    trips = False
    callers_fault = True
    http_status = 413


class Misconfigured(EngineError):
    """The engine refused the call: wrong credentials or address (HTTP 401, 403, 404).

    Either an operator must act, or the caller asked for what is not there or not theirs. A call
    cannot tell which, so this error never takes an engine from other callers: the chain asks the
    next engine, and soon the ``probe`` of this one. When the probe is refused as well, the engine
    is offline until a probe or a call succeeds. An engine without a probe stays.
    """

    retry = Retry.NEVER
    next_tier = NextTier.ALWAYS
    trips = False
    cooldown = "offline"


class EngineUnavailable(EngineError):
    """The chain skipped the engine without calling it.

    Args:
        engine: the name of the engine.
        reason: ``"offline"``, ``"breaker open"``, ``"forced open"``, ``"bulkhead full"``,
            ``"cooling down"``, ``"switched off"``.
        retry_after: the seconds until the engine may be called again, when known.
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

    The exceptions of the group are the errors of the attempts in order. A skipped engine has an
    :class:`EngineUnavailable`, so the group is never empty.

    Attributes:
        chain: the name of the chain.
        attempts: one :class:`~om_plugins.types.Attempt` for each attempt or skipped engine.
        retry_after: the smallest number of seconds after which an engine may answer again;
            ``None`` when no engine gave one.
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
    """Return the known name that is most similar, as ``did you mean 'redis'?``, in any case.

    Args:
        name: the unknown name.
        known: the names that are allowed.
        otherwise: what to return when no name is similar; the list of all names when not given.
        cutoff: how similar a name must be, 0 to 1 (see :func:`difflib.get_close_matches`).
    """
    names = list(known)
    folded = {one.lower(): one for one in names}
    near = difflib.get_close_matches(str(name).lower(), folded, n=1, cutoff=cutoff)
    if near:
        return f"did you mean {folded[near[0]]!r}?"
    return f"known are {', '.join(names)}" if otherwise is None else otherwise


def without_password(text: str) -> str:
    """Return ``text`` with the passwords of URLs replaced by ``***``, for logs and errors.

    It finds those of ``redis://user:secret@host`` and of ``?password=secret``.
    """
    text = re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&]\w*password=)[^&#\s'\"]*", r"\1***", text)


_SECRETS = (
    # a name that says so, in a query, a header, JSON or a keyword argument
    (
        re.compile(
            r"(?i)((?:api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?key|password|passwd|pwd|"
            r"secret|token|signature|\bsig|credentials?|authorization|cookie|\bkey)[\w-]*"
            r"['\"]?\s*[=:]\s*)"
            r"(['\"]?)((?:Bearer|Basic|Digest|Token|Bot)\s+)?[^\s'\"&,;<>)}\]]+"
        ),
        r"\1\2\3***",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 ***"),
    # keys of well-known services, and JSON Web Tokens
    (
        re.compile(
            r"\b(?:sk|pk|rk)[-_][\w-]{8,}|\bgh[pousr]_\w{8,}|\bAKIA\w{12,}|"
            r"\bey[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
        ),
        "***",
    ),
    # the paths of webhooks of Slack, Telegram, and Discord and Microsoft Teams
    (re.compile(r"(/services/\w+/\w+/|/bot\d+:|/webhooks?/\w+/)[^\s'\"?,;<>)]+"), r"\1***"),
)


def without_secrets(text: str) -> str:
    """Return ``text`` with what looks like a password, key or token replaced by ``***``.

    For texts of foreign errors, which may repeat a URL or a header that was sent.
    """
    text = without_password(text)
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _short(value: object, limit: int = 120) -> str:
    text = without_password(repr(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"

"""Whose failure an exception of a plugin is: its own code's, the network's, or the other side's.

A plugin is in quarantine when its code is broken. A network that is away, and a service that is
down, limits its callers or refuses one message, say nothing about the code, whatever library the
plugin uses: none of them is imported here, so their classes are recognized by name.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from enum import Enum

from ...errors import (
    CallerDeadline,
    ChainExhausted,
    EngineError,
    HubError,
    InvalidRequest,
    NoAnswer,
    TooLong,
    Unsupported,
)
from ...policies.error_table import find_http_status


class Fault(Enum):
    """What an exception says.

    Attributes:
        OWN: the plugin's code is broken, or its settings are.
        AWAY: what the plugin needs is out of reach for now, or an operator must act there. The
            same may work later.
        REFUSED: the other side answered that it does not take this one message.
    """

    OWN = "its own code"
    AWAY = "out of reach"
    REFUSED = "refused"


_BUGS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError,
    NotImplementedError, RecursionError, SyntaxError, TypeError, UnicodeError,
)  # fmt: skip
"""What only code raises, also while it handles another exception."""

_REFUSING = frozenset((400, 405, 406, 409, 411, 413, 414, 415, 422, 431))
"""The statuses (RFC 9110 section 15.5) that are about the one request and not about who sends."""

_OF_CODE = frozenset(
    (
        errno.EBADF, errno.EDOM, errno.EFAULT, errno.EINVAL, errno.EISCONN, errno.ENOPROTOOPT,
        errno.ENOTSOCK, errno.ENOTTY, errno.ERANGE, errno.ESPIPE, errno.EDESTADDRREQ,
    )
)  # fmt: skip
"""The errors of a system call that was made in a wrong way."""

_OF_DEVICES = frozenset(
    (errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ESTALE)
)
"""The errors of files that come and go without a change of the code."""

_OF_FILES = (
    ChildProcessError, FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError,
    PermissionError, ProcessLookupError,
)  # fmt: skip

_SAYS_AWAY = re.compile(
    r"Connect(?!or)|Disconnect|Time(d)?_?out|Deadline|Network|Unreachable|Unavailable|Gateway"
    r"|NoBrokersAvailable|RateLimit|TooManyRequests|Throttl|LimitExceeded|SlowDown|RetryAfter"
    r"|Overloaded|(?-i:DNS)|(Server|Cluster|Master)_?Down",
    re.IGNORECASE,
)
"""What a class is called that means a network or a service, in most libraries."""

_AWAY: Mapping[str, frozenset[str]] = {
    "aiohttp": frozenset({"ClientError"}),
    "amqp": frozenset({"RecoverableConnectionError", "ConnectionError"}),
    "anyio": frozenset({"BrokenResourceError", "EndOfStream"}),
    "asyncio": frozenset({"IncompleteReadError"}),
    "azure": frozenset({"IncompleteReadError", "ServiceRequestError", "ServiceResponseError"}),
    "botocore": frozenset({"HTTPClientError"}),
    "dns": frozenset({"DNSException"}),
    "ftplib": frozenset({"Error"}),
    "google": frozenset({"TransportError"}),
    "grpc": frozenset({"RpcError"}),
    "http": frozenset({"IncompleteRead", "BadStatusLine", "LineTooLong"}),
    "httpcore": frozenset({"RemoteProtocolError", "ProxyError"}),
    "httpx": frozenset({"TransportError"}),
    "imaplib": frozenset({"IMAP4.abort"}),
    "ldap": frozenset({"BUSY"}),
    "ldap3": frozenset({"LDAPCommunicationError"}),
    "mysql": frozenset({"InterfaceError"}),
    "nats": frozenset({"NoRespondersError", "NoServersError"}),
    "paramiko": frozenset({"SSHException"}),
    "pika": frozenset({"AMQPChannelError"}),
    "poplib": frozenset({"error_proto"}),
    "pycurl": frozenset({"error"}),
    "redis": frozenset({"ReadOnlyError", "TryAgainError"}),
    "telegram": frozenset({"TelegramError"}),
    "thrift": frozenset({"TTransportException"}),
    "urllib3": frozenset({"HTTPError"}),
    "websocket": frozenset({"WebSocketException"}),
    "websockets": frozenset({"InvalidHandshake"}),
    "zmq": frozenset({"Again"}),
}
"""By package, the classes of libraries whose names do not say it."""

_NOT_AWAY: Mapping[str, frozenset[str]] = {
    "httpx": frozenset({"UnsupportedProtocol", "LocalProtocolError"}),
}
"""Subclasses of those above that only wrong code or a wrong address raises."""

_REFUSED: Mapping[str, frozenset[str]] = {
    "slack_sdk": frozenset({"SlackApiError"}),
    "telegram": frozenset({"BadRequest"}),
}
"""Answers that refuse a message with a status of their own."""

_DATABASE = "OperationalError"
"""What databases raise when they are away (PEP 249), and libraries built on them."""

_SQLITE_AWAY = frozenset((5, 6, 7, 10, 13, 14))
"""BUSY, LOCKED, NOMEM, IOERR, FULL and CANTOPEN: SQLite calls errors of the statement so, too."""

_DEEPEST = 10
_LONGEST_WAIT_S = 7 * 86_400.0


def judge(error: BaseException) -> Fault:
    """Return whose failure an exception is.

    An exception of a plugin's own class is judged by what it was raised from, or while what was
    handled. Of a group, one exception of broken code makes it the plugin's own.

    Args:
        error: what a call into a plugin raised.
    """
    return _judge(error, _DEEPEST)


def find_wait_s(error: BaseException) -> float | None:
    """Return how many seconds the other side asks to wait, as an exception carries them.

    That is its attribute ``retry_after``, as that of :class:`~om_plugins.errors.RateLimited`, or
    what the headers of its ``response`` say (:mod:`om_plugins.builtin.http.waits`); else those of
    the exception that it was raised from. ``None`` when none says so.
    """
    for one in _list_causes(error):
        asked = _read(one, "retry_after")
        if isinstance(asked, timedelta):
            asked = asked.total_seconds()
        if _is_number(asked):
            return max(0.0, float(asked))  # type: ignore[arg-type]
        wait_s = _read_headers(one)
        if wait_s is not None:
            return wait_s
    return None


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    for _ in range(_DEEPEST):
        if one is None:
            return
        yield one
        one = _find_cause(one)


def _find_cause(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


def _judge(error: BaseException, depth: int) -> Fault:
    if depth <= 0 or isinstance(error, _BUGS) or not isinstance(error, Exception):
        return Fault.OWN
    if isinstance(error, ExceptionGroup) and not isinstance(error, ChainExhausted):
        found = {_judge(one, depth - 1) for one in error.exceptions}
        return next(one for one in (Fault.OWN, Fault.AWAY, Fault.REFUSED) if one in found)
    if isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):
        # a wrong address or a body that is no JSON, also in libraries whose errors are OSErrors
        cause = error.__cause__
        return Fault.OWN if cause is None else _judge(cause, depth - 1)
    for ask in _WHAT_IT_SAYS:
        fault = ask(error)
        if fault is not None:
            return fault
    cause = _find_cause(error)
    return Fault.OWN if cause is None else _judge(cause, depth - 1)


def _judge_ours(error: Exception) -> Fault | None:
    if isinstance(error, NoAnswer):
        return Fault.OWN
    if isinstance(error, InvalidRequest | TooLong | Unsupported):
        return Fault.REFUSED
    if isinstance(error, EngineError | CallerDeadline | ChainExhausted | HubError):
        return Fault.AWAY
    return None


def _judge_status(error: Exception) -> Fault | None:
    status = find_http_status(error)
    if status is None:
        return None
    return Fault.REFUSED if status in _REFUSING and not _is_throttled(error) else Fault.AWAY


def _is_throttled(error: Exception) -> bool:
    """Whether it is an answer of AWS that asks for fewer requests, which has the status 400."""
    response = _read(error, "response")
    about = response.get("Error") if isinstance(response, Mapping) else None
    code = about.get("Code") if isinstance(about, Mapping) else None
    return isinstance(code, str) and _SAYS_AWAY.search(code) is not None


def _judge_mail(error: Exception) -> Fault | None:
    """A reply of a mail server: 4yz is temporary, 5yz is not (RFC 5321 section 4.2.1)."""
    names = _list_names(error)
    if not {("smtplib", "SMTPException"), ("aiosmtplib", "SMTPException")} & set(names):
        return None
    recipients = _read(error, "recipients")
    if isinstance(recipients, Mapping):
        codes = [reply[0] for reply in recipients.values() if isinstance(reply, tuple) and reply]
    else:
        codes = [_read(error, name) for name in ("smtp_code", "code") if _read(error, name)]
    login = {"SMTPAuthenticationError", "SMTPConnectError", "SMTPHeloError"}
    if login & {name for _, name in names}:
        return Fault.AWAY
    final = [isinstance(code, int) and code >= 500 for code in codes]
    return Fault.REFUSED if final and all(final) else Fault.AWAY


def _judge_database(error: Exception) -> Fault | None:
    names = _list_names(error)
    if _DATABASE not in {name for _, name in names}:
        return None
    if "sqlite3" not in {package for package, _ in names}:
        return Fault.AWAY
    code = _read(error, "sqlite_errorcode")
    away = isinstance(code, int) and code & 0xFF in _SQLITE_AWAY  # the rest of it tells more
    return Fault.AWAY if away else Fault.OWN


def _judge_system(error: Exception) -> Fault | None:
    """An error of the operating system: of a socket, or of a file."""
    if not isinstance(error, OSError):
        return None
    if isinstance(error, socket.gaierror | socket.herror | ssl.SSLError):
        return Fault.AWAY  # their numbers are others than those of the system
    if error.filename is not None:
        return Fault.AWAY if error.errno in _OF_DEVICES else Fault.OWN
    if error.errno is None and isinstance(error, _OF_FILES):
        return Fault.OWN
    return Fault.OWN if error.errno in _OF_CODE else Fault.AWAY


def _judge_name(error: Exception) -> Fault | None:
    if _read(error, "retriable") is True:  # of Kafka
        return Fault.AWAY
    names = _list_names(error)
    for package, name in names:
        if name in _NOT_AWAY.get(package, ()):
            return Fault.OWN
        if name in _REFUSED.get(package, ()):
            return Fault.REFUSED
    for package, name in names:
        if name in _AWAY.get(package, ()) or _SAYS_AWAY.search(name):
            return Fault.AWAY
    return None


_WHAT_IT_SAYS: tuple[Callable[[Exception], Fault | None], ...] = (
    _judge_ours,
    _judge_mail,
    _judge_status,
    _judge_system,
    _judge_database,
    _judge_name,
)


def _list_names(error: Exception) -> list[tuple[str, str]]:
    """The package and the name of an exception's class and of those that it is derived from."""
    return [
        (cls.__module__.partition(".")[0], cls.__qualname__)
        for cls in type(error).__mro__
        if cls.__module__ != "builtins"
    ]


def _read(one: object, name: str) -> object:
    try:
        return getattr(one, name, None)
    except Exception:  # noqa: BLE001 - a property of a library's exception may raise
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _read_headers(error: BaseException) -> float | None:
    headers = _read(_read(error, "response"), "headers")
    if headers is None:
        headers = _read(error, "headers")  # urllib.error.HTTPError
    items = _read(headers, "items")
    if not callable(items):
        return None
    from ...builtin.http.waits import read_asked_wait, read_wait

    read = read_wait if find_http_status(error) in (429, 503) else read_asked_wait
    return read(
        {str(name).lower(): str(value) for name, value in items()}, longest_s=_LONGEST_WAIT_S
    )

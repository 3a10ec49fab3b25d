"""A network that is away is not broken code, whatever library the plugin uses."""

from __future__ import annotations

import errno
import http.client
import imaplib
import io
import json
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import urllib.error
import xmlrpc.client
from datetime import timedelta
from email.message import Message
from types import SimpleNamespace

import pytest

from om_plugins.errors import (
    ChainExhausted,
    ConfigError,
    HubError,
    InvalidRequest,
    Misconfigured,
    NoAnswer,
    RateLimited,
    TooLong,
    Transient,
)
from om_plugins.plugins.guard.faults import Fault, find_wait_s, judge


def of_library(module, *names, base=Exception, **attributes):
    """An exception whose classes are called so; the last name is that of its class."""
    cls = base
    for name in names:
        cls = type(name, (cls,), {"__module__": module})
    error = cls("away")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def answered(status, **headers):
    return SimpleNamespace(status_code=status, headers=headers)


def raised_from(error, cause):
    error.__cause__ = cause
    return error


def raised_while(error, context):
    error.__context__ = context
    return error


def http_error(status, **headers):
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return urllib.error.HTTPError("http://x", status, "no", message, io.BytesIO())


def failing_at(code):
    error = sqlite3.OperationalError("no")
    error.sqlite_errorcode = code
    return error


AWAY = [
    ConnectionError("nobody there"),
    ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    BrokenPipeError(errno.EPIPE, "pipe"),
    TimeoutError("timed out"),
    OSError(errno.EHOSTUNREACH, "no route to host"),
    OSError(errno.ENETUNREACH, "network is unreachable"),
    OSError(errno.ENETDOWN, "network is down"),
    OSError(errno.EADDRNOTAVAIL, "no address"),
    PermissionError(errno.EPERM, "a firewall"),
    FileNotFoundError(errno.ENOENT, "no such socket"),
    OSError("the message was not delivered"),
    OSError(errno.ENOSPC, "no space left", "/var/log/x"),
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    socket.herror(1, "unknown host"),
    ssl.SSLError("handshake"),
    ssl.SSLCertVerificationError("certificate has expired"),
    urllib.error.URLError(ConnectionRefusedError()),
    http.client.IncompleteRead(b""),
    http.client.BadStatusLine("x"),
    http.client.RemoteDisconnected("gone"),
    smtplib.SMTPServerDisconnected("gone"),
    smtplib.SMTPConnectError(554, b"no"),
    smtplib.SMTPAuthenticationError(535, b"no"),
    smtplib.SMTPDataError(451, b"greylisted"),
    smtplib.SMTPRecipientsRefused({"a@x": (450, b"busy"), "b@x": (550, b"no")}),
    imaplib.IMAP4.abort("gone"),
    subprocess.TimeoutExpired("sendmail", 5),
    http_error(503),
    http_error(401),
    HubError("gone"),
    Transient("gone"),
    Misconfigured("wrong key"),
    RateLimited("too fast"),
    ChainExhausted("all", [Transient()]),
    of_library("requests.exceptions", "RequestException", "ConnectTimeout", base=OSError),
    of_library("requests.exceptions", "RequestException", "HTTPError", response=answered(502)),
    of_library("httpx", "HTTPError", "TransportError", "ReadError"),
    of_library("httpx", "TransportError", "NetworkError", "ConnectError"),
    of_library("httpx", "HTTPError", "HTTPStatusError", response=answered(429)),
    of_library("urllib3.exceptions", "HTTPError", "MaxRetryError"),
    of_library("aiohttp.client_exceptions", "ClientError", "ServerDisconnectedError"),
    of_library("aiohttp.client_exceptions", "ClientError", "ClientResponseError", status=500),
    of_library("redis.exceptions", "RedisError", "ConnectionError"),
    of_library("botocore.exceptions", "BotoCoreError", "EndpointConnectionError"),
    of_library(
        "botocore.exceptions", "ClientError",
        response={"ResponseMetadata": {"HTTPStatusCode": 503}},
    ),
    of_library(
        "botocore.exceptions", "ClientError",
        response={
            "Error": {"Code": "ThrottlingException"},
            "ResponseMetadata": {"HTTPStatusCode": 400},
        },
    ),
    of_library("grpc", "RpcError"),
    of_library("pymongo.errors", "PyMongoError", "ServerSelectionTimeoutError"),
    of_library("sqlalchemy.exc", "DBAPIError", "OperationalError"),
    of_library("websocket._exceptions", "WebSocketException"),
    of_library("dns.resolver", "NXDOMAIN", base=type("DNSException", (Exception,), {
        "__module__": "dns.exception"})),
    of_library("telegram.error", "TelegramError", "RetryAfter"),
    of_library("telegram.error", "TelegramError", "Forbidden"),
    of_library("mysql.connector.errors", "DatabaseError", "OperationalError"),
    of_library("mysql.connector.errors", "Error", "InterfaceError"),
    of_library("pyodbc", "Error", "OperationalError"),
    of_library("cx_Oracle", "DatabaseError", "OperationalError"),
    of_library("django.db.utils", "DatabaseError", "OperationalError"),
    failing_at(sqlite3.SQLITE_BUSY),
    failing_at(sqlite3.SQLITE_LOCKED),
    failing_at(266),  # SQLITE_IOERR_READ
    of_library("azure.core.exceptions", "AzureError", "ServiceRequestError"),
    of_library("azure.core.exceptions", "AzureError", "ServiceResponseError"),
    of_library("google.auth.exceptions", "GoogleAuthError", "TransportError"),
    of_library("nats.errors", "Error", "NoServersError"),
    of_library("zmq.error", "ZMQError", "Again", errno=errno.EAGAIN),
    of_library("ldap", "LDAPError", "SERVER_DOWN"),
    of_library("ldap", "LDAPError", "TIMEOUT"),
    of_library("ldap", "LDAPError", "BUSY"),
    of_library("thrift.transport.TTransport", "TException", "TTransportException"),
    of_library("redis.exceptions", "ResponseError", "ClusterDownError"),
    of_library("redis.exceptions", "ResponseError", "MasterDownError"),
    of_library("redis.exceptions", "ResponseError", "TryAgainError"),
    of_library("redis.exceptions", "ResponseError", "ReadOnlyError"),
    of_library("kafka.errors", "KafkaError", "NodeNotReadyError", retriable=True),
    of_library("pika.exceptions", "AMQPChannelError", "ChannelClosedByBroker"),
    of_library("aiosmtplib.errors", "SMTPException", "SMTPResponseException", code=421),
    xmlrpc.client.ProtocolError("x/rpc", 503, "no", {}),
    of_library("acme_sms", "GatewayUnavailable"),
    raised_from(RuntimeError("not sent"), ConnectionError()),
    raised_while(RuntimeError("not sent"), TimeoutError()),
    raised_from(ValueError("no answer"), socket.gaierror(-2, "?")),
    raised_from(of_library("mine", "NotSent"), raised_from(RuntimeError(), OSError(111, "no"))),
    ExceptionGroup("two", [ConnectionError(), TimeoutError()]),
    ExceptionGroup("two", [ConnectionError(), InvalidRequest("x")]),
]  # fmt: skip

OWN = [
    TypeError("send() takes 2 arguments"),
    AttributeError("'NoneType' object has no attribute 'text'"),
    KeyError("token"),
    NameError("requets"),
    ZeroDivisionError(),
    ImportError("no module"),
    AssertionError(),
    RuntimeError("oops"),
    ValueError("bad"),
    json.JSONDecodeError("Expecting value", "<html>", 0),
    UnicodeEncodeError("ascii", "é", 0, 1, "no"),
    FileNotFoundError(errno.ENOENT, "no such file", "template.txt"),
    FileNotFoundError("no template"),
    PermissionError(errno.EACCES, "denied", "/root/x"),
    IsADirectoryError(errno.EISDIR, "is a directory", "/tmp"),
    OSError(errno.EBADF, "bad file descriptor"),
    io.UnsupportedOperation("not writable"),
    ConfigError("url", "x", "is wrong"),
    NoAnswer("None"),
    failing_at(sqlite3.SQLITE_ERROR),
    sqlite3.OperationalError("no such table: notes"),
    sqlite3.IntegrityError("not unique"),
    of_library("django.db.utils", "DatabaseError", "ProgrammingError"),
    of_library("kafka.errors", "KafkaError", "MessageSizeTooLargeError", retriable=False),
    of_library("ldap", "LDAPError", "FILTER_ERROR"),
    of_library("azure.core.exceptions", "AzureError", "SerializationError"),
    SystemExit(1),
    of_library("requests.exceptions", "InvalidURL", base=type("E", (OSError, ValueError), {})),
    of_library("httpx", "TransportError", "UnsupportedProtocol"),
    raised_while(AttributeError("in the handler"), ConnectionError()),
    raised_while(ValueError("in the handler"), ConnectionError()),
    raised_from(KeyError("text"), TimeoutError()),
    ExceptionGroup("two", [ConnectionError(), TypeError()]),
]

REFUSED = [
    http_error(400),
    http_error(413),
    smtplib.SMTPDataError(554, b"spam"),
    of_library("aiosmtplib.errors", "SMTPException", "SMTPResponseException", code=550),
    smtplib.SMTPRecipientsRefused({"a@x": (550, b"no such user")}),
    InvalidRequest("wrong"),
    TooLong("long"),
    of_library("requests.exceptions", "HTTPError", base=OSError, response=answered(422)),
    of_library("httpx", "HTTPError", "HTTPStatusError", response=answered(400)),
    of_library(
        "botocore.exceptions",
        "ClientError",
        response={
            "Error": {"Code": "InvalidParameter"},
            "ResponseMetadata": {"HTTPStatusCode": 400},
        },
    ),
    of_library("slack_sdk.errors", "SlackApiError", response=answered(200)),
    of_library("telegram.error", "NetworkError", "BadRequest"),
    raised_from(RuntimeError("not sent"), http_error(415)),
]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((one, Fault.AWAY) for one in AWAY),
        *((one, Fault.OWN) for one in OWN),
        *((one, Fault.REFUSED) for one in REFUSED),
    ],
    ids=lambda one: repr(one)[:60],
)
def test_an_exception_says_whose_failure_it_is(error, expected):
    assert judge(error) is expected


def test_a_cause_that_leads_to_itself_ends():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert judge(first) is Fault.OWN
    assert find_wait_s(first) is None


def test_an_exception_whose_attributes_raise_is_judged_as_well():
    class Odd(Exception):
        @property
        def response(self):
            raise RuntimeError("not sent yet")

    assert judge(Odd()) is Fault.OWN
    assert find_wait_s(Odd()) is None


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (RateLimited("x", retry_after=7), 7),
        (of_library("telegram.error", "RetryAfter", retry_after=timedelta(minutes=2)), 120),
        (of_library("discord.errors", "RateLimited", retry_after=1.5), 1.5),
        (of_library("requests", "HTTPError", response=answered(429, **{"Retry-After": "30"})), 30),
        (http_error(503, Retry_After="20"), 20),
        (http_error(503, Retry_After="10800"), 10_800),
        (of_library("httpx", "E", response=answered(429, **{"x-ratelimit-reset-after": "4"})), 4),
        (
            of_library("httpx", "E", response=answered(404, **{"x-ratelimit-reset-after": "4"})),
            None,
        ),
        (raised_from(RuntimeError("not sent"), http_error(429, Retry_After="9")), 9),
        (RateLimited("x"), None),
        (of_library("mine", "E", retry_after="soon"), None),
        (of_library("mine", "E", retry_after=True), None),
        (of_library("mine", "E", retry_after=float("nan")), None),
        (of_library("mine", "E", response=answered(503)), None),
        (ConnectionError(), None),
    ],
)
def test_an_exception_may_say_how_long_to_wait(error, wait_s):
    assert find_wait_s(error) == wait_s

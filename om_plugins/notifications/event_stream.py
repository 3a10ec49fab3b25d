"""The events endpoint: notifications as server-sent events, or as JSON for browsers that poll.

Each browser gets what is addressed to it, to its user, to its roles and to everyone, and nothing
else. Source: HTML Living Standard, section 9.2 "Server-sent events".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

import msgspec

from ..builtin.http import sse
from ..core.problem import Refusal
from ..protocols import Clock, HostContext, Hub
from ..types import HubMessage
from ..workers.servers import stopping, stream_limit
from .audience import EVERYONE, Audience, Browsers, find_audience
from .feed import Feed, FeedReader
from .notifications import TOPIC

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

RETRY_MS = 2000
HEARTBEAT_S = 10.0
ROTATE_S = 25.0
"""How long a stream lasts; then the browser connects again."""
REPLAY_S = 300.0
"""A browser that connects again does not get older notifications."""

_BATCH = 200
_MAX_REPLAY = 2_000
_BEGINNING = "0"
"""An id before all others, for a topic without messages."""

_ID = re.compile(r"[A-Za-z0-9_.:~-]{1,64}")
FIELDS = (
    "kind", "message", "title", "actions", "progress", "duration_s", "key", "at", "data",
)  # fmt: skip
"""The fields of a notification that browsers get."""

Headers = list[tuple[str, str]]
_COMMON = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


class ChangedKeySource(Protocol):
    """The keys of the cache whose changes browsers hear of.

    Attributes:
        topic: the hub's topic that changes are published to.
    """

    @property
    def topic(self) -> str: ...

    def read_recent(self, addresses: Collection[str]) -> list[object]:
        """Return the keys that changed lately, as far as these addresses may know of them."""

    def select(self, messages: Iterable[HubMessage], addresses: Collection[str]) -> list[object]:
        """Return the keys in messages of :attr:`topic` that these addresses may know of."""


@dataclass(kw_only=True, eq=False, repr=False)
class EventsEndpoint:
    """A WSGI application for GET: a stream of events, or JSON at once with ``?poll=1``.

    The data of an event, and an item of the JSON array, has the fields ``id, kind, message, title,
    actions, progress, duration_s, key, at, data`` of a notification. The event ``ready``, or an
    item of the kind ``cursor`` that has nothing but an ``id``, says from which id the browser
    continues. The browser sends this id as ``Last-Event-ID`` or ``?after=``.

    An event ``changed``, or an item of that kind, has ``keys``: the keys of the cache that
    changed. It comes at the beginning, for the changes of the last minute, and then with each
    change.

    A browser without an id gets one. Where no stream can be served the answer is 204: browsers
    then do not reconnect by themselves, and poll.

    Args:
        hub: where notifications are read.
        clock: time.
        browsers: recognizes browsers and gives them ids.
        updates: the changes of the cache.
        prefix: where this package is mounted in the application. The cookie is for the whole
            application.
        sse_max: ``OM_SSE_MAX``.
        audience: ``OM_NOTIFY_AUDIENCE``.
        host_context: opens the host framework's request context for ``audience``.
        closed: returns whether the application was closed, which ends streams.
    """

    hub: Hub
    clock: Clock
    browsers: Browsers
    updates: ChangedKeySource
    prefix: str
    sse_max: str | int = "auto"
    audience: Audience | None = None
    host_context: HostContext | None = None
    closed: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self.feed = Feed(self.hub, TOPIC, self.clock, self.updates.topic)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD") != "GET":
            refusal = Refusal(405, "Read notifications with GET.", [("Allow", "GET")])
            return refusal.send(environ, start_response)
        addresses, cookie = self._find_addresses(environ)
        query = parse_qs(environ.get("QUERY_STRING", "")[:1000])
        after = _check_id(environ.get("HTTP_LAST_EVENT_ID")) or _check_id(
            query.get("after", [""])[0]
        )
        if query.get("poll") == ["1"]:
            body = self._poll(after, addresses)
            start_response(
                "200 OK",
                [
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(body))),
                    *_COMMON,
                    *cookie,
                ],
            )
            return [body]
        reader = None
        if not self.is_ending():
            reader = self.feed.join(stream_limit(environ, self.sse_max))
        if reader is None:
            start_response("204 No Content", [*_COMMON, *cookie])
            return []
        try:
            stream = _NotificationStream(self, reader, addresses, after)
            start_response("200 OK", [*sse.HEADERS, *cookie])
        except BaseException:
            self.feed.leave(reader)
            raise
        return stream

    def is_ending(self) -> bool:
        """Return whether streams must end, because the application or the server does."""
        return self.closed() or stopping()

    def read_since(self, after: str, addresses: Collection[str]) -> tuple[list[HubMessage], str]:
        """Read the notifications for some addresses that came after an id.

        Returns:
            The messages, and the id up to which all messages were looked at.
        """
        oldest = self.clock.time() - REPLAY_S
        found: list[HubMessage] = []
        for _ in range(_MAX_REPLAY // _BATCH):
            batch = self.hub.read(TOPIC, after, 0.0, _BATCH)
            found += [m for m in batch if m.at >= oldest and _is_for(m, addresses)]
            if batch:
                after = batch[-1].id
            if len(batch) < _BATCH:
                return found, after
        return found, self.hub.last_id(TOPIC) or after

    def _find_addresses(self, environ: WSGIEnvironment) -> tuple[set[str], Headers]:
        """Return the addresses of a request, and the header that gives a new browser its id."""
        headers: Headers = []
        browser = self.browsers.find_address(environ.get("HTTP_COOKIE", ""))
        if not browser:
            root = environ.get("SCRIPT_NAME", "").removesuffix(self.prefix)
            browser, cookie = self.browsers.assign_address(environ, root)
            headers.append(("Set-Cookie", cookie))
        audience = find_audience(environ, self.audience, self.host_context)
        return {EVERYONE, browser, *audience}, headers

    def _poll(self, after: str, addresses: Collection[str]) -> bytes:
        keys = self.updates.read_recent(addresses)
        items: list[dict[str, object]] = [{"kind": "changed", "keys": keys}] if keys else []
        if not after:
            return msgspec.json.encode([*items, _make_cursor(self.hub.last_id(TOPIC))])
        messages, last = self.read_since(after, addresses)
        items += [_make_item(message) for message in messages]
        if last != (messages[-1].id if messages else after):
            items.append(_make_cursor(last))
        return msgspec.json.encode(items)


class _NotificationStream:
    """The stream of one browser: an iterable that the server closes when the browser leaves."""

    def __init__(
        self, endpoint: EventsEndpoint, reader: FeedReader, addresses: Collection[str], after: str
    ) -> None:
        self._endpoint = endpoint
        self._reader = reader
        self._addresses = addresses
        now = endpoint.clock.monotonic()
        self._ends_at = now + ROTATE_S
        self._heartbeat_at = now + HEARTBEAT_S
        # The reader has joined already: a message that is published meanwhile comes twice, and is
        # never lost.
        replayed: list[HubMessage] = []
        if after:
            replayed, self._last = endpoint.read_since(after, addresses)
        else:
            self._last = endpoint.hub.last_id(TOPIC)
        self._replayed = {message.id for message in replayed}
        self._first: bytes | None = b"".join(
            [
                sse.encode_retry(RETRY_MS),
                *map(_encode_message, replayed),
                sse.encode_event({}, event="ready", id=self._last or _BEGINNING),
                _encode_changed(endpoint.updates.read_recent(addresses)),
            ]
        )

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        endpoint = self._endpoint
        updates = endpoint.updates
        while True:
            now = endpoint.clock.monotonic()
            if now >= self._ends_at or endpoint.is_ending():
                self.close()
                raise StopIteration
            if now >= self._heartbeat_at:
                self._heartbeat_at = now + HEARTBEAT_S
                return sse.encode_heartbeat(self._last or _BEGINNING)
            messages = endpoint.feed.wait(
                self._reader, min(self._ends_at, self._heartbeat_at) - now
            )
            if not messages:
                continue
            changed = _encode_changed(updates.select(messages, self._addresses))
            notes = [message for message in messages if message.topic != updates.topic]
            if notes:
                self._last = notes[-1].id
            new = [
                message
                for message in notes
                if message.id not in self._replayed and _is_for(message, self._addresses)
            ]
            if new or changed:
                self._heartbeat_at = endpoint.clock.monotonic() + HEARTBEAT_S
                return b"".join((*map(_encode_message, new), changed))

    def close(self) -> None:
        """Make room for another stream. It is safe to call this twice."""
        self._endpoint.feed.leave(self._reader)


def _is_for(message: HubMessage, addresses: Collection[str]) -> bool:
    to = message.data.get("to") if isinstance(message.data, dict) else None
    return isinstance(to, str) and to in addresses


def _make_item(message: HubMessage) -> dict[str, object]:
    data = message.data if isinstance(message.data, dict) else {}
    return {"id": message.id, **{name: data.get(name) for name in FIELDS}}


def _make_cursor(last: str) -> dict[str, object]:
    return {"id": last or _BEGINNING, "kind": "cursor"}


def _encode_message(message: HubMessage) -> bytes:
    return sse.encode_event(_make_item(message), id=message.id)


def _encode_changed(keys: list[object]) -> bytes:
    """Encode the event ``changed``. It has no id, because a browser cannot continue from it."""
    return sse.encode_event({"keys": keys}, event="changed") if keys else b""


def _check_id(value: str | None) -> str:
    """Return ``value`` if a hub may have made this id, else ""."""
    return value if value and _ID.fullmatch(value) else ""

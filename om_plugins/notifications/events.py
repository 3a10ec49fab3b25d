"""The events endpoint: notifications as server-sent events, or by polling.

Each browser gets what is addressed to it, to its user and roles, and to everyone, and nothing
else. Source: HTML Living Standard, section 9.2 "Server-sent events".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec

from ..cache.subscriptions__changed_keys import TOPIC as ANNOUNCED
from ..cache.subscriptions__changed_keys import Announcements, keys_of
from ..core.problem import CONTENT_TYPE, build_problem, encode_problem
from ..protocols import Clock, HostContext, Hub
from ..types import HubMessage
from ..workers.servers import stopping, stream_limit
from .audience import EVERYONE, Audience, Browsers, find_audience
from .feed import Feed, Reader
from .notifications import TOPIC

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

RETRY_MS = 2000
HEARTBEAT_S = 10.0
ROTATE_S = 25.0
REPLAY_S = 300.0
"""What is older is not shown to a browser that comes back."""

_BATCH = 200
_MAX_REPLAY = 2_000
_BEGINNING = "0"
"""An id before all others, where nothing was published yet."""

_ID = re.compile(r"[A-Za-z0-9_.:~-]{1,64}")
_FIELDS = (
    "kind", "message", "title", "actions", "progress", "duration_s", "key", "at", "data",
)  # fmt: skip

Headers = list[tuple[str, str]]


class EventStream:
    """A WSGI application for GET: a stream of events, ``?poll=1`` for JSON at once.

    The data of an event, and an item of the JSON array, is a notification's ``id, kind, message,
    title, actions, progress, duration_s, key, at, data``. Where to go on from, by
    ``Last-Event-ID`` or ``?after=``, is told by the event ``ready`` and by an item of the kind
    ``cursor``, which has nothing but an ``id``.

    An event ``changed``, or an item of that kind, has ``keys``: what the application announced of
    its cache (see :mod:`.announcements`). It comes at the beginning, for what changed in the last
    minute, and then as it happens.

    A browser that has no id yet gets one. Where no stream can be served the answer is 204, after
    which browsers do not reconnect by themselves: they poll.

    Args:
        hub: where notifications are read.
        clock: time; a stream ends after 25 s of it, and the browser connects again.
        browsers: knows browsers and gives them ids.
        prefix: where this package is mounted in the application; the cookie is for all of it.
        sse_max: ``OM_SSE_MAX``.
        audience: ``OM_NOTIFY_AUDIENCE``.
        host_context: opens the host framework's request context for ``audience``.
        closed: whether the application was closed, which ends streams.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        clock: Clock,
        browsers: Browsers,
        prefix: str,
        sse_max: str | int = "auto",
        audience: Audience | None = None,
        host_context: HostContext | None = None,
        closed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._browsers = browsers
        self._prefix = prefix
        self._sse_max = sse_max
        self._audience = audience
        self._host_context = host_context
        self._closed = closed
        self._announcements = Announcements(hub)
        self._feed = Feed(hub, TOPIC, clock, ANNOUNCED)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD") != "GET":
            body = encode_problem(build_problem(405, "", "Read notifications with GET."))
            start_response(
                "405 Method Not Allowed",
                [
                    ("Allow", "GET"),
                    ("Content-Type", CONTENT_TYPE),
                    ("Content-Length", str(len(body))),
                ],
            )
            return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]
        headers: Headers = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        mine = self._addresses(environ, headers)
        query = parse_qs(environ.get("QUERY_STRING", "")[:1000])
        after = _id(environ.get("HTTP_LAST_EVENT_ID")) or _id(query.get("after", [""])[0])
        if query.get("poll") == ["1"]:
            body = self._polled(after, mine)
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            start_response("200 OK", headers)
            return [body]
        reader = None
        if not self._ending():
            reader = self._feed.join(stream_limit(environ, self._sse_max))
        if reader is None:
            start_response("204 No Content", headers)
            return []
        try:
            stream = _Stream(self, self._feed, reader, mine, after)
            headers += [
                ("Content-Type", "text/event-stream; charset=utf-8"),
                ("X-Accel-Buffering", "no"),  # nginx passes events on as they come
            ]
            start_response("200 OK", headers)
        except BaseException:
            self._feed.leave(reader)
            raise
        return stream

    def _addresses(self, environ: WSGIEnvironment, headers: Headers) -> set[str]:
        sid = self._browsers.find_address(environ.get("HTTP_COOKIE", ""))
        if not sid:
            root = environ.get("SCRIPT_NAME", "").removesuffix(self._prefix)
            sid, cookie = self._browsers.assign_address(environ, root)
            headers.append(("Set-Cookie", cookie))
        return {EVERYONE, sid, *find_audience(environ, self._audience, self._host_context)}

    def _ending(self) -> bool:
        return self._closed() or stopping()

    def _polled(self, after: str, mine: Collection[str]) -> bytes:
        changed = self._announcements.recent(mine)
        items: list[dict[str, object]] = [{"kind": "changed", "keys": changed}] if changed else []
        if not after:
            return msgspec.json.encode([*items, _cursor(self._hub.last_id(TOPIC))])
        found, last = self._since(after, mine)
        items += [_item(message) for message in found]
        if last != (found[-1].id if found else after):
            items.append(_cursor(last))
        return msgspec.json.encode(items)

    def _since(self, after: str, mine: Collection[str]) -> tuple[list[HubMessage], str]:
        """Messages for ``mine`` after an id, and the id up to which all were looked at."""
        oldest = self._clock.time() - REPLAY_S
        found: list[HubMessage] = []
        for _ in range(_MAX_REPLAY // _BATCH):
            batch = self._hub.read(TOPIC, after, 0.0, _BATCH)
            found += [m for m in batch if m.at >= oldest and _is_for(m, mine)]
            if batch:
                after = batch[-1].id
            if len(batch) < _BATCH:
                return found, after
        return found, self._hub.last_id(TOPIC) or after


class _Stream:
    """One browser's stream: an iterable that the server closes when the browser goes away."""

    def __init__(
        self,
        endpoint: EventStream,
        feed: Feed,
        reader: Reader,
        mine: Collection[str],
        after: str,
    ) -> None:
        self._ending = endpoint._ending
        self._clock = endpoint._clock
        self._feed = feed
        self._reader = reader
        self._mine = mine
        now = self._clock.monotonic()
        self._ends_at = now + ROTATE_S
        self._beat_at = now + HEARTBEAT_S
        # The reader has joined already: what is published meanwhile comes twice, never not at all.
        replayed: list[HubMessage] = []
        if after:
            replayed, self._last = endpoint._since(after, mine)
        else:
            self._last = endpoint._hub.last_id(TOPIC)
        self._replayed = {message.id for message in replayed}
        self._first: bytes | None = b"".join(
            [
                b"retry: %d\n\n" % RETRY_MS,
                *map(_event, replayed),
                _ready(self._last),
                _changed(endpoint._announcements.recent(mine)),
            ]
        )

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        while True:
            now = self._clock.monotonic()
            if now >= self._ends_at or self._ending():
                self.close()
                raise StopIteration
            if now >= self._beat_at:
                self._beat_at = now + HEARTBEAT_S
                # an id without data moves the browser's Last-Event-ID and shows nothing
                return b": \nid: %s\n\n" % (self._last or _BEGINNING).encode()
            found = self._feed.wait(self._reader, min(self._ends_at, self._beat_at) - now)
            if not found:
                continue
            changed = _changed(keys_of((m for m in found if m.topic == ANNOUNCED), self._mine))
            found = [m for m in found if m.topic != ANNOUNCED]
            if found:
                self._last = found[-1].id
            new = [m for m in found if m.id not in self._replayed and _is_for(m, self._mine)]
            if new or changed:
                self._beat_at = self._clock.monotonic() + HEARTBEAT_S
                return b"".join((*map(_event, new), changed))

    def close(self) -> None:
        """Make room for another stream. Safe to call twice."""
        self._feed.leave(self._reader)


def _is_for(message: HubMessage, mine: Collection[str]) -> bool:
    to = message.data.get("to") if isinstance(message.data, dict) else None
    return isinstance(to, str) and to in mine


def _item(message: HubMessage) -> dict[str, object]:
    data = message.data if isinstance(message.data, dict) else {}
    return {"id": message.id, **{name: data.get(name) for name in _FIELDS}}


def _cursor(last: str) -> dict[str, object]:
    return {"id": last or _BEGINNING, "kind": "cursor"}


def _event(message: HubMessage) -> bytes:
    return b"id: %s\ndata: %s\n\n" % (message.id.encode(), msgspec.json.encode(_item(message)))


def _ready(last: str) -> bytes:
    return b"event: ready\nid: %s\ndata: {}\n\n" % (last or _BEGINNING).encode()


def _changed(keys: list[object]) -> bytes:
    """Without an id: it is nothing to go on from."""
    return b"event: changed\ndata: %s\n\n" % msgspec.json.encode({"keys": keys}) if keys else b""


def _id(value: str | None) -> str:
    """An id that a hub may have given, "" for anything else."""
    return value if value and _ID.fullmatch(value) else ""

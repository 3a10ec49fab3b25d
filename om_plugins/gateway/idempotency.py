"""``Idempotency-Key``: a question that is sent again is answered again, not asked again.

draft-ietf-httpapi-idempotency-key-header: same key and same question → the answer that was stored;
same key, other question → 422; while the first is under way → 409. What is stored is in the hub,
so it holds in all workers. Names there are made with the secret of the path, the client and the
key: nobody reads another's answer, and engines get that name instead of the client's own key, so
that two clients with one key are two calls upstream, too.

A failure is stored only where the work may have been done: when an engine that is not idempotent
may have got the call. Every other failure leaves the key free for the next try.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from ..chains.error_table import may_have_run
from ..core.problem__conversion import converted
from ..errors import CallerDeadline, ChainExhausted, EngineError
from ..protocols import Clock, Hub, Lease
from .response import DONE, EventStream, as_problem
from .response__refusal import Headers, Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["MAX_KEPT_BYTES", "KeptStream", "Keys", "Replay", "Ticket"]

logger = logging.getLogger("om_plugins")

MAX_KEPT_BYTES = 256 * 1024
"""The largest answer that is kept."""

MAX_ROUTE_BYTES = 64 * 2**20
"""What all answers of one route may take within the time that they are kept."""

REPLAYED = ("OM-Replayed", "?1")

_SLACK_S = 15.0


class Replay:
    """An answer that is given again."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = [*headers, REPLAYED]
        self.body = body


class Keys:
    """The keys of one route.

    Args:
        path: the route's path.
        kept_s: how long an answer is kept.
        hub, secret, clock: see :class:`~om_plugins.gateway.layer.EngineRoutes`.
    """

    def __init__(
        self, path: str, kept_s: float, hub: Hub, secret: Callable[[], bytes], clock: Clock
    ) -> None:
        self.path = path
        self.kept_s = kept_s
        self.hub = hub
        self._secret = secret
        self.clock = clock
        self._warned = False

    def begin(
        self,
        environ: WSGIEnvironment,
        key: str,
        said: object,
        payload: object,
        stream: bool,
        longest_s: float,
    ) -> Ticket | Replay:
        """Take the key for one call.

        Args:
            environ: the request.
            key: the client's key.
            said: what the ``auth`` callback said; a text or number is who the client is.
            payload: the question.
            stream: whether its answer is a stream.
            longest_s: how long the call may take, in seconds.

        Returns:
            The stored answer, or a ticket to ask the chain with.

        Raises:
            Refusal: 422, 409.
        """
        name = self.name(environ, key, said)
        mark = _fingerprint(payload, stream)
        ticket = Ticket(self, name, mark, longest_s + _SLACK_S)
        try:
            found = self._stored(ticket)
            if found is None and not ticket.take():
                raise _under_way()
            # Whoever had it until now may just have ended.
            found = found or self._stored(ticket, mine=True)
            if found is not None:
                ticket.release()
                return found
            ticket.mark_running()
            self._warned = False
        except Refusal:
            ticket.release()
            raise
        except Exception:  # noqa: BLE001 - losing the hub never fails a request
            ticket.lose()
            self.trouble()
        return ticket

    def trouble(self) -> None:
        """The hub failed: say so once; the call goes on."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "answers of %s are not kept for their Idempotency-Key", self.path, exc_info=True
            )

    def _stored(self, ticket: Ticket, mine: bool = False) -> Replay | None:
        record = self.hub.get(ticket.name)
        if not isinstance(record, Mapping):
            return None
        if record.get("mark") != ticket.mark:
            raise Refusal(422, "This Idempotency-Key was used for another question. Use a new one.")
        state = record.get("state")
        if state == "running":
            if mine:  # its worker is gone, and nobody knows how far it came
                return None
            raise _under_way()
        if state != "answered":
            raise Refusal(
                409,
                "This question was taken up before, and its answer cannot be given again. "
                "Look at what became of it, then use a new Idempotency-Key.",
            )
        try:
            headers = converted(record.get("headers"), list[tuple[str, str]])
            body = converted(record.get("body"), bytes)
            return Replay(converted(record.get("status"), int), headers, body)
        except ValueError:
            return None

    def name(self, environ: WSGIEnvironment, key: str, said: object) -> str:
        """A name that says nothing, other for each route, client and key."""
        if isinstance(said, str | int) and not isinstance(said, bool):
            client = f"said {said}"
        elif given := environ.get("HTTP_AUTHORIZATION"):
            client = f"authorization {given}"
        else:
            client = f"{environ.get('REMOTE_ADDR', '')} {environ.get('HTTP_COOKIE', '')}"
        digest = hmac.new(self._secret(), digestmod="sha256")
        for part in ("idempotency", self.path, client, key):
            data = part.encode("utf-8", "surrogateescape")
            digest.update(b"%d:" % len(data) + data)
        return digest.hexdigest()[:32]


class Ticket:
    """One call with a key: it ends by :meth:`answered`, :meth:`failed` or a :class:`KeptStream`.

    Attributes:
        key: the key for engines.
        name: where the record is.
        mark: the fingerprint of the question.
    """

    def __init__(self, keys: Keys, name: str, mark: str, lease_s: float) -> None:
        self._keys = keys
        self.key = name
        self.name = f"idempotency:{name}"
        self.mark = mark
        self._lease_s = lease_s
        self._lease: Lease | None = None
        self._renew_at = keys.clock.monotonic() + lease_s / 3
        self._lost = False

    # --- the lease --------------------------------------------------------------------------------

    def take(self) -> bool:
        """Become the only one; False when another is at it."""
        self._lease = self._keys.hub.lease(self.name, self._lease_s)
        return self._lease is not None

    def mark_running(self) -> None:
        """Let others know which question is under way."""
        self._put({"mark": self.mark, "state": "running"}, self._lease_s)

    def renew(self) -> None:
        """Hold on to it while a stream goes on."""
        now = self._keys.clock.monotonic()
        if self._lost or self._lease is None or now < self._renew_at:
            return
        self._renew_at = now + self._lease_s / 3
        self._safely(self._hold)

    def _hold(self) -> None:
        if self._lease is not None and self._lease.renew(self._lease_s):
            self.mark_running()
        else:
            self.lose()

    def lose(self) -> None:
        """There is no hub to tell, or another has it: keep nothing."""
        self._lost = True

    def release(self) -> None:
        """Give it back."""
        lease, self._lease = self._lease, None
        if lease is not None:
            self._safely(lease.release)

    # --- how it ended -----------------------------------------------------------------------------

    def answered(self, status: int, headers: Headers, body: bytes, size: int | None = None) -> None:
        """Keep an answer, if it is not too large.

        Args:
            size: of the whole body, when ``body`` is only its beginning.
        """
        size = len(body) if size is None else size
        record: dict[str, object] = {"mark": self.mark, "state": "not kept"}
        if size <= MAX_KEPT_BYTES and self._has_room(size):
            kept = [list(one) for one in headers]
            record |= {"state": "answered", "status": status, "headers": kept, "body": body}
        self._end(record)

    def failed(
        self, error: BaseException, idempotent: bool, refusal: Refusal | None = None
    ) -> None:
        """Keep a failure when the work may have been done all the same; else free the key.

        Args:
            error: why there is no answer.
            idempotent: asking again would do no harm.
            refusal: what the client was told; ``None`` when it was told nothing whole.
        """
        if idempotent or not has_effect(error):
            self._end(None)
        elif refusal is None:
            self._end({"mark": self.mark, "state": "broken off"})
        else:
            self.answered(*as_problem(refusal))

    # --- the hub ----------------------------------------------------------------------------------

    def _end(self, record: dict[str, object] | None) -> None:
        if not self._lost:
            if record is None:
                self._safely(lambda: self._keys.hub.put(self.name, None, 1.0))
            else:
                self._put(record, self._keys.kept_s)
        self.release()
        self._lost = True

    def _has_room(self, size: int) -> bool:
        """Whether the route's share of the hub is not used up."""
        keys = self._keys
        window = int(keys.clock.time() // keys.kept_s)
        path = hashlib.blake2b(keys.path.encode(), digest_size=8).hexdigest()
        try:
            used = keys.hub.increment(
                f"idempotency-bytes:{path}:{window}", max(1, size), ttl=keys.kept_s
            )
        except Exception:  # noqa: BLE001 - as above
            keys.trouble()
            return False
        return used <= MAX_ROUTE_BYTES

    def _put(self, record: dict[str, object], ttl: float) -> None:
        self._safely(lambda: self._keys.hub.put(self.name, record, ttl))

    def _safely(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - as above
            self._keys.trouble()


class KeptStream:
    """Passes a stream of events on, and keeps it when it ended whole.

    Args:
        ticket: of this call.
        events: the stream; closed with this.
        headers: its head.
        idempotent: a stream that broke off may be asked for again.
    """

    def __init__(
        self, ticket: Ticket, events: EventStream, headers: Headers, idempotent: bool
    ) -> None:
        self._ticket: Ticket | None = ticket
        self._events = events
        self._headers = headers
        self._idempotent = idempotent
        self._parts: list[bytes] = []
        self._size = 0
        self._whole = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            event = next(self._events)
        except StopIteration:
            self._end()
            raise
        self._size += len(event)
        if self._size <= MAX_KEPT_BYTES:
            self._parts.append(event)
        self._whole = event.startswith(DONE)
        if self._ticket is not None:
            self._ticket.renew()
        return event

    def close(self) -> None:
        """The client has all, or left."""
        try:
            self._events.close()
        finally:
            self._end()

    def _end(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        if not self._whole:
            ticket.failed(EngineError("the stream broke off"), self._idempotent)
        else:
            ticket.answered(200, self._headers, b"".join(self._parts), self._size)


def has_effect(error: BaseException) -> bool:
    """Whether an engine may have done the work although the call failed."""
    if isinstance(error, ChainExhausted | CallerDeadline):
        return any(not one.skipped and may_have_run(one.error) for one in error.attempts)
    return not isinstance(error, Exception) or may_have_run(error)


def _fingerprint(payload: object, stream: bool) -> str:
    """What tells one question from another: its JSON in one order, and how it is answered."""
    data = msgspec.json.encode(payload, order="deterministic")
    return hashlib.blake2b(data, digest_size=16, person=b"stream" if stream else b"").hexdigest()


def _under_way() -> Refusal:
    return Refusal(
        409,
        "This question is being answered. Please ask again in a moment.",
        [("Retry-After", "1")],
        retry_after=1,
    )

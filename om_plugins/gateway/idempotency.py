"""``Idempotency-Key``: a question that is sent again gets the same answer and is not asked again.

The rules of draft-ietf-httpapi-idempotency-key-header: the same key and the same question get the
stored answer; the same key and another question get 422; 409 while the first call is running.
Answers are stored in the hub, so that they hold in all workers. Their names are made with the
secret, from the route, the client (see :mod:`.client`) and the key: nobody can read another
client's answer. Engines get that name instead of the client's own key, so that two clients with one
key are two calls upstream, too.

A failure is stored only when the work may have been done, that is, when an engine that is not
idempotent may have got the call. After every other failure the key can be used again.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from ..core.body import convert
from ..core.problem import Headers, Refusal
from ..errors import CallerDeadline, ChainExhausted, EngineError
from ..policies.error_table import may_have_run
from ..protocols import Clock, Hub, Lease
from .response import DONE, AnswerEvents

logger = logging.getLogger("om_plugins")

MAX_STORED_BYTES = 256 * 1024
"""The largest answer that is stored."""

MAX_ROUTE_BYTES = 64 * 2**20
"""The most bytes of answers that one route stores within ``idempotency_time``."""

REPLAYED = ("OM-Replayed", "?1")

_SLACK_S = 15.0
_VERSION = "idempotency 2"


@dataclass(slots=True, repr=False)
class StoredAnswer:
    """An answer that is sent again."""

    status: int
    headers: Headers
    body: bytes


@dataclass(slots=True, eq=False, repr=False)
class IdempotencyKeys:
    """The keys of one route.

    Args:
        path: the route's path.
        keep_s: how long an answer is stored, in seconds.
        hub, secret, clock: see :class:`~om_plugins.gateway.layer.EngineRoutes`.
    """

    path: str
    keep_s: float
    hub: Hub
    secret: Callable[[], bytes]
    clock: Clock
    _warned: bool = field(init=False, default=False)

    def begin(
        self,
        key: str,
        client: Iterable[str | bytes],
        payload: object,
        stream: bool,
        longest_s: float,
    ) -> KeyedCall | StoredAnswer:
        """Reserve the key for one call.

        Args:
            key: the client's key.
            client: describes the client, see :meth:`.client.ClientInputs.describe`.
            payload: the question.
            stream: whether its answer is a stream.
            longest_s: how long the call may take, in seconds.

        Returns:
            The stored answer, or the call for which the chain may now be asked.

        Raises:
            Refusal: 422, 409.
        """
        name = self.build_name(key, client)
        call = KeyedCall(self, name, _fingerprint(payload, stream), longest_s + _SLACK_S)
        try:
            found = self._find(call)
            if found is None and not call.acquire():
                raise _refuse_while_running()
            # The worker that held the lease until now may just have stored its answer.
            found = found or self._find(call, has_lease=True)
            if found is not None:
                call.release()
                return found
            call.store_running()
            self._warned = False
        except Refusal:
            call.release()
            raise
        except Exception:  # noqa: BLE001 - the loss of the hub never fails a request
            call.give_up()
            self.warn()
        return call

    def warn(self) -> None:
        """Log once that the hub failed; the call continues."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "answers of %s are not kept for their Idempotency-Key", self.path, exc_info=True
            )

    def _find(self, call: KeyedCall, has_lease: bool = False) -> StoredAnswer | None:
        record = self.hub.get(call.name)
        if not isinstance(record, Mapping):
            return None
        if record.get("mark") != call.fingerprint:
            raise Refusal(422, "This Idempotency-Key was used for another question. Use a new one.")
        state = record.get("state")
        if state == "running":
            if has_lease:  # the other worker died, and nobody knows what it did
                return None
            raise _refuse_while_running()
        if state != "answered":
            raise Refusal(
                409,
                "This question was taken up before, and its answer cannot be given again. "
                "Look at what became of it, then use a new Idempotency-Key.",
            )
        try:
            answer = convert(record, StoredAnswer)
        except ValueError:
            return None
        answer.headers.append(REPLAYED)
        return answer

    def build_name(self, key: str, client: Iterable[str | bytes]) -> str:
        """Return a name that reveals nothing, and differs by route, client and key."""
        digest = hmac.new(self.secret(), digestmod="sha256")
        for part in (_VERSION, self.path, key, *client):
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            digest.update(b"%d:" % len(data) + data)
        return digest.hexdigest()[:32]


class KeyedCall:
    """One call with a key. It ends by :meth:`store_answer`, :meth:`store_failure` or a
    :class:`RecordedEvents`.

    Attributes:
        key: the key for engines.
        name: the name of the record in the hub.
        fingerprint: tells this question from others.
    """

    def __init__(self, keys: IdempotencyKeys, name: str, fingerprint: str, lease_s: float) -> None:
        self._keys = keys
        self.key = name
        self.name = f"idempotency:{name}"
        self.fingerprint = fingerprint
        self._lease_s = lease_s
        self._lease: Lease | None = None
        self._renew_at = keys.clock.monotonic() + lease_s / 3
        self._is_lost = False

    # --- the lease --------------------------------------------------------------------------------

    def acquire(self) -> bool:
        """Take the lease; False when another call has it."""
        self._lease = self._keys.hub.lease(self.name, self._lease_s)
        return self._lease is not None

    def store_running(self) -> None:
        """Store which question is being answered."""
        self._put({"mark": self.fingerprint, "state": "running"}, self._lease_s)

    def renew(self) -> None:
        """Renew the lease, when it is time, while a stream continues."""
        now = self._keys.clock.monotonic()
        if self._is_lost or self._lease is None or now < self._renew_at:
            return
        self._renew_at = now + self._lease_s / 3
        self._try(self._renew_lease)

    def _renew_lease(self) -> None:
        if self._lease is not None and self._lease.renew(self._lease_s):
            self.store_running()
        else:
            self.give_up()

    def give_up(self) -> None:
        """Store nothing: the hub failed, or another call has the lease."""
        self._is_lost = True

    def release(self) -> None:
        """Release the lease."""
        lease, self._lease = self._lease, None
        if lease is not None:
            self._try(lease.release)

    # --- how it ended -----------------------------------------------------------------------------

    def store_answer(
        self, status: int, headers: Headers, body: bytes, size: int | None = None
    ) -> None:
        """Store an answer, if it is not too large.

        Args:
            size: that of the whole body in bytes, when ``body`` is only its beginning.
        """
        size = len(body) if size is None else size
        record: dict[str, object] = {"mark": self.fingerprint, "state": "not kept"}
        if size <= MAX_STORED_BYTES and self._reserve(size):
            stored = [list(one) for one in headers]
            record |= {"state": "answered", "status": status, "headers": stored, "body": body}
        self._end(record)

    def store_failure(
        self, error: BaseException, idempotent: bool, refusal: Refusal | None = None
    ) -> None:
        """Store a failure when the work may have been done all the same; else free the key.

        Args:
            error: why there is no answer.
            idempotent: the question can be asked again without harm.
            refusal: the answer to the client; ``None`` when the client got no complete answer.
        """
        if idempotent or not may_have_effect(error):
            self._end(None)
        elif refusal is None:
            self._end({"mark": self.fingerprint, "state": "broken off"})
        else:
            self.store_answer(*refusal.render())

    # --- the hub ----------------------------------------------------------------------------------

    def _end(self, record: dict[str, object] | None) -> None:
        if not self._is_lost:
            if record is None:
                self._try(lambda: self._keys.hub.put(self.name, None, 1.0))
            else:
                self._put(record, self._keys.keep_s)
        self.release()
        self._is_lost = True

    def _reserve(self, size: int) -> bool:
        """Take ``size`` bytes of the route's share of the hub; False when it is used up."""
        keys = self._keys
        window = int(keys.clock.time() // keys.keep_s)
        path = hashlib.blake2b(keys.path.encode(), digest_size=8).hexdigest()
        try:
            used = keys.hub.increment(
                f"idempotency-bytes:{path}:{window}", max(1, size), ttl=keys.keep_s
            )
        except Exception:  # noqa: BLE001 - the loss of the hub never fails a request
            keys.warn()
            return False
        return used <= MAX_ROUTE_BYTES

    def _put(self, record: dict[str, object], ttl: float) -> None:
        self._try(lambda: self._keys.hub.put(self.name, record, ttl))

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - the loss of the hub never fails a request
            self._keys.warn()


@dataclass(slots=True, eq=False, repr=False)
class RecordedEvents:
    """Passes a stream of events on, and stores it when it ended completely.

    Args:
        call: stores the stream.
        events: the stream; closed with this.
        headers: the headers of the answer.
        idempotent: a question whose stream broke off may be asked again.
    """

    call: KeyedCall | None
    events: AnswerEvents
    headers: Headers
    idempotent: bool
    _parts: list[bytes] = field(init=False, default_factory=list)
    _size: int = field(init=False, default=0)
    _is_complete: bool = field(init=False, default=False)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            event = next(self.events)
        except StopIteration:
            self._end()
            raise
        self._size += len(event)
        if self._size <= MAX_STORED_BYTES:
            self._parts.append(event)
        self._is_complete = event.startswith(DONE)
        if self.call is not None:
            self.call.renew()
        return event

    def close(self) -> None:
        """The client has everything, or left."""
        try:
            self.events.close()
        finally:
            self._end()

    def _end(self) -> None:
        call, self.call = self.call, None
        if call is None:
            return
        if not self._is_complete:
            call.store_failure(EngineError("the stream broke off"), self.idempotent)
        else:
            call.store_answer(200, self.headers, b"".join(self._parts), self._size)


def may_have_effect(error: BaseException) -> bool:
    """Whether an engine may have done the work although the call failed."""
    if isinstance(error, ChainExhausted | CallerDeadline):
        return any(not one.skipped and may_have_run(one.error) for one in error.attempts)
    return not isinstance(error, Exception) or may_have_run(error)


def _fingerprint(payload: object, stream: bool) -> str:
    """Return what tells one question from another: a hash of its JSON in one order, and of
    whether the answer is a stream."""
    data = msgspec.json.encode(payload, order="deterministic")
    return hashlib.blake2b(data, digest_size=16, person=b"stream" if stream else b"").hexdigest()


def _refuse_while_running() -> Refusal:
    return Refusal(
        409,
        "This question is being answered. Please ask again in a moment.",
        [("Retry-After", "1")],
        retry_after=1,
    )

"""A limit on the calls of each client, over all workers."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from werkzeug.wsgi import get_host

from ..core.problem import Headers, Refusal
from ..policies.access import check_site
from ..protocols import Clock, Hub

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("om_plugins")

_MAX_BLOCKED = 10_000


@dataclass(slots=True, eq=False, repr=False)
class RateLimit:
    """Counts calls per client in fixed windows; the hub adds up the counts of all workers.

    A client is its address; of an IPv6 address the first 64 bits, which one customer has. The
    hub gets a hash of it that depends on the secret, so that nobody can read addresses from the
    shared store. When the hub fails, calls are let through: its loss never fails a request.

    Args:
        path: whose calls are counted.
        rate: how many calls a client may make in how many seconds.
        hub: counts.
        secret: hides client addresses in the hub; called on first use.
        clock: time.
    """

    path: str
    rate: tuple[int, int]
    hub: Hub
    secret: Callable[[], bytes]
    clock: Clock
    # The window in which a client used up its calls: a flood need not reach the hub.
    _blocked: dict[str, int] = field(init=False, default_factory=dict)
    _warned: bool = field(init=False, default=False)

    def count(self, environ: WSGIEnvironment) -> Headers:
        """Count one call.

        Returns:
            ``RateLimit`` headers (draft-ietf-httpapi-ratelimit-headers).

        Raises:
            Refusal: 429 with ``Retry-After``.
        """
        count, period_s = self.rate
        now = self.clock.time()
        window = int(now // period_s)
        left_s = max(1, math.ceil((window + 1) * period_s - now))
        try:
            client = self._identify(environ)
            if self._blocked.get(client) == window:
                used = count + 1
            else:
                key = f"rate:{window}:{client}"
                used = self.hub.increment(key, ttl=float(left_s + 1))
            self._warned = False
        except Exception:
            if not self._warned:
                self._warned = True
                logger.warning("the rate of %s is not counted", self.path, exc_info=True)
            return []
        headers = [
            ("RateLimit-Policy", f'"default";q={count};w={period_s}'),
            ("RateLimit", f'"default";r={max(0, count - used)};t={left_s}'),
        ]
        if used <= count:
            return headers
        if len(self._blocked) >= _MAX_BLOCKED:
            self._blocked.clear()
        self._blocked[client] = window
        raise Refusal(
            429,
            f"Too many questions. Please try again in {left_s} second{'s' * (left_s != 1)}.",
            [*headers, ("Retry-After", str(left_s))],
            retry_after=left_s,
        )

    def _identify(self, environ: WSGIEnvironment) -> str:
        address = environ.get("REMOTE_ADDR") or ""
        if ":" in address:
            try:
                found = ipaddress.IPv6Address(address.partition("%")[0])
                address = str(found.ipv4_mapped or ipaddress.IPv6Network((found, 64), strict=False))
            except ValueError:
                pass  # whatever the server put there still tells clients apart
        text = f"{self.path}\0{address}".encode("utf-8", "surrogateescape")
        return hmac.digest(self.secret(), text, "sha256")[:16].hex()


@dataclass(slots=True, eq=False, repr=False)
class PostGuard:
    """WSGI middleware: refuses with a problem document, or hands on to ``app``.

    Args:
        app: what is guarded.
        limit: counts calls per client; ``None`` for no limit.
    """

    app: WSGIApplication
    limit: RateLimit | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            check_site(environ, get_host(environ))
            if self.limit is not None:
                self.limit.count(environ)
        except Refusal as refusal:
            return refusal.send(environ, start_response)
        return self.app(environ, start_response)

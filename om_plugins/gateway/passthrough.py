"""A raw engine route: whole HTTP requests below a path go to a chain of proxy engines.

The answers of upstreams are sent as they are (see
:class:`~om_plugins.builtin.engines.proxy_app.ProxyApp`). This module adds what every engine route
has: trusted hosts, the rate per client, ``auth`` and the deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from ..builtin.engines.proxy_app import ProxyApp
from ..core.access import ask_auth, check_host
from ..core.call import current_request
from ..core.problem import Headers
from ..core.request_state import state_of
from ..errors import ConfigError
from ..protocols import Chain, HostContext
from ..types import Answer
from ..workers.rate_limit import RateLimit
from .options import RouteOptions
from .response import explain_error

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["PassthroughRoute"]


class PassthroughRoute:
    """A WSGI application for all paths below one path.

    Args:
        path: ends with a slash.
        options: those of the route; ``cors`` and ``require_key`` are left to the upstream.
        chain: returns the chain of a name.
        limit: counts calls per client; ``None`` for no limit.
        host_context, trusted_hosts: see :class:`~om_plugins.gateway.layer.EngineRoutes`.
        trust_forwarded: the peer is a proxy, and its ``X-Forwarded-*`` are added to.

    Raises:
        ConfigError: the path does not end with a slash, or an option has no meaning here.
    """

    def __init__(
        self,
        path: str,
        options: RouteOptions,
        chain: Callable[[str], Chain],
        limit: RateLimit | None,
        *,
        host_context: HostContext | None = None,
        trusted_hosts: Sequence[str] | None = None,
        trust_forwarded: bool = False,
    ) -> None:
        where = f"OM_ROUTES[{path!r}]"
        if not path.endswith("/"):
            raise ConfigError(where, path, "a raw route is for all below a path: end it with '/'")
        why = "a raw route passes requests on as they are; leave this to the upstream"
        for name in ("cors", "require_key"):
            if value := getattr(options, name):
                raise ConfigError(f"{where}.{name}", value, why)
        self._path = path
        self._options = options
        self._chain = chain
        self._limit = limit
        self._host_context = host_context
        self._trusted_hosts = trusted_hosts
        self._trust_forwarded = trust_forwarded

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        state_of(environ).route = f"{self._path}*"
        headers: Headers = []
        try:
            check_host(environ, self._trusted_hosts)
            if self._limit is not None:
                headers = self._limit.count(environ)
            # The callback gets no body: that may be large, and is passed on as a stream.
            answer = ask_auth(environ, b"", self._options.auth, self._host_context)
            if isinstance(answer, Response):
                return answer(environ, start_response)
            chain = self._chain(self._options.chain)
        except Exception as error:  # noqa: BLE001 - the client gets a problem, the log the rest
            refusal = explain_error(error, f"route {self._path} (chain {self._options.chain!r})")
            return refusal.send(environ, start_response, headers)
        app = ProxyApp(
            _ChainWithTimeout(chain, self._options.timeout),
            trust_forwarded=self._trust_forwarded,
            max_body=self._options.max_body,
        )
        before = current_request.set(environ)
        try:
            return app(environ, start_response)
        finally:
            current_request.reset(before)


class _ChainWithTimeout:
    """A chain whose calls have the route's deadline."""

    def __init__(self, chain: Chain, timeout: float | None) -> None:
        self.name = chain.name
        self.idempotent = chain.idempotent
        self._chain = chain
        self._timeout = timeout

    def call(self, payload: object = None, **options: Any) -> Answer:
        options["timeout"] = self._timeout
        return self._chain.call(payload, **options)

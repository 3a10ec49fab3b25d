"""A raw engine route: whole HTTP requests below a path go to a chain of proxy engines.

The answers of upstreams are sent as they are (see
:class:`~om_plugins.builtin.engines.proxy_app.ProxyApp`). This module adds what every engine route
has: trusted hosts, the rate per client, ``auth`` and the deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from ..builtin.engines.proxy_app import ProxyApp
from ..core.call import current_request
from ..core.problem import Headers
from ..core.request_state import state_of
from ..errors import ConfigError
from ..policies.access import ask_auth, check_host
from ..protocols import Chain, HostContext
from ..types import Answer
from ..workers.rate_limit import RateLimit
from .options import RouteOptions
from .response import explain_error

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


@dataclass(slots=True, eq=False, repr=False)
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

    path: str
    options: RouteOptions
    chain: Callable[[str], Chain]
    limit: RateLimit | None
    _: KW_ONLY
    host_context: HostContext | None = None
    trusted_hosts: Sequence[str] | None = None
    trust_forwarded: bool = False

    def __post_init__(self) -> None:
        where = f"OM_ROUTES[{self.path!r}]"
        if not self.path.endswith("/"):
            raise ConfigError(
                where, self.path, "a raw route is for all below a path: end it with '/'"
            )
        why = "a raw route passes requests on as they are; leave this to the upstream"
        for name in ("cors", "require_key"):
            if value := getattr(self.options, name):
                raise ConfigError(f"{where}.{name}", value, why)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        state_of(environ).route = f"{self.path}*"
        headers: Headers = []
        try:
            check_host(environ, self.trusted_hosts)
            if self.limit is not None:
                headers = self.limit.count(environ)
            # The callback gets no body: that may be large, and is passed on as a stream.
            answer = ask_auth(
                environ,
                b"",
                self.options.auth,
                self.host_context,
                key=f"OM_ROUTES[{self.path!r}].auth",
            )
            if isinstance(answer, Response):
                return answer(environ, start_response)
            chain = self.chain(self.options.chain)
        except Exception as error:  # noqa: BLE001 - the client gets a problem, the log the rest
            refusal = explain_error(error, f"route {self.path} (chain {self.options.chain!r})")
            return refusal.send(environ, start_response, headers)
        app = ProxyApp(
            _ChainWithTimeout(chain, self.options.timeout),
            trust_forwarded=self.trust_forwarded,
            max_body=self.options.max_body,
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

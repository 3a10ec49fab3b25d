"""The WSGI middleware that answers some paths by asking an engine chain.

::

    app = EngineRoutes(
        app,
        {"/api/assistant": RouteOptions(chain="assistant", auth=is_signed_in)},
        runtime.chain,
        hub=runtime.hub, secret=runtime.secret, clock=runtime.clock,
    )
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from ..builtin.engines.proxy_app__client_socket import watch_client
from ..core.call import caller_gone
from ..errors import ConfigError
from ..protocols import Chain, Clock, HostContext, Hub
from ..settings.settings__options import RouteOptions
from ..types import Answer
from . import request as question
from .access import RateLimit, allowed_origin, ask_auth, check_host, check_site
from .deadline__ending import Ending
from .deadline__under_way import ENVIRON
from .idempotency import KeptStream, Keys, Replay, Ticket
from .passthrough import RawRoute
from .response import EventStream, as_json, as_problem, event_headers, wants_events
from .response__refusal import Headers, Refusal, refusal_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("om_plugins")

_LITERAL = re.compile(r"[^<>*?#]*")
_EXPOSED = "OM-Engine, OM-Tier, OM-Attempts, OM-Degraded, OM-Stale, OM-Replayed, Retry-After"
_LONGEST_S = 60.0

OnError = Callable[["WSGIEnvironment", str, Exception], None]
"""Called with the environ, the chain's name and what it raised, when a call failed with a 5xx."""

OnWrongMethod = Callable[[str, str, Sequence[str]], None]


class EngineRoutes:
    """Answers the paths in ``routes``; every other request goes to ``app`` unchanged.

    Args:
        app: the app underneath.
        routes: options by path; a path matches ``PATH_INFO`` exactly, that of a raw route all
            that is below it, too.
        chain: gives the chain of a name.
        hub: counts calls per client over all workers.
        secret: hides client addresses in the hub; called on first use.
        clock: the time.
        host_context: opens the host framework's request context for ``auth`` callbacks.
        trusted_hosts: host names to answer to, ``.example.com`` with its subdomains; every name
            when ``None``.
        trust_forwarded: the peer is a proxy: raw routes add to its ``X-Forwarded-*``.
        on_error: told of every call that failed on our side; what it raises is logged.
        on_wrong_method: told of every 405: the path, the method and what is allowed.

    Raises:
        ConfigError: a path or an option is wrong.
        TypeError: an ``auth`` callback is ``async def``.
    """

    def __init__(
        self,
        app: WSGIApplication,
        routes: Mapping[str, RouteOptions],
        chain: Callable[[str], Chain],
        *,
        hub: Hub,
        secret: Callable[[], bytes],
        clock: Clock,
        host_context: HostContext | None = None,
        trusted_hosts: Sequence[str] | None = None,
        trust_forwarded: bool = False,
        on_error: OnError | None = None,
        on_wrong_method: OnWrongMethod | None = None,
    ) -> None:
        self._app = app
        self._chain = chain
        self._host_context = host_context
        self._trusted = trusted_hosts
        self._on_error = on_error
        self._on_wrong_method = on_wrong_method
        self._ending = Ending(clock)
        self._routes: dict[str, _Route] = {}
        raw: dict[str, RawRoute] = {}
        for path, options in routes.items():
            if not path.startswith("/"):
                raise ConfigError(f"OM_ROUTES[{path!r}]", path, "a path must begin with '/'")
            if not _LITERAL.fullmatch(path):
                raise ConfigError(
                    f"OM_ROUTES[{path!r}]",
                    path,
                    "a path is matched letter by letter: it has no <placeholder>, '*', '?' or '#'",
                )
            if not options.chain:
                raise ConfigError(f"OM_ROUTES[{path!r}].chain", "", "must name a chain")
            if inspect.iscoroutinefunction(options.auth):
                raise TypeError(
                    f"OM_ROUTES[{path!r}].auth is an async function; it must be a plain one"
                )
            limit = options.rate and RateLimit(path, options.rate, hub, secret, clock)
            # PEP 3333: PATH_INFO holds UTF-8 bytes as latin-1.
            written = path.encode().decode("latin-1")
            if options.raw:
                raw[written] = RawRoute(
                    path,
                    options,
                    chain,
                    limit,
                    host_context=host_context,
                    trusted_hosts=trusted_hosts,
                    trust_forwarded=trust_forwarded,
                )
                continue
            keys = Keys(path, options.idempotency_s, hub, secret, clock)
            self._routes[written] = _Route(path, options, limit, keys)
        self._raw = sorted(raw.items(), key=lambda one: -len(one[0]))
        self._raw_paths = tuple(raw)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        route = self._routes.get(path)
        if route is not None:
            return self._answer(environ, start_response, route)
        if self._raw_paths and path.startswith(self._raw_paths):
            raw = next(one for start, one in self._raw if path.startswith(start))
            return raw(environ, start_response)
        return self._app(environ, start_response)

    def _answer(
        self, environ: WSGIEnvironment, start_response: StartResponse, route: _Route
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        stream = method != "HEAD" and wants_events(environ.get("HTTP_ACCEPT"))
        asked = _Asked(_cors_headers(environ, route.options))
        try:
            found = self._ask(environ, method, stream, route, asked)
            if isinstance(found, Answer) and not stream:
                status, own, content = as_json(found)
                if asked.ticket is not None:
                    asked.ticket.answered(status, own, content)
        except Exception as error:  # noqa: BLE001 - the client gets a problem, the log the rest
            refusal = self._refused(environ, route, error)
            if asked.ticket is not None:
                asked.ticket.failed(error, asked.idempotent, refusal)
            status, own, content = as_problem(refusal)
        else:
            if found is None:
                start_response("204 No Content", asked.headers)
                return []
            if isinstance(found, Response):
                return found(environ, start_response)
            if isinstance(found, Replay):
                status, own, content = found.status, found.headers, found.body
            elif stream:
                own = event_headers(found)
                start_response("200 OK", [*own, *asked.headers])
                events = EventStream(
                    found, lambda error: self._refused(environ, route, error), self._ending.over
                )
                if asked.ticket is None:
                    return events
                return KeptStream(asked.ticket, events, own, asked.idempotent)
        start_response(_line(status), [*own, *asked.headers])
        return [] if method == "HEAD" else [content]

    def _ask(
        self,
        environ: WSGIEnvironment,
        method: str,
        stream: bool,
        route: _Route,
        asked: _Asked,
    ) -> Answer | Response | Replay | None:
        """Check the request and ask the chain.

        Returns:
            The answer, also one that was given before, a response of the auth callback, or
            ``None`` when all is said in the headers of ``asked``.

        Raises:
            Exception: what :func:`~om_plugins.gateway.response__refusal.refusal_for` explains.
        """
        options = route.options
        host = check_host(environ, self._trusted)
        chain = self._chain(options.chain)
        asked.idempotent = chain.idempotent
        methods = ("GET", "HEAD", "POST") if chain.idempotent else ("POST",)
        if method == "OPTIONS":
            asked.headers += _options(environ, methods, options)
            return None
        if method not in methods:
            if self._on_wrong_method is not None:
                self._on_wrong_method(route.path, method, (*methods, "OPTIONS"))
            raise _wrong_method(method, methods)
        check_site(environ, host, options)
        if route.limit is not None:
            asked.headers += route.limit.take(environ)
        key = question.idempotency_key(environ, options.require_key)
        body = question.read_request_body(environ, options.max_body) if method == "POST" else b""
        said = ask_auth(environ, body, options, self._host_context)
        if isinstance(said, Response):
            return said
        payload = (
            question.json_payload(environ, body)
            if method == "POST"
            else question.query_payload(environ)
        )
        if key is not None:
            if method == "POST" and options.idempotency_s:
                longest_s = options.timeout or _timeout_of(chain)
                ticket = route.keys.begin(environ, key, said, payload, stream, longest_s)
                if isinstance(ticket, Replay):
                    return ticket
                asked.ticket = ticket
                key = ticket.key
            else:
                key = route.keys.name(environ, key, said)
        before = ENVIRON.set(environ)
        watching = caller_gone.set(self._nobody_waits(environ))
        try:
            return chain.call(
                payload,
                stream=stream,
                timeout=options.timeout,
                idempotency_key=key,
                headers=question.passed_headers(environ),
                method=method,
            )
        finally:
            caller_gone.reset(watching)
            ENVIRON.reset(before)

    def _nobody_waits(self, environ: WSGIEnvironment) -> Callable[[], bool]:
        """Says that the client has gone, or that the server is about to."""
        over = self._ending.over
        gone = watch_client(environ)
        return over if gone is None else lambda: gone() or over()

    def _refused(self, environ: WSGIEnvironment, route: _Route, error: Exception) -> Refusal:
        refusal = refusal_for(error, f"route {route.path} (chain {route.options.chain!r})")
        if refusal.status >= 500 and self._on_error is not None:
            try:
                self._on_error(environ, route.options.chain, error)
            except Exception:
                logger.exception("an on_error callback of %s failed", route.path)
        return refusal


class _Route:
    __slots__ = ("keys", "limit", "options", "path")

    def __init__(
        self, path: str, options: RouteOptions, limit: RateLimit | None, keys: Keys
    ) -> None:
        self.path = path
        self.options = options
        self.limit = limit
        self.keys = keys


class _Asked:
    """What is known of a request by the time that its answer is written."""

    __slots__ = ("headers", "idempotent", "ticket")

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.idempotent = False
        self.ticket: Ticket | None = None


def _timeout_of(chain: Chain) -> float:
    """The total deadline of a call, where the chain tells it."""
    timeout = getattr(getattr(chain, "policy", None), "timeout", None)
    return float(timeout) if isinstance(timeout, int | float) else _LONGEST_S


def _wrong_method(method: str, methods: Sequence[str]) -> Refusal:
    shown = " and ".join(filter(None, (", ".join(methods[:-1]), methods[-1])))
    used = method if method.isascii() and method.isalpha() and len(method) <= 16 else "this method"
    return Refusal(
        405,
        f"This address answers {shown}, not {used}. Send your question with POST as JSON.",
        [("Allow", ", ".join((*methods, "OPTIONS")))],
    )


def _options(environ: WSGIEnvironment, methods: Sequence[str], route: RouteOptions) -> Headers:
    headers = [("Allow", ", ".join((*methods, "OPTIONS")))]
    asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")
    if asked and allowed_origin(environ, route) is not None:
        headers += [
            ("Access-Control-Allow-Methods", ", ".join(methods)),
            ("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key"),
            ("Access-Control-Max-Age", "600"),
        ]
    return headers


def _cors_headers(environ: WSGIEnvironment, route: RouteOptions) -> Headers:
    if not route.cors:
        return []
    headers = [] if "*" in route.cors else [("Vary", "Origin")]
    origin = allowed_origin(environ, route)
    if origin is not None:
        headers += [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", _EXPOSED),
        ]
    return headers


def _line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"

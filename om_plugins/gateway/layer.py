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

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from ..builtin.engines.client_socket import watch_client
from ..chains.http_call import call_chain, prefers, render_json
from ..core.call import caller_gone
from ..core.inputs import InputRules
from ..core.problem import Headers, Refusal, get_phrase
from ..errors import ConfigError
from ..policies.access import ask_auth, check_host
from ..protocols import Chain, Clock, HostContext, Hub
from ..types import Answer
from ..workers.rate_limit import RateLimit
from .access import build_cors_headers, build_preflight_headers, check_site
from .client import ClientInputs, ObserveContext
from .deadline import GracefulStop
from .idempotency import IdempotencyKeys, KeyedCall, RecordedEvents, StoredAnswer
from .options import RouteOptions
from .passthrough import PassthroughRoute
from .request import parse_json, parse_query, read_idempotency_key, read_request_body
from .response import AnswerEvents, build_event_headers, explain_error

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("om_plugins")

_LITERAL = re.compile(r"[^<>*?#]*")
_LONGEST_S = 60.0

OnError = Callable[["WSGIEnvironment", str, Exception], None]
"""Called with the environ, the chain's name and its error, when a call failed with a 5xx."""

OnWrongMethod = Callable[[str, str, Sequence[str]], None]
"""Called with the path, the method and the allowed methods of a 405."""


class EngineRoutes:
    """Answers the paths in ``routes``; every other request goes to ``app`` unchanged.

    Args:
        app: the app underneath.
        routes: options by path. A path matches ``PATH_INFO`` exactly; that of a raw route also
            matches all paths below it.
        chain: returns the chain of a name.
        hub: counts calls per client over all workers.
        secret: hides client addresses in the hub; called on first use.
        clock: the time.
        inputs: which variables of a request say who its client is.
        host_context: opens the host framework's request context for ``auth`` callbacks.
        observe_context: observes what ``auth`` looks at in that context, see
            :class:`~om_plugins.gateway.client.ClientInputs`.
        trusted_hosts: host names to answer to, ``.example.com`` with its subdomains; every name
            when ``None``.
        trust_forwarded: the peer is a proxy: raw routes add to its ``X-Forwarded-*``.
        on_error: called for each call that failed on our side; its own errors are logged.
        on_wrong_method: called for each 405.

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
        inputs: InputRules | None = None,
        host_context: HostContext | None = None,
        observe_context: ObserveContext | None = None,
        trusted_hosts: Sequence[str] | None = None,
        trust_forwarded: bool = False,
        on_error: OnError | None = None,
        on_wrong_method: OnWrongMethod | None = None,
    ) -> None:
        self._app = app
        self._chain = chain
        self._inputs = inputs or InputRules(secret)
        self._host_context = host_context
        self._observe_context = observe_context
        self._trusted_hosts = trusted_hosts
        self._on_error = on_error
        self._on_wrong_method = on_wrong_method
        self._stop = GracefulStop(clock)
        self._routes: dict[str, _EngineRoute] = {}
        passthrough: dict[str, PassthroughRoute] = {}
        for path, options in routes.items():
            _check(path, options)
            limit = options.rate and RateLimit(path, options.rate, hub, secret, clock)
            # PEP 3333: PATH_INFO holds UTF-8 bytes as latin-1.
            wsgi_path = path.encode().decode("latin-1")
            if options.raw:
                passthrough[wsgi_path] = PassthroughRoute(
                    path,
                    options,
                    chain,
                    limit,
                    host_context=host_context,
                    trusted_hosts=trusted_hosts,
                    trust_forwarded=trust_forwarded,
                )
                continue
            keys = IdempotencyKeys(path, options.idempotency_time, hub, secret, clock)
            self._routes[wsgi_path] = _EngineRoute(path, options, limit, keys)
        self._passthrough = sorted(passthrough.items(), key=lambda one: -len(one[0]))
        self._passthrough_paths = tuple(passthrough)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        route = self._routes.get(path)
        if route is not None:
            return self._answer(environ, start_response, route)
        if self._passthrough_paths and path.startswith(self._passthrough_paths):
            below = next(one for start, one in self._passthrough if path.startswith(start))
            return below(environ, start_response)
        return self._app(environ, start_response)

    def _answer(
        self, environ: WSGIEnvironment, start_response: StartResponse, route: _EngineRoute
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        stream = method != "HEAD" and prefers(environ.get("HTTP_ACCEPT"), "text/event-stream")
        state = _RequestProgress(build_cors_headers(environ, route.options))
        try:
            found = self._ask(environ, method, stream, route, state)
            if isinstance(found, Answer) and not stream:
                status, own, content = render_json(found)
                if state.keyed_call is not None:
                    state.keyed_call.store_answer(status, own, content)
        except Exception as error:  # noqa: BLE001 - the client gets a problem, the log the rest
            refusal = self._explain(environ, route, error)
            if state.keyed_call is not None:
                state.keyed_call.store_failure(error, state.idempotent, refusal)
            return refusal.send(environ, start_response, state.headers)
        if found is None:
            start_response("204 No Content", state.headers)
            return []
        if isinstance(found, Response):
            return found(environ, start_response)
        if isinstance(found, StoredAnswer):
            status, own, content = found.status, found.headers, found.body
        elif stream:
            own = build_event_headers(found)
            start_response("200 OK", [*own, *state.headers])
            events = AnswerEvents(
                found, lambda error: self._explain(environ, route, error), self._stop.is_over
            )
            if state.keyed_call is None:
                return events
            return RecordedEvents(state.keyed_call, events, own, state.idempotent)
        start_response(f"{status} {get_phrase(status)}", [*own, *state.headers])
        return [] if method == "HEAD" else [content]

    def _ask(
        self,
        environ: WSGIEnvironment,
        method: str,
        stream: bool,
        route: _EngineRoute,
        state: _RequestProgress,
    ) -> Answer | Response | StoredAnswer | None:
        """Check the request and ask the chain.

        Returns:
            The answer, new or stored; or the response of the auth callback; or ``None`` when the
            headers of ``state`` are the whole answer.

        Raises:
            Exception: what :func:`~om_plugins.gateway.response.explain_error` explains.
        """
        options = route.options
        host = check_host(environ, self._trusted_hosts)
        chain = self._chain(options.chain)
        state.idempotent = chain.idempotent
        methods = ("GET", "HEAD", "POST") if chain.idempotent else ("POST",)
        if method == "OPTIONS":
            state.headers += build_preflight_headers(environ, methods, options)
            return None
        if method not in methods:
            if self._on_wrong_method is not None:
                self._on_wrong_method(route.path, method, (*methods, "OPTIONS"))
            raise _refuse_method(method, methods)
        check_site(environ, host, options)
        if route.limit is not None:
            state.headers += route.limit.count(environ)
        key = read_idempotency_key(environ, options.require_key)
        body = read_request_body(environ, options.max_body) if method == "POST" else b""
        client = ClientInputs(self._inputs, self._observe_context)
        observe = None if key is None else client.observe
        identity = ask_auth(
            environ,
            body,
            options.auth,
            self._host_context,
            observe,
            key=f"OM_ROUTES[{route.path!r}].auth",
        )
        if isinstance(identity, Response):
            return identity
        payload = parse_json(environ, body) if method == "POST" else parse_query(environ)
        if key is not None:
            if method == "POST" and options.idempotency_time:
                longest_s = options.timeout or _get_timeout(chain)
                about = client.describe(environ, identity)
                begun = route.keys.begin(key, about, payload, stream, longest_s)
                if isinstance(begun, StoredAnswer):
                    return begun
                state.keyed_call = begun
                key = begun.key
            else:
                key = route.keys.build_name(key, client.describe(environ, identity))
        before = caller_gone.set(self._watch(environ))
        try:
            return call_chain(
                chain, environ, payload, stream=stream, timeout=options.timeout, idempotency_key=key
            )
        finally:
            caller_gone.reset(before)

    def _watch(self, environ: WSGIEnvironment) -> Callable[[], bool]:
        """Return what says whether the client has gone, or the server is about to stop."""
        is_over = self._stop.is_over
        is_gone = watch_client(environ)
        return is_over if is_gone is None else lambda: is_gone() or is_over()

    def _explain(self, environ: WSGIEnvironment, route: _EngineRoute, error: Exception) -> Refusal:
        refusal = explain_error(error, f"route {route.path} (chain {route.options.chain!r})")
        if refusal.status >= 500 and self._on_error is not None:
            try:
                self._on_error(environ, route.options.chain, error)
            except Exception:
                logger.exception("an on_error callback of %s failed", route.path)
        return refusal


@dataclass(slots=True, eq=False, repr=False)
class _EngineRoute:
    path: str
    options: RouteOptions
    limit: RateLimit | None
    keys: IdempotencyKeys


@dataclass(slots=True, eq=False, repr=False)
class _RequestProgress:
    """What is known of a request by the time that its answer is written."""

    headers: Headers
    idempotent: bool = False
    keyed_call: KeyedCall | None = None


def _check(path: str, options: RouteOptions) -> None:
    where = f"OM_ROUTES[{path!r}]"
    if not path.startswith("/"):
        raise ConfigError(where, path, "a path must begin with '/'")
    if not _LITERAL.fullmatch(path):
        raise ConfigError(
            where,
            path,
            "a path is matched letter by letter: it has no <placeholder>, '*', '?' or '#'",
        )
    if not options.chain:
        raise ConfigError(f"{where}.chain", "", "must name a chain")


def _get_timeout(chain: Chain) -> float:
    """Return the total deadline of a call in seconds, where the chain has one."""
    timeout = getattr(getattr(chain, "policy", None), "timeout", None)
    return float(timeout) if isinstance(timeout, int | float) else _LONGEST_S


def _refuse_method(method: str, methods: Sequence[str]) -> Refusal:
    allowed = " and ".join(filter(None, (", ".join(methods[:-1]), methods[-1])))
    used = method if method.isascii() and method.isalpha() and len(method) <= 16 else "this method"
    return Refusal(
        405,
        f"This address answers {allowed}, not {used}. Send your question with POST as JSON.",
        [("Allow", ", ".join((*methods, "OPTIONS")))],
    )

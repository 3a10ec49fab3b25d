"""Observes every request of an app that has a cache of responses, from the first hook to the end.

The app's ``full_dispatch_request`` runs hooks, view and ``after_request`` functions, and saves the
session. It is wrapped, not the signal ``request_started``: receivers of that signal are called in
no fixed order, and one that looks at the session before ours would not be seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask.globals import request_ctx

from ...cache.responses.decisions import REPORT, ResponseReport, find_report
from ...core.request_state import RequestState, state_of
from ..current import plain_environ
from ..observed import (
    find_session_cookie,
    has_session_in_cookie,
    observe,
    prepare_app,
)
from ..view_rules import has_own_freshness
from .readers import KNOWN_READERS
from .session import check_session, find_session

if TYPE_CHECKING:
    from flask import Flask, Response

    from ...core.inputs import InputRules
    from ...core.observed import ObservedInputs

logger = logging.getLogger("om_plugins")


def observe_requests(app: Flask, rules: InputRules, *, in_front: bool = False) -> None:
    """Observe the requests of an app from now on.

    Args:
        app: the app.
        rules: how inputs are compared.
        in_front: a layer in front of the app may keep responses.
    """
    for reader, row in KNOWN_READERS.items():
        rules.readers.setdefault(reader, row)
    prepare_app(app, rules)
    dispatch, process, debug = app.full_dispatch_request, app.process_response, app.debug

    def full_dispatch_request(*args: Any) -> Response:
        context = request_ctx._get_current_object()  # type: ignore[attr-defined]
        environ = plain_environ(context.request)
        state = state_of(environ, app)
        inputs = observe(context, state, rules)
        report = find_report(environ) if REPORT in environ else None
        if report is not None:
            report.inputs = inputs
        try:
            response = dispatch(*args)
        except BaseException:
            if inputs is not None and in_front:
                inputs.address = rules.read_address(plain_environ(context.request))
            unfinished = state.unfinished
            _end(state, None)
            if report is not None:
                report.decisions += [one.decide() for one in unfinished]
            raise
        if inputs is not None:
            check_session(find_session(context), inputs)
            if in_front:
                environ = plain_environ(context.request)
                inputs.address = rules.read_address(environ)
                inputs.cookies = environ.get("HTTP_COOKIE", "")
                inputs.session_cookie = find_session_cookie(app)
                inputs.session_in_cookie = has_session_in_cookie(app)
            if state.unfinished:
                unfinished = state.unfinished
                _end(state, response)
                if debug or report is not None:
                    _tell(unfinished, response, inputs, report, debug=debug)
        return response

    def process_response(*args: Any) -> Response:
        response = args[-1]
        if response.status_code >= 400 and has_own_freshness(response):
            context = request_ctx._get_current_object()  # type: ignore[attr-defined]
            state_of(plain_environ(context.request), app).view_freshness = True
        return process(*args)

    app.full_dispatch_request = full_dispatch_request  # type: ignore[method-assign]
    app.process_response = process_response  # type: ignore[method-assign, assignment]


def _tell(
    unfinished: Iterable[Any],
    response: Response,
    inputs: ObservedInputs,
    report: ResponseReport | None,
    *,
    debug: bool,
) -> None:
    """Tell what was decided about a response: in debug mode by ``Cache-Status`` (RFC 9211)."""
    from ...http_cache.rfc9111 import cache_status

    for one in unfinished:
        decision = one.decide()
        if report is not None:
            report.decisions.append(decision)
        if debug and decision.cache == "view":
            status = cache_status("OpenManager-View", decision.list_status(inputs))
            response.headers.add("Cache-Status", status)


def _end(state: RequestState, response: Response | None) -> None:
    unfinished, state.unfinished = state.unfinished, ()
    for one in reversed(unfinished):
        try:
            one.end(response)
        except Exception:
            # the answer is made: that it cannot be stored is no reason to lose it
            logger.exception("a response could not be stored")

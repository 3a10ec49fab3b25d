"""Known readers: functions that look at a request and keep what they see to themselves.

No response depends on what they look at, so their looks do not count as inputs of a response. A
missing row costs hits, and never shows one visitor's page to another. ``OM_CACHE_READERS`` adds
rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from werkzeug.exceptions import HTTPException

from ...core.inputs import KnownReader, Reader
from ...core.observed import ObservedInputs


def _has_no_identifier(inputs: ObservedInputs) -> bool:
    return inputs.brings("session:_id") is False


def _is_opening(inputs: ObservedInputs) -> bool:
    return inputs.opening


def _makes_plain_error(variables: Mapping[str, Any]) -> bool:
    """Whether werkzeug makes a response of an exception that does not read the request."""
    kind = type(variables.get("app"))
    return issubclass(kind, HTTPException) and all(
        _find_definer(kind, name).startswith("werkzeug.")
        for name in ("__call__", "get_response", "get_body", "get_headers", "get_description")
    )


def _find_definer(kind: type, name: str) -> str:
    return next((one.__module__ for one in kind.__mro__ if name in vars(one)), "")


def _brings_no_baggage(inputs: ObservedInputs) -> bool:
    return not inputs.brings("header:baggage")


_ROUTING = "a copy of a request's context finds the route again, by the address"
_HOST = "the host is always in the key"
_OPENED = "what code looks at in the session that it opens is observed"
_FLASK_SESSION = "Flask-Session saves the session"
_TRACE = "OpenTelemetry records it in the trace, which no response shows"
_REPORT = "Sentry sends it with a report, which no response shows"

KNOWN_READERS: dict[Reader, KnownReader] = {
    ("flask.sessions", "open_session"): KnownReader(_OPENED, applies=_is_opening),
    ("flask.sessions", "save_session"): KnownReader("Flask saves the session"),
    ("flask.sessions", "permanent"): KnownReader(
        "Flask saves the session", callers="flask.sessions"
    ),
    ("werkzeug.routing.map", "bind_to_environ"): KnownReader(_ROUTING, callers="flask.app"),
    ("werkzeug.routing.map", "_get_wsgi_string"): KnownReader(_ROUTING, "werkzeug.routing.map"),
    ("werkzeug.wsgi", "_get_server"): KnownReader(_HOST, callers="werkzeug.wsgi"),
    ("werkzeug.http", "is_resource_modified"): KnownReader(
        "a response that is sent in part, or as 304, is not stored, and stored ones are sent so",
        callers="werkzeug.wrappers.response",
    ),
    ("werkzeug.wrappers.response", "make_conditional"): KnownReader(
        "a response that is sent in part, or as 304 or 412, is not stored"
    ),
    ("werkzeug.wrappers.response", "_is_range_request_processable"): KnownReader(
        "a response that is sent in part is not stored"
    ),
    ("werkzeug.wrappers.response", "_process_range_request"): KnownReader(
        "a response that is sent in part is not stored"
    ),
    ("werkzeug.test", "run_wsgi_app"): KnownReader(
        "werkzeug's own errors and redirects do not depend on the request",
        callers="werkzeug.wrappers.response",
        works_on=_makes_plain_error,
    ),
    ("flask_login.utils", "_create_identifier"): KnownReader(
        "Flask-Login compares it with the identifier in the session, which has none",
        callers="flask_login",
        applies=_has_no_identifier,
    ),
    ("flask_login.utils", "_get_remote_addr"): KnownReader(
        "Flask-Login compares it with the identifier in the session, which has none",
        callers="flask_login",
        applies=_has_no_identifier,
    ),
    ("flask_login.login_manager", "_update_remember_cookie"): KnownReader(
        "Flask-Login sets its cookie by it, and an answer that sets a cookie is not stored"
    ),
    ("flask_limiter.util", "get_remote_address"): KnownReader(
        "Flask-Limiter counts by it; a response over the limit is not stored",
        callers="flask_limiter",
    ),
    ("flask_session.base", "open_session"): KnownReader(_OPENED, applies=_is_opening),
    ("flask_session.base", "save_session"): KnownReader(_FLASK_SESSION),
    ("flask_session.base", "encode"): KnownReader(_FLASK_SESSION),
    ("flask_session.cachelib.cachelib", "_upsert_session"): KnownReader(_FLASK_SESSION),
    ("flask_session.filesystem.filesystem", "_upsert_session"): KnownReader(_FLASK_SESSION),
    ("opentelemetry.instrumentation.flask", "_before_request"): KnownReader(_TRACE),
    ("opentelemetry.instrumentation.flask", "_start_response"): KnownReader(_TRACE),
    ("opentelemetry.instrumentation.flask", "_teardown_request"): KnownReader(_TRACE),
    ("opentelemetry.instrumentation.wsgi", "collect_request_attributes"): KnownReader(_TRACE),
    ("opentelemetry.instrumentation.wsgi", "_apply_user_agent_attributes"): KnownReader(_TRACE),
    ("opentelemetry.instrumentation.wsgi", "collect_custom_request_headers_attributes"): (
        KnownReader(_TRACE)
    ),
    ("opentelemetry.instrumentation.wsgi", "get"): KnownReader(
        "OpenTelemetry goes on with the caller's trace; code may read a caller's baggage, of which "
        "there is none",
        applies=_brings_no_baggage,
    ),
    ("sentry_sdk.integrations.flask", "cookies"): KnownReader(_REPORT),
}

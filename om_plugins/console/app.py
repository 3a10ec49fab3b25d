"""The console: its pages, their data and their actions, as WSGI apps below ``OM_PREFIX``.

It is plain WSGI with Jinja2, so it works under any framework. Every response has ``no-store``, and
every page has its own Content-Security-Policy, stricter than any mode of ``OM_CSP_MODE``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from werkzeug.wrappers import Request, Response

from ..builtin.http import sse
from ..core.problem import Refusal
from ..core.request_state import state_of
from ..errors import MissingExtra
from ..plugins.kit import Kit
from ..policies.access import check_site
from ..workers.servers import stopping
from .access import Access, ConsoleAuth, Denied, Sessions
from .dashboard import Dashboard
from .engine_actions import EnginesPage
from .live import Streams
from .prefix import (
    MAX_FORM_BYTES,
    Endpoint,
    make_json,
    make_refusal,
    read_fields,
    read_small_body,
    wants_json,
)
from .prometheus import write_metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from jinja2 import Environment

logger = logging.getLogger("om_plugins")

LONGEST_SILENCE_S = 7 * 86_400.0

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'nonce-{nonce}' 'strict-dynamic'",
        "style-src 'nonce-{nonce}'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_PAGES = frozenset({"engines"})
"""The pages that may follow after somebody signed in, besides the overview."""


class Console:
    """The console of one application.

    Args:
        kit: the parts of the application.
        access: ``OM_CONSOLE_AUTH``.
    """

    def __init__(self, kit: Kit, access: Callable[..., Any] | str | None) -> None:
        self._kit = kit
        self._sessions = Sessions(kit.secret, kit.clock, access if isinstance(access, str) else "")
        self._auth = ConsoleAuth(
            access,
            debug=kit.host.debug,
            sessions=self._sessions,
            hub=kit.hub,
            secret=kit.secret,
            clock=kit.clock,
            host_context=kit.host.request_context,
        )
        self._dashboard = Dashboard(kit)
        self._engines = EnginesPage(kit, self._dashboard)
        self._streams = Streams(
            self._dashboard.read,
            clock=kit.clock,
            limit=kit.keys.sse_max,
            is_ending=lambda: kit.is_closed() or stopping(),
        )

    def endpoints(self) -> dict[str, WSGIApplication]:
        """Return the WSGI apps by their path below ``OM_PREFIX``."""
        metrics: dict[str, WSGIApplication] = {}
        if self._kit.part_of("monitoring").exports_metrics:
            metrics["/metrics"] = Endpoint(self._send_metrics, "GET")
        return {
            **metrics,
            "/": Endpoint(self._show_overview_page, "GET", page=self._build_refusal),
            "/ready": self._send_ready,
            "/engines": Endpoint(self._show_engines_page, "GET", page=self._build_refusal),
            "/engines.json": Endpoint(self._send_engines, "GET"),
            "/console/engines": Endpoint(self._change_engines, "POST", page=self._build_refusal),
            "/console/silence": Endpoint(self._silence, "POST"),
            "/overview.json": Endpoint(self._send_overview, "GET"),
            "/console/stream": Endpoint(self._send_events, "GET"),
            "/console/login": Endpoint(self._login, "POST", page=self._build_refusal),
            "/console/logout": Endpoint(self._logout, "POST", page=self._build_refusal),
            "/console/recover": Endpoint(self._recover, "POST"),
            "/console/purge": Endpoint(self._purge, "POST"),
        }

    # --- pages and data ----------------------------------------------------------------------

    def _show_overview_page(self, request: Request) -> Response:
        access = self._auth.check(request.environ)
        if isinstance(access, Response):
            return access
        return self._build_page(request, access, "console.html", picture=self._dashboard.read())

    def _show_engines_page(self, request: Request) -> Response:
        access = self._auth.check(request.environ)
        if isinstance(access, Response):
            return access
        values = self._engines.page(done=request.args.get("done", ""))
        return self._build_page(request, access, "engines.html", **values)

    def _send_engines(self, request: Request) -> Response:
        access = self._check_data_access(request)
        if isinstance(access, Response):
            return access
        return make_json(self._engines.board().as_data())

    def _send_overview(self, request: Request) -> Response:
        access = self._check_data_access(request)
        if isinstance(access, Response):
            return access
        return make_json(self._dashboard.read(request.args.get("span", "")[:20]))

    def _send_metrics(self, request: Request) -> Response:
        access = self._check_data_access(request)
        if isinstance(access, Response):
            return access
        if "monitoring" not in self._kit.layers:
            raise Refusal(404, "There are no metrics: OM_MONITORING is off.")
        try:
            body, content_type = write_metrics(self._kit, request.headers.get("Accept", ""))
        except MissingExtra as error:
            raise Refusal(404, f"There are no metrics: {error}.") from None
        response = Response(body, content_type=content_type)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _send_events(self, request: Request) -> Response:
        access = self._check_data_access(request)
        if isinstance(access, Response):
            return access
        session, page = access.session, request.args.get("page", "")[:40]
        # a page must not end the streams of another session
        page = f"{session.id} {page}" if session is not None and page else ""
        stream = self._streams.open(request.environ, request.args.get("span", "")[:20], page)
        if stream is None:
            return Response(status=204)  # a browser does not connect again after that
        return Response(stream, headers=sse.HEADERS)

    def _send_ready(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer ``GET /ready``: 503 when this process is about to end, else 200.

        Engines do not count: an application whose upstream is down still answers, from its cache
        and from lower tiers.
        """
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            ending = self._kit.is_closed() or stopping()
            response = make_json(
                {
                    "status": "ending" if ending else "ready",
                    "hub": "alone" if self._kit.hub.alone else "shared",
                },
                503 if ending else 200,
            )
        else:
            response = make_refusal(Refusal(405, "Use GET here.", [("Allow", "GET, HEAD")]))
        response.headers["Cache-Control"] = "no-store"
        return response(environ, start_response)

    # --- actions -----------------------------------------------------------------------------

    def _login(self, request: Request) -> Response:
        check_site(request.environ, request.host)
        self._auth.check_token(
            request.environ, read_fields(read_small_body(request)).get("token", "")
        )
        _, cookie = self._sessions.create(request.environ, signed_in=True)
        return _redirect(request, cookie, to=f"../{_find_page(request)}")

    def _logout(self, request: Request) -> Response:
        form = read_fields(read_small_body(request))
        access = self._auth.check(request.environ)
        if isinstance(access, Response):
            return access
        self._auth.check_action(request.environ, access, form.get("form_token", ""))
        return _redirect(request, self._sessions.end(request.environ))

    def _change_engines(self, request: Request) -> Response:
        body = read_small_body(request, MAX_FORM_BYTES)
        form = read_fields(body)
        access = self._auth.check(request.environ, body)
        if isinstance(access, Response):
            return access
        said = request.headers.get("X-OM-Form-Token") or form.get("form_token", "")
        self._auth.check_action(request.environ, access, said)
        outcome = self._engines.change(form, access.by)
        status = 422 if outcome.errors else 200
        if wants_json(request):
            values = {"message": outcome.message, "errors": outcome.errors}
            return make_json({**values, "board": self._engines.board().as_data()}, status)
        if not outcome.errors:
            return _redirect(request, to="../engines?done=changed")
        response = self._build_page(
            request, access, "engines.html", **self._engines.page(outcome=outcome)
        )
        response.status_code = status
        return response

    def _recover(self, request: Request) -> Response:
        asked = self._read_action(request, "Send a JSON object with a 'subject'.")
        if isinstance(asked, Response):
            return asked
        subject = asked.get("subject", "")
        if not self._kit.part_of("recovery").recovery.recover(subject):
            raise Refusal(
                409,
                "Nothing was begun: there is no such chain, or too much is under way. "
                "Look at the engines, then try again.",
            )
        return make_json({"subject": subject}, 202)

    def _purge(self, request: Request) -> Response:
        """Remove stored pages in all workers, by ``url``, ``prefix`` or ``tag``."""
        hint = "Send a JSON object with a 'url', a 'prefix' or a 'tag'."
        asked = self._read_action(request, hint)
        if isinstance(asked, Response):
            return asked
        tags = [asked["tag"]] if asked.get("tag") else []
        try:
            count = self._kit.part_of("http_cache").cache.purge(
                asked.get("url", ""), prefix=asked.get("prefix") or None, tags=tags
            )
        except ValueError as error:
            raise Refusal(400, f"Nothing was taken back: {error}.") from None
        return make_json({"purged": count}, 200)

    def _silence(self, request: Request) -> Response:
        asked = self._read_action(request, "Send a JSON object with a 'rule' and 'seconds'.")
        if isinstance(asked, Response):
            return asked
        try:
            seconds = min(max(float(asked.get("seconds", "")), 0.0), LONGEST_SILENCE_S)
            self._kit.part_of("monitoring").alerts.silence(asked.get("rule", ""), seconds)
        except ValueError as error:
            raise Refusal(422, f"Nothing was silenced: {error}.") from None
        logger.warning("console: alert %r silenced for %g s", asked["rule"], seconds)
        return make_json({"rule": asked["rule"], "seconds": seconds})

    def _read_action(self, request: Request, hint: str) -> dict[str, str] | Response:
        """Return the JSON object of an action, if the sender may do it."""
        body = read_small_body(request)
        access = self._auth.check(request.environ, body)
        if isinstance(access, Response):
            return access
        said = request.headers.get("X-OM-Form-Token", "")
        self._auth.check_action(request.environ, access, said)
        try:
            return msgspec.json.decode(body, type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Refusal(400, hint) from None

    # --- responses ---------------------------------------------------------------------------

    def _check_data_access(self, request: Request) -> Access | Response:
        """Let a request for data in; pages of other sites are refused, too."""
        check_site(request.environ, request.host)
        return self._auth.check(request.environ)

    def _build_page(
        self, request: Request, access: Access, template: str, **values: object
    ) -> Response:
        """Return a page with actions: it has a form token, which is bound to the session."""
        session, cookie = access.session, ""
        if session is None:
            session, cookie = self._sessions.create(request.environ, signed_in=False)
        response = self._render(
            request,
            template,
            form_token=self._sessions.form_token(session),
            may_leave=access.by == "cookie",
            **values,
        )
        if cookie:
            response.headers.add("Set-Cookie", cookie)
        return response

    def _build_refusal(self, request: Request, refusal: Refusal) -> Response:
        """Return a refusal as a page; its form for signing in leads to the requested page."""
        response = self._render(
            request,
            "away.html",
            status=refusal.status,
            title=refusal.document["title"],
            detail=refusal.document["detail"],
            login=self._auth.uses_token and refusal.status in (401, 429),
            page=_find_page(request),
            wrong=isinstance(refusal, Denied) and request.method == "POST",
        )
        response.status_code = refusal.status
        for name, value in refusal.headers:
            response.headers[name] = value
        return response

    def _render(self, request: Request, template: str, **values: object) -> Response:
        number = state_of(request.environ).nonce_for_page()
        text = (
            _templates()
            .get_template(template)
            .render(nonce=number, base="../" * (request.path.count("/") - 1), **values)
        )
        response = Response(text, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = _POLICY.format(nonce=number)
        response.headers["Referrer-Policy"] = "same-origin"  # other sites do not learn of this page
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("om_plugins.console"), autoescape=True, undefined=StrictUndefined
    )


def _find_page(request: Request) -> str:
    """Return the page to show after signing in; "" for the overview."""
    said = request.args.get("page") or request.path.lstrip("/")
    return said if said in _PAGES else ""


def _redirect(request: Request, cookie: str = "", to: str = "../") -> Response:
    answer = Response(status=HTTPStatus.SEE_OTHER)
    answer.autocorrect_location_header = False
    answer.headers["Location"] = to  # relative: it repeats nothing of the request
    if cookie:
        answer.headers.add("Set-Cookie", cookie)
    return answer

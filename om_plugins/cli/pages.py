"""Opens the pages of an app as a visitor does, for ``flask om doctor``.

The app runs in this process. The caches and the hub of this package are new ones in memory, so that
a running server notices nothing; hooks, views and templates do what they do for every visitor.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urljoin, urlsplit

from flask import Flask, session, template_rendered
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header
from werkzeug.routing import BuildError, RoutingException, Rule
from werkzeug.test import run_wsgi_app
from werkzeug.wsgi import ClosingIterator, get_current_url

from ..cache.responses.decisions import describe_error
from ..cache.responses.why import build_request
from ..core.body import TimeIsUp, limit_time
from ..csp.audit.findings import AuditedPage, examine_pages
from ..csp.audit.matching import read_header
from ..csp.feature import CspKeys
from ..csp.presets import PAGE, content_kind
from ..headers.feature import HeaderKeys
from ..plugins.kit import Finding, Kit
from ..settings.paths import PathPatterns

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

MAX_PAGES = 50
"""How many routes are opened when nobody says otherwise."""

_ONE_S = 5.0
_ALL_S = 30.0
_TWICE = 2
"""What a cache keeps of the first response is seen in the second."""

_MOST_NAMED = 12
_MAX_BYTES = 2**20
_OUR_NONCE = re.compile(r"'nonce-([0-9a-f]{32})'")
_CHANGING = re.compile(
    r"(log|sign)(out|off)|accept|activate|approve|backup|ban|buy|callback|cancel|charge|"
    r"checkout|clear|cron|deactivate|decline|delete|destroy|disable|dismiss|downvote|drop|"
    r"enable|erase|execute|flush|follow|generate|impersonate|import|kill|like|lock|merge|"
    r"migrate|pay|publish|purchase|purge|reboot|rebuild|refund|regenerate|reject|reload|"
    r"remove|renew|resend|reset|restart|restore|retry|revoke|rotate|run|save|seed|send|"
    r"shutdown|stop|submit|sync|terminate|toggle|trigger|truncate|undo|unfollow|unlike|"
    r"unlock|unsubscribe|update|upgrade|upvote|vote|webhook|wipe"
)
"""Words in the name of a route that may change something although it is a GET (RFC 9110, section
9.2.1, says that it must not)."""

_SIGN_IN = re.compile(r"(?<![a-z])(?:(?:log|sign)[-_]?[io]n|sso)(?![a-z])|\bauth", re.IGNORECASE)


@dataclass(slots=True)
class OpenedPages:
    """What became of the pages.

    Attributes:
        pages: in HTML, with what they enforce.
        names: the paths of those, in order.
        closed: paths that gave no page to look at, with the reason.
        elsewhere: paths that led to another one, which is the value.
        left_out: paths that were not opened, with the reason.
        cut: paths of pages of which only the beginning was read.
    """

    pages: list[AuditedPage] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    cut: dict[str, None] = field(default_factory=dict)

    def name_unseen(self) -> list[str]:
        """Return the paths whose page nobody has looked at, although it was asked for.

        A path that led to a page which was looked at is none of them, unless that is the page to
        sign in; and neither is one that was asked for again in another way, such as with a cookie.
        """
        seen = {urlsplit(one).path for one in self.names}
        return [
            path
            for path in self.closed
            if urlsplit(path).path not in seen
            and (
                urlsplit(self.elsewhere.get(path, "")).path not in seen
                or _asks_to_sign_in(path, self.elsewhere[path])
            )
        ]


def examine_routes(
    app: Flask,
    kit: Kit,
    *,
    most: int = MAX_PAGES,
    more: Sequence[tuple[str, WSGIEnvironment]] = (),
    cookie: str = "",
) -> Iterator[Finding]:
    """Open the app's pages, and yield what mode ``enforce`` would stop on them.

    Args:
        app: that has the pages.
        kit: of the app. It is closed: the app is built again, in mode ``enforce``.
        most: how many routes are opened at most; 0 for none but ``more``.
        more: names and environs of further requests.
        cookie: the header ``Cookie`` of all requests; ``more`` may bring further cookies.
    """
    keys = kit.settings.of(CspKeys)
    if keys.csp_mode == "off" or not kit.keys.enabled or kit.host.isolate is None:
        return
    policy = kit.part_of("headers").policy.rules.strict
    opened = OpenedPages()
    asked = [*more, *_choose_routes(app, kit, keys.csp_doctor_except, most, opened)]
    if not asked and not opened.left_out:
        return
    application = kit.host.isolate(observe=False, OM_CSP_MODE="enforce", OM_CSP_REPORT_SAMPLE=0.0)
    end = kit.clock.monotonic() + _ALL_S
    for name, environ in asked:
        if cookie:
            environ["HTTP_COOKIE"] = "; ".join(filter(None, (environ.get("HTTP_COOKIE"), cookie)))
        left = end - kit.clock.monotonic()
        if left <= 0:
            opened.left_out[name] = f"no time was left after {_ALL_S:g} s"
            continue
        _open(app, application, name, environ, min(left, _ONE_S), opened)
    yield from examine_pages(opened.pages, policy, enforced=keys.csp_mode == "enforce")
    yield _summarize(opened, signed_in=bool(cookie))


def _choose_routes(
    app: Flask, kit: Kit, excepted: Sequence[str], most: int, opened: OpenedPages
) -> list[tuple[str, WSGIEnvironment]]:
    patterns = PathPatterns(excepted)
    chosen: dict[str, WSGIEnvironment] = {}
    if most <= 0:
        return []
    for rule in sorted(app.url_map.iter_rules(), key=lambda one: (one.rule.count("/"), one.rule)):
        path = _find_path(app, rule)
        if not path or path in chosen or path.startswith(kit.keys.prefix + "/"):
            continue
        if patterns.match(path):
            opened.left_out[path] = "OM_CSP_DOCTOR_EXCEPT names it"
        elif _may_change(path, rule.endpoint):
            opened.left_out[path] = "its name says that it may change something"
        elif len(chosen) >= most:
            opened.left_out[path] = f"{most} others came first"
        else:
            chosen[path] = build_request(path, host=find_host(app, kit))
    return list(chosen.items())


def _find_path(app: Flask, rule: Rule) -> str:
    """Return the path of a route that a GET without arguments opens; "" for any other one."""
    if (
        "GET" not in (rule.methods or ())
        or rule.arguments - set(rule.defaults or ())
        or rule.websocket
        or rule.build_only
        or rule.redirect_to is not None
        or rule.subdomain
        or rule.host
        or rule.endpoint.rpartition(".")[2] == "static"
    ):
        return ""
    urls = app.url_map.bind("localhost")
    try:
        return urls.build(rule.endpoint, rule.defaults) if rule.defaults else rule.rule
    except BuildError:
        return ""


def find_host(app: Flask, kit: Kit) -> str:
    """Return scheme and host by which the app answers, as ``https://example.com``."""
    scheme = "https" if kit.settings.of(HeaderKeys).force_https.all else "http"
    trusted = [one.lstrip("*.") for one in kit.trusted_hosts or ()]
    return f"{scheme}://{app.config.get('SERVER_NAME') or next(iter(trusted), 'localhost')}"


def _open(
    app: Flask,
    application: WSGIApplication,
    name: str,
    environ: WSGIEnvironment,
    seconds: float,
    opened: OpenedPages,
) -> None:
    """Make one request, twice where it gives a page, and note what came of it."""
    rendered: list[object] = []

    def note(sender: object, template: object, **context: object) -> None:
        rendered.append(template)

    seen: set[str] = set()
    for _ in range(_TWICE):
        rendered.clear()
        try:
            with (
                limit_time(seconds),
                template_rendered.connected_to(note, app),
                redirect_stdout(sys.stderr),  # what a view prints is no finding
            ):
                body, status, headers = run_wsgi_app(application, dict(environ))
                read = _read_page(body, headers)
        except TimeIsUp:
            opened.closed[name] = f"it takes more than {seconds:.0f} s"
            return
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the application may raise anything
            opened.closed[name] = describe_error(error)
            return
        if status[:3] != "200":
            to = headers.get("Location", "")
            opened.closed[name] = f"{status}{f', to {to}' if to else ''}"
            if to:
                opened.elsewhere[name] = urljoin(get_current_url(environ), to)
        if isinstance(read, str) and read and status[:3] == "200":
            opened.closed[name] = read
        if not isinstance(read, bytearray) or status.startswith("3"):
            return
        if len(read) > _MAX_BYTES:
            opened.cut[name] = None
        html = _decode(read[:_MAX_BYTES], headers)
        policy = ", ".join(headers.getlist("Content-Security-Policy"))
        own = _OUR_NONCE.search(policy)
        same = f"{policy}\n{html}".replace(own[1], "") if own else f"{policy}\n{html}"
        if same not in seen:  # the second response is the same page, most of the time
            seen.add(same)
            opened.pages.append(
                AuditedPage(
                    name, get_current_url(environ), html, read_header([policy]), bool(rendered),
                    _find_pattern(app, environ),
                )
            )  # fmt: skip
        if status[:3] != "200":
            return
        opened.names[name] = None


def _find_pattern(app: Flask, environ: WSGIEnvironment) -> str:
    """Return a path as settings name it: ``/item/*`` for a route with arguments."""
    path = urlsplit(get_current_url(environ)).path
    try:
        rule, _ = app.url_map.bind_to_environ(environ).match(return_rule=True)
    except (HTTPException, RoutingException, ValueError):
        return path
    return f"{rule.rule.partition('<')[0]}*" if "<" in rule.rule else path


def _read_page(body: Iterable[bytes], headers: Headers) -> bytearray | str:
    """Return the beginning of a page; of another response, why it is none that can be read.

    The reason is "" for what is no HTML.
    """
    whole = ClosingIterator(body, [])
    with closing(whole):
        kind, _ = parse_options_header(headers.get("Content-Type", ""))
        if content_kind(kind) != PAGE:
            return ""
        if "Content-Encoding" in headers:
            return "the application compressed it"
        data = bytearray()
        for chunk in whole:
            data += chunk
            if len(data) > _MAX_BYTES:
                break
    return data


def _decode(data: bytearray, headers: Headers) -> str:
    _, options = parse_options_header(headers.get("Content-Type", ""))
    try:
        return data.decode(options.get("charset", "utf-8"), "replace")
    except LookupError:
        return data.decode("utf-8", "replace")


def _summarize(opened: OpenedPages, *, signed_in: bool) -> Finding:
    """Return what was looked at, and what was not and why."""
    number = len(opened.names)
    message = (
        f"Looked at {number} page{'' if number == 1 else 's'} of the application, "
        f"{'with the session of --session' if signed_in else 'without a session'}"
    )
    reasons: dict[str, list[str]] = {}
    for name, reason in [*opened.closed.items(), *opened.left_out.items()]:
        reasons.setdefault(reason, []).append(name)
    if reasons:
        missing = (f"{_name_some(names)} ({reason})" for reason, names in reasons.items())
        message += f"; not looked at: {', '.join(missing)}"
    if opened.cut:
        message += (
            f"; of {_name_some(list(opened.cut))}, only the first {_MAX_BYTES / 2**20:g} MiB were "
            "read"
        )
    unseen = opened.name_unseen()
    return Finding(
        "warn" if unseen else "ok",
        "pages",
        f"{message}.",
        f"Nobody has looked at {_name_some(unseen)}. To open them as a user does: flask om doctor "
        "--session KEY=VALUE, or --url /path with --cookie."
        if unseen
        else "Name what is to be opened as well: flask om doctor --url /path."
        if reasons
        else "",
    )


def _name_some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return f"{', '.join(names[:_MOST_NAMED])}{f' and {more} more' if more > 0 else ''}"


def build_session(app: Flask, values: Iterable[str], host: str) -> str:
    """Return the header ``Cookie`` of a session, made and signed as the app does.

    Args:
        app: whose session it is. An app that keeps sessions in a store gets one more there.
        values: as ``user_id=7``; a value that is JSON is read as such.
        host: scheme and host of the requests.

    Raises:
        ValueError: a value has another form, or the app has no sessions.
    """
    with app.test_request_context(base_url=host):
        for one in values:
            name, equals, value = one.partition("=")
            if not name or not equals:
                raise ValueError(f"{one!r} is no value of a session: write it as 'user_id=7'")
            try:
                session[name] = json.loads(value)
            except json.JSONDecodeError:
                session[name] = value
            except RuntimeError as error:
                raise ValueError(f"--session: {error}") from None
        response = app.response_class()
        app.session_interface.save_session(app, session._get_current_object(), response)  # type: ignore[attr-defined]
    return "; ".join(one.partition(";")[0] for one in response.headers.getlist("Set-Cookie"))


def _asks_to_sign_in(path: str, to: str) -> bool:
    """Return whether a redirect leads to a page to sign in, which later leads back."""
    target = urlsplit(to)
    return _SIGN_IN.search(target.path) is not None or any(
        urlsplit(value).path == urlsplit(path).path for _, value in parse_qsl(target.query)
    )


def _may_change(path: str, endpoint: str) -> bool:
    """Return whether a word of a route's path or endpoint is one of :data:`_CHANGING`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", f"{path} {endpoint}").lower()
    words = [one for one in re.split(r"[^a-z0-9]+", spaced) if one]
    pairs = map("".join, itertools.pairwise(words))
    return any(_CHANGING.fullmatch(word) for word in (*words, *pairs))

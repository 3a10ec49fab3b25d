"""Opens the pages of an app as a visitor without a session does, for ``flask om doctor``.

The app runs in this process. The caches and the hub of this package are new ones in memory, so that
a running server notices nothing; hooks, views and templates do what they do for every visitor.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flask import Flask, template_rendered
from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header
from werkzeug.routing import BuildError, Rule
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
_MAX_BYTES = 8 * 2**20
_CHANGING = re.compile(
    r"(log|sign)(out|off)|approve|backup|buy|callback|cancel|charge|checkout|clear|cron|"
    r"deactivate|delete|destroy|disable|drop|erase|execute|flush|impersonate|import|kill|migrate|"
    r"pay|publish|purchase|purge|reboot|rebuild|refund|reject|reload|remove|reset|restart|restore|"
    r"revoke|run|seed|send|shutdown|stop|sync|terminate|trigger|truncate|unsubscribe|webhook|"
    r"wipe"
)
"""Words in the name of a route that may change something although it is a GET (RFC 9110, section
9.2.1, says that it must not)."""


@dataclass(slots=True)
class OpenedPages:
    """What became of the pages.

    Attributes:
        pages: in HTML, with what they enforce.
        names: the paths of those, in order.
        closed: paths that gave no page to look at, with the reason.
        left_out: paths that were not opened, with the reason.
    """

    pages: list[AuditedPage] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def examine_routes(
    app: Flask,
    kit: Kit,
    *,
    most: int = MAX_PAGES,
    more: Sequence[tuple[str, WSGIEnvironment]] = (),
) -> Iterator[Finding]:
    """Open the app's pages, and yield what mode ``enforce`` would stop on them.

    Args:
        app: that has the pages.
        kit: of the app. It is closed: the app is built again, in mode ``enforce``.
        most: how many routes are opened at most; 0 for none but ``more``.
        more: names and environs of further requests.
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
        left = end - kit.clock.monotonic()
        if left <= 0:
            opened.left_out[name] = f"no time was left after {_ALL_S:g} s"
            continue
        _open(app, application, name, environ, min(left, _ONE_S), opened)
    yield from examine_pages(opened.pages, policy, enforced=keys.csp_mode == "enforce")
    yield _summarize(opened)


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

    for _ in range(_TWICE):
        rendered.clear()
        try:
            with limit_time(seconds), template_rendered.connected_to(note, app):
                body, status, headers = run_wsgi_app(application, dict(environ))
                html = _read_page(body, status, headers)
        except TimeIsUp:
            opened.closed[name] = f"it takes more than {seconds:.0f} s"
            return
        except Exception as error:  # noqa: BLE001 - the application may raise anything
            opened.closed[name] = describe_error(error)
            return
        if html is None:
            if status[:3] != "200":
                to = headers.get("Location", "")
                opened.closed[name] = f"{status}{f', to {to}' if to else ''}"
            return
        policies = read_header(headers.getlist("Content-Security-Policy"))
        opened.names[name] = None
        url = get_current_url(environ)
        opened.pages.append(AuditedPage(name, url, html, policies, bool(rendered)))


def _read_page(body: Iterable[bytes], status: str, headers: Headers) -> str | None:
    """Return the HTML of a response; ``None`` for one that is no page, or no whole one."""
    whole = ClosingIterator(body, [])
    with closing(whole):
        kind, options = parse_options_header(headers.get("Content-Type", ""))
        if status[:3] != "200" or content_kind(kind) != PAGE or "Content-Encoding" in headers:
            return None
        data = bytearray()
        for chunk in whole:
            data += chunk
            if len(data) > _MAX_BYTES:
                break
    try:
        return data.decode(options.get("charset", "utf-8"), "replace")
    except LookupError:
        return data.decode("utf-8", "replace")


def _summarize(opened: OpenedPages) -> Finding:
    """Return what was looked at, and what was not and why."""
    number = len(opened.names)
    message = f"{number} page{'' if number == 1 else 's'} of the application, without a session"
    missing = [
        f"{name} ({reason})" for name, reason in [*opened.closed.items(), *opened.left_out.items()]
    ]
    more = len(missing) - _MOST_NAMED
    if missing:
        message += f"; not looked at: {', '.join(missing[:_MOST_NAMED])}"
        message += f", and {more} more" if more > 0 else ""
    return Finding(
        "ok",
        "pages",
        f"Looked at {message}.",
        "Name what is to be opened as well: flask om doctor --url /path, with --cookie for a "
        "session."
        if missing
        else "",
    )


def _may_change(path: str, endpoint: str) -> bool:
    """Return whether a word of a route's path or endpoint is one of :data:`_CHANGING`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", f"{path} {endpoint}").lower()
    words = [one for one in re.split(r"[^a-z0-9]+", spaced) if one]
    pairs = map("".join, itertools.pairwise(words))
    return any(_CHANGING.fullmatch(word) for word in (*words, *pairs))

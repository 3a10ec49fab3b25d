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

from flask import Flask, Response, request_finished, session, template_rendered
from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header
from werkzeug.test import run_wsgi_app
from werkzeug.wsgi import ClosingIterator, get_current_url

from ..cache.responses.decisions import describe_error
from ..cache.responses.why import build_request
from ..core.body import TimeIsUp, limit_time
from ..csp.audit.files import examine_file, examine_insertions, find_files, inserts_styles
from ..csp.audit.findings import AuditedPage, examine_pages
from ..csp.audit.matching import read_header
from ..csp.feature import CspKeys
from ..csp.presets import PAGE, content_kind
from ..plugins.kit import Finding, Kit
from ..settings.paths import PathPatterns
from .routes import find_host, find_path, find_pattern, find_static_pages, may_change

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

MAX_PAGES = 50
"""How many routes are opened when nobody says otherwise."""

_ONE_S = 5.0
_ALL_S = 30.0
_TWICE = 2
"""What a cache keeps of the first response is seen in the second."""

_MOST_NAMED = 12
_MOST_FILES = 100
_MAX_BYTES = 2**23
"""Charts that were made in Python hold 5 MB of JavaScript."""

_OUR_NONCE = re.compile(r"'nonce-([0-9a-f]{32})'")

_DRAWING = re.compile(r"image/svg\+xml", re.IGNORECASE)
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
        _add_cookie(environ, cookie)
        left = end - kit.clock.monotonic()
        if left <= 0:
            opened.left_out[name] = f"no time was left after {_ALL_S:g} s"
            continue
        _open(app, application, name, environ, min(left, _ONE_S), opened)
    enforced = keys.csp_mode == "enforce"
    yield from examine_pages(opened.pages, policy, enforced=enforced)
    patterns = PathPatterns(keys.csp_doctor_except)
    files = find_files(opened.pages).items()
    inserting: set[str] = set()
    for (directive, address), page in itertools.islice(files, _MOST_FILES):
        if kit.clock.monotonic() < end and not patterns.match(urlsplit(address).path):
            environ = build_request(address, host=find_host(app, kit))
            kind, text = _read_file(application, _add_cookie(environ, cookie))
            if kind is not None:
                wrong = examine_file(directive, address, page, kind, enforced=enforced)
                yield from () if wrong is None else (wrong,)
            if directive == "script-src-elem" and inserts_styles(text):
                inserting.add(address)
    yield from examine_insertions(opened.pages, inserting)
    yield _summarize(opened, signed_in=bool(cookie))


def _choose_routes(
    app: Flask, kit: Kit, excepted: Sequence[str], most: int, opened: OpenedPages
) -> list[tuple[str, WSGIEnvironment]]:
    patterns = PathPatterns(excepted)
    chosen: dict[str, WSGIEnvironment] = {}
    if most <= 0:
        return []
    for rule in sorted(app.url_map.iter_rules(), key=lambda one: (one.rule.count("/"), one.rule)):
        path = find_path(app, rule)
        if not path or path in chosen or path.startswith(kit.keys.prefix + "/"):
            continue
        if patterns.match(path):
            opened.left_out[path] = "OM_CSP_DOCTOR_EXCEPT names it"
        elif may_change(path, rule.endpoint):
            opened.left_out[path] = "its name says that it may change something"
        elif len(chosen) >= most:
            opened.left_out[path] = f"{most} others came first"
        else:
            chosen[path] = build_request(path, host=find_host(app, kit))
    for path in itertools.islice(find_static_pages(app), _MOST_FILES):
        if patterns.match(path):
            opened.left_out[path] = "OM_CSP_DOCTOR_EXCEPT names it"
        elif len(chosen) >= most:
            opened.left_out[path] = f"{most} others came first"
        else:
            chosen.setdefault(path, build_request(path, host=find_host(app, kit)))
    return list(chosen.items())


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
    own_policy: list[str] = []

    def note(sender: object, template: object, **context: object) -> None:
        rendered.append(template)

    def note_policy(sender: object, response: Response, **more: object) -> None:
        own_policy[:] = response.headers.getlist("Content-Security-Policy")

    seen: set[str] = set()
    for _ in range(_TWICE):
        rendered.clear()
        own_policy.clear()
        try:
            with (
                limit_time(seconds),
                template_rendered.connected_to(note, app),
                request_finished.connected_to(note_policy, app),
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
        drawing = content_kind(headers.get("Content-Type", "")) != PAGE
        policy = ", ".join(headers.getlist("Content-Security-Policy"))
        own = _OUR_NONCE.search(policy)
        same = f"{policy}\n{html}".replace(own[1], "") if own else f"{policy}\n{html}"
        if same not in seen:  # the second response is the same page, most of the time
            seen.add(same)
            opened.pages.append(
                AuditedPage(
                    name, get_current_url(environ), html, read_header([policy]), bool(rendered),
                    find_pattern(app, environ), bool(own_policy),
                    drawing,
                )
            )  # fmt: skip
        if status[:3] != "200":
            return
        if not drawing:
            opened.names[name] = None


def _read_file(application: WSGIApplication, environ: WSGIEnvironment) -> tuple[str | None, str]:
    """Return type and text of a file; ``None`` for a type that browsers do not insist on."""
    data = bytearray()
    try:
        with limit_time(_ONE_S), redirect_stdout(sys.stderr):
            body, status, headers = run_wsgi_app(application, environ)
            with closing(ClosingIterator(body, [])) as whole:
                for chunk in whole if status[:3] == "200" else ():
                    data += chunk
                    if len(data) > _MAX_BYTES:
                        break
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - as in _open
        return None, ""
    if status[:3] != "200":
        return None, ""
    sniffs = headers.get("X-Content-Type-Options", "").lower() != "nosniff"
    text = "" if "Content-Encoding" in headers else data.decode("utf-8", "replace")
    return None if sniffs else headers.get("Content-Type", ""), text


def _add_cookie(environ: WSGIEnvironment, cookie: str) -> WSGIEnvironment:
    if cookie:
        environ["HTTP_COOKIE"] = "; ".join(filter(None, (environ.get("HTTP_COOKIE"), cookie)))
    return environ


def _read_page(body: Iterable[bytes], headers: Headers) -> bytearray | str:
    """Return the beginning of a page; of another response, why it is none that can be read.

    The reason is "" for what is no HTML.
    """
    whole = ClosingIterator(body, [])
    with closing(whole):
        kind, _ = parse_options_header(headers.get("Content-Type", ""))
        if content_kind(kind) != PAGE and not _DRAWING.fullmatch(kind):
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

"""Says what mode ``enforce`` would stop on pages of an application, and what to do about it.

Pages with the same trouble, such as a tag of their common frame, share one finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from ...plugins.kit import Finding
from ..html.handlers import BUILDS
from ..jinja.lint import DANGEROUS, QUESTION, Hint, lint_all
from ..override import Override
from ..policy import Policy, find_sources
from ..sources import allows_all_inline
from .matching import PagePart, is_allowed
from .page import WRITTEN, read_page

if TYPE_CHECKING:
    from jinja2 import Environment

_OUR_NONCE = re.compile(r"[0-9a-f]{32}")
_PATHS = "\0"
"""Stands in a way out for the paths of all pages with the same trouble."""

_FOR_PACKAGES = ", or the same in OM_CSP_PATHS"
"""Nobody can put a decorator on the view of a package."""

_WHOLE = re.compile(
    r"\s*(?:(?:<!--.*?-->|<\?[^>]*>)\s*)*<(?:!doctype|html|head|body|title|meta)\b",
    re.IGNORECASE | re.DOTALL,
)
"""The beginning of a page that is no part for other pages."""

_SHOWN = 3
_MOST_PLACES = 6
_NAMES: dict[tuple[str, str], tuple[str, str]] = {
    ("attribute", "script-src-attr"): ("event handler", "event handlers"),
    ("attribute", "style-src-attr"): ("style attribute", "style attributes"),
    ("code", "script-src"): ("piece of text that becomes code", "pieces of text that become code"),
    ("script-url", "script-src-elem"): ("javascript: address", "javascript: addresses"),
    ("tag", "script-src-elem"): ("script", "scripts"),
    ("tag", "style-src-elem"): ("style", "styles"),
    ("load", "base-uri"): ("<base>", "<base>"),
    ("load", "connect-src"): ("connection", "connections"),
    ("load", "font-src"): ("font", "fonts"),
    ("load", "form-action"): ("target of a form", "targets of forms"),
    ("load", "frame-src"): ("frame", "frames"),
    ("load", "img-src"): ("image", "images"),
    ("load", "manifest-src"): ("manifest", "manifests"),
    ("load", "media-src"): ("sound or video", "sounds and videos"),
    ("load", "object-src"): ("plug-in element", "plug-in elements"),
    ("load", "script-src-elem"): ("script", "scripts"),
    ("load", "style-src-elem"): ("style sheet", "style sheets"),
    ("load", "worker-src"): ("worker", "workers"),
}


@dataclass(frozen=True, slots=True)
class AuditedPage:
    """One response of the application under mode ``enforce``.

    Attributes:
        path: that was asked for, with its query.
        url: its complete address.
        pattern: the path as settings name it, such as ``/item/*``.
        html: the whole page.
        policies: that it enforces.
        from_template: a template was rendered for it.
        own: the policies are those of the application itself, which are kept in every mode.
        drawing: it is an SVG image.
    """

    path: str
    url: str
    html: str
    policies: Sequence[Policy]
    from_template: bool
    pattern: str = ""
    own: bool = False
    drawing: bool = False

    def allows_styles(self) -> bool:
        """Return whether every ``<style>`` works, one that a script inserts as well."""
        style = PagePart("tag", "style-src-elem", 0, "")
        return all(is_allowed(one, style, self.url) for one in self.policies)


def examine_pages(
    pages: Iterable[AuditedPage], policy: Policy, *, enforced: bool
) -> Iterator[Finding]:
    """Yield what the policies of pages would stop, the worst first.

    Args:
        pages: of the application; of one path, several responses.
        policy: that pages get which change nothing.
        enforced: the application is in mode ``enforce``, so that browsers do stop it.
    """
    troubles: dict[tuple[object, ...], _Trouble] = {}
    weak: dict[str, None] = {}
    places: set[tuple[object, ...]] = set()
    inserted: dict[str, PagePart] = {}
    for page in pages:
        found: dict[tuple[str, str, tuple[str, str]], list[PagePart]] = {}
        reader = read_page(page.html, page.url, page.policies)
        for part in (one for one in reader.parts if not reader.allows(one)):
            if page.drawing and not part.directive.startswith("script-src"):
                continue
            found.setdefault(_explain(part, page), []).append(part)
        for (reason, way_out, names), parts in found.items():
            shown = tuple(dict.fromkeys(one.shown for one in parts))
            place = (page.path, reason, way_out, names, tuple(one.line for one in parts))
            if place in places:  # the same page once more, whose texts have other numbers in it
                continue
            places.add(place)
            trouble = troubles.setdefault(
                (reason, way_out, names, shown, page.own),
                _Trouble(reason, way_out, names, parts, own=page.own, drawing=page.drawing),
            )
            trouble.paths[page.path] = page.pattern or page.path
        if page.drawing:
            continue
        styles = [one for one in reader.parts if _is_style(one) and reader.allows(one)]
        if styles and not _WHOLE.match(page.html) and not page.allows_styles():
            inserted.setdefault(page.path, styles[0])
        if not _runs_injected([policy]) and page.policies and _runs_injected(page.policies):
            weak[page.path] = None
    level: Literal["fail", "warn"] = "fail" if enforced else "warn"
    for trouble in sorted(troubles.values(), key=lambda one: not one.parts[0].guards):
        yield trouble.describe(level)
    if inserted:
        yield Finding(
            "warn",
            name_pages(list(inserted)),
            "No <html> is here, so this may be a part that a script inserts into a page. That page "
            "then stops its <style>, which only this response allows: "
            f"{', '.join(dict.fromkeys(f'line {one.line}' for one in inserted.values()))}.",
            "Move the rules into a style sheet or into the page. Or allow all styles of the page: "
            "@om.csp(update={'style-src': [\"'unsafe-inline'\"]}).",
        )
    if weak:
        yield Finding(
            "warn",
            name_pages(list(weak)),
            "Injected scripts run here: a change of the policy has 'unsafe-inline' for scripts.",
            "Give the scripts their nonces, and take the change back.",
        )


def examine_templates(
    environment: Environment,
    policy: Policy,
    changes: Iterable[Override],
    *,
    enforced: bool,
    questions: bool = False,
) -> Iterator[Finding]:
    """Yield what event handlers in templates are dangerous to stop.

    Args:
        environment: lists the templates.
        policy: that pages get which change nothing.
        changes: of views and paths. Where one allows handlers, the templates in question may be
            those of its pages, which nobody can tell from here.
        enforced: the application is in mode ``enforce``.
        questions: pages allow handlers that only ask by their hashes.
    """
    if _allows_handlers(policy):
        return
    try:
        dangerous = [one for one in lint_all(environment) if one.rule in DANGEROUS]
    except TypeError:  # the loader lists nothing
        return
    hints = [one for one in dangerous if one.rule != QUESTION or not questions]
    asking = [one for one in dangerous if one not in hints]
    if asking:
        yield Finding(
            "warn",
            "templates",
            f"{len(asking)} event handler(s) only ask, so mode enforce allows their hashes: "
            f"{_name_places(asking)}. Where a cache keeps the HTML, or a page is streamed, "
            "browsers stop them, and what they ask about happens unasked.",
            "Ask in a script, as 'flask om csp lint' shows.",
        )
    if not hints:
        return
    allowed = any(one.exempt or _allows_handlers(one.apply(policy)) for one in changes)
    yield Finding(
        "fail" if enforced and not allowed else "warn",
        "templates",
        f"Mode enforce stops {len(hints)} event handler(s) that decide whether something happens, "
        f"so that it happens unasked: {_name_places(hints)}."
        + (" Some pages allow handlers; make sure that it is these." if allowed else ""),
        "'flask om csp lint' shows each one and what to write. Or allow all handlers of a page: "
        "@om.csp(update={'script-src-attr': [\"'unsafe-inline'\"]}), or the same in OM_CSP_PATHS.",
    )


def _allows_handlers(policy: Policy) -> bool:
    sources = find_sources(policy, "script-src-attr")
    return sources is None or allows_all_inline("script-src-attr", sources)


def _name_places(hints: Sequence[Hint]) -> str:
    places = ", ".join(f"{_shorten_path(one.file)}:{one.line}" for one in hints[:_MOST_PLACES])
    more = len(hints) - _MOST_PLACES
    return f"{places}{f' and {more} more' if more > 0 else ''}"


def _shorten_path(file: str) -> str:
    return "/".join(Path(file).parts[-3:])


@dataclass(slots=True)
class _Trouble:
    """The same parts, stopped for the same reason, on one page or several."""

    reason: str
    way_out: str
    names: tuple[str, str]
    parts: list[PagePart]
    own: bool = False
    drawing: bool = False
    paths: dict[str, str] = field(default_factory=dict)

    def describe(self, level: Literal["fail", "warn"]) -> Finding:
        number = len(self.parts)
        one_of = f"{number} {self.names[number != 1]}"
        shown = ", ".join(f"line {one.line} {one.shown}" for one in self.parts[:_SHOWN])
        more = number - _SHOWN
        # a library may have it for other browsers alone: its text does not tell that it runs;
        # and Alpine has a build that needs no code
        first = self.parts[0]
        unsure = (first.kind == "code" and first.tool in ("", "Alpine")) or first.tool == WRITTEN
        who = "The application's own Content-Security-Policy" if self.own else "Mode enforce"
        return Finding(
            "warn" if unsure or self.own or self.drawing else level,
            name_pages(list(self.paths)),
            f"{who} stops {one_of}{self.reason}: {shown}"
            f"{f', and {more} more' if more > 0 else ''}.",
            self.way_out.replace(_PATHS, repr(write_patterns(self.paths.values()))),
        )


def write_patterns(paths: Iterable[str]) -> list[str]:
    """Return paths as settings name them, with all that is below a folder."""
    return sorted({f"{one}*" if one.endswith("/") and one != "/" else one for one in paths})


def _is_style(part: PagePart) -> bool:
    return part.kind == "tag" and part.directive == "style-src-elem" and not part.framed


def name_pages(paths: Sequence[str]) -> str:
    """Return the subject of a finding about several pages."""
    more = len(paths) - 4
    return f"GET {', '.join(paths[:4])}{f' and {more} more' if more > 0 else ''}"


def _runs_injected(policies: Iterable[Policy]) -> bool:
    """Return whether every policy lets a script run that somebody put into the page."""
    return all(
        sources is None or allows_all_inline("script-src-elem", sources)
        for sources in (find_sources(policy, "script-src-elem") for policy in policies)
    )


def _explain(part: PagePart, page: AuditedPage) -> tuple[str, str, tuple[str, str]]:
    """Return the reason, the way out, and the name of a stopped part for one and for several."""
    name = _NAMES.get((part.kind, part.directive), ("part", "parts"))
    if page.own:
        return (
            "",
            "It does so in every mode. Change it there; or let the application send none "
            "(Flask-Talisman: content_security_policy=False), and the policy of OM_CSP_MODE "
            "counts.",
            name,
        )
    if page.drawing:
        return (
            " of an SVG image, where it is opened by itself or in a frame; in <img> none ever runs",
            "If the image has no markup of users: OM_CSP_PATHS = "
            f"{{{page.pattern or page.path!r}: {{'exempt': True}}}}.",
            name,
        )
    if part.tool == "Flask-DebugToolbar":
        return (
            " of Flask-DebugToolbar",
            "It is for development: set DEBUG_TB_ENABLED = False, or there "
            "OM_CSP_HTML_NONCES = 'trusted'.",
            name,
        )
    reason, way_out = (
        _explain_attribute(part) if part.kind in ("attribute", "script-url", "code")
        else _explain_tag(part, page) if _takes_nonce(part)
        else ("", _allow(part.directive, _name_source(part, page), "Allow it"))
    )  # fmt: skip
    return reason, way_out, name


def _explain_attribute(part: PagePart) -> tuple[str, str]:
    if part.guards:
        return (
            ", so that what depends on it happens unasked",
            "Ask in a script, as 'flask om csp lint' shows. Or allow all handlers of the page: "
            "@om.csp(update={'script-src-attr': [\"'unsafe-inline'\"]})"
            f"{_FOR_PACKAGES}.",
        )
    if part.directive == "script-src-attr":
        return (
            "",
            "Use addEventListener in a script, as 'flask om csp lint' shows. Or allow all handlers "
            "of the page: @om.csp(update={'script-src-attr': [\"'unsafe-inline'\"]})"
            f"{_FOR_PACKAGES}.",
        )
    if part.directive == "style-src-attr":
        return "", "Use a class. " + _allow("style-src-attr", "'unsafe-inline'")
    if part.kind == "script-url":
        return "", "Use a <button> and addEventListener in a script."
    if part.tool:
        return f" by {part.tool}", f"{BUILDS[part.tool]}. {_ALLOW_CODE}"
    return " if the script comes to it", f"Give a function instead of text. {_ALLOW_CODE}"


def _takes_nonce(part: PagePart) -> bool:
    return part.directive in ("script-src-elem", "style-src-elem") and not part.shown.startswith(
        "@"
    )


def _explain_tag(part: PagePart, page: AuditedPage) -> tuple[str, str]:
    host = _name_source(part, page) if part.kind == "load" else ""
    by_host = ""
    if host and host != "'self'":
        by_host = " " + _allow(part.directive.removesuffix("-elem"), host)
    if part.tool == WRITTEN:
        return (
            " that document.write puts into the page, if the script comes to it",
            "Insert it with document.createElement('script'), and set its nonce to "
            f"document.currentScript.nonce.{by_host}",
        )
    if part.framed:
        return (
            " in a document that the page gives to a frame as text (srcdoc or data:)",
            "Make that document in a view of its own, name its path in OM_CSP_HTML_NONCES if it "
            f'has no markup of users, and write <iframe src="…">.{by_host}',
        )
    if _OUR_NONCE.fullmatch(part.nonce):
        return (
            " with the nonce of another response, as a cache of pages or fragments keeps it",
            f"If the cached HTML has no markup of users: OM_CSP_HTML_NONCES = {_PATHS}. Or cache "
            "the data with om.cache.query, or the page with @om.cached.",
        )
    if part.nonce:
        return (
            " with a nonce that is not the response's",
            'Take the attribute out, or write nonce="{{ csp_nonce() }}".' + by_host,
        )
    if not page.from_template:
        return (
            " without a nonce, on a page that no template made",
            f"If the page has no markup of users: OM_CSP_HTML_NONCES = {_PATHS}.{by_host}",
        )
    return (
        " without a nonce, which no template wrote",
        "If the value that brings it has no markup of users, write {{ value|om_trusted }}, or set "
        f"OM_CSP_HTML_NONCES = {_PATHS}.{by_host}",
    )


def _name_source(part: PagePart, page: AuditedPage) -> str:
    url, own = urlsplit(part.url), urlsplit(page.url)
    if (url.scheme, url.netloc) == (own.scheme, own.netloc):
        return "'self'"
    return f"{url.scheme}://{url.netloc}" if url.netloc else f"{url.scheme}:"


def _allow(directive: str, source: str, how: str = "Or allow it") -> str:
    change = f'{{{directive!r}: ["{source}"]}}'
    return f"{how}: @om.csp(update={change}){_FOR_PACKAGES}."


_ALLOW_CODE = _allow("script-src", "'unsafe-eval'")

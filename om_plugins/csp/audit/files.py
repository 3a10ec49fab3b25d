"""Says of the scripts and style sheets of the site itself what browsers refuse: those with a wrong
type, and the styles that scripts insert.

Source: Fetch standard, section 3.6 (``X-Content-Type-Options: nosniff``), and MIME Sniffing
standard, section 4.6 (types of JavaScript).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from typing import Literal
from urllib.parse import urlsplit

from ...plugins.kit import Finding
from .findings import AuditedPage, name_pages, write_patterns
from .matching import PagePart
from .page import read_page

_TYPES: dict[str, tuple[str, str, re.Pattern[str]]] = {
    "script-src-elem": (
        "script",
        "text/javascript",
        re.compile(
            r"(?:application|text)/(?:x-)?(?:java|ecma)script|"
            r"text/(?:javascript1\.[0-5]|jscript|livescript)"
        ),
    ),
    "style-src-elem": ("style sheet", "text/css", re.compile(r"text/css")),
}
"""What browsers ask for: its name, its type, and all types that it may have."""


_INSERTS_STYLE = re.compile(
    r"""createElement\(\s*["'`]style["'`]\s*\)|["'`]<style(?=[\s>"'`$])""", re.IGNORECASE
)
_KNOWN_TO_INSERT = re.compile(
    r"/(?:ckeditor|htmx|mathjax|mermaid|plotly|tex-[a-z]+|vega-embed)[^/]*(?:/|\Z)", re.IGNORECASE
)
"""Files and packages of libraries that insert styles, where another host has them."""

_SHOWN = 3


def find_files(pages: Iterable[AuditedPage]) -> dict[tuple[str, str], str]:
    """Return the scripts and style sheets of the site itself that pages ask for and may load.

    Returns:
        From directive and address, path and query, to the path of the first page with it.
    """
    found: dict[tuple[str, str], str] = {}
    for page in pages:
        for part, address in _list_parts(page):
            if address:
                found.setdefault((part.directive, address), page.path)
    return found


def _list_parts(page: AuditedPage) -> Iterator[tuple[PagePart, str]]:
    """Yield the scripts and style sheets of a page that may run, with the address of a file of the
    site itself, or "".
    """
    reader = read_page(page.html, page.url, page.policies)
    here = urlsplit(page.url)
    for part in reader.parts:
        if part.directive not in _TYPES or not reader.allows(part):
            continue
        there = urlsplit(part.url)
        own = part.kind == "load" and (there.scheme, there.netloc) == (here.scheme, here.netloc)
        yield part, there._replace(scheme="", netloc="", fragment="").geturl() if own else ""


def inserts_styles(text: str) -> bool:
    """Return whether a script makes ``<style>`` elements."""
    return _INSERTS_STYLE.search(text) is not None


def examine_insertions(
    pages: Iterable[AuditedPage], inserting: Container[str]
) -> Iterator[Finding]:
    """Yield on which pages scripts insert styles that the policy stops.

    Args:
        pages: of the application.
        inserting: the addresses of scripts that insert styles.
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for page in pages:
        if page.own or page.allows_styles():
            continue
        places = []
        for part, address in _list_parts(page):
            if part.directive != "script-src-elem":
                continue
            if address in inserting:
                places.append(address)
            elif not address and _KNOWN_TO_INSERT.search(urlsplit(part.url).path):
                places.append(part.url)
            elif part.kind == "tag" and inserts_styles(part.text):
                places.append(f"line {part.line}")
        if places:
            found.setdefault(tuple(dict.fromkeys(places)), {})[page.path] = (
                page.pattern or page.path
            )
    for shown, paths in found.items():
        more = len(shown) - _SHOWN
        change = "{'update': {'style-src': [\"'unsafe-inline'\"]}}"
        changes = ", ".join(f"{one!r}: {change}" for one in write_patterns(paths.values()))
        yield Finding(
            "warn",
            name_pages(list(paths)),
            "Scripts insert styles here, and mode enforce stops those without the nonce: "
            f"{', '.join(shown[:_SHOWN])}{f', and {more} more' if more > 0 else ''}.",
            "Give the library the nonce, if it has an option for it. If the page looks wrong "
            f"nevertheless, allow all its styles: OM_CSP_PATHS = {{{changes}}}.",
        )


def examine_file(
    directive: str, address: str, page: str, content_type: str, *, enforced: bool
) -> Finding | None:
    """Return what is wrong with the type of a file that is sent with ``nosniff``.

    Args:
        directive, address, page: as :func:`find_files` returned them.
        content_type: of the response.
        enforced: the application is in mode ``enforce``, which sends the header.
    """
    name, right, all_right = _TYPES[directive]
    kind = content_type.partition(";")[0].strip().lower()
    if all_right.fullmatch(kind):
        return None
    level: Literal["fail", "warn"] = "fail" if enforced else "warn"
    end = "." + urlsplit(address).path.rpartition(".")[2]
    return Finding(
        level,
        f"GET {address}",
        f"Mode enforce sends X-Content-Type-Options: nosniff, so browsers refuse this {name} of "
        f"{page}: its type is {kind or 'missing'}.",
        f"Send it with its type: Response(…, mimetype={right!r}). For files of a folder: "
        f"mimetypes.add_type({right!r}, {end!r}).",
    )

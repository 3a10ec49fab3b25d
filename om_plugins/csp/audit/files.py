"""Says which scripts and style sheets of the site itself browsers refuse because of their type.

Source: Fetch standard, section 3.6 (``X-Content-Type-Options: nosniff``), and MIME Sniffing
standard, section 4.6 (types of JavaScript).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from ...plugins.kit import Finding
from .findings import AuditedPage
from .page import PageReader

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


def find_files(pages: Iterable[AuditedPage]) -> dict[tuple[str, str], str]:
    """Return the scripts and style sheets of the site itself that pages ask for and may load.

    Returns:
        From directive and address, path and query, to the path of the first page with it.
    """
    found: dict[tuple[str, str], str] = {}
    for page in pages:
        reader = PageReader(page.url, page.policies)
        reader.feed(page.html)
        reader.close()
        here = urlsplit(page.url)
        for part in reader.parts:
            there = urlsplit(part.url)
            if (
                part.kind == "load"
                and part.directive in _TYPES
                and (there.scheme, there.netloc) == (here.scheme, here.netloc)
                and reader.allows(part)
            ):
                address = there._replace(scheme="", netloc="", fragment="").geturl()
                found.setdefault((part.directive, address), page.path)
    return found


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

"""Which policy a response may have at all, by its type."""

from __future__ import annotations

__all__ = ["DATA", "DRAWING", "OTHER", "PAGE", "UNKNOWN", "kind_of"]

PAGE, DATA, DRAWING, OTHER, UNKNOWN = range(5)
"""A page; data that never runs anything; an SVG image or XML, which may; what is left alone; not
known."""


def kind_of(content_type: str) -> int:
    """The kind of a response with this ``Content-Type``."""
    essence = content_type.partition(";")[0].strip().lower()
    if essence in ("text/html", "application/xhtml+xml"):
        return PAGE
    if essence in ("image/svg+xml", "application/xml", "text/xml"):
        return DRAWING  # opened as documents, they run scripts
    if essence in ("application/json", "text/css") or essence.endswith("+json"):
        return DATA
    return DATA if essence.startswith("image/") else OTHER

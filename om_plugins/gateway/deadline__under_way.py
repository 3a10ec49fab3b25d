"""The request that an engine route answers, for whoever is called from inside its chain."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["ENVIRON"]

ENVIRON: ContextVar[WSGIEnvironment | None] = ContextVar("om_plugins.environ", default=None)
"""Set while a chain is asked by an engine route; ``None`` otherwise."""

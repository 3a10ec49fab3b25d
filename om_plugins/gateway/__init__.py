"""Engine routes: paths of a WSGI application that an engine chain answers."""

from __future__ import annotations

from .layer import EngineRoutes

__all__ = ["EngineRoutes"]

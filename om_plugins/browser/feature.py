"""The modules that pages load: toasts, live updates, queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..plugins.feature import Feature
from ..settings.table import NoKeys

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..plugins.kit import Kit
    from .static_files import StaticFiles


class BrowserFeature(Feature["StaticFiles", NoKeys]):
    """Serves the modules at ``/static/<name>`` below ``OM_PREFIX``.

    Another feature adds the files of its own pages in its ``endpoints``:
    ``kit.part_of("browser").add_folder(__package__)``.
    """

    name = "browser"

    def is_needed(self, kit: Kit, keys: NoKeys) -> bool:
        return False

    def build(self, kit: Kit, keys: NoKeys) -> StaticFiles:
        from .static_files import StaticFiles

        return StaticFiles()

    def endpoints(self, kit: Kit, part: StaticFiles) -> Mapping[str, WSGIApplication]:
        return {"/static/<name>": part}

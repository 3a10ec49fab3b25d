"""The modules that pages load: toasts, live updates, queries."""

from __future__ import annotations

from ..plugins.feature import Feature
from ..plugins.kit import Kit
from ..settings.table import NoKeys


class BrowserFeature(Feature[bool, NoKeys]):
    """Serves the modules below ``OM_PREFIX``."""

    name = "browser"

    def build(self, kit: Kit, keys: NoKeys) -> bool:
        return True

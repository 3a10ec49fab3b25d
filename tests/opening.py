"""A test client that opens pages as a browser does."""

from __future__ import annotations

from typing import Any

import pytest
from flask.ctx import RequestContext
from flask.testing import FlaskClient

ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

NEW_FLASK = isinstance(getattr(RequestContext, "session", None), property)
"""Flask from 3.1.3 on notes looks at the session itself, and closes streams that nobody reads."""
needs_new_flask = pytest.mark.skipif(not NEW_FLASK, reason="needs Flask 3.1.3")


class OpeningClient(FlaskClient):
    """Sends the ``Accept`` of a browser that opens a page, without Fetch Metadata."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environ_base["HTTP_ACCEPT"] = ACCEPT

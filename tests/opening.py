"""A test client that opens pages as a browser does."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient

ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class OpeningClient(FlaskClient):
    """Sends the ``Accept`` of a browser that opens a page, without Fetch Metadata."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environ_base["HTTP_ACCEPT"] = ACCEPT

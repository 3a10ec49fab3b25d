"""The marks of a stored page: what they keep of its policy, and how they are stored."""

from __future__ import annotations

import pytest

from om_plugins.csp.override import Override
from om_plugins.headers.cached_pages import CachedPages

PAGES = CachedPages()


def test_marks_are_written_for_a_store_and_read_back():
    change = Override(update={"img-src": ["https://x.example"]}, report_only=True)
    marks = {"plain": True, "route": "/page", "overrides": (change, Override(exempt=True))}
    assert PAGES.unpack_marks(PAGES.pack_marks(marks)) == marks
    assert PAGES.unpack_marks(PAGES.pack_marks({})) == {}


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x93\xc2\x91\x81\xa1a\x01\xa0"])
def test_marks_that_were_planted_are_refused(data):
    with pytest.raises(ValueError, match=r"."):
        PAGES.unpack_marks(data)

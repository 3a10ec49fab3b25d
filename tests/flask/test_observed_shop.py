"""Whose page it is in a shop with real extensions; ``make proof`` lets its visitors walk longer."""

from __future__ import annotations

import pytest

for name in ("flask_babel", "flask_limiter", "flask_login", "flask_session", "flask_wtf"):
    pytest.importorskip(name)

from tests.proof.observed_vary.shop import Walk  # noqa: E402


@pytest.mark.parametrize("permanent", [False, True], ids=["newcomers", "sessions for all"])
@pytest.mark.parametrize("http_cache", [True, {"cookies": True}], ids=["plain", "cookies"])
def test_each_visitor_gets_the_page_that_is_his(http_cache, permanent):
    walk = Walk(0, http_cache, permanent=permanent)
    walk.run(300)
    walk.close()
    assert walk.counts["hits"] > 20

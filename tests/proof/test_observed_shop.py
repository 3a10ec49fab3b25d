"""Visitors of a shop with real extensions: whose page each one gets, and that newcomers share."""

from __future__ import annotations

from collections import Counter

import pytest

for name in ("flask_babel", "flask_limiter", "flask_login", "flask_session", "flask_wtf"):
    pytest.importorskip(name)

from tests.proof.observed_vary.shop import Walk  # noqa: E402

WALKS, STEPS = 4, 1200
IN_FRONT = ("/about", "/shared", "/news", "/offers")


@pytest.mark.proof
@pytest.mark.parametrize("http_cache", [True, {"cookies": True}], ids=["plain", "cookies"])
def test_newcomers_share_all_pages(http_cache):
    counts = _walk(http_cache, permanent=False)
    for path in ("/", *IN_FRONT):
        assert _hit_rate(counts, "newcomer", path) >= 0.95, counts
    # Flask-Login writes into each new session once, and such an answer is not kept
    assert _hit_rate(counts, "anonymous", "/") >= 0.8, counts


@pytest.mark.proof
@pytest.mark.parametrize("http_cache", [True, {"cookies": True}], ids=["plain", "cookies"])
def test_anonymous_visitors_with_a_session_share_as_well(http_cache):
    counts = _walk(http_cache, permanent=True)
    assert _hit_rate(counts, "anonymous", "/") >= 0.95, counts


def _walk(http_cache: object, *, permanent: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(WALKS):
        walk = Walk(seed, http_cache, permanent=permanent)
        walk.run(STEPS)
        walk.close()
        counts += walk.counts
    return counts


def _hit_rate(counts: Counter[str], who: str, path: str) -> float:
    asked = counts[f"{who} {path}"]
    assert asked > 30, (who, path, counts)
    return counts[f"{who} {path} hits"] / asked

"""Random apps and visitors: no answer depends on what another visitor brings, and visitors share.

The programs, and the judge who knows what each answer must be, are in ``observed_vary/``.
"""

from __future__ import annotations

import pytest

from tests.proof.observed_vary.driving import Tally, check
from tests.proof.observed_vary.generating import Generator

CASES = 10_000


@pytest.fixture(scope="module")
def tally():
    """What happened in all cases, each of which was checked."""
    tally = Tally()
    for seed in range(1_000, 1_000 + CASES):
        check(Generator(seed).draw(), tally)
    return tally


@pytest.mark.proof
def test_no_byte_depends_on_what_another_visitor_brings(tally):
    kept = ("cached", "shared", "http", "http public", "public", "scope")
    reached = ["refreshes", "304", "last good answer", "downstream hits"]
    reached += [f"{kind}: hit" for kind in kept]
    assert all(tally.counts[name] > CASES / 200 for name in reached), tally


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["cached", "shared", "public", "http", "http public"])
def test_pages_that_look_at_nobody_are_shared_by_all_visitors(tally, kind):
    assert tally.counts[f"anonymous {kind}: asked"] > CASES / 100
    assert tally.share(f"anonymous {kind}: hit", f"anonymous {kind}: asked") >= 0.95, tally

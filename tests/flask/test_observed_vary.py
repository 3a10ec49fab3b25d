"""Whose page it is: random apps and visitors, of which ``make proof`` tries more."""

from __future__ import annotations

from tests.proof.observed_vary.driving import Tally, check
from tests.proof.observed_vary.generating import Generator


def test_each_visitor_gets_the_page_that_is_his():
    tally = Tally()
    for seed in range(200):
        check(Generator(seed).draw(), tally)
    assert tally.share("hit", "asked") > 0.15, tally

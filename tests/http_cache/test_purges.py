"""Purges: which responses are meant, and what is remembered of them."""

from __future__ import annotations

import pytest
from werkzeug.test import create_environ

from om_plugins.cache.entry import write_ident
from om_plugins.cache.keys import encode_body, identify
from om_plugins.core.inputs import EnvironReader, InputRules
from om_plugins.http_cache import purges
from om_plugins.http_cache.keys import AddressKeys
from om_plugins.http_cache.purges import Purge, Purged, Purges, read_purge, write_purge
from om_plugins.http_cache.variants import variant_key
from om_plugins.workers.invalidation_bus import (
    EntriesCleared,
    EntriesInvalidated,
    EntriesReplaced,
    EntryRemoved,
)

KEY = AddressKeys().build(create_environ("/a/b", "http://h.example", query_string="x=1"))


def variant_of(key):
    return variant_key(key, "ab12", ("vary:accept",), EnvironReader({}), InputRules())


@pytest.mark.parametrize(
    "purge",
    [
        Purge(url="/a/b"),
        Purge(url="/a/b?x=1"),
        Purge(url="http://h.example/a/b"),
        Purge(prefix="/a/"),
        Purge(prefix="http://h.example/"),
        Purge(prefix=""),
        Purge(tags=("t",)),
        Purge(idents=(KEY,)),
    ],
)
def test_what_is_meant(purge):
    for ident in (KEY, variant_of(KEY)):
        assert purge.matches(ident, ("t", "u"))


@pytest.mark.parametrize(
    "purge",
    [
        Purge(url="/a"),
        Purge(url="/a/b?x=2"),
        Purge(url="https://h.example/a/b"),
        Purge(prefix="/b"),
        Purge(tags=("v",)),
        Purge(idents=(KEY + "0",)),
    ],
)
def test_what_is_not_meant(purge):
    assert not purge.matches(KEY, ("t", "u"))


def test_what_began_before_a_purge_is_gone_and_what_began_after_is_not():
    known = Purges()
    before = known.count
    known.add(Purge(url="/a/b"), 100.0)
    assert known.since(before, KEY, ()) is Purged.GONE
    assert known.since(known.count, KEY, ()) is Purged.NO
    assert known.after(100.0, KEY, ()) is Purged.GONE
    assert known.after(100.1, KEY, ()) is Purged.NO


def test_single_addresses_take_their_variants_along():
    known = Purges()
    before = known.count
    known.add(Purge(idents=(KEY,)), 100.0)
    assert known.since(before, variant_of(KEY), ()) is Purged.GONE
    assert known.since(before, KEY.replace("/a/b", "/a/c"), ()) is Purged.NO


def test_a_soft_purge_makes_stale_and_a_hard_one_wins():
    known = Purges()
    known.add(Purge(tags=("t",), soft=True), 100.0)
    assert known.after(99.0, KEY, ("t",)) is Purged.STALE
    known.add(Purge(prefix="/a"), 100.0)
    assert known.after(99.0, KEY, ("t",)) is Purged.GONE


def test_what_is_forgotten_counts_as_purged(monkeypatch):
    monkeypatch.setattr(purges, "_MOST_IDENTS", 3)
    known = Purges()
    before = known.count
    for number in range(5):
        known.add(Purge(idents=(str(number),)), 100.0 + number)
    assert known.since(before, "other", ()) is Purged.GONE
    assert known.since(3, "other", ()) is Purged.NO
    assert known.after(101.0, "other", ()) is Purged.GONE
    assert known.after(103.0, "other", ()) is Purged.NO


def test_a_purge_passes_the_bus():
    purge = Purge("/a", "/b", ("t",), ("i",), soft=True)
    assert read_purge(write_purge(purge, 1.0)) == purge


@pytest.mark.parametrize(
    ("message", "purge"),
    [
        (EntriesCleared(at=1), Purge(prefix="/", soft=True)),
        (EntriesInvalidated(at=1, prefix=b""), Purge(prefix="/", soft=True)),
        (EntriesInvalidated(at=1, tags=["t"]), Purge(tags=("t",), soft=True)),
        (
            EntriesInvalidated(at=1, prefix=encode_body("report"), tags=["t"]),
            Purge(tags=("t",), soft=True),
        ),
        (
            EntriesInvalidated(at=1, prefix=encode_body(("view", "/a")), hard=True),
            Purge(url="/a", soft=True),
        ),
        (EntriesInvalidated(at=1, prefix=encode_body(("view",))), Purge(prefix="/", soft=True)),
        (
            EntryRemoved(at=1, ident=write_ident(identify(("view", "/a"), "user"))),
            Purge(url="/a", soft=True),
        ),
    ],
)
def test_pages_follow_data(message, purge):
    assert read_purge(message) == purge


@pytest.mark.parametrize(
    "message",
    [
        EntriesInvalidated(at=1, prefix=encode_body("report")),
        EntriesInvalidated(at=1, prefix=encode_body(("report", "/a"))),
        EntriesInvalidated(at=1, prefix=b"Ts-4:"),
        EntriesInvalidated(at=1, prefix=b"Tgarbage"),
        EntryRemoved(at=1, ident=write_ident("report")),
        EntryRemoved(at=1, ident=b"garbage"),
        EntriesReplaced(at=1, idents=[write_ident("report")]),
    ],
)
def test_other_data_means_no_page(message):
    assert read_purge(message) is None

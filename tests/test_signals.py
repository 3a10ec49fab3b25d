"""The signals: sent under guard, each documented."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from om_plugins import signals

PAGE = Path(__file__).parent.parent / "docs" / "signals.md"


class Sender:
    """An application."""


def test_each_receiver_gets_the_sender_and_the_details() -> None:
    got = []
    sender = Sender()

    def receiver(app: object, **details: object) -> None:
        got.append((app, details))

    with signals.cache_hit.connected_to(receiver):
        signals.send(signals.cache_hit, sender, key="k")
    assert got == [(sender, {"key": "k"})]


def test_a_raising_receiver_is_logged_by_name_and_starves_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    got = []

    def broken(app: object, **details: object) -> None:
        raise RuntimeError("no luck")

    def fine(app: object, **details: object) -> None:
        got.append(details)

    with signals.cache_hit.connected_to(broken), signals.cache_hit.connected_to(fine):
        signals.send(signals.cache_hit, Sender(), key="k")
    assert got == [{"key": "k"}]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("om_plugins", logging.ERROR)
    assert "a receiver of cache_hit failed" in record.getMessage()
    assert "broken" in record.getMessage()


def test_a_receiver_of_one_application_does_not_hear_another() -> None:
    got = []
    mine, other = Sender(), Sender()

    def receiver(app: object, **details: object) -> None:
        got.append(app)

    with signals.cache_hit.connected_to(receiver, sender=mine):
        signals.send(signals.cache_hit, mine, key="k")
        signals.send(signals.cache_hit, other, key="k")
    assert got == [mine]


def test_nothing_is_looked_up_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(sender: object) -> object:
        raise AssertionError("nobody listens")

    monkeypatch.setattr(signals.cache_missed, "receivers_for", never)
    signals.send(signals.cache_missed, Sender(), key="k")
    signals.emitter(Sender())(signals.cache_missed, key="k")


def test_an_emitter_has_its_sender_filled_in() -> None:
    got = []
    sender = Sender()

    def receiver(app: object, **details: object) -> None:
        got.append((app, details))

    with signals.plugin_loaded.connected_to(receiver):
        signals.emitter(sender)(signals.plugin_loaded, name="wiki", version="1")
    assert got == [(sender, {"name": "wiki", "version": "1"})]


def test_signals_of_the_same_name_elsewhere_are_not_ours() -> None:
    import blinker

    assert blinker.signal("cache_hit") is not signals.cache_hit


@pytest.mark.parametrize("name", sorted(signals.SIGNALS))
def test_every_signal_is_documented_with_its_details(name: str) -> None:
    doc = signals.SIGNALS[name].__doc__ or ""
    row = re.search(rf"^\| `{name}` \|(.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert row, f"docs/signals.md has no row for {name}"
    for details in re.findall(r"``(.+?)``", doc):
        for detail in details.split(", "):
            assert f"`{detail}`" in row[1], f"docs/signals.md does not name {detail} of {name}"


def test_no_signal_is_documented_that_does_not_exist() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(signals.SIGNALS)


def test_exactly_the_signals_of_the_last_section_are_never_sent() -> None:
    package = Path(signals.__file__).parent
    source = "\n".join(
        path.read_text("utf-8")
        for path in package.rglob("*.py")
        if path.name not in ("signals.py", "__init__.py")
    )
    unsent = PAGE.read_text("utf-8").partition("## Not sent yet")[2]
    assert sorted(re.findall(r"^\| `(\w+)` \|", unsent, re.MULTILINE)) == sorted(
        name for name in signals.SIGNALS if not re.search(rf"\b{name}\b", source)
    )

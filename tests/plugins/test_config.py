"""A plugin's settings from text, as the environment gives them; tests/plugins/test_host.py has the
rest of ``make_config``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import pytest

from om_plugins.plugins.config import make_config


@dataclass(frozen=True)
class Config:
    texts: list[str] = field(default_factory=list)
    numbers: tuple[int, ...] = ()
    unique: frozenset[str] = frozenset()
    sequence: Sequence[float] = ()
    optional: list[str] | None = None
    either: str | list[str] = ""
    annotated: Annotated[list[int], "of pages"] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    mapping: Mapping[str, str] = field(default_factory=dict)
    on: bool = False
    text: str = ""


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("texts", "usd,eur", ["usd", "eur"]),
        ("texts", " usd , eur ,", ["usd", "eur"]),
        ("texts", "usd", ["usd"]),
        ("texts", "", []),
        ("numbers", "1, 2", (1, 2)),
        ("unique", "a,b,a", frozenset({"a", "b"})),
        ("sequence", "1.5,2", [1.5, 2.0]),
        ("optional", "a,b", ["a", "b"]),
        ("either", "a,b", "a,b"),
        ("annotated", "1,2", [1, 2]),
        ("rates", '{"usd": 1.5}', {"usd": 1.5}),
        ("mapping", '{"a": "b"}', {"a": "b"}),
        ("on", "yes", True),
        ("on", "off", False),
        ("text", "a,b", "a,b"),
    ],
)
def test_text_is_read_as_the_shipped_settings_read_it(key, text, value):
    read = getattr(make_config("rates", Config, {key: text}), key)
    assert (read if isinstance(value, frozenset | tuple) else type(value)(read)) == value


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("texts", 5, "`list`"),
        ("rates", "usd=1", "a JSON object"),
        ("rates", 5, "`dict`"),
        ("numbers", "1,x", "int"),
        ("optional", 5, r"`list \| None`"),
    ],
)
def test_an_error_is_in_the_words_of_python(key, value, reason):
    with pytest.raises(ValueError, match=rf"OM_PLUGIN_CONFIG\['rates'\]\['{key}'\]: .*{reason}"):
        make_config("rates", Config, {key: value})

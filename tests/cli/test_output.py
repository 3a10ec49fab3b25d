"""What ``flask om settings`` masks."""

from __future__ import annotations

import pytest

from om_plugins.cli.output import MASK, mask_secrets


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("token", "abc", MASK),
        ("tokens", {"a": "abc"}, MASK),
        ("Authorization", "Bearer abc", MASK),
        ("X-Api-Key", "abc", MASK),
        ("db_password", None, None),
        ("monkey", "abc", "abc"),
        ("url", "redis://user:pw@host/0", f"redis://{MASK}@host/0"),
        ("url", "unix:///run/s?password=pw&db=1", f"unix:///run/s?password={MASK}&db=1"),
        ("urls", ["https://u:p@h", "https://h"], [f"https://{MASK}@h", "https://h"]),
        ("anything", b"bytes", MASK),
        ("anything", object(), MASK),
        ("nested", {"inner": {"secret": "abc", "n": 1.5}}, {"inner": {"secret": MASK, "n": 1.5}}),
    ],
)
def test_what_may_be_a_secret_is_masked(name: str, value: object, shown: object) -> None:
    assert mask_secrets(value, name) == shown

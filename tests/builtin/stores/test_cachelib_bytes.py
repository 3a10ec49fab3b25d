"""What the stores over cachelib share."""

from __future__ import annotations

import io
import pickle

import pytest

from om_plugins.builtin.stores import cachelib_bytes
from om_plugins.builtin.stores.cachelib_bytes import RawBytes, to_seconds

YEAR_S = 366 * 86_400


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(0.0, 1), (0.2, 1), (1.0, 1), (1.1, 2), (60, 60), (1e12, YEAR_S), (float("inf"), YEAR_S)],
)
def test_a_time_is_rounded_up_to_whole_seconds_of_a_year_at_most(ttl, seconds):
    assert to_seconds(ttl) == seconds


def test_nothing_is_unpickled():
    data = pickle.dumps({"a": 1})
    file = io.BytesIO()
    RawBytes.dump(data, file)
    file.seek(0)
    assert RawBytes.load(file) == data
    assert RawBytes.loads(RawBytes.dumps(data)) == data


def test_a_file_that_is_too_large_is_no_value(monkeypatch):
    monkeypatch.setattr(cachelib_bytes, "MAX_BYTES", 3)
    assert RawBytes.load(io.BytesIO(b"123")) == b"123"
    assert RawBytes.load(io.BytesIO(b"1234")) is None

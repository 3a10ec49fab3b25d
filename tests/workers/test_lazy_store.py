"""Lazy stores: opened on first use, with keys of their own namespace."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from om_plugins.workers.lazy_store import LazyStore, compare_and_set


class DictStore:
    def __init__(self):
        self.values, self.closed = {}, False

    def get(self, key):
        return self.values.get(key)

    def set(self, key, value, ttl):
        self.values[key] = value

    def delete(self, key):
        self.values.pop(key, None)


class FencedStore(DictStore):
    def compare_and_set(self, key, before, value, ttl):
        if self.values.get(key) != before:
            return False
        self.values[key] = value
        return True

    def close(self):
        self.closed = True


def test_a_store_is_opened_once_and_on_first_use():
    opened = []

    def open_store():
        opened.append(DictStore())
        return opened[-1]

    store = LazyStore(open_store, "shop")
    store.close()
    assert not opened
    store.set("k", b"v", 1.0)
    assert (store.get("k"), opened[0].values) == (b"v", {"shop:k": b"v"})
    store.delete("k")
    assert store.get("k") is None
    assert len(opened) == 1
    store.close()  # this store cannot be closed


async def later():
    return b"v"


@pytest.mark.parametrize(
    "make", [lambda: "v", lambda: 1, lambda: [b"v"], Mock, later, lambda: (b for b in "v"), object]
)
def test_what_is_no_value_is_an_error_and_no_miss(make):
    dict_store = DictStore()
    dict_store.get = lambda key: make()
    with pytest.raises(TypeError, match=r"get\(\) returned .*; return the bytes that were set"):
        LazyStore(lambda: dict_store, "shop").get("k")


@pytest.mark.parametrize("found", [b"", b"v", bytearray(b"v"), memoryview(b"v"), None])
def test_bytes_of_every_kind_and_none_pass(found):
    dict_store = DictStore()
    dict_store.get = lambda key: found
    assert LazyStore(lambda: dict_store, "shop").get("k") is found


def test_a_write_that_has_not_run_is_an_error():
    dict_store = DictStore()
    dict_store.set = lambda key, value, ttl: later()
    dict_store.delete = lambda key: later()
    store = LazyStore(lambda: dict_store, "shop")
    with pytest.raises(TypeError, match="nobody awaits"):
        store.set("k", b"v", 1.0)
    with pytest.raises(TypeError, match="nobody awaits"):
        store.delete("k")


def test_a_fenced_store_refuses_a_late_write_and_others_always_write():
    fenced = FencedStore()
    store = LazyStore(lambda: fenced, "shop")
    assert store.compare_and_set("k", None, b"1", 1.0) is True
    assert store.compare_and_set("k", None, b"2", 1.0) is False
    assert store.get("k") == b"1"
    plain = DictStore()
    assert compare_and_set(plain, "k", b"other", b"3", 1.0) is None
    assert plain.get("k") == b"3"
    store.close()
    assert fenced.closed


async def later():
    return True


@pytest.mark.parametrize("said", [1, 0, "OK", Mock(), later])
def test_only_true_says_that_a_fenced_store_has_written(said, caplog):
    class Odd(DictStore):
        def compare_and_set(self, key, before, value, ttl):
            return said() if said is later else said

    assert compare_and_set(Odd(), "k", None, b"1", 1.0) is False
    assert "compare_and_set of the cache store returned" in caplog.text

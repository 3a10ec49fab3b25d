"""The contract of a cache store, as pytest tests."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import pytest

from ..plugins.parts import explain_store
from ..protocols import CacheStore
from .fakes import run_in_threads

__all__ = ["CacheStoreContract"]


class CacheStoreContract:
    """Inherit, and make your store in a fixture::

    class TestFolderStore(CacheStoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return FolderStore(f"folder://{tmp_path}")
    """

    @pytest.fixture
    def store(self) -> CacheStore:
        """The store under test, empty."""
        raise NotImplementedError("make your store in a fixture named 'store'")

    def test_it_can_be_called(self, store: CacheStore) -> None:
        problem = explain_store(store)
        assert not problem, problem

    def test_a_missing_key_is_none(self, store: CacheStore) -> None:
        assert store.get("missing") is None

    @pytest.mark.parametrize(
        "value",
        [b"", b"x", bytes(range(256)), b"\r\n\0" * 100, b"x" * 1_000_000],
        ids=["empty", "one byte", "every byte", "line ends", "a megabyte"],
    )
    def test_bytes_come_back_as_they_were(self, store: CacheStore, value: bytes) -> None:
        store.set("key", value, 60)
        found = store.get("key")
        assert isinstance(found, bytes)
        assert found == value

    def test_the_last_value_wins(self, store: CacheStore) -> None:
        store.set("key", b"one", 60)
        store.set("key", b"two", 60)
        assert store.get("key") == b"two"

    def test_a_deleted_key_is_none(self, store: CacheStore) -> None:
        store.set("key", b"value", 60)
        store.delete("key")
        assert store.get("key") is None

    def test_deleting_a_missing_key_is_fine(self, store: CacheStore) -> None:
        store.delete("missing")
        store.delete("missing")

    def test_keys_of_every_kind_are_kept_apart(self, store: CacheStore) -> None:
        keys = [
            "a", "A", "a/b", "a\\b", "../a", "a b", "a:b", "a.b", "a%2Fb", "ä", "키", "",
            "k" * 200, "k" * 199 + "l", "new\nline",
        ]  # fmt: skip
        for number, key in enumerate(keys):
            store.set(key, str(number).encode(), 60)
        assert [store.get(key) for key in keys] == [str(n).encode() for n in range(len(keys))]

    def test_a_fraction_of_a_second_is_a_valid_time(self, store: CacheStore) -> None:
        store.set("key", b"value", 0.5)
        assert store.get("key") in (b"value", None)

    def test_a_fenced_store_writes_over_what_was_seen_and_nothing_else(
        self, store: CacheStore
    ) -> None:
        write = getattr(store, "compare_and_set", None)
        if write is None:
            return  # optional: see FencedStore
        assert write("key", None, b"one" + b"x" * 1000, 60) is True
        assert write("key", None, b"late", 60) is False
        assert write("key", b"two", b"late", 60) is False
        assert write("key", b"one" + b"x" * 1001, b"late", 60) is False
        assert store.get("key") == b"one" + b"x" * 1000
        assert write("key", b"one", b"two", 60) is True
        assert store.get("key") == b"two"
        assert write("key", b"two", b"", 60) is True
        assert write("key", b"", b"three", 0.5) is True
        store.set("key", b"two", 60)
        store.delete("key")
        assert write("key", b"two", b"late", 60) is False
        assert store.get("key") is None

    def test_of_many_that_saw_the_same_one_writes(self, store: CacheStore) -> None:
        write = getattr(store, "compare_and_set", None)
        if write is None:
            return
        store.set("key", b"seen", 60)
        wrote: list[bytes] = []

        def work(number: int) -> None:
            value = b"%d" % number
            if write("key", b"seen", value, 60):
                wrote.append(value)

        run_in_threads(8, work)
        assert wrote == [store.get("key")]

    def test_several_threads_may_use_it_at_once(self, store: CacheStore) -> None:
        def work(number: int) -> None:
            for turn in range(20):
                key, value = f"thread {number} {turn % 3}", f"{number} {turn}".encode()
                store.set(key, value, 60)
                store.set("shared", value, 60)
                assert store.get(key) == value
                assert store.get("shared") is not None
                store.delete(key)

        run_in_threads(4, work)

"""Keeps the bytecode of templates apart that were compiled in different ways."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from jinja2 import BytecodeCache

if TYPE_CHECKING:
    from jinja2.bccache import Bucket


class SaltedBytecodeCache(BytecodeCache):
    """Wraps a bytecode cache and gives this environment keys of its own.

    Environments without the extension may share the inner cache, and it may contain templates that
    were compiled before the extension was added.

    Args:
        inner: the cache that stores the bytecode.
        salt: a part of the keys; different for each way in which templates are compiled.
    """

    def __init__(self, inner: BytecodeCache, salt: str) -> None:
        self.inner = inner
        self.salt = salt

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        key = f"{self.salt}|{self.inner.get_cache_key(name, filename)}"
        return hashlib.sha256(key.encode()).hexdigest()

    def get_source_checksum(self, source: str) -> str:
        return self.inner.get_source_checksum(source)

    def load_bytecode(self, bucket: Bucket) -> None:
        self.inner.load_bytecode(bucket)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.inner.dump_bytecode(bucket)

    def clear(self) -> None:
        self.inner.clear()

"""Keeps the bytecode of templates apart that were compiled in different ways."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ...core.stand_ins.transparent import Transparent, find_replaced, set_own

if TYPE_CHECKING:
    from jinja2 import BytecodeCache, Environment
    from jinja2.bccache import Bucket


class SaltedBytecodeCache(Transparent):
    """Wraps a bytecode cache and gives this environment keys of its own.

    Environments without the extension may share the inner cache, and it may contain templates that
    were compiled before the extension was added. All else is the inner cache's.

    Args:
        inner: the cache that stores the bytecode.
        salt: a part of the keys; different for each way in which templates are compiled.
    """

    __slots__ = ("_om_salt",)
    _om_salt: str
    _om_own = frozenset({"_om_salt"})
    _om_methods = Transparent._om_methods | {"get_bucket", "get_cache_key"}

    def __init__(self, inner: BytecodeCache, salt: str) -> None:
        super().__init__(inner)
        set_salt(self, salt)

    def get_bucket(
        self, environment: Environment, name: str, filename: str | None, source: str
    ) -> Bucket:
        # the inner cache's own, with our keys
        cls: Any = type(find_replaced(self))
        found: Bucket = cls.get_bucket(self, environment, name, filename, source)
        return found

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        inner: BytecodeCache = find_replaced(self)
        key = f"{self._om_salt}|{inner.get_cache_key(name, filename)}"
        return hashlib.sha256(key.encode()).hexdigest()


def set_salt(cache: SaltedBytecodeCache, salt: str) -> None:
    """Give a cache other keys from now on."""
    set_own(cache, "_om_salt", salt)

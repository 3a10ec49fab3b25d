"""Opt-in: values of any type, pickled, and signed wherever others could write.

Unpickling runs what the bytes say, so it happens to bytes of this process (:class:`Pickled`) and
to bytes that carry this application's signature: HMAC-SHA256 over the key of the entry and the
bytes, compared in constant time. What else comes from a store is a miss.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
from collections.abc import Callable

import msgspec
from msgspec.msgpack import Ext

from ..errors import CacheError
from .values import PICKLE, Pickled, encode

__all__ = ["PICKLED", "Pickles"]

PICKLED = 1
"""The flag of a record whose body is a signature and a pickle."""
_PURPOSE = b"om_plugins cache pickle 1"
_SIZE = hashlib.sha256().digest_size
_write = msgspec.msgpack.Encoder().encode


class Pickles:
    """Writes and signs values that nothing else can write.

    Args:
        secret: the operator's own key; ``None`` or "" when there is none. One that lies in a store
            would be known to who writes there.
    """

    def __init__(self, secret: Callable[[], bytes | str | None]) -> None:
        self._secret = secret
        self._key: bytes | None = None

    def encode(self, value: object) -> bytes:
        """The bytes of a value; a pickle when nothing else will do.

        Raises:
            CacheError: it cannot be pickled; the message says why, and what could be done.
        """
        try:
            return encode(value)
        except CacheError as refused:
            try:
                return Pickled(_write(Ext(PICKLE, pickle.dumps(value, protocol=5))))
            except Exception as error:  # noqa: BLE001 - whatever a foreign __reduce__ does
                raise CacheError(f"{refused}; nor can it be pickled ({error})") from None

    def sign(self, key: str, data: bytes) -> bytes:
        """The body of a record.

        Args:
            key: under which it is stored.

        Raises:
            CacheError: there is no secret to sign with.
        """
        return self._signature(key, data) + data

    def verified(self, key: str, body: bytes) -> Pickled | None:
        """The signed bytes; ``None`` when the signature is not ours, or is for another key."""
        signature, data = body[:_SIZE], body[_SIZE:]
        try:
            good = hmac.compare_digest(signature, self._signature(key, data))
        except CacheError:
            return None
        return Pickled(data) if good else None

    def _signature(self, key: str, data: bytes) -> bytes:
        if self._key is None:
            secret = self._secret()
            if not secret:
                raise CacheError(
                    "a pickle is kept in a shared store only when it can be signed: set "
                    "OM_SECRET_KEY, or Flask's SECRET_KEY"
                )
            secret = secret.encode() if isinstance(secret, str) else secret
            self._key = hmac.digest(secret, _PURPOSE, "sha256")
        return hmac.digest(self._key, b"%d:%b%b" % (len(key), key.encode(), data), "sha256")

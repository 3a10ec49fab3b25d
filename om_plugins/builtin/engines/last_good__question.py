"""What a call asks, as bytes: equal for the same question, different for any other.

Only plain data counts as a question, by exact type, and ``repr`` is never used: ``1``, ``True``,
``"1"`` and ``1.0`` are four questions, the order of a dict's keys is none. A tuple is a list, as it
is in JSON.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from ...types import Call

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_MAX_DEPTH = 64
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def is_plain(value: Any, depth: int = _MAX_DEPTH) -> bool:
    """True for ``None``, bool, int, float, str, bytes, and lists, tuples and dicts (with text as
    keys) of them; not for subclasses, nor for what is nested deeper than 64 times."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if depth <= 0:
        return False
    if kind is dict:
        return all(
            type(key) is str and (type(one) in _PLAIN or is_plain(one, depth - 1))
            for key, one in value.items()
        )
    if kind is list or kind is tuple:
        return all(type(one) in _PLAIN or is_plain(one, depth - 1) for one in value)
    return False


def question_of(call: Call, asked: object, apart: object = None) -> str | None:
    """A digest of a question: 160 bits of BLAKE2b in hexadecimal.

    Args:
        call: its chain and method are part of the question.
        asked: what is asked: the payload, or what stands for it.
        apart: what keeps equal questions of different users apart.

    Returns:
        ``None`` when the question is not plain data, or too large a number is in it.
    """
    whole = (call.chain, call.method, asked, apart)
    if not is_plain(whole):
        return None
    try:
        return hashlib.blake2b(_encode(whole), digest_size=20).hexdigest()
    except (OverflowError, ValueError):  # an int over 64 bits, a lone surrogate
        return None

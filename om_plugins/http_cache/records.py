"""How a response, or the index of an address's variants, is encoded for a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .rfc9111 import CacheVerdict
from .stored_response import StoredResponse
from .variants import Looks, VariantIndex, is_selecting

_Verdict = tuple[float, float, float, float, bool, bool, bool, list[str], str, float | None]
_Looks = tuple[list[str], list[str], str]
_Response = tuple[
    int, str, list[tuple[str, str]], list[bytes], str | None, list[tuple[str, str]], _Verdict,
    float, float, float, list[str], bytes, list[str], list[str], _Looks | None, bool,
]  # fmt: skip
_Variants = tuple[list[list[str]], str, list[str], dict[str, str]]

_encode = msgspec.msgpack.Encoder().encode
_decode_response = msgspec.msgpack.Decoder(_Response).decode
_decode_variants = msgspec.msgpack.Decoder(_Variants).decode

PackMarks = Callable[[Mapping[str, Any]], bytes]
ReadMarks = Callable[[bytes], dict[str, Any]]


def encode_stored(content: StoredResponse | VariantIndex, pack_marks: PackMarks) -> bytes:
    """Encode a response or an index of variants for a shared store.

    Args:
        content: what to encode.
        pack_marks: encodes the marks of a response.
    """
    if isinstance(content, VariantIndex):
        names = [list(one) for one in content.names]
        return b"W" + _encode((names, content.generation, content.keys, content.languages))
    v = content.verdict
    verdict: _Verdict = (
        v.lifetime_s, v.age_s, v.while_revalidating_s, v.if_error_s, v.validate, v.public, v.shared,
        list(v.vary), v.etag, v.modified,
    )  # fmt: skip
    pieces, looks = content.pieces, content.looks
    differs = content.sent_headers != content.headers
    return b"S" + _encode(
        (
            content.code, content.status, content.headers,
            [content.body] if pieces is None else pieces,
            None if pieces is None else content.nonce,
            content.sent_headers if differs else [], verdict,
            content.date, content.received_at, content.fetch_s,
            list(content.tags), pack_marks(content.marks) if content.marks else b"",
            list(content.names), list(content.cookies),
            looks and (list(looks.counted), list(looks.every), looks.session_cookie),
            content.any_query,
        )
    )  # fmt: skip


def decode_stored(data: bytes, read_marks: ReadMarks) -> StoredResponse | VariantIndex | None:
    """Decode what :func:`encode_stored` returned.

    Args:
        data: what a store returned.
        read_marks: decodes the marks of a response; raises ``ValueError`` for damaged ones.

    Returns:
        The response or index; ``None`` when the data is damaged or has another format.
    """
    try:
        if data[:1] == b"W":
            sets, generation, keys, languages = _decode_variants(data[1:])
            if not all(is_selecting(name) for one in sets for name in one):
                return None
            return VariantIndex([tuple(one) for one in sets], generation, keys, languages)
        if data[:1] != b"S":
            return None
        (
            code, status, headers, pieces, nonce, sent, v, date, received_at, fetch_s, tags,
            marks, names, cookies, looks, any_query,
        ) = _decode_response(data[1:])  # fmt: skip
        if not pieces or (nonce is None and len(pieces) != 1) or not 200 <= code <= 599:
            return None
        if not all(map(is_selecting, names)):
            return None
        verdict = CacheVerdict(
            "", v[0], v[1], v[2], v[3], v[4], v[5], v[6], vary=tuple(v[7]), etag=v[8], modified=v[9]
        )
        return StoredResponse(
            code, status, headers, pieces[0] if nonce is None else b"", verdict, date, received_at,
            pieces=None if nonce is None else pieces, nonce=nonce or "", sent_headers=sent,
            fetch_s=fetch_s, tags=tuple(tags), marks=read_marks(marks) if marks else {},
            names=tuple(names), cookies=tuple(cookies),
            looks=looks and Looks(tuple(looks[0]), tuple(looks[1]), looks[2]), any_query=any_query,
        )  # fmt: skip
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, RecursionError):
        return None

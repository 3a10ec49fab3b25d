"""What downstream caches and browsers may do with a page that contains a nonce.

Such a page differs each time it is sent. A shared cache would send one nonce to many browsers, so
the page is marked ``private``. An ETag made from the bytes of the page would never match again. The
ETag here is made from the parts that do not change: a browser that has the page gets a 304 and
keeps both the page and the policy that it came with, whose nonces agree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from werkzeug.http import parse_etags

from ..core.body import close_body
from ..core.request_state import RequestState

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Header = tuple[str, str]

PRIVATE: Header = ("Cache-Control", "private")
MAX_BODY_BYTES = 4 * 2**20
"""Larger pages keep the ETag that they have: nothing is held back for longer than it must."""

_TARGETED = ("-cache-control", "surrogate-control", "x-accel-expires")
_ENTITY = frozenset(
    {"content-length", "content-type", "content-encoding", "content-language", "content-range"}
    | {"content-security-policy", "content-security-policy-report-only", "reporting-endpoints"}
)
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')
# what frameworks make an ETag of a body with; a hash that somebody else made of it is no secret
_MADE_WITH = {32: "md5", 40: "sha1", 64: "sha256"}


def make_private(headers: Iterable[Header]) -> list[Header]:
    """Return ``headers`` with ``Cache-Control: private`` (RFC 9111, section 5.2.2.7).

    ``public``, ``s-maxage`` and headers for one kind of cache (RFC 9213) are removed. Directives
    for browsers are kept.
    """
    result: list[Header] = []
    said: list[str] = []
    for name, value in headers:
        folded = name.lower()
        if folded == "cache-control":
            said += [one.strip() for one in _split_directives(value)]
        elif not folded.endswith(_TARGETED):
            result.append((name, value))
    kept = [
        one
        for one in said
        if one and one.lower().partition("=")[0].strip() not in ("public", "s-maxage", "private")
    ]
    if not any(one.lower() == "no-store" for one in kept):
        kept.insert(0, "private")
    result.append(("Cache-Control", ", ".join(kept)))
    return result


def _split_directives(value: str) -> list[str]:
    """Split a value at the commas outside of quotes: ``private="a, b"`` is one directive."""
    return re.findall(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+', value)


def answer_conditional(
    environ: WSGIEnvironment, status: str, headers: list[Header], body: bytes, nonce: str
) -> tuple[str, list[Header], bytes]:
    """Return the response with an ETag that does not depend on its nonce, or a 304.

    An ETag that was not made from the bytes of the body is kept: the code that made it from the
    data answers with 304 itself.

    Args:
        environ: of the request.
        status, headers, body: the response.
        nonce: the nonce in the body.

    Returns:
        Status, headers and body to send.
    """
    tag = next((value for name, value in headers if name.lower() == "etag"), "")
    match = _ETAG.fullmatch(tag)
    algorithm = _MADE_WITH.get(len(match[1])) if match else None
    if match is None or algorithm is None:
        return status, headers, body
    made = hashlib.new(algorithm, body, usedforsecurity=False).hexdigest()
    if made != match[1].lower():
        return status, headers, body
    digest = hashlib.blake2b(body.replace(nonce.encode(), b""), digest_size=16)
    for name, value in headers:
        if name.lower() in _ENTITY:  # another policy is another answer
            digest.update(f"{name}:{value}\n".replace(nonce, "").encode("latin-1", "replace"))
    value = digest.hexdigest()
    headers = [one for one in headers if one[0].lower() != "etag"]
    headers.append(("ETag", f'W/"{value}"'))
    asked = environ.get("HTTP_IF_NONE_MATCH")
    if asked is None or not parse_etags(asked).contains_weak(value):
        return status, headers, body
    return "304 Not Modified", [one for one in headers if one[0].lower() not in _ENTITY], b""


@dataclass(slots=True, eq=False, repr=False)
class LatePage:
    """A page whose headers wait for its body, because they contain an ETag made from it."""

    environ: WSGIEnvironment
    state: RequestState
    start_response: StartResponse
    status: str
    headers: list[Header]
    _write: Callable[[bytes], object] | None = field(default=None, init=False)

    def write(self, data: bytes) -> object:
        """Send the headers and ``data``: the ``write`` of PEP 3333.

        An application that calls it is streaming, so the headers do not wait any longer.
        """
        if self._write is None:
            self._write = self.start_response(self.status, self.headers)
        return self._write(data)

    def answer(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Send the headers and return the body to send."""
        if self._write is not None:
            return body
        length = next((int(v) for n, v in self.headers if n.lower() == "content-length"), None)
        nonce = self.state.page_nonce
        if self.environ.get("REQUEST_METHOD") != "GET" or nonce is None or length is None:
            self.start_response(self.status, self.headers)
            return body
        if length > MAX_BODY_BYTES:
            self.start_response(self.status, self.headers)
            return body
        try:
            whole = b"".join(body)
        finally:
            close_body(body)
        status, headers, whole = answer_conditional(
            self.environ, self.status, self.headers, whole, nonce
        )
        self.start_response(status, headers)
        return [whole]

"""Read and check the request to an engine route: its body, query and ``Idempotency-Key``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from ..core.body import BodyError, read_body
from ..core.problem import Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

MAX_QUERY = 16_384
MAX_FIELDS = 200

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_JSON = re.compile(r"application/(json|[a-z0-9.!#$&^_-]+\+json)", re.IGNORECASE)


def read_request_body(environ: WSGIEnvironment, max_body: int) -> bytes:
    """Read the request's body, of at most ``max_body`` bytes.

    Raises:
        Refusal: 400 (no readable length, cut off), 411 (no length), 413 (too large).
    """
    try:
        return read_body(environ, max_body)
    except BodyError as error:
        raise Refusal(error.status, str(error)) from None


def parse_json(environ: WSGIEnvironment, body: bytes) -> object:
    """Return the payload of a POST.

    Raises:
        Refusal: 415 (not JSON), 400 (no body, not valid, or nested too deep).
    """
    kind = (environ.get("CONTENT_TYPE") or "").partition(";")[0].strip()
    if not _JSON.fullmatch(kind):
        raise Refusal(
            415,
            "This address reads JSON. Send your question with Content-Type: application/json.",
            [("Accept-Post", "application/json")],
        )
    if not body:
        raise Refusal(400, "The request is empty. Send your question as JSON.")
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise Refusal(400, "The JSON of the request is nested too deep.") from None
    except (ValueError, msgspec.DecodeError):  # which is a ValueError in new versions only
        raise Refusal(400, "The request is not valid JSON.") from None


def parse_query(environ: WSGIEnvironment) -> dict[str, object]:
    """Return the payload of a GET: the fields of the query, a list where a name is repeated.

    Raises:
        Refusal: 414 (too long), 400 (too many fields).
    """
    query = environ.get("QUERY_STRING") or ""
    if len(query) > MAX_QUERY:
        raise Refusal(414, "The address is too long. Send your question with POST as JSON.")
    raw = query.encode("latin-1", "replace").decode("utf-8", "replace")  # PEP 3333's strings
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Refusal(400, f"The address has more than {MAX_FIELDS} fields.") from None
    payload: dict[str, object] = {}
    for name, value in pairs:
        before = payload.get(name)
        if before is None:
            payload[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            payload[name] = [before, value]
    return payload


def read_idempotency_key(environ: WSGIEnvironment, required: bool = False) -> str | None:
    """Return the client's ``Idempotency-Key``, without the quotes of a structured field.

    Args:
        required: a POST must have a key.

    Raises:
        Refusal: 400, the key is longer than 255 characters, not printable ASCII, or missing.
    """
    key = environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        if required and environ["REQUEST_METHOD"] == "POST":
            raise Refusal(
                400,
                "This address needs an Idempotency-Key: a new random value for each question, the "
                "same when it is sent again.",
            )
        return None
    if len(key) > 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        raise Refusal(400, "The Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return str(key)

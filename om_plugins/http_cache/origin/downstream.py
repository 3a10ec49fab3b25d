"""What caches further out are told of the inputs that a response depends on.

Headers that code looked at are named in ``Vary``. A response that depends on a cookie, the session,
the client's address or the environ belongs to one client: it says ``private``, unless the
application itself said that it is for everybody.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...core.inputs import is_identity
from ..fields import directives, field_names

Header = tuple[str, str]

PERSONAL = "private, max-age=0"
_TARGETED = "-cache-control"


def list_headers(names: Iterable[str]) -> list[str]:
    """Return the request headers among the names of inputs, in lower case, sorted."""
    headers = ("header:", "vary:", "accept:")
    return sorted({name.split(":")[1] for name in names if name.startswith(headers)})


def declare_inputs(
    headers: list[Header],
    names: Iterable[str],
    *,
    personal: bool = False,
    ours: str = "",
    fields: Iterable[str] = (),
) -> list[Header]:
    """Return headers that tell caches further out which inputs a response depends on.

    Args:
        headers: of the response.
        names: the inputs that code looked at.
        personal: the response belongs to one client, whatever its inputs are.
        ours: the ``Cache-Control`` that this package wrote; the application's own is kept.
        fields: further request headers, in lower case.
    """
    names = list(names)
    fields = sorted({*list_headers(names), *fields})
    personal = personal or any(map(is_identity, names))
    if personal:
        fields.append("cookie")
    result = _add_vary(headers, fields)
    return _say_private(result, ours) if personal else result


def _add_vary(headers: list[Header], fields: list[str]) -> list[Header]:
    said = ", ".join(value for name, value in headers if name.lower() == "vary")
    known = field_names(said)
    missing = [one.title() for one in fields if one not in known]
    if not missing or known == ("*",):
        return list(headers)
    others = [one for one in headers if one[0].lower() != "vary"]
    return [*others, ("Vary", ", ".join([said, *missing] if said else missing))]


def _say_private(headers: list[Header], ours: str) -> list[Header]:
    said = ", ".join(value for name, value in headers if name.lower() == "cache-control")
    others = [one for one in headers if one[0].lower() != "cache-control"]
    if ours and said == ours:
        return [*others, ("Cache-Control", PERSONAL)]
    known = directives(said)
    targeted = any(name.lower().endswith(_TARGETED) for name, _ in others)
    if targeted or not {"public", "s-maxage", "no-store"}.isdisjoint(known):
        return headers
    if "private" in known and not known["private"]:
        return headers
    return [*others, ("Cache-Control", f"private, {said}" if said else "private")]


def address_to_one(headers: list[Header], cookies: list[Header]) -> list[Header]:
    """Return the headers of a response for everybody that sets cookies of one client."""
    kept = [
        one
        for one in headers
        if one[0].lower() != "cache-control" and not one[0].lower().endswith(_TARGETED)
    ]
    return [*kept, ("Cache-Control", PERSONAL), *cookies]

"""The options of one path that an engine chain answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..settings.kinds import BOOL, CALLBACK, CORS, RATE, integer, number, text
from ..settings.table import Table, key


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOptions(Table):
    """One path that an engine chain answers."""

    TITLE: ClassVar[str] = "A route's options"
    RENAMED: ClassVar[Mapping[str, str]] = {"idempotency_s": "idempotency_time"}

    chain: str = key("", text(r".+", "the name of a chain"), "the chain that answers")
    auth: Callable[..., Any] | None = key(
        None,
        CALLBACK,
        "called with the request, in the host's request context; only `True` or a `Caller` lets it "
        "in, anything else is a 401",
    )
    rate: tuple[int, int] | None = key((60, 60), RATE, "calls per client, over all workers")
    cors: tuple[str, ...] = key((), CORS, "other sites that may call it from a browser")
    max_body: int = key(1_000_000, integer(1, 2**31, "bytes"), "largest request body")
    timeout: float | None = key(
        None, number(0.001, 3600, "seconds"), "deadline of a call; the chain's own when not set"
    )
    idempotency_time: float = key(
        86_400.0,
        number(0, 31_536_000, "seconds"),
        "how long the answer to a POST with an `Idempotency-Key` is kept; 0 keeps none",
    )
    require_key: bool = key(False, BOOL, "refuse a POST without an `Idempotency-Key`")
    raw: bool = key(
        False,
        BOOL,
        "pass whole requests on, of all methods and all paths below this one, which ends with `/`; "
        "for chains of proxy engines",
    )

"""What the caches decided about one response, told to whom asks for it with the request.

Who asks puts an empty :class:`ResponseReport` under :data:`REPORT` into the environ. Each cache
adds its :class:`CacheDecision` to it. A request without a report pays one look at the environ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ...core.inputs import is_identity

if TYPE_CHECKING:
    from ...core.observed import ObservedInputs

REPORT = "om_plugins.why"
"""The key of a :class:`ResponseReport` in the environ."""
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheDecision:
    """What one cache decided about one response.

    Attributes:
        cache: ``view`` for ``@om.cached``, ``http`` for the shared HTTP cache, ``fallback`` for the
            copies of good responses.
        kept: the response is kept, or came from there.
        hit: it came from there.
        names: the inputs that it is kept under.
        scoped: it is kept for the scope that the view named, beside these inputs.
        cookies: it answers no request that brings one of these; ``("",)`` for any cookie.
        reason: why it is not kept, in one word.
        detail: the same in a clause, such as "it sets a cookie".
        cause: the input that is the reason, as :attr:`ObservedInputs.where` names it.
        forward: why the response was made: ``uri-miss``, ``miss`` or ``bypass`` (RFC 9211 section
            2.2).
    """

    cache: Literal["view", "http", "fallback"]
    kept: bool
    hit: bool = False
    names: tuple[str, ...] = ()
    scoped: bool = False
    cookies: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""
    cause: str = ""
    forward: str = "miss"

    def list_status(self, inputs: ObservedInputs) -> list[tuple[str, object]]:
        """Return the parameters of a member of ``Cache-Status`` (RFC 9211 section 2).

        Args:
            inputs: what the request looked at. What made the response one visitor's, or kept it
                from being stored, is the parameter ``detail``.
        """
        if self.hit:
            return [("hit", True)]
        found: list[tuple[str, object]] = [("fwd", self.forward)]
        if self.kept:
            found.append(("stored", True))
        personal = next(filter(is_identity, self.names), "")
        told = describe_look(inputs, self.cause or personal) or self.detail or self.reason
        if told:
            found.append(("detail", quote_detail(told)))
        return found


@dataclass(slots=True, eq=False)
class ResponseReport:
    """What is told of one response.

    Attributes:
        inputs: what its request looked at; ``None`` when no observed application got the request.
        decisions: of the caches, the innermost first.
        error: the exception that the application answered with a 500, as :func:`describe_error`
            names it; "" for none.
    """

    inputs: ObservedInputs | None = None
    decisions: list[CacheDecision] = field(default_factory=list)
    error: str = ""


def find_report(environ: Mapping[str, Any]) -> ResponseReport | None:
    """Return the report that somebody asked for with a request; ``None`` when nobody did."""
    found = environ.get(REPORT)
    return found if isinstance(found, ResponseReport) else None


def describe_look(inputs: ObservedInputs, name: str) -> str:
    """Return an input with the function and line that looked at it first; "" for no input."""
    found = describe_place(inputs.where.get(name))
    return f"{name}, {found}" if found else name


def describe_place(place: tuple[str, str, int] | None) -> str:
    """Return module, function and line as people write them; "" when they are not known."""
    module, function, line = place or ("", "", 0)
    return f"{module}.{function}, line {line}" if function else module


def describe_error(error: BaseException) -> str:
    """Return an exception as its type and the module, function and line that raised it.

    Its text is left out: it may have the data of a visitor.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    name = type(error).__name__
    if frame is None:
        return name
    code, module = frame.tb_frame.f_code, frame.tb_frame.f_globals.get("__name__", "")
    return f"{name} in {describe_place((module, code.co_name, frame.tb_lineno))}"


def quote_detail(text: str) -> str:
    """Return a text as a string of structured fields (RFC 9651 section 3.3.3), cut at a length."""
    cut = text[:_MOST_CHARACTERS]
    printable = "".join(one if " " <= one <= "~" else "?" for one in cut)
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'

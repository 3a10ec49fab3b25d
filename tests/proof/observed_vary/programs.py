"""Small programs of random Flask apps, and what each page of them must be for a request.

A program is plain data. :func:`run` interprets its steps, either in a request of the app that
:mod:`.apps` builds of it, or for the judge, who knows what the request brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeAlias

from .looks import ANONYMOUS, WAYS, Visit


@dataclass(frozen=True, slots=True)
class Look:
    """Look at something, and write what was seen into the page."""

    way: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class When:
    """Look, and go on with ``then`` when what was seen is ``value``, else with ``otherwise``."""

    look: Look
    value: str
    then: tuple[Step, ...] = ()
    otherwise: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Keep:
    """Write into the session; the value ``fresh`` is another one each time."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove a key from the session, if it is there."""

    name: str


@dataclass(frozen=True, slots=True)
class GiveCookie:
    """Set a cookie."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Since:
    """Go on with ``then`` from a version of the data on."""

    version: int
    then: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Abort:
    """End with an error."""

    status: int


@dataclass(frozen=True, slots=True)
class Answer:
    """End with what was seen until now."""


Step: TypeAlias = Look | When | Since | Keep | Forget | GiveCookie | Abort | Answer
Steps: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook of the app, or of its blueprint.

    Attributes:
        at: ``signal``, ``values``, ``before``, ``after``, ``context``, ``teardown``, or the name of
            a harmless hook: ``limit``, ``request id``, ``log``.
        blueprint: it belongs to the blueprint.
    """

    at: str
    steps: Steps = ()
    blueprint: bool = False


HARMLESS = ("limit", "request id", "log")


@dataclass(frozen=True, slots=True)
class View:
    """A view, at the path ``/<its number>``.

    Attributes:
        kind: which cache keeps it: ``cached``, ``shared``, ``public`` and ``scope`` for
            ``@om.cached``, ``http`` and ``http public`` for ``OM_HTTP_CACHE``, or ``none``.
        query: of ``@om.cached``.
        above, below: steps of decorators above and below ``@om.cached``.
        template: looks of a template.
        part: steps of a part with a cache entry of its own.
        streamed: steps that run while the body is sent.
        blueprint: it belongs to the blueprint.
    """

    kind: str
    steps: Steps = ()
    query: bool | tuple[str, ...] = True
    above: Steps = ()
    below: Steps = ()
    template: tuple[Look, ...] | None = None
    part: Steps | None = None
    streamed: Steps | None = None
    blueprint: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A visitor asks for a page.

    Attributes:
        visitor: his number.
        view: number of the view.
        query: of the request.
        method: of the request.
        body: of the request.
        host: the first or the second one.
        again: bring the last ETag.
    """

    visitor: int
    view: int
    query: str = ""
    method: str = "GET"
    body: str = ""
    host: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """Time passes, and the data of all pages changes."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Refresh:
    """The work of the background is done."""


@dataclass(frozen=True, slots=True)
class Break:
    """The views fail from now on, or work again."""

    broken: bool


Event: TypeAlias = Ask | Pass | Refresh | Break


@dataclass(frozen=True, slots=True)
class Case:
    """An app, and what happens to it.

    Attributes:
        hooks: of the app and its blueprint.
        errors: steps of the handler of errors.
        http_cache: ``OM_HTTP_CACHE``: "" for off, ``on``, or ``cookies`` for variants by cookie.
        fallback: the last good answers are kept.
        fails_late: broken views fail at their end.
    """

    seed: int
    views: tuple[View, ...]
    events: tuple[Event, ...]
    hooks: tuple[Hook, ...] = ()
    errors: Steps = ()
    http_cache: str = ""
    fallback: bool = False
    fails_late: bool = False


# --- running ------------------------------------------------------------------------------------


class Aborted(Exception):
    """A step ended the request with an error."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Answered(Exception):
    """A step ended the request with what was seen until now."""


class Side(Protocol):
    """Where steps run."""

    def look(self, look: Look) -> object: ...
    def version(self) -> int: ...
    def keep(self, name: str, value: str) -> None: ...
    def forget(self, name: str) -> None: ...
    def give_cookie(self, name: str, value: str) -> None: ...
    def abort(self, status: int) -> None: ...


def run(steps: Steps, side: Side, seen: list[str]) -> None:
    """Run steps, and append what they see to ``seen``.

    Raises:
        Answered: a step ended the request.
    """
    for step in steps:
        match step:
            case Look():
                seen.append(f"{step.way} {step.name}={side.look(step)}")
            case When():
                found = str(side.look(step.look))
                run(step.then if found == step.value else step.otherwise, side, seen)
            case Since(version, then):
                run(then if side.version() >= version else (), side, seen)
            case Keep():
                side.keep(step.name, step.value)
            case Forget():
                side.forget(step.name)
            case GiveCookie():
                side.give_cookie(step.name, step.value)
            case Abort():
                side.abort(step.status)
            case Answer():
                raise Answered


def is_anonymous(steps: Steps) -> bool:
    """Whether steps look at nothing but the address of the page, and change nothing."""
    return all(isinstance(one, Look) and one.way in ANONYMOUS for one in steps)


class JudgeSide:
    """Runs steps with what a request brings.

    Args:
        visit: what it brings.
        fresh: the new values that it got for keys of the session, in order.
        version: of the data that its answer shows.
    """

    def __init__(self, visit: Visit, fresh: Mapping[str, Sequence[str]], version: int) -> None:
        self.visit = visit
        self._version = version
        self.cookies: dict[str, str] = {}
        self._fresh = {name: iter(values) for name, values in fresh.items()}

    def look(self, look: Look) -> object:
        return WAYS[look.way].judge(self.visit, look.name)

    def version(self) -> int:
        return self._version

    def keep(self, name: str, value: str) -> None:
        if value == "fresh":
            value = next(self._fresh.get(name, iter(())), "a new value")
        self.visit.session[name] = value

    def forget(self, name: str) -> None:
        self.visit.session.pop(name, None)

    def give_cookie(self, name: str, value: str) -> None:
        self.cookies[name] = value

    def abort(self, status: int) -> None:
        raise Aborted(status)


@dataclass(slots=True)
class Page:
    """What the answer to a request must be.

    Attributes:
        status: of it.
        body: of it, without the version of the data.
        headers: ``X-Above`` and ``X-After``.
        cookies: which it sets.
        session: what it leaves.
    """

    status: int
    body: str
    headers: dict[str, str]
    cookies: dict[str, str]
    session: dict[str, Any]


def judge(case: Case, number: int, side: JudgeSide) -> Page:
    """Compute what the answer to a request for the view of a number must be."""
    view = case.views[number]
    before: list[str] = []
    headers: dict[str, str] = {}
    status = 200
    streamed: Steps = ()
    hooks = [one for one in case.hooks if view.blueprint or not one.blueprint]

    def at(name: str) -> Iterator[Hook]:
        # Flask calls the hooks of the app before those of a blueprint
        return iter(sorted((h for h in hooks if h.at == name), key=lambda h: h.blueprint))

    try:
        for name in ("signal", "values", "before"):
            for hook in at(name):
                run(hook.steps, side, before)
        run(view.above, side, above := [])
        seen = list(before)
        run(view.below, side, seen)
        seen.append(f"page {number}")
        try:
            run(view.steps, side, seen)
        except Answered:
            pass
        else:
            if view.part is not None:
                run(view.part, side, part := ["part"])
                seen += part
            if view.template is not None:
                extra: list[str] = []
                for hook in at("context"):
                    run(hook.steps, side, extra)
                texts = [str(side.look(one)) + ";" for one in view.template]
                seen.append("".join(texts) + "|".join(extra))
            streamed = view.streamed or ()
        headers["X-Above"] = "|".join(above)
    except Answered:
        seen = ["early|" + "|".join(before)]
    except Aborted as error:
        status = error.status
        run(case.errors, side, seen := [f"error {status}"])
    # Flask calls them the other way round, and those of the blueprint first
    after: list[str] = []
    for hook in reversed([*at("after")]):
        run(hook.steps, side, after)
    headers["X-After"] = "|".join(after)
    run(streamed, side, seen)
    return Page(status, "|".join(seen), headers, side.cookies, side.visit.session)


# --- shrinking ----------------------------------------------------------------------------------


def simplify(value: Any) -> Iterator[Any]:
    """Yield copies of a program that have one part less each, the largest parts first."""
    if isinstance(value, tuple):
        size = len(value) // 2
        while size > 1:
            for at in range(0, len(value), size):
                yield (*value[:at], *value[at + size :])
            size //= 2
        for at, one in enumerate(value):
            yield (*value[:at], *value[at + 1 :])
            if isinstance(one, When | Since):
                yield (*value[:at], *one.then, *value[at + 1 :])
            if isinstance(one, When):
                yield (*value[:at], *one.otherwise, *value[at + 1 :])
        for at, one in enumerate(value):
            for smaller in simplify(one):
                yield (*value[:at], smaller, *value[at + 1 :])
    elif is_dataclass(value):
        for one in fields(value):
            before = getattr(value, one.name)
            if one.name in ("template", "part", "streamed") and before is not None:
                yield replace(value, **{one.name: None})
            if isinstance(before, tuple) and one.name != "query":
                for smaller in simplify(before):
                    yield replace(value, **{one.name: smaller})
            elif isinstance(one.default, str | bool) and before != one.default:
                yield replace(value, **{one.name: one.default})


def show(value: Any, indent: int = 0) -> str:
    """Write a program as the Python that makes it."""
    space = " " * indent
    if isinstance(value, tuple):
        if not value:
            return "()"
        lines = [f"{space}    {show(one, indent + 4)}," for one in value]
        return "(\n" + "\n".join(lines) + f"\n{space})"
    if is_dataclass(value):
        shown = []
        for one in fields(value):
            found = getattr(value, one.name)
            if found != one.default:
                shown.append(f"{one.name}={show(found, indent)}")
        return f"{type(value).__name__}({', '.join(shown)})"
    return repr(value)

"""Findings about names in settings that name nothing: the doctor shows them, and the log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from ..errors import suggest
from .kit import Finding


def check_names(
    subject: str, names: Collection[str], known: Collection[str], missing: str, way_out: str
) -> Iterator[Finding]:
    """Yield a finding for each name that nothing has.

    Args:
        subject: the setting with a place for the name, such as ``OM_DISPLAY_NAMES[{!r}]``.
        names: what the setting names.
        known: what there is.
        missing: what follows from a name that nothing has, in one sentence.
        way_out: what to do where no known name is near.
    """
    for name in names:
        if name not in known:
            yield Finding("warn", subject.format(name), missing, nearest(name, known) or way_out)


def nearest(name: str, known: Collection[str]) -> str:
    """Return ``Did you mean …?`` with the known name that is nearest; "" when none is near."""
    return suggest(name, known, "").replace("did", "Did", 1)


def check_paths(
    subject: str, paths: Collection[str], list_rules: Callable[[], Sequence[str]] | None
) -> Iterator[Finding]:
    """Yield a finding for each path that no route is at or below, and that is near to one.

    A path that is near to none may be that of an application that the host mounts.

    Args:
        subject: the setting with a place for the path, such as ``OM_FALLBACK[{!r}]``.
        paths: what the setting names; a ``*`` at the end stands for all below.
        list_rules: returns the host's url rules; ``None`` when it cannot tell.
    """
    if not paths or list_rules is None:  # the usual case, at the start of each application
        return
    rules = list_rules()
    for path in paths:
        plain = path.removesuffix("*")
        if any(_covers(rule, plain) for rule in rules):
            continue
        hint = nearest(path, [*rules, *(rule.partition("<")[0] for rule in rules)])
        if hint:
            yield Finding("warn", subject.format(path), "No route is at this path.", hint)


def _covers(rule: str, path: str) -> bool:
    """Return whether a path, or one below it, may be one of a rule's."""
    fixed, has_variable, _ = rule.partition("<")
    return fixed.startswith(path) or (bool(has_variable) and path.startswith(fixed))

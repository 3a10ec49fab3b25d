"""A Content-Security-Policy as a value: checked, merged, and compiled to text with gaps.

A policy is a dict from a directive to its sources. Sources are written as in the header, with one
addition: the placeholder ``'nonce'`` stands for the nonce of the response at hand.

A :class:`Csp` is such a policy that is built in code, where each step is checked where it is
written. It is a mapping from a directive to its sources, so it may stand wherever a policy is asked
for: in ``OM_CSP``, in ``@om.csp(update=…)``, in a plugin's ``om_csp``.

Source: Content Security Policy Level 3, sections 2.3.1 (grammar) and 6 (directives).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

from ..errors import ConfigError
from . import presets
from .sources import (
    HASHES_SOURCE,
    NONCE_SOURCE,
    allows_all_inline,
    check_source,
    copy_sources,
    explain_conflict,
    explain_unknown,
    extend_sources,
    find_lack_of_effect,
    fold_source,
    is_nonce_or_hash,
    is_place,
)

Directives = Mapping[str, Sequence[str]]
Policy = dict[str, tuple[str, ...]]
Pieces = tuple[str, ...]

_FETCH_FALLBACKS: Mapping[str, tuple[str, ...]] = {
    "child-src": ("default-src",),
    "connect-src": ("default-src",),
    "fenced-frame-src": ("frame-src", "child-src", "default-src"),
    "font-src": ("default-src",),
    "frame-src": ("child-src", "default-src"),
    "img-src": ("default-src",),
    "manifest-src": ("default-src",),
    "media-src": ("default-src",),
    "object-src": ("default-src",),
    "script-src": ("default-src",),
    "script-src-attr": ("script-src", "default-src"),
    "script-src-elem": ("script-src", "default-src"),
    "style-src": ("default-src",),
    "style-src-attr": ("style-src", "default-src"),
    "style-src-elem": ("style-src", "default-src"),
    "worker-src": ("child-src", "script-src", "default-src"),
}
"""Which directive a browser asks when one is missing (CSP3, section 6.8.3)."""

_MORE_SPECIFIC: Mapping[str, tuple[str, ...]] = {
    "child-src": ("frame-src", "worker-src"),
    "frame-src": ("fenced-frame-src",),
    "script-src": ("script-src-elem", "script-src-attr"),
    "style-src": ("style-src-elem", "style-src-attr"),
}
"""Directives that browsers ask instead, where a policy has them."""

_SOURCE_LISTS = frozenset(_FETCH_FALLBACKS) | {
    "base-uri", "default-src", "form-action", "frame-ancestors"
}  # fmt: skip
_WITHOUT_VALUE = frozenset({"block-all-mixed-content", "upgrade-insecure-requests"})
_MAY_BE_EMPTY = frozenset({"sandbox", "trusted-types"})
HTTPS_ONLY = frozenset({"upgrade-insecure-requests"})
"""Directives that would break a site which is served over plain HTTP, and are left out there."""
_DIRECTIVES = (
    _SOURCE_LISTS
    | _WITHOUT_VALUE
    | _MAY_BE_EMPTY
    | {"report-to", "report-uri", "require-trusted-types-for", "webrtc"}
)
_ONE_VALUE = frozenset({"report-to", "webrtc"})
_GONE: Mapping[str, str] = {
    "navigate-to": "leave it out",
    "plugin-types": "object-src \"'none'\" does what it did",
    "prefetch-src": "default-src says where pages are fetched beforehand from",
    "referrer": "set OM_HEADERS['Referrer-Policy']",
    "reflected-xss": "a policy for scripts does what it did",
    "require-sri-for": "om_static(…) writes integrity on a tag",
}
"""Directives that browsers have dropped, and what to do instead."""


_OF_TAGS = ("script-src", "script-src-elem", "style-src", "style-src-elem", "default-src")


def needs_nonces(policy: Directives) -> str:
    """Return the directive, if any, by which a tag needs its nonce in every case.

    It needs the nonce even when its hash is listed or it loads a file of the site: beside
    ``'strict-dynamic'`` browsers ignore ``'self'``.
    """
    for name in _OF_TAGS:
        sources = policy.get(name, ())
        if "'strict-dynamic'" in sources or (
            NONCE_SOURCE in sources and HASHES_SOURCE not in sources
        ):
            return name
    return ""


def parse_policy(text: str, where: str) -> dict[str, tuple[str, ...]]:
    """Split the text of a policy into directives without checking them.

    Raises:
        ConfigError: a directive occurs twice.
    """
    policy: dict[str, tuple[str, ...]] = {}
    for part in text.split(";"):
        name, *sources = part.split() or [""]
        if name in policy:
            raise ConfigError(
                f"{where}[{name!r}]",
                text,
                "stands there twice; browsers read the first one only",
            )
        if name:
            policy[name] = tuple(sources)
    return policy


def read_policy(directives: Mapping[str, object] | str, where: str) -> Policy:
    """Read and check a policy.

    Args:
        directives: from a directive's name to its sources: a list or tuple of texts, or one text
            that is split at white space. An empty list is right only for a directive that takes no
            value, such as ``upgrade-insecure-requests``. Or the whole policy as text.
        where: the key that errors name, such as ``OM_CSP``.

    Returns:
        A new policy with tuples of sources.

    Raises:
        ConfigError: names ``where['directive']``, the value and a correct value.
    """
    policy: Policy = {}
    if isinstance(directives, str):
        directives = parse_policy(directives, where)
    if not isinstance(directives, Mapping):
        raise ConfigError(where, directives, "must be a dict from a directive to its sources")
    for name, sources in directives.items():
        key = f"{where}[{name!r}]"
        check_directive(name, sources, where)
        if isinstance(sources, str):
            sources = tuple(sources.split())
        if not isinstance(sources, Sequence | set | frozenset):
            raise ConfigError(key, sources, "must be a list of sources")
        policy[name] = tuple(sources)
        _check_sources(key, name, policy[name])
    return policy


def read_additions(directives: Mapping[str, object] | str, where: str) -> Policy:
    """Read and check sources that are added to a policy.

    Raises:
        ConfigError: as :func:`read_policy`, and when some of them would take the effect of others.
    """
    policy = read_policy(directives, where)
    for name, sources in policy.items():
        reason = explain_conflict(name, sources)
        if reason:
            raise ConfigError(f"{where}[{name!r}]", sources, reason)
    return policy


def read_policy_changes(
    directives: Mapping[str, object] | str, where: str
) -> tuple[Policy, tuple[str, ...]]:
    """Read and check changes of a policy.

    Returns:
        The directives to replace, and the names of those to remove: their value is ``None``, or
        they were removed from a :class:`Csp`.

    Raises:
        ConfigError: names ``where['directive']``, the value and a correct value.
    """
    gone = tuple(getattr(directives, "dropped", ()))
    if isinstance(directives, Mapping):
        gone += tuple(name for name, value in directives.items() if value is None)
        directives = {name: value for name, value in directives.items() if value is not None}
    for name in gone:
        check_directive(name, None, where)
    policy = read_policy(directives, where)
    for name in ("script-src-attr", "style-src-attr"):
        sources = policy.get(name, ())
        if any(map(is_nonce_or_hash, sources)) and "'unsafe-hashes'" not in sources:
            raise ConfigError(
                f"{where}[{name!r}]",
                sources,
                "browsers look at the hash of an attribute beside \"'unsafe-hashes'\" only; add it",
            )
    return policy, gone


def check_directive(name: str, value: object, where: str) -> None:
    """Raise :class:`ConfigError` when no browser knows a directive of this name."""
    if name not in _DIRECTIVES:
        gone = _GONE.get(name)
        reason = (
            f"browsers know it no more; {gone}"
            if gone
            else explain_unknown("directive", name, _DIRECTIVES)
        )
        raise ConfigError(f"{where}[{name!r}]", value, reason)


def _check_sources(key: str, directive: str, sources: tuple[object, ...]) -> None:
    try:
        if _are_sound(directive, sources):
            return
    except TypeError:  # one of them is no text
        pass
    _refuse_unsound(key, directive, sources)


# the applications of a process have much the same policies
@functools.lru_cache(maxsize=256)
def _are_sound(directive: str, sources: tuple[object, ...]) -> bool:
    try:
        _refuse_unsound("", directive, sources)
    except ConfigError:
        return False
    return True


def _refuse_unsound(key: str, directive: str, sources: tuple[object, ...]) -> None:
    if directive in _WITHOUT_VALUE:
        if sources:
            raise ConfigError(key, sources, "this directive takes no value; write ()")
    elif not sources and directive not in _MAY_BE_EMPTY:
        hint = "; write \"'none'\" to allow nothing" if directive in _SOURCE_LISTS else ""
        raise ConfigError(key, sources, "needs at least one value" + hint)
    seen: set[str] = set()
    for source in sources:
        reason = check_source(directive, source, source_list=directive in _SOURCE_LISTS)
        if reason:
            raise ConfigError(key, source, reason)
        same = fold_source(str(source))
        if same in seen:
            raise ConfigError(key, source, "stands there twice; remove one")
        seen.add(same)
    if directive in _ONE_VALUE and len(seen) > 1:
        raise ConfigError(key, sources, "takes one value; remove the others")
    if "'none'" in seen and len(seen) > 1:
        raise ConfigError(key, sources, "'none' must stand alone; remove it or the other sources")


def replace_directives(policy: Policy, changes: Policy, *, only_present: bool = False) -> Policy:
    """Return ``policy`` with whole directives replaced.

    Args:
        policy: to change.
        changes: the new directives.
        only_present: ignore changes of directives that ``policy`` does not have.
    """
    if only_present:
        changes = {name: value for name, value in changes.items() if name in policy}
    return {**policy, **changes}


def find_sources(policy: Policy, directive: str) -> tuple[str, ...] | None:
    """Return the sources that a browser uses for a directive: its own, or those of its fallback.

    ``None``: everything is allowed.
    """
    names = (directive, *_FETCH_FALLBACKS.get(directive, ()))
    return next((policy[one] for one in names if one in policy), None)


def add_sources(policy: Policy, extra: Directives, *, owner: bool = False) -> Policy:
    """Return ``policy`` with sources added, so that it allows more and never less.

    A missing directive begins as a copy of the one that browsers fall back to. Without one to fall
    back to, everything is allowed already and adding a source would forbid the rest, so nothing is
    added.

    Args:
        policy: to change.
        extra: the sources to add.
        owner: the application itself asks for exactly these sources. They get their effect,
            whatever it takes (see :func:`~.sources.extend_sources`): also in a more specific
            directive, which browsers would ask instead. A directive without a fallback is set, and
            ``'none'`` forbids. What a plugin adds changes nothing but its own directive: there, a
            source that stands beside ``'strict-dynamic'`` or a nonce waits for another preset.
    """
    result = dict(policy)
    for name, sources in _split_default(extra) if owner else extra.items():
        base = find_sources(result, name)
        if base is None and not owner:
            continue
        if name not in result:
            base = copy_sources(name, base or ())
        result[name] = _extend(name, base or (), sources, owner=owner)
        for other in _MORE_SPECIFIC.get(name, ()) if owner else ():
            meant = _select_for(other, sources)
            if other in policy and meant:
                result[other] = extend_sources(other, result[other], meant)
    return result


def _extend(
    name: str, base: tuple[str, ...], sources: Sequence[str], *, owner: bool
) -> tuple[str, ...]:
    if owner and name in _SOURCE_LISTS:
        return extend_sources(name, base, sources)
    kept = tuple(one for one in base if one != "'none'")
    takes_back = is_nonce_or_hash if allows_all_inline(name, kept) else None
    added = tuple(
        one
        for one in sources
        if one not in kept and one != "'none'" and not (takes_back and takes_back(one))
    )
    return kept + added or tuple(sources)


def _split_default(extra: Directives) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield ``extra`` with what ``default-src`` says of code given to scripts and styles alone."""
    for name, sources in extra.items():
        code = [one for one in sources if not is_place(one) and one != "'none'"]
        if name != "default-src" or not code:
            yield name, sources
            continue
        places = [one for one in sources if one not in code]
        if places:
            yield name, places
        for other in ("script-src", "style-src"):
            meant = [one for one in code if not find_lack_of_effect(other, one)]
            if meant:
                yield other, meant


def _select_for(directive: str, sources: Sequence[str]) -> list[str]:
    """Return what somebody who adds sources to a directive means for a more specific one."""
    if directive.endswith("-attr"):  # 'unsafe-inline' has its effect on tags already
        if "'unsafe-hashes'" not in sources:
            return []
        return [one for one in sources if one == "'unsafe-hashes'" or is_nonce_or_hash(one)]
    return [one for one in sources if not find_lack_of_effect(directive, one)]


def find_ignored(policy: Policy, added: Directives) -> str:
    """Return which of the sources that a plugin added browsers ignore in ``policy``; "" for none.

    Hosts beside ``'strict-dynamic'`` are not meant: a plugin names them for every preset.
    """
    for name, sources in added.items():
        present = policy.get(name, ())
        if "'unsafe-inline'" in sources and present and not allows_all_inline(name, present):
            return (
                f"'unsafe-inline' has no effect in {name}, because browsers ignore it beside a "
                "nonce, a hash or 'strict-dynamic'"
            )
    return ""


def compile_policy(policy: Policy) -> Pieces:
    """Return the text of the header, split where the nonce goes.

    Returns:
        Pieces for ``nonce.join(pieces)``; a single piece when the policy has no ``'nonce'``.
    """
    text = "; ".join(" ".join((name, *sources)) for name, sources in policy.items())
    return tuple(text.replace(NONCE_SOURCE, "'nonce-\0'").split("\0"))


class Csp(Mapping[str, tuple[str, ...]]):
    """A Content-Security-Policy that never changes: each method gives a new one.

    Args:
        policy: a dict from a directive to its sources, or the header's text.

    Raises:
        ConfigError: names the directive, the value and the way out.

    Example::

        OM_CSP = (
            Csp.strict()
            .add("style-src", "https://fonts.example")
            .set("img-src", Csp.SELF, "data:")
            .set("upgrade-insecure-requests")
        )
    """

    __slots__ = ("_dropped", "_policy")

    SELF: Final = "'self'"
    NONE: Final = "'none'"
    NONCE: Final = "'nonce'"
    """Stands for the nonce of each response."""
    STRICT_DYNAMIC: Final = "'strict-dynamic'"
    UNSAFE_INLINE: Final = "'unsafe-inline'"
    UNSAFE_EVAL: Final = "'unsafe-eval'"
    UNSAFE_HASHES: Final = "'unsafe-hashes'"
    WASM_UNSAFE_EVAL: Final = "'wasm-unsafe-eval'"
    REPORT_SAMPLE: Final = "'report-sample'"
    INLINE_SPECULATION_RULES: Final = "'inline-speculation-rules'"
    TRUSTED_TYPES_EVAL: Final = "'trusted-types-eval'"

    def __init__(self, policy: Mapping[str, object] | str = "") -> None:
        self._policy: Policy = read_policy(policy, "Csp")
        self._dropped: tuple[str, ...] = ()

    @classmethod
    def strict(cls) -> Self:
        """Return what ``OM_CSP_PRESET = "strict"`` sends; see :data:`~.presets.STRICT`."""
        return cls(presets.STRICT)

    @classmethod
    def compatible(cls, *hosts: str) -> Self:
        """Return what ``OM_CSP_PRESET = "compatible"`` sends; see :func:`~.presets.compatible`.

        Args:
            hosts: hosts whose scripts run without a nonce, such as ``https://cdn.example``.
        """
        return cls(presets.compatible(hosts))

    @classmethod
    def api(cls) -> Self:
        """Return the policy for data; see :data:`~.presets.API`."""
        return cls(presets.API)

    def set(self, directive: str, *sources: str) -> Self:
        """Return a policy with this directive, whatever it was before."""
        return self._copy_with(
            replace_directives(self._policy, read_policy({directive: sources}, "Csp.set"))
        )

    def add(self, directive: str, *sources: str) -> Self:
        """Return a policy with more sources in this directive, in which each has its effect.

        A missing directive begins as a copy of the one that browsers fall back to; see
        :func:`add_sources`.
        """
        extra = read_additions({directive: sources}, "Csp.add")
        return self._copy_with(add_sources(self._policy, extra, owner=True))

    def without(self, *directives: str) -> Self:
        """Return a policy without these directives.

        In ``OM_CSP`` and ``@om.csp(replace=…)`` they are also removed from what would be sent
        otherwise.
        """
        for name in directives:
            check_directive(name, None, "Csp.without")
        left = {k: v for k, v in self._policy.items() if k not in directives}
        return self._copy_with(left, directives)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The directives that :meth:`without` removed, and that nothing added again."""
        return self._dropped

    def _copy_with(self, policy: Policy, dropped: tuple[str, ...] = ()) -> Self:
        made = type(self)(policy)
        made._dropped = tuple(
            name for name in dict.fromkeys((*self._dropped, *dropped)) if name not in policy
        )
        return made

    def __getitem__(self, directive: str) -> tuple[str, ...]:
        return self._policy[directive]

    def __iter__(self) -> Iterator[str]:
        return iter(self._policy)

    def __len__(self) -> int:
        return len(self._policy)

    def __str__(self) -> str:
        return "; ".join(" ".join((name, *sources)) for name, sources in self.items())

    def __repr__(self) -> str:
        return f"Csp({str(self)!r})"

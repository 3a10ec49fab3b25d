"""Suggestions for reported violations: how to fix the page, and the smallest change of the policy.

For each group of reports there is a way to fix the page and, where possible, the change that would
allow what was blocked, with its risk. Nothing is applied automatically: anybody can post reports,
so an address in a report must not be trusted before somebody recognizes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .policy import Policy, add_sources, find_sources
from .sources import check_source
from .violations import ViolationGroup

Risk = Literal["none", "low", "medium", "high"]
RISKS: tuple[Risk, ...] = ("none", "low", "medium", "high")
"""What a change costs, from nothing to the protection itself."""

_ANYBODY_S = frozenset(
    {
        "https://ajax.googleapis.com",
        "https://cdn.jsdelivr.net",
        "https://cdnjs.cloudflare.com",
        "https://code.jquery.com",
        "https://esm.sh",
        "https://raw.githubusercontent.com",
        "https://cdn.skypack.dev",
        "https://unpkg.com",
        "https://www.google.com",
        "https://www.googleapis.com",
        "https://storage.googleapis.com",
        "https://s3.amazonaws.com",
    }
)
"""Where anybody can put a script, or call one that runs what it is given."""

_BLANKS = (
    " Browsers report a text without the blanks around it: the hash is right when none stand there."
)
_GIVES_UP = " 'strict-dynamic' goes: what scripts load or insert must then be allowed."
_SCRIPT_TAGS = frozenset({"script-src", "script-src-elem"})
_STYLE_TAGS = frozenset({"style-src", "style-src-elem"})
_BY_TYPE: Mapping[str, tuple[Risk, str]] = {
    "img-src": ("low", "Pictures may come from there, and learn which pages people open."),
    "font-src": ("low", "Fonts may come from there."),
    "media-src": ("low", "Sound and video may come from there."),
    "manifest-src": ("low", "The page's manifest may come from there."),
    "style-src": ("low", "Whoever controls that host decides how the page looks."),
    "style-src-elem": ("low", "Whoever controls that host decides how the page looks."),
    "connect-src": ("medium", "Scripts may send data there."),
    "frame-src": ("medium", "Pages from there may be shown inside this one."),
    "child-src": ("medium", "Pages and workers from there may run inside this one."),
    "worker-src": ("medium", "Workers from there may run."),
    "form-action": ("medium", "Forms may send what people type there."),
    "object-src": ("high", "Plug-ins run what they load."),
    "base-uri": ("high", "Whoever sets <base> decides where relative scripts come from."),
}


_CODE: Mapping[str, tuple[str, str, Risk, str]] = {
    "eval": (
        "Do without eval, new Function and timers that are given text; many libraries have a "
        "build for that.",
        "'unsafe-eval'",
        "high",
        "Whatever text reaches eval runs.",
    ),
    "wasm-eval": (
        "WebAssembly has to be allowed.",
        "'wasm-unsafe-eval'",
        "low",
        "WebAssembly may be compiled; JavaScript from text may not.",
    ),
}
"""For code that a script makes from text: how to change the page, the source that allows it, the
risk of that, and the risk in a sentence."""


_ALL_SCRIPTS: tuple[Mapping[str, tuple[str, ...]], Risk, str] = (
    {"script-src": ("'unsafe-inline'",)},
    "high",
    "Every inline script runs, an attacker's as well: nothing is left of the protection.",
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to do about one group of reports.

    Attributes:
        group: what was reported.
        fix: how to change the page, so that the policy can stay as it is.
        change: sources to add, by directive; empty where only changing the page helps.
        risk: of the change.
        cost: the risk in a sentence.
    """

    group: ViolationGroup
    fix: str
    change: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    risk: Risk = "none"
    cost: str = ""


def suggest(groups: Iterable[ViolationGroup]) -> list[Suggestion]:
    """Return one suggestion for each group, in their order."""
    return [_suggest_for(group) for group in groups]


def as_settings(
    suggestions: Iterable[Suggestion], policy: Policy, allowed: Risk = "medium"
) -> dict[str, list[str]]:
    """Return the ``OM_CSP`` with which browsers would not block again what they reported.

    Args:
        suggestions: of :func:`suggest`.
        policy: the current one; only directives that change are returned, each as a whole.
        allowed: the highest risk of a change that is included.
    """
    changed = dict(policy)
    for one in suggestions:
        # what this policy allows was blocked by another one: a view's, or one of the settings
        # for more policies
        restricted = all(find_sources(policy, name) is not None for name in one.change)
        if one.change and restricted and RISKS.index(one.risk) <= RISKS.index(allowed):
            changed = add_sources(changed, one.change, owner=True)
    return {name: list(value) for name, value in changed.items() if policy.get(name) != value}


def _suggest_for(group: ViolationGroup) -> Suggestion:
    directive, blocked = group.directive, group.blocked
    if directive.endswith("-attr"):
        return _suggest_for_attribute(group)
    if directive in ("require-trusted-types-for", "trusted-types"):
        return _suggest_for_trusted_types(group)
    if directive in _SCRIPT_TAGS or (directive == "default-src" and blocked in ("eval", "inline")):
        return _suggest_for_script(group)
    if directive in _STYLE_TAGS and blocked == "inline":
        return _suggest_for_style(group)
    return _suggest_for_file(group)


def _suggest_for_attribute(group: ViolationGroup) -> Suggestion:
    script = group.directive.startswith("script")
    fix = (
        "Take the event handler (onclick=…) out and call addEventListener in a script; "
        "'flask om csp lint' finds those in templates."
        if script
        else "Give the element a class, or set element.style in a script."
    )
    change: Mapping[str, tuple[str, ...]]
    if group.hash:
        change = {group.directive: ("'unsafe-hashes'", f"'{group.hash}'")}
        cost = f"Exactly this text may stand in an attribute; an attacker may use it, too.{_BLANKS}"
        return Suggestion(group, fix, change, "medium" if script else "low", cost)
    change = {group.directive: ("'unsafe-inline'",)}
    if script:
        cost = "Every event handler runs, an attacker's as well."
        return Suggestion(group, fix, change, "high", cost)
    return Suggestion(group, fix, change, "low", "Every style attribute works.")


def _suggest_for_style(group: ViolationGroup) -> Suggestion:
    fix = (
        f"{group.source} makes it: give that library the nonce (many have an option for it, or "
        "read __webpack_nonce__), load its style sheet with the page, or use a style sheet object "
        "(adoptedStyleSheets)."
        if group.source
        else "Write the <style> in a template, where it gets its nonce; a script that makes one "
        "sets its nonce, or uses a style sheet object (adoptedStyleSheets)."
    )
    if group.hash:
        return Suggestion(group, fix, *_allow_by_hash(group, group.directive))
    cost = "Every <style> works, an injected one as well; it can read what the page shows."
    return Suggestion(group, fix, {group.directive: ("'unsafe-inline'",)}, "medium", cost)


def _suggest_for_script(group: ViolationGroup) -> Suggestion:
    directive, blocked = "script-src", group.blocked
    if blocked == "inline" and group.sample.lower().startswith("javascript:"):
        fix = (
            "Use a <button> and addEventListener in a script in place of the javascript: address; "
            "'flask om csp lint' finds those in templates."
        )
        if not group.hash:
            return Suggestion(group, fix, *_ALL_SCRIPTS)
        # browsers compare the whole address with the hash, and only beside 'unsafe-hashes'
        change = {directive: ("'unsafe-hashes'", f"'{group.hash}'")}
        cost = "Exactly this address runs; an attacker may use it, too."
        return Suggestion(group, fix, change, "medium", cost)
    if blocked == "inline":
        fix = (
            f"{group.source} makes it: give that library the nonce, or take a build that does "
            "without."
            if group.source
            else "Write the <script> in a template, where it gets its nonce, or give it "
            'nonce="{{ csp_nonce() }}". For markup that Python makes, see OM_CSP_HTML_NONCES and '
            "the filter om_trusted."
        )
        if group.hash:
            return Suggestion(group, fix, *_allow_by_hash(group, directive))
        return Suggestion(group, fix, *_ALL_SCRIPTS)
    if blocked in _CODE:
        fix, source, risk, cost = _CODE[blocked]
        return Suggestion(group, fix, {directive: (source,)}, risk, cost)
    if blocked in ("data", "blob"):
        return Suggestion(
            group,
            f"Load the script from an address instead of a {blocked}: one.",
            {directive: (f"{blocked}:",)},
            "high",
            f"Whoever can write a {blocked}: address runs scripts.",
        )
    fix = (
        f"Give the tag its nonce (<script src=… nonce=…>), or load "
        f"{group.address or blocked} from a script that has one."
    )
    source = _find_source(blocked)
    if not source:
        return Suggestion(group, fix)
    if source == "'self'":
        cost = (
            "Any file of this site runs as a script, one that a user uploaded as well." + _GIVES_UP
        )
        return Suggestion(group, fix, {directive: (source,)}, "medium", cost)
    everybody = blocked in _ANYBODY_S
    cost = (
        "Anybody can put a script there."
        if everybody
        else "Everything on that host may run as a script."
    )
    cost += _GIVES_UP
    return Suggestion(group, fix, {directive: (source,)}, "high" if everybody else "medium", cost)


def _allow_by_hash(
    group: ViolationGroup, directive: str
) -> tuple[Mapping[str, tuple[str, ...]], Risk, str]:
    script = directive.startswith("script")
    may = "run, wherever an attacker puts it; read it first" if script else "style the page"
    cost = f"Exactly this text may {may}; it must not change.{_BLANKS}"
    return {directive: (f"'{group.hash}'",)}, "medium" if script else "low", cost


def _suggest_for_trusted_types(group: ViolationGroup) -> Suggestion:
    if group.blocked == "trusted-types-policy":
        name = group.sample.partition(" ")[0].partition("|")[0]
        if name.replace("-", "").replace("_", "").isalnum() and name.isascii():
            return Suggestion(
                group,
                "Take the policy out of the script, or allow it by its name.",
                {"trusted-types": (name,)},
                "medium",
                "That policy decides alone what is safe.",
            )
    return Suggestion(
        group,
        "Set text with textContent, build elements with createElement, or make the value with a "
        "Trusted Types policy that cleans it.",
    )


def _suggest_for_file(group: ViolationGroup) -> Suggestion:
    risk, cost = _BY_TYPE.get(group.directive, ("medium", "It may be loaded from there."))
    blocked = group.blocked
    if group.directive == "frame-ancestors":
        return Suggestion(group, "Name the site that may frame the page; browsers report the page.")
    source = _find_source(blocked)
    if not source:
        return Suggestion(
            group, "Look at the page: the browser did not say where it would have come from."
        )
    fix = "If the page needs it, allow it; if nobody knows it, look for who put it there."
    if blocked in ("data", "blob") and risk == "medium":
        cost = f"Whoever can write a {blocked}: address decides what it is."
    return Suggestion(group, fix, {group.directive: (source,)}, risk, cost)


def _find_source(blocked: str) -> str:
    """Return the source to write for a blocked origin or word; "" for what cannot be allowed."""
    if blocked == "self":
        return "'self'"
    if blocked in ("data", "blob", "filesystem", "mediastream"):
        return f"{blocked}:"
    # a browser reports one host; whoever sends a pattern wants it to be allowed
    if (
        "://" in blocked
        and "*" not in blocked
        and not check_source("img-src", blocked, source_list=True)
    ):
        return blocked
    return ""

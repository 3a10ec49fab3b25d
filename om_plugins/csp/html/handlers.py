"""Which attributes of a tag run code, and which of these decide whether something happens.

An event handler that asks or checks (``onclick="return confirm('Sure?')"``) keeps a form from being
sent and a link from being followed. When the policy stops such a handler, the browser does what the
handler would have prevented. Source: HTML standard, section 8.1.8.2 (event handlers on elements).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

HANDLER = re.compile(
    "on("
    "abort|after(print|scriptexecute)|animation[a-z]+|auxclick|before[a-z]+|blur|cancel|canplay"
    "(through)?|change|click|close|command|contextmenu|copy|cuechange|cut|dblclick|drag[a-z]*|drop"
    "|durationchange|emptied|ended|error|focus(in|out)?|formdata|fullscreen[a-z]+|gotpointercapture"
    "|hashchange|input|invalid|key(down|press|up)|languagechange|load[a-z]*|lostpointercapture"
    "|message(error)?|mouse[a-z]+|offline|online|page(hide|reveal|show|swap)|paste|pause|play(ing)?"
    "|pointer[a-z]+|popstate|progress|ratechange|reset|resize|scroll(end)?|search"
    "|securitypolicyviolation|seek(ed|ing)|select[a-z]*|slotchange|stalled|storage|submit|suspend"
    "|timeupdate|toggle|touch[a-z]+|transition[a-z]+|unhandledrejection|unload|volumechange|waiting"
    "|webkit[a-z]+|wheel|begin|end|repeat"
    ")"
)
"""The event handlers of HTML and SVG. Other attributes may begin with "on", too."""

URLS = frozenset({"href", "src", "action", "formaction", "data", "xlink:href"})
"""Attributes with an address that a browser opens."""

SCRIPT_URL = re.compile(r"[\x00-\x20]*j\s*a\s*v\s*a\s*s\s*c\s*r\s*i\s*p\s*t\s*:", re.IGNORECASE)

RUNS_TEXT = re.compile(
    r"(?<![\w.$])(eval\s*\(|new\s+Function\s*\(|set(?:Timeout|Interval)\s*\(\s*[\"'`])"
)
"""Text that becomes code; the strict policy has no ``'unsafe-eval'``."""

WRITES_SCRIPT = re.compile(
    r"""document\s*\.\s*write(?:ln)?\s*\([^;]{0,200}?"""
    r"""(?:<|%3C)scr(?:["'`]\s*\+\s*["'`])?ipt(?=[\s>%"'`])"""
    r"""(?:[^>;]{0,200}?\ssrc\s*=[\s"'\\]*(?P<src>[^\s"'\\>]+))?""",
    re.IGNORECASE,
)
"""A script that is written into the page: it counts as one of the page itself and has no nonce."""

_CODE_ATTRIBUTES: tuple[tuple[re.Pattern[str], re.Pattern[str] | None, str], ...] = (
    (re.compile(r"x-(?:data|init|on:.*|bind:.*|show|text|html|model|for|if|effect)"), None,
     "Alpine"),
    (re.compile(r"(?:data-)?hx-(?:on(?:[:-].*)?|vars)"), None, "htmx"),
    (re.compile(r"(?:data-)?hx-(?:vals|headers)"), re.compile(r"\s*(?:js|javascript):"), "htmx"),
    (re.compile(r"(?:data-)?hx-trigger"), re.compile(r"[^,]*\["), "htmx"),
    (re.compile(r"v-(?:if|for|on:.*|bind:.*|model|show|text|html)"), None, "Vue"),
)  # fmt: skip
"""Attributes of which a library makes code when the page runs: name, beginning of the value where
it decides, library."""

BUILDS = {
    "Alpine": "Use its build for a strict policy (@alpinejs/csp), if you do not yet",
    "Vue": "Compile the templates beforehand (its runtime-only build)",
    "htmx": "Write the handler in a script, on the events of htmx",
}
"""What to do about each of these libraries."""

_WRITTEN = re.compile(
    r"""<[A-Za-z][^<>]*?\s([Oo][Nn][A-Za-z]+)\s*=\s*\\?(?:"([^"]*)"|'([^']*)')|"""
    r"""\A\s*([Oo][Nn][A-Za-z]+)=(?:"([^"]*)"|'([^']*)')"""
)
"""An event handler in a piece of HTML that code writes into the page."""

_BEFORE_ACTIONS = frozenset({
    "onbeforeunload", "onclick", "ondblclick", "onmousedown", "onreset", "onsubmit", "ontouchend",
    "ontouchstart",
})  # fmt: skip
_KEYS = frozenset({"onkeydown", "onkeypress"})
_SENDS = re.compile(r"\bEnter\b|\b13\b")
"""The key that sends a form."""
_ASKS = re.compile(r"(?:confirm|prompt)\w*\s*\(", re.IGNORECASE)
_RETURNS_A_DECISION = re.compile(r"\breturn\b\s*\(*\s*(?!true\b|false\b)[^\s;)}]")
_PREVENTS = re.compile(r"\breturn\s+false\b|\bpreventDefault\b|\breturnValue\b")
_CONDITION = re.compile(r"\bif\b|&&|\|\||\?")
_EVENT = re.compile(r"[(,]\s*event\s*[),]")

_QUESTION = re.compile(
    r"""\s*return\s+(?:window\s*\.\s*)?confirm\s*\(\s*"""
    r"""(?:'[^'\\\r\n]*'|"[^"\\\r\n]*")\s*\)\s*;?\s*"""
)


def find_written(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield place, name and code of each event handler in HTML that a text of code holds."""
    for match in _WRITTEN.finditer(text):
        name, *codes = (one for one in match.groups() if one is not None)
        if HANDLER.fullmatch(name.lower()) and codes[0]:
            yield match.start(), name.lower(), codes[0].rstrip("\\")


def find_code_maker(name: str, value: str) -> str:
    """Return the library that makes code of an attribute; "" for none.

    Args:
        name: of the attribute, in lower case.
        value: its value.
    """
    for names, values, library in _CODE_ATTRIBUTES:
        if names.fullmatch(name) and (values is None or values.match(value)):
            return library
    return ""


def is_question(code: str) -> bool:
    """Return whether a handler does nothing but ask: ``return confirm('Sure?')``.

    Whoever puts such a handler into a page can do no more than ask, so its hash may be in the
    policy.

    Args:
        code: the value of the attribute as it is written, with its character references.
    """
    return _QUESTION.fullmatch(html.unescape(code)) is not None


def guards_action(name: str, code: str) -> bool:
    """Return whether an event handler decides if a form is sent or a link is followed.

    A handler that always prevents it (``go(); return false``) decides nothing on a link, which then
    leads where it says. On a form it does: that form is never to be sent as it is.

    Args:
        name: of the attribute, in lower case.
        code: its value.
    """
    if name in _KEYS:
        return _SENDS.search(code) is not None
    if name not in _BEFORE_ACTIONS:
        return False
    if name == "onsubmit" and _EVENT.search(code):
        return True  # a function that gets the event may prevent it
    if _ASKS.search(code) or _RETURNS_A_DECISION.search(code):
        return True
    return bool(_PREVENTS.search(code)) and (
        name == "onsubmit" or _CONDITION.search(code) is not None
    )

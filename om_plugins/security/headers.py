"""The layer that adds security headers to responses, and the policy that it follows.

Everything that can be decided when the application starts is decided then: a response costs one
pass over its headers, a look-up and a random nonce. The layer wraps ``start_response`` only and
returns the application's own iterable, so that ``wsgi.file_wrapper`` keeps working.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from ..errors import ConfigError
from .nonce import PLAIN, header_nonce
from .override import OVERRIDE, Override
from .policy import Pieces, Policy, checked, compiled, replaced, widened
from .presets import BASELINE, COMPANIONS, HTML_ONLY, STRICT

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from ..settings import Settings

logger = logging.getLogger("om_plugins")

_Key = TypeVar("_Key")
_Made = TypeVar("_Made")

Header = tuple[str, str]
Plan = tuple[list[Header], list[tuple[str, Pieces]]]
"""What a response gets: complete headers, and policies that wait for the nonce."""

_ENFORCED = "Content-Security-Policy"
_REPORTED = "Content-Security-Policy-Report-Only"
_FRAMING = "x-frame-options"
_GROUP = "om-csp"

_CONTENT_TYPE = 0
_ENFORCED_BIT = 1
_REPORTED_BIT = 2
_FRAMING_BIT = 4
_FIRST_COMPANION_BIT = 8

_MEMO_SIZE = 256  # what a host app or a proxy header can make us remember is bounded

_NOT_OURS = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "set-cookie"}
    | {"location", "transfer-encoding"}
)
_POLICY_HEADERS = frozenset({_ENFORCED.lower(), _REPORTED.lower()})


class HeaderPolicy:
    """Which headers an application's responses get. Built and checked once, at start.

    Args:
        mode: ``adopt``, ``enforce``, ``learn`` or ``off``.
        csp: directives that replace those of the strict policy.
        companions: headers that are added where the application set none.
        report_path: the report endpoint's path below the application's root; "" for none.
        report_sample: share of HTML responses, 0 to 1, that ask browsers for reports. In modes
            that only observe, the pages of all others need no nonces.
        extra: sources to add, from plugins; they only ever allow more.
        callables: asked for such sources for each HTML response; one that raises is logged.

    Raises:
        ConfigError: names the key, the value and the way out.
    """

    def __init__(
        self,
        *,
        mode: str = "adopt",
        csp: Mapping[str, object] | None = None,
        companions: Mapping[str, str] | None = None,
        report_path: str = "/_om/csp",
        report_sample: float = 0.01,
        extra: Mapping[str, Sequence[str]] | None = None,
        callables: Sequence[Callable[[WSGIEnvironment], Any]] = (),
    ) -> None:
        self.mode = mode
        self._own = checked(csp or {}, "OM_CSP")
        # two plugins may well ask for the same source
        once = {name: tuple(dict.fromkeys(sources)) for name, sources in (extra or {}).items()}
        self._extra = checked(once, "om_csp")
        self._callables = tuple(callables) if mode != "off" else ()
        self._failed: list[Callable[[WSGIEnvironment], Any]] = []
        self._report_path = report_path
        self._sample = report_sample if report_path else 0.0
        self.may_stay_plain = (
            mode in ("adopt", "learn") and self._sample < 1.0 and not _reports_elsewhere(self._own)
        )
        companions = COMPANIONS if companions is None else companions
        self._bits = {
            "content-type": _CONTENT_TYPE,
            _ENFORCED.lower(): _ENFORCED_BIT,
            _REPORTED.lower(): _REPORTED_BIT,
            _FRAMING: _FRAMING_BIT,
        }
        self._framing_set = any(name.lower() == _FRAMING for name in companions)
        self._companions: list[tuple[int, Header, bool]] = []
        for number, (name, value) in enumerate(companions.items()):
            bit = _FIRST_COMPANION_BIT << number
            self._bits[name.lower()] = bit
            self._companions.append((bit, (name, value), name.lower() in HTML_ONLY))
        self._plain: dict[int, list[Header]] = {}
        self._variants: dict[object, _Variant] = {}
        self._default = self._variant((), ())

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        debug: bool,
        testing: bool = False,
        extra: Mapping[str, Sequence[str]] | None = None,
        callables: Sequence[Callable[[WSGIEnvironment], Any]] = (),
    ) -> HeaderPolicy:
        """The policy that the ``OM_`` keys ask for.

        Args:
            debug: the host application runs in debug mode: every HTML response asks for reports.
            testing: the host application is under test, where chance has no place: no response
                asks for reports, unless all do by their own setting.
            extra, callables: what plugins gave for ``om_csp``.

        Raises:
            ConfigError: names the key, the value and the way out.
        """
        sample = settings.csp_report_sample
        if settings.csp_mode == "learn":
            sample = 1.0
        elif testing:
            sample = float(sample >= 1.0)
        elif debug:
            sample = 1.0
        return cls(
            mode=settings.csp_mode,
            csp=settings.csp,
            companions=_merged_companions(settings.headers),
            report_path=f"{settings.prefix}/csp",
            report_sample=sample,
            extra=extra,
            callables=callables,
        )

    def policies(
        self, changes: Sequence[Override] = (), extra: Sequence[Policy] = ()
    ) -> tuple[Policy | None, Policy | None]:
        """The enforced and the report-only policy, with the changes of one response.

        Args:
            changes: of the view, in order.
            extra: sources that plugins' callables gave for this response.
        """
        mode = self.mode
        for change in changes:
            if change.exempt:
                return None, None
            if change.report_only is not None and mode != "off":
                mode = "learn" if change.report_only else "enforce"
        if mode == "off":
            return None, None
        strict = replaced(dict(STRICT), self._own)
        baseline = replaced(dict(BASELINE), self._own, only_present=True)
        for change in changes:
            strict = change.apply(strict)
            baseline = change.apply(baseline, only_present=True)
        for one in (self._extra, *extra):
            strict, baseline = widened(strict, one), widened(baseline, one)
        if mode == "enforce":
            return strict, None
        return (baseline if mode == "adopt" else None), strict

    def additions(
        self,
        environ: WSGIEnvironment,
        root: str,
        status: str,
        headers: Iterable[Header],
    ) -> list[Header]:
        """The headers to add to one response.

        Args:
            environ: of the request; gets the nonce when a policy with one is sent.
            root: ``SCRIPT_NAME`` as it was when the request came in.
            status: such as ``200 OK``.
            headers: the application's own; not changed.

        Returns:
            A list that the caller must not change.
        """
        bits = self._bits
        present = 0
        content_type = ""
        for name, value in headers:
            bit = bits.get(name.lower())
            if bit is not None:
                if bit:
                    present |= bit
                else:
                    content_type = value
        if not _is_html(content_type) or status[:3] in ("304", "204") or status[:1] == "1":
            plain = self._plain.get(present)
            return self._plain_for(present) if plain is None else plain
        variant = self._default
        changes = environ.get(OVERRIDE, ())
        if changes or self._callables:
            variant = self._variant(changes, self._asked(environ))
        if environ.get(PLAIN):  # a report-only policy would blame the tags that were left alone
            present |= _REPORTED_BIT
        reporting = ""
        if PLAIN not in environ if self.may_stay_plain else self.draw():
            reporting = "https" if environ.get("wsgi.url_scheme") == "https" else "http"
        key = (present, reporting, root)
        complete, waiting = variant.plans.get(key) or self._plan(variant, *key)
        if not waiting:
            return complete
        value = header_nonce(environ)
        return complete + [(name, value.join(pieces)) for name, pieces in waiting]

    def draw(self) -> bool:
        """Whether this response asks for reports."""
        sample = self._sample
        return sample >= 1.0 or (sample > 0.0 and random.random() < sample)

    def _plain_for(self, present: int) -> list[Header]:
        found = [header for bit, header, html in self._companions if not html and not present & bit]
        return _remember(self._plain, present, found)

    def _asked(
        self, environ: WSGIEnvironment
    ) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], ...]:
        answers = []
        for ask in self._callables:
            try:
                answer = ask(environ)
                if answer:
                    answers.append(tuple(checked(answer, "om_csp").items()))
            except Exception:
                if ask not in self._failed:  # once: a page a second would fill the log
                    self._failed.append(ask)
                    logger.exception("an om_csp callable failed; its sources are left out")
        return tuple(answers)

    def _variant(
        self,
        changes: tuple[Override, ...],
        extra: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...],
    ) -> _Variant:
        key = (changes, extra)
        found = self._variants.get(key)
        if found is None:
            made = _Variant(*self.policies(changes, [dict(one) for one in extra]))
            found = _remember(self._variants, key, made)
        return found

    def _plan(self, variant: _Variant, present: int, reporting: str, root: str) -> Plan:
        complete = [header for bit, header, _html in self._companions if not present & bit]
        waiting: list[tuple[str, Pieces]] = []
        endpoint = _quoted_root(root) + self._report_path
        asks = False
        for bit, name, policy in (
            (_ENFORCED_BIT, _ENFORCED, variant.enforced),
            (_REPORTED_BIT, _REPORTED, variant.reported),
        ):
            if not policy or present & bit:
                continue
            strict = policy is variant.strict
            if bit == _ENFORCED_BIT and (self._framing_set or present & _FRAMING_BIT):
                policy = self._without_framing(policy)
            # the baseline never asks: it is there to protect, and stays one constant line
            if reporting and strict and not _reports_elsewhere(policy):
                policy = {**policy, "report-uri": (endpoint,)}
                # browsers take endpoints from HTTPS responses alone, but "report-to" makes them
                # ignore "report-uri" everywhere: over plain HTTP no report would ever arrive
                if reporting == "https":
                    policy["report-to"] = (_GROUP,)
                    asks = True
            pieces = compiled(policy)
            if len(pieces) > 1:
                waiting.append((name, pieces))
            else:
                complete.append((name, pieces[0]))
        if asks:
            complete.append(("Reporting-Endpoints", f'{_GROUP}="{endpoint}"'))
        return _remember(variant.plans, (present, reporting, root), (complete, waiting))

    def _without_framing(self, policy: Policy) -> Policy:
        """Leave framing to the application's X-Frame-Options: browsers ignore that header beside
        ``frame-ancestors``, and a DENY must not become our 'self'."""
        name = "frame-ancestors"
        if name in self._own or policy.get(name) != STRICT[name]:
            return policy
        return {one: sources for one, sources in policy.items() if one != name}


class _Variant:
    """The policies of one kind of response, and the headers made of them so far."""

    __slots__ = ("enforced", "plans", "reported", "strict")

    def __init__(self, enforced: Policy | None, reported: Policy | None) -> None:
        self.enforced = enforced
        self.reported = reported
        self.strict = enforced if reported is None else reported
        self.plans: dict[tuple[int, str, str], Plan] = {}


class HeadersLayer:
    """Plain WSGI middleware that adds a :class:`HeaderPolicy`'s headers.

    ::

        app = HeadersLayer(app, HeaderPolicy(mode="enforce"))

    Args:
        app: the WSGI application.
        policy: what to add.
    """

    __slots__ = ("app", "policy")

    def __init__(self, app: WSGIApplication, policy: HeaderPolicy) -> None:
        self.app = app
        self.policy = policy

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        policy = self.policy
        additions = policy.additions
        if policy.may_stay_plain and not policy.draw():
            environ[PLAIN] = False
        elif PLAIN in environ:  # of a layer further out, which may be less strict
            del environ[PLAIN]
        root = environ.get("SCRIPT_NAME", "")  # a dispatcher further in may change it

        def start(
            status: str, headers: list[Header], exc_info: OptExcInfo | None = None
        ) -> Callable[[bytes], object]:
            # a new list: the application may use its own for the next response too
            headers = [*headers, *additions(environ, root, status, headers)]
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        return self.app(environ, start)


def _is_html(content_type: str) -> bool:
    if content_type == "text/html; charset=utf-8":
        return True
    essence = content_type.partition(";")[0].strip().lower()
    return essence == "text/html" or essence == "application/xhtml+xml"


def _quoted_root(root: str) -> str:
    """``SCRIPT_NAME`` as part of an address: it may come from a proxy's header, so nothing of it
    may end a value or, with two slashes, name another host."""
    base = root.strip("/")
    return "/" + quote(base, safe="/", encoding="latin-1", errors="replace") if base else ""


def _reports_elsewhere(policy: Policy) -> bool:
    return "report-uri" in policy or "report-to" in policy


def _remember(memo: dict[_Key, _Made], key: _Key, value: _Made) -> _Made:
    if len(memo) >= _MEMO_SIZE:
        memo.clear()
    memo[key] = value
    return value


def _merged_companions(own: Mapping[str, str | None]) -> dict[str, str]:
    merged = {name.lower(): (name, value) for name, value in COMPANIONS.items()}
    for name, value in own.items():
        key = f"OM_HEADERS[{name!r}]"
        folded = name.lower()
        if folded in _POLICY_HEADERS:
            raise ConfigError(key, value, "write the policy in OM_CSP and OM_CSP_MODE instead")
        if folded in _NOT_OURS:
            raise ConfigError(key, value, "belongs to each response; the application sets it")
        if value is None:
            merged.pop(folded, None)
        else:
            merged[folded] = (name, value)
    return dict(merged.values())

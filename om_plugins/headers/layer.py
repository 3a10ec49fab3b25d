"""The layer that adds security headers to responses, and the policy that it follows.

Everything that can be decided when the application starts is decided then. A response costs one
pass over its headers, a look-up and a random nonce. The layer wraps only ``start_response`` and
returns the iterable of the application itself, so that ``wsgi.file_wrapper`` keeps working.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import random
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from ..core.request_state import KEY, RequestState, StateLayer, end, nest, take_nonce
from ..csp.hashes import add_hashes, close_notes
from ..csp.modes import OBSERVING, Paths, PolicyRules, Sent
from ..csp.override import Override
from ..csp.policy import (
    HTTPS_ONLY,
    Pieces,
    Policy,
    add_sources,
    compile_policy,
    find_ignored,
    read_policy,
)
from ..csp.presets import OTHER, PAGE, STRICT, UNKNOWN, content_kind
from .companions import Companion, apply_changes, list_companions, merge_with_defaults
from .downstream_caching import PRIVATE, LatePage, make_private
from .report_turns import ReportTurns, can_be_reported_on

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


logger = logging.getLogger("om_plugins")

_Key = TypeVar("_Key")
_Made = TypeVar("_Made")

Header = tuple[str, str]
Plan = tuple[list[Header], list[tuple[str, Pieces]]]
"""What a response gets: complete headers, and policies that wait for the nonce."""

Hashes = tuple[tuple[str, ...], bool] | None
"""What a page noted, and whether it needs its nonce, too; ``None`` where no hashes are listed."""

_ENFORCED = "Content-Security-Policy"
_REPORTED = "Content-Security-Policy-Report-Only"
_FRAMING = "x-frame-options"
_GROUP = "om-csp"

# what a response has already, as bits; those up to _OUTSIDE say nothing about what to add
_NOTHING = 0
_CACHING_BIT = 1
_LENGTH_BIT = 2
_ETAG_BIT = 4
_TYPE_BIT = 8
_OUTSIDE = 15
_ENFORCED_BIT = 16
_REPORTED_BIT = 32
_FRAMING_BIT = 64
_SECURE_BIT = 128
_FIRST_COMPANION_BIT = 256

_BARE = frozenset({"304", "204"})

_MEMO_SIZE = 256  # what a host app or a proxy header can make us remember is bounded


class HeaderPolicy:
    """The headers that the responses of an application get. It is built and checked once, at start.

    Args:
        rules: the policies of responses; when not given, they are made from the next two arguments.
        mode: ``adopt``, ``enforce``, ``learn`` or ``off``.
        csp: directives that replace those of the strict policy.
        companions: headers that are added where the application set none of the same name; when
            not given, the defaults of the mode.
        report_path: the path of the report endpoint below the root of the application; "" for none.
        report_sample: the share of HTML responses, 0 to 1, that ask browsers for reports. In modes
            that only observe, all other pages need no nonces.
        extra: sources to add, from plugins; they can only allow more.
        callables: return such sources for each HTML response; one that raises is logged.
        paths: the changes by path.
        hash_attributes: pages note the hashes of their event handlers and ``style`` attributes,
            too.

    Attributes:
        report_turns: which requests for pages that a cache keeps ask for reports.
        alike: the headers of a response depend only on its own headers, its address and chance,
            unless its request changed something; see :meth:`lasting`.

    Raises:
        ConfigError: names the key, the value and a correct value.
    """

    def __init__(
        self,
        *,
        rules: PolicyRules | None = None,
        mode: str = "adopt",
        csp: Mapping[str, object] | str | None = None,
        companions: Mapping[str, str] | None = None,
        report_path: str = "/_om/csp",
        report_sample: float = 0.01,
        extra: Mapping[str, Sequence[str]] | None = None,
        callables: Sequence[Callable[[WSGIEnvironment], Any]] = (),
        paths: Paths | None = None,
        hash_attributes: bool = False,
    ) -> None:
        self.rules = rules = rules or PolicyRules(mode=mode, own=csp, extra=extra)
        self.mode = rules.mode
        self.paths = paths or Paths({})
        self.by_path = bool(self.paths)
        self.hash_attributes = hash_attributes
        self.hashing = self.mode != "off" and (hash_attributes or rules.lists_hashes)
        self._callables = tuple(callables) if self.mode != "off" else ()
        self._warned = {""}
        self._failed: list[Callable[[WSGIEnvironment], Any]] = []
        self._report_path = report_path
        self.report_turns = ReportTurns()
        self._sample = report_sample if report_path else 0.0
        self.alike = not (self._callables or self.hashing)
        self.may_stay_plain = (
            self.mode in OBSERVING and self._sample < 1.0 and not rules.wants_nonces
        )
        self._bits = {
            "content-type": _TYPE_BIT,
            "cache-control": _CACHING_BIT,
            "content-length": _LENGTH_BIT,
            "etag": _ETAG_BIT,
            _ENFORCED.lower(): _ENFORCED_BIT,
            _REPORTED.lower(): _REPORTED_BIT,
            _FRAMING: _FRAMING_BIT,
        }
        self._companions: list[tuple[int, Companion]] = []
        if companions is None:
            companions = merge_with_defaults({}, self.mode)
        for number, one in enumerate(list_companions(companions)):
            bit = self._bits.setdefault(one.name.lower(), _FIRST_COMPANION_BIT << number)
            self._companions.append((bit, one))
            if one.name.lower() == _FRAMING:
                rules.frame_by(one.value)
        self._names: dict[str, int] = {}  # the bits of names as applications spell them
        self._kinds: dict[str, int] = {"text/html; charset=utf-8": PAGE}
        self._others: tuple[dict[int, list[Header]], ...] = ({}, {}, {})
        self._variants: dict[object, _Variant] = {}
        self._default = self._get_variant((), ())

    def additions(
        self,
        environ: WSGIEnvironment,
        state: RequestState,
        root: str,
        status: str,
        headers: Iterable[Header],
    ) -> tuple[list[Header], int]:
        """Return the headers to add to one response.

        Args:
            environ: of the request.
            state: of the request; the nonce of a policy that is sent is written to it.
            root: ``SCRIPT_NAME`` as it was when the request came in.
            status: such as ``200 OK``.
            headers: the headers that the application set; they are not changed.

        Returns:
            A list that the caller must not change, and a bit set of the headers for caches that the
            application set.
        """
        bits = self._names
        present = 0
        kind: int = OTHER
        for name, value in headers:
            bit = bits.get(name)
            if bit is None:
                bit = _remember(bits, name, self._bits.get(name.lower(), _NOTHING))
            if bit:
                present |= bit
                if bit == _TYPE_BIT:
                    kind = self._kinds.get(value, UNKNOWN)
                    if kind == UNKNOWN:
                        kind = _remember(self._kinds, value, content_kind(value))
        outside = present & _OUTSIDE
        present ^= outside
        if environ.get("wsgi.url_scheme") == "https":
            present |= _SECURE_BIT
        if status != "200 OK" and (status[:3] in _BARE or status[:1] == "1"):
            kind = OTHER
        if kind != PAGE:
            added = self._others[kind].get(present) or self._add_to_other(kind, present)
            if kind != OTHER and state.overrides:
                added = self._add_to_other(kind, present, state.overrides)
        else:
            variant = self._default
            if state.overrides or self._callables:
                variant = self._get_variant(state.overrides, self._ask_plugins(environ))
            if (
                present & _REPORTED_BIT
                and state.take_report_turn is not None
                and state.inner is None
            ):
                self._stop_asking(environ)
            plain = state.plain
            # browsers would report the tags left alone; and where this page could stay as it is,
            # a report-only policy would ask for no reports
            if plain or (
                plain is not None
                and self.may_stay_plain
                and not any(one.always_sent for one in state.overrides)
            ):
                present |= _REPORTED_BIT
            reporting = plain is None and (
                state.asks_for_reports or (not self.may_stay_plain and self.draw())
            )
            hashes: Hashes = None
            if state.hashes is not None:
                # a page that is streamed may still need its nonce
                hashes = (
                    close_notes(state),
                    state.page_nonce is not None or not outside & _LENGTH_BIT,
                )
            key = (present, reporting, root, hashes)
            added, waiting = variant.plans.get(key) or self._make_plan(variant, *key)
            if waiting:
                value = state.nonce_for_header()
                added = added.copy()
                for name, pieces in waiting:
                    added.append((name, value.join(pieces)))
        if state.header_changes:
            added = apply_changes(added, state.header_changes, headers)
        return added, outside

    def lasting(
        self, scheme: str, root: str, status: str, headers: list[Header], *, plain: bool
    ) -> tuple[list[Header], list[tuple[str, Pieces]]]:
        """Return what is added to every response with these headers that asks for no reports.

        It is valid only for an :attr:`alike` policy, and for a response whose request changed
        nothing.

        Args:
            scheme: ``http`` or ``https``.
            root: ``SCRIPT_NAME``.
            status, headers: as for :meth:`additions`.
            plain: the tags of the page have no nonces.

        Returns:
            Whole headers, and those that contain a nonce, as pieces to join with it.
        """
        mark = take_nonce()
        state = RequestState(None, plain=plain, header_nonce=mark)
        added, _ = self.additions({"wsgi.url_scheme": scheme}, state, root, status, headers)
        whole = [one for one in added if mark not in one[1]]
        return whole, [(name, tuple(value.split(mark))) for name, value in added if mark in value]

    def draw(self) -> bool:
        """Decide by chance whether this response asks for reports."""
        return random() < self._sample  # below 1, and never below 0

    def can_ask(self, environ: WSGIEnvironment) -> bool:
        """Return whether a response that chance has chosen may ask; see :mod:`.report_turns`."""
        return can_be_reported_on(environ)

    def _stop_asking(self, environ: WSGIEnvironment) -> None:
        """Choose no more responses by chance: the application sends a report-only policy itself.

        It is kept, and ours is not sent beside it, so that nonces would be there for nothing.
        """
        if self._sample:
            self._sample = 0.0
            logger.info(
                "%s has a Content-Security-Policy-Report-Only of the application's own, which is "
                "kept; mode 'adopt' asks for no reports beside it. OM_CSP_REPORT_SAMPLE = 1 asks "
                "for them on all pages without one",
                environ.get("PATH_INFO", ""),
            )

    def _add_to_other(
        self, kind: int, present: int, changes: Sequence[Override] = ()
    ) -> list[Header]:
        """Return what is added to a response that is not a page."""
        found = self._select_companions(present, page=False)
        if kind != OTHER and not present & _ENFORCED_BIT:
            policy = self.rules.api(changes)
            if present & _FRAMING_BIT:
                policy = self._remove_framing(policy)
            if policy:
                found.append((_ENFORCED, compile_policy(policy)[0]))
        return found if changes else _remember(self._others[kind], present, found)

    def _select_companions(self, present: int, *, page: bool) -> list[Header]:
        secure = bool(present & _SECURE_BIT)
        return [
            (one.name, one.value)
            for bit, one in self._companions
            if not present & bit and (page or not one.html_only) and (secure or not one.https_only)
        ]

    def _ask_plugins(
        self, environ: WSGIEnvironment
    ) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], ...]:
        answers = []
        for ask in self._callables:
            try:
                answer = ask(environ)
                if answer:
                    answers.append(tuple(read_policy(answer, "om_csp").items()))
            except Exception:
                if ask not in self._failed:  # once: a page a second would fill the log
                    self._failed.append(ask)
                    logger.exception(
                        "%s failed; its sources are left out", getattr(ask, "__name__", ask)
                    )
        return tuple(answers)

    def _get_variant(
        self,
        changes: tuple[Override, ...],
        extra: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...],
    ) -> _Variant:
        key = (changes, extra)
        found = self._variants.get(key)
        if found is None:
            made = _Variant(self.rules.policies(changes, [dict(one) for one in extra]))
            for one in extra:
                ignored = find_ignored(add_sources(self.rules.strict, dict(one)), dict(one))
                if ignored not in self._warned:
                    self._warned.add(ignored)
                    logger.warning("the om_csp of a plugin adds sources in vain: %s", ignored)
            found = _remember(self._variants, key, made)
        return found

    def _make_plan(
        self, variant: _Variant, present: int, reporting: bool, root: str, hashes: Hashes
    ) -> Plan:
        complete = self._select_companions(present, page=True)
        waiting: list[tuple[str, Pieces]] = []
        endpoint = _quote_root(root) + self._report_path
        secure = bool(present & _SECURE_BIT)
        asks = False
        for sent in variant.sent:
            name, bit = (_ENFORCED, _ENFORCED_BIT) if sent.enforced else (_REPORTED, _REPORTED_BIT)
            if present & bit:
                continue
            policy = sent.policy
            if sent.enforced and present & _FRAMING_BIT:
                policy = self._remove_framing(policy)
            noted, nonce = hashes or ((), True)
            policy = add_hashes(policy, noted, nonce=nonce, keep_none=not self.hash_attributes)
            if not secure:
                policy = {one: value for one, value in policy.items() if one not in HTTPS_ONLY}
            if reporting and not _reports_elsewhere(policy):
                policy = {**policy, "report-uri": (endpoint,)}
                # browsers take endpoints from HTTPS responses alone, but "report-to" makes them
                # ignore "report-uri" everywhere: over plain HTTP no report would ever arrive
                if secure:
                    policy["report-to"] = (_GROUP,)
                    asks = True
            pieces = compile_policy(policy)
            if len(pieces) > 1:
                waiting.append((name, pieces))
            elif pieces[0]:
                complete.append((name, pieces[0]))
        if asks:
            complete.append(("Reporting-Endpoints", f'{_GROUP}="{endpoint}"'))
        return _remember(variant.plans, (present, reporting, root, hashes), (complete, waiting))

    def _remove_framing(self, policy: Policy) -> Policy:
        """Return ``policy`` without ``frame-ancestors``.

        The application sends X-Frame-Options itself. Browsers ignore that header beside
        ``frame-ancestors``, and its DENY must not become our 'self'.
        """
        name = "frame-ancestors"
        if name in self.rules.own or policy.get(name) not in (STRICT[name], self.rules.framing):
            return policy
        return {one: sources for one, sources in policy.items() if one != name}


class _Variant:
    """The policies of one kind of response, and the headers that were computed from them."""

    __slots__ = ("plans", "sent")

    def __init__(self, sent: list[Sent]) -> None:
        self.sent = sent
        self.plans: dict[tuple[int, bool, str, Hashes], Plan] = {}


class HeadersLayer(StateLayer):
    """WSGI middleware that adds the headers of a :class:`HeaderPolicy`.

    Args:
        app: the WSGI application.
        policy: what to add.
        owner: the application that the request's state belongs to; this layer when not given.
        inside: a layer further out has made the request's state.
    """

    __slots__ = ("app", "policy")

    def __init__(self, app: WSGIApplication, policy: HeaderPolicy) -> None:
        self.app = app
        self.policy = policy
        self.owner = self
        self.inside = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        policy = self.policy
        if self.inside:
            state: RequestState = environ[KEY]
        else:  # `begin`, without the price of a call
            found: RequestState | None = environ.get(KEY)
            state = environ[KEY] = RequestState(self.owner)
            if found is not None:
                nest(state, found)
        if policy.may_stay_plain:
            # the layers of another application further out may ask for nonces
            free = state.outer is None or state.outer.plain is not None
            if state.asks_for_reports or (policy.draw() and policy.can_ask(environ)):
                state.asks_for_reports = True
                if free:
                    state.take_report_turn = policy.report_turns.take
            elif free:
                state.plain = False
        if policy.by_path:
            changes = policy.paths.changes(environ.get("PATH_INFO", ""))
            if changes:
                state.overrides = changes
        if policy.hashing:
            state.hashes = {}
        root = environ.get("SCRIPT_NAME", "")  # a dispatcher further in may change it
        late: LatePage | None = None
        returned = False

        def start(
            status: str, headers: list[Header], exc_info: OptExcInfo | None = None
        ) -> Callable[[bytes], object]:
            nonlocal late
            if state.outer is not None:
                end(environ, state)
            added, outside = policy.additions(environ, state, root, status, headers)
            # a new list: the application may use its own for the next response too
            headers = [*headers, *added]
            if (
                # a stream may use its nonce late; where nothing is enforced that harms nobody
                state.page_nonce is not None
                or (
                    state.header_nonce is not None
                    and not outside & _LENGTH_BIT
                    and state.plain is None
                )
            ) and not state.stitched:
                if outside & _CACHING_BIT:
                    headers = make_private(headers)
                else:
                    headers.append(PRIVATE)
                if outside & _ETAG_BIT and not returned and status[:3] == "200":
                    late = LatePage(environ, state, start_response, status, headers)
                    return late.write
            late = None
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        try:
            body = self.app(environ, start)
        except BaseException:
            end(environ, state)
            raise
        returned = True
        return body if late is None else late.answer(body)


def _quote_root(root: str) -> str:
    """Quote ``SCRIPT_NAME`` for use in an address.

    A header of a proxy may have set it, so no character of it may end a header value and no two
    slashes may name another host.
    """
    base = root.strip("/")
    return "/" + quote(base, safe="/", encoding="latin-1", errors="replace") if base else ""


def _reports_elsewhere(policy: Policy) -> bool:
    return "report-uri" in policy or "report-to" in policy


def _remember(memo: dict[_Key, _Made], key: _Key, value: _Made) -> _Made:
    if len(memo) >= _MEMO_SIZE:
        memo.clear()
    memo[key] = value
    return value

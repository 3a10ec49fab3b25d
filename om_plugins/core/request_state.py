"""What this package knows about one request: one object in the WSGI environ.

The features of this package share facts about the response that is being made: its nonce, the
hashes that its page used, what its view changes about its policy, its route, and so on. They keep
them in one :class:`RequestState` under ``environ["om_plugins.state"]`` and in no other key.
Middleware between our layers and the application may hand on a *copy* of the environ, as servers
for WebSockets do. The copy holds the same object, so nothing is lost.

Only the outermost layer of an application makes the object: it calls :func:`begin`, and
:func:`end` when its response has started or has failed. It makes a new one for every request, also
when the environ brings one: the application may send itself a request made from a copy of an
environ, and that request must not change the response to the outer one. A state has an ``owner``
for the same reason: what belongs to one application does not read or write the state of another.

A state is written only until the headers are sent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import msgspec

from .fork import renew_after_fork
from .inputs import IDENTITIES

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .inputs import InputRules
    from .observed import ObservedInputs

KEY = "om_plugins.state"
"""The environ key of the :class:`RequestState`. It has a dot in it, because every key without one
stands for a text (PEP 3333; ``wsgiref.validate`` refuses another value)."""

CONDITIONS = (
    "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE",
)  # fmt: skip
"""The conditions of a request (RFC 9110 section 13.1)."""
_OF_ONE_REQUEST = frozenset(
    {
        *CONDITIONS,
        "HTTP_IF_RANGE", "HTTP_RANGE",
        "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE",
        "HTTP_CACHE_CONTROL", "HTTP_PRAGMA",
        "werkzeug.request", "werkzeug.socket", "gunicorn.socket", "flask._preserve_context",
        "wsgi.file_wrapper", "wsgi.early_hints", "wsgi.input_terminated",
    }
)  # fmt: skip
_PERSONAL = IDENTITIES | {"HTTP_COOKIE"}


class Nonces:
    """Makes nonces before they are needed; each is given out once, in one process only.

    One call of ``os.urandom`` for each nonce would cost more than all else that the headers do, and
    it gives other threads the interpreter: a request that takes less time than getting the
    interpreter back, such as a hit of the page cache, would wait for them.
    """

    _AT_ONCE = 64

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget, in a child process, the nonces that its parent will send."""
        self._ready: list[str] = []

    def take(self) -> str:
        """Return the next nonce. Any thread may call this."""
        try:
            return self._ready.pop()
        except IndexError:
            made = os.urandom(16 * self._AT_ONCE).hex()
            self._ready += [made[at : at + 32] for at in range(32, len(made), 32)]
            return made[:32]


# one for all applications of a process: a nonce does not tell which of them it belongs to
take_nonce = Nonces().take


# a Struct, because it is made for every request and C fills in the defaults
class RequestState(msgspec.Struct, eq=False):
    """The facts about one request and its response.

    Attributes:
        owner: the application whose outermost layer made it.
        make_nonce: returns a new nonce, 32 hexadecimal digits. In a nested request it asks the
            outer state, because two layers of policies around one page must agree on the nonce.
        outer: the state of the request that this one is nested in, if any.
        inner: the state of the last request that was nested in this one and has started its
            response. A body that is streamed asks for its own state when :func:`end` has put back
            the outer one already.
        page_nonce: the nonce, once the page has asked for it. A cache must then renew it.
        header_nonce: the nonce, once a header was sent with it, although the page had not asked.
        reserved_nonce: the nonce, once a nested request used it. It says nothing about its use in
            this response.
        asks_for_reports: chance has chosen already that this response asks for reports.
        take_report_turn: of a response that chance has chosen and that could stay plain otherwise:
            says of a page whether it is its turn; see :meth:`goes_past_caches`.
        past_caches: its turn has been taken.
        plain: ``None``: each tag needs its nonce. ``False``: this response's tags may stay as they
            are. ``True``: at least one tag was left without a nonce.
        stitched: a cache of ours puts a fresh nonce into this page each time that it sends it.
        hashes: what the page used, as ``directive 'sha256-…'``: a dict while it may still grow, a
            tuple once the headers are sent, ``None`` where no policy lists hashes.
        overrides: what views change about the policy (:class:`om_plugins.csp.override.Override`),
            in order.
        header_changes: what views change about other security headers: pairs of a name and a value,
            or ``None`` to leave the header out.
        route: the name of the route, where werkzeug's routing does not tell it.
        wrong_method_counted: somebody has counted that this request was answered by 405.
        fallback: the options of a view that something else answers for when it fails.
        raised: set for an exception that no view handled: its ``id``, its fingerprint, and the
            seconds that it asks to wait, or ``None``.
        cache_intent: takes what views say about the storing of this response in the HTTP cache;
            ``None`` where it cannot be stored.
        inputs: what the code of this request looks at; ``None`` where nobody observes it.
        unfinished: what waits for the end of the request: an object with a method ``end``, which
            gets the whole response, or ``None`` when there is none.
        refresh: the refresh of a stored response that this request makes; ``None`` for others.
        background: a cache makes this request; its failure must be seen as one.
        view_freshness: the response of the view, or of an error handler, had explicit freshness
            before any ``after_request`` function ran.
    """

    owner: object
    make_nonce: Callable[[], str] = take_nonce
    outer: RequestState | None = None
    inner: RequestState | None = None
    page_nonce: str | None = None
    header_nonce: str | None = None
    reserved_nonce: str | None = None
    asks_for_reports: bool = False
    take_report_turn: Callable[[str], bool] | None = None
    past_caches: bool = False
    plain: bool | None = None
    stitched: bool = False
    hashes: dict[str, None] | tuple[str, ...] | None = None
    overrides: tuple[Any, ...] = ()
    header_changes: tuple[tuple[str, str | None], ...] = ()
    route: str | None = None
    wrong_method_counted: bool = False
    fallback: Any = None
    raised: tuple[int, str, float | None] | None = None
    cache_intent: Any = None
    inputs: ObservedInputs | None = None
    unfinished: tuple[Any, ...] = ()
    refresh: Any = None
    background: bool = False
    view_freshness: bool = False

    def __deepcopy__(self, memo: object) -> RequestState:
        """Return the same object, so that a deep copy of the environ shares it, too."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Return a state of no application: an environ may be pickled for a job elsewhere."""
        return RequestState, (None,)

    # --- the nonce ------------------------------------------------------------------------------

    def nonce_for_page(self) -> str:
        """Return this response's nonce, for use in the page."""
        value = self.page_nonce
        if value is None:
            value = self.page_nonce = self.header_nonce or self.reserved_nonce or self.make_nonce()
        return value

    def nonce_for_header(self) -> str:
        """Return this response's nonce, for use in a header: the page does not use it by that."""
        value = self.page_nonce or self.header_nonce
        if value is None:
            value = self.header_nonce = self.reserved_nonce or self.make_nonce()
        return value

    def nonce_for_stored_page(self) -> str:
        """Return the nonce to put into a stored page, or into a page that is being stored.

        Call it before the response starts. The ``Cache-Control`` of a response that uses a nonce
        is made ``private``, except when this was called.
        """
        self.stitched = True
        value = self.page_nonce
        if value is None:  # `nonce_for_page`, without the price of a call
            value = self.page_nonce = self.header_nonce or self.reserved_nonce or self.make_nonce()
        return value

    def reserve_nonce(self) -> str:
        """Return this response's nonce, for use in a nested request."""
        value = self.page_nonce or self.header_nonce or self.reserved_nonce
        if value is None:
            value = self.reserved_nonce = self.make_nonce()
        return value

    def goes_past_caches(self, environ: WSGIEnvironment) -> bool:
        """Return whether no cache may answer or store this request, as its response asks for
        reports where others stay plain.

        When it is not the page's turn, the response stays plain, too, and asks for none.

        Args:
            environ: of the request; its path tells the page apart from others.
        """
        take_turn = self.take_report_turn
        if take_turn is None or self.past_caches:
            return self.past_caches
        page = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if self.page_nonce is not None or take_turn(page):
            self.past_caches = True
        else:
            self.take_report_turn, self.asks_for_reports, self.plain = None, False, False
        return self.past_caches

    # --- what a stored response brings along -----------------------------------------------------

    def marks(self) -> dict[str, Any]:
        """Return what must be stored with the response, for :meth:`apply`."""
        found: dict[str, Any] = {"plain": True} if self.plain else {}
        if self.overrides:
            found["overrides"] = self.overrides
        if self.header_changes:
            found["header_changes"] = self.header_changes
        if self.hashes:
            found["hashes"] = tuple(self.hashes)
        if self.route:
            found["route"] = self.route
        return found

    def fits(self, marks: Mapping[str, Any]) -> bool:
        """Return whether a response with these marks may answer this request.

        A browser reports tags without nonces where the policy asks for nonces. Such a page gives
        way to one with nonces, which fits everywhere.
        """
        return "plain" not in marks or self.plain is not None

    def apply(self, marks: Mapping[str, Any]) -> None:
        """Make this the state of a request that is answered by the stored response."""
        for name, value in marks.items():
            setattr(self, name, value)

    def successor(self) -> RequestState:
        """Return a state for another request for the same page, as a background refresh makes.

        It has the same owner, and a page made for it may stay plain, or list hashes, when this
        one's may.
        """
        return RequestState(
            self.owner,
            plain=None if self.plain is None else False,
            hashes=None if self.hashes is None else {},
            background=True,
        )


class StateLayer:
    """A WSGI layer that makes the request's state when it is the outermost one.

    A layer that is used alone is the outermost one. :func:`om_plugins.wsgi.compose` sets the
    attributes of the layers of one application.

    Attributes:
        owner: the application that the state belongs to.
        inside: a layer further out makes the state.
    """

    __slots__ = ("inside", "owner")

    owner: object
    inside: bool


def join_layers(layers: Sequence[object], owner: object) -> None:
    """Make the outermost of an application's layers the one that makes the state.

    Args:
        layers: the innermost first; those that make no state are ignored.
        owner: the application.
    """
    found = [layer for layer in layers if isinstance(layer, StateLayer)]
    for layer in found:
        layer.owner, layer.inside = owner, layer is not found[-1]


def begin(environ: WSGIEnvironment, owner: object) -> RequestState:
    """Put a new state into ``environ``. Only the outermost layer of an application calls this.

    Args:
        environ: of the request.
        owner: the application.
    """
    found: RequestState | None = environ.get(KEY)
    state = environ[KEY] = RequestState(owner)
    if found is not None:
        nest(state, found)
    return state


def nest(state: RequestState, outer: RequestState) -> None:
    """Make ``state`` the one of a request inside of the request of ``outer``."""
    state.outer = outer
    state.make_nonce = outer.reserve_nonce


def end(environ: WSGIEnvironment, state: RequestState) -> None:
    """Put back the state that :func:`begin` found, once the response has started or has failed.

    Without a state to put back, ``state`` stays, because bodies that are streamed read it.
    """
    outer = state.outer
    if outer is not None:
        outer.inner = state
        if environ.get(KEY) is state:
            environ[KEY] = outer


def state_of(
    environ: WSGIEnvironment, owner: object = None, *, plain: bool | None = None
) -> RequestState:
    """Return the state of a request.

    Args:
        environ: of the request.
        owner: the application that asks; ``None`` for code that belongs to none.
        plain: of the state of a request that no layer of ours has seen.

    Returns:
        The state in ``environ``. When there is none, or when it belongs to another application, a
        new one: what is written to it changes nothing that is sent, and its nonce is the one that
        the found state's headers will have. It is kept in ``environ`` when there is none, so that
        a request that no layer of ours has seen (in a test, in a job) has one nonce.
    """
    found: RequestState | None = environ.get(KEY)
    if found is None:
        found = environ[KEY] = RequestState(owner, plain=plain)
        return found
    state: RequestState | None = found
    while state is not None:
        if owner is None or state.owner is owner:
            return state
        state = state.inner
    return RequestState(owner, found.reserve_nonce, found)


def build_background_request(
    environ: WSGIEnvironment,
    state: RequestState,
    rules: InputRules | None = None,
    names: Iterable[str] = (),
    session_cookie: str = "",
) -> WSGIEnvironment:
    """Build the environ of a GET for the same address, to be made in the background.

    It brings the inputs that a making of the response looked at, and no others: conditions, ranges,
    the body, and what a server or this package put into the environ for one request are left out.

    Args:
        environ: a request for the address.
        state: of that request; the new one gets its :meth:`~RequestState.successor`.
        rules: select the inputs; ``None`` for an application that cannot be observed. Its request
            brings everything but cookies and credentials.
        names, session_cookie: see :meth:`~om_plugins.core.inputs.InputRules.select_inputs`.
    """
    if rules is None:
        chosen = {name: value for name, value in environ.items() if name not in _PERSONAL}
    else:
        chosen = rules.select_inputs(environ, names, session_cookie)
    return {
        name: value
        for name, value in chosen.items()
        if name not in _OF_ONE_REQUEST and not name.startswith("om_plugins.")
    } | {
        "REQUEST_METHOD": "GET",
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        KEY: state.successor(),
    }

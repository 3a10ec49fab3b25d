"""The WSGI layer around the host app: when a view fails, something else answers.

A failure is an exception that leaves the app, or one of the statuses in the options. Until the
first byte of the body is sent, the response can be replaced: by a copy of the last good response,
by a chain of engines, or by the fallback page. After that nothing is replaced.

Good responses are passed on unchanged: bodies of ``wsgi.file_wrapper`` and lists as they are, other
bodies chunk by chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..core.body import close_body, is_file_body
from ..core.inputs import InputRules
from ..core.problem import get_phrase
from ..core.request_state import state_of
from ..errors import ConfigError
from ..policies.error_table import asked_wait_s
from ..protocols import Cache, Chain, Clock, Scheduler
from ..settings.paths import explain_placeholder
from ..signals import Emit, fallback_answered
from .answers import FallbackAnswer, PathFallback
from .copy_inputs import Key, read_key
from .last_good import LastGoodCopies, ResponseCopy
from .options import STALE, FallbackOptions
from .page import FallbackPage

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("om_plugins")

Headers = list[tuple[str, str]]
_WITHDRAWN = frozenset({"401", "403", "404", "410", "451", "301", "302", "303", "307", "308"})
"""After one of these, an older copy of the page must not come back."""
Note = Callable[["WSGIEnvironment", str, Exception], None]
"""Called with the environ, the path of the fallback and the app's error."""


class FallbackLayer:
    """Answers in place of views that fail.

    Args:
        app: the host app.
        fallbacks: options by path. A path stands for itself and all paths below it; the longest
            path wins.
        chain: returns the chain of a name.
        cache, scheduler, clock: for copies of good responses.
        rules: how the inputs of requests are compared.
        observes: see :class:`.last_good.LastGoodCopies`.
        prefix: where this package's own pages are.
        views: the options that views bring.
        show_errors: let every exception through, for debuggers and tests.
        note: called for exceptions that the host framework has not reported.
        emit: sends ``fallback_answered``.

    Raises:
        ConfigError: a path does not begin with a slash, or a list of answers is wrong.
    """

    def __init__(
        self,
        app: WSGIApplication,
        fallbacks: Mapping[str, FallbackOptions],
        chain: Callable[[str], Chain],
        *,
        cache: Cache,
        scheduler: Scheduler,
        clock: Clock,
        rules: InputRules,
        observes: bool = True,
        prefix: str = "/_om",
        views: Sequence[FallbackOptions] = (),
        show_errors: bool = False,
        note: Note | None = None,
        emit: Emit | None = None,
    ) -> None:
        self._app = app
        self._make = partial(
            PathFallback,
            chain=chain,
            cache=cache,
            scheduler=scheduler,
            clock=clock,
            rules=rules,
            observes=observes,
        )
        self.friendly = FallbackPage(prefix)
        self._views = bool(views)
        self.copies_views = any(STALE in one.answers for one in views)
        self.show_errors = show_errors
        self._note = note
        self.emit = emit
        self._of_views: dict[int, PathFallback] = {}
        self._exact: dict[str, PathFallback] = {}
        below: dict[str, PathFallback] = {}
        for path, options in fallbacks.items():
            problem = explain_placeholder(path, "")
            if not path.startswith("/"):
                problem = "a path must begin with '/'"
            if problem:
                raise ConfigError(f"OM_FALLBACK[{path!r}]", path, problem)
            guard = self._make(path, options)
            written = path.encode().decode("latin-1")  # PEP 3333: UTF-8 bytes as latin-1
            if not path.endswith("/"):
                self._exact[written] = guard
                written += "/"
            below[written] = guard
        self._below = sorted(below.items(), key=lambda one: -len(one[0]))
        self._starts = tuple(below)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        guard = self._exact.get(path)
        if guard is None and path.startswith(self._starts):
            for start, found in self._below:
                if path.startswith(start):
                    guard = found
                    break
        if guard is None and not self._views:
            return self._app(environ, start_response)
        guarded = _GuardedRequest(self, environ, start_response, guard)
        try:
            body = self._app(environ, guarded.start)
        except Exception as error:  # noqa: BLE001 - answered, or raised again
            return guarded.handle_error(error)
        return guarded.handle_body(body)

    def of_view(self, options: FallbackOptions) -> PathFallback:
        """Return the fallback of a view's own options, which is made once."""
        found = self._of_views.get(id(options))
        if found is None:
            found = self._make("a view", options)
            found = self._of_views.setdefault(id(options), found)
        return found

    def report(self, environ: WSGIEnvironment, path: str, error: Exception) -> None:
        """Report an exception that the host framework has not reported."""
        logger.error("%s raised, and something else answers", path, exc_info=error)
        if self._note is not None:
            self._note(environ, path, error)


class _GuardedRequest:
    """One request to an app with a fallback.

    The attributes that only failures need are class attributes: that costs nothing per request.
    """

    begun = False
    """Bytes of the body may have been sent."""
    started = False
    """The server got a status."""
    held: tuple[str, Headers, OptExcInfo | None] | None = None
    """A failed start that the server did not get."""
    request: Any = None
    """Flask's request, of a failed start: it is in the environ until its context is popped."""
    copying: ResponseCopy | None = None
    saw: WSGIEnvironment | None = None
    """The environ from before the app was called, when the response may be copied."""
    key: Key | None = None
    """Of the request's copies."""

    def __init__(
        self,
        layer: FallbackLayer,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        guard: PathFallback | None,
    ) -> None:
        self._layer = layer
        self._environ = environ
        self._state = state_of(environ)
        self._start_response = start_response
        self._guard = guard
        # middleware further in may change the environ, so all that tells of the request is read now
        copies = None if guard is None else guard.copies
        if layer.copies_views:  # which fallback the view has is known only later
            self.saw = environ.copy()
        elif copies is not None:
            key = self.key = read_key(environ, copies.rules)
            if key is not None and copies.is_due(key, environ):
                self.saw = environ.copy()

    def _read_key(self, copies: LastGoodCopies) -> Key | None:
        if self.key is None and self.saw is not None:
            self.key = read_key(self.saw, copies.rules)
        return self.key

    # --- what the app calls -----------------------------------------------------------------------

    def start(
        self, status: str, headers: Headers, exc_info: OptExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """The app's ``start_response``."""
        if exc_info is not None or self.started or self.held is not None:
            return self._start_again(status, headers, exc_info)
        guard = self._guard
        if self._state.fallback is not None:
            guard = self._guard = self._layer.of_view(self._state.fallback)
        if guard is not None:
            code = status[:3]
            if code in guard.failing and not self._state.background:
                self._hold(status, headers, None)
                return self.write
            if guard.copies is not None and self.saw is not None and code == "200":
                key = self._read_key(guard.copies)
                if key is not None:
                    self.copying = guard.copies.begin(key, self.saw, self._environ, headers)
            elif guard.copies is not None and code in _WITHDRAWN:
                key = self._read_key(guard.copies)
                if key is not None:
                    guard.copies.withdraw(key, self._environ)
        self.started = True
        self._write = self._start_response(status, headers)
        return self.write

    def _start_again(
        self, status: str, headers: Headers, exc_info: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        """The app thought better of it: only what it says last counts, and is not copied."""
        if self._state.fallback is not None:
            self._guard = self._layer.of_view(self._state.fallback)
        self.held = None
        self._give_up_copy()
        guard = self._guard
        fails = guard is not None and status[:3] in guard.failing
        if fails and not (self.begun or self._state.background):
            self._hold(status, headers, exc_info)
        else:
            self._forward(status, headers, exc_info)
        return self.write

    def _hold(self, status: str, headers: Headers, exc_info: OptExcInfo | None) -> None:
        self.held = status, headers, exc_info
        self.request = self._environ.get("werkzeug.request")

    def write(self, data: bytes) -> object:
        """Send bytes the old imperative way; they are neither replaced nor copied."""
        if self.held is not None:
            self._release()
        self.begun = True
        self._give_up_copy()
        return self._write(data)

    def _forward(self, status: str, headers: Headers, exc_info: OptExcInfo | None) -> None:
        self.started = True
        if exc_info is None:
            self._write = self._start_response(status, headers)
        else:
            self._write = self._start_response(status, headers, exc_info)

    def _release(self) -> None:
        """Send the app's own failure."""
        held, self.held = self.held, None
        if held is not None:
            self._forward(*held)

    def _give_up_copy(self) -> None:
        copying, self.copying = self.copying, None
        if copying is not None:
            copying.give_up()

    # --- how the app ended ------------------------------------------------------------------------

    def handle_body(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body to send when the app returned ``body``."""
        if self.held is not None:
            made = self.answer(None)
            if made is None:
                return body
            _close(body)
            return made
        if self.started:
            kind = type(body)
            if kind is list or kind is tuple:
                if self.copying is not None:
                    for chunk in body:
                        self.copying.add(chunk)
                    self.copying.end()
                return body
            wrapper = self._environ.get("wsgi.file_wrapper")
            if wrapper is not None and is_file_body(wrapper, body):
                self._give_up_copy()
                return body
        return _GuardedBody(self, body)

    def handle_error(self, error: Exception) -> list[bytes]:
        """Return the body to send when the app raised ``error``.

        Raises:
            Exception: the same error, when nothing answers instead.
        """
        self._give_up_copy()
        raised = self._state.raised
        meant = raised is not None and raised[0] == id(error)
        if self._state.fallback is not None:
            self._guard = self._layer.of_view(self._state.fallback)
        guard = self._guard
        if self.begun or meant or self._layer.show_errors or guard is None:
            raise error
        if self._state.background:  # the cache that refreshes a page must see the failure
            raise error
        self._layer.report(self._environ, guard.path, error)
        made = self.answer(error)
        if made is None:
            raise error
        return made

    # --- what answers instead ---------------------------------------------------------------------

    def answer(self, error: Exception | None) -> list[bytes] | None:
        """Answer in place of the app and return the body; ``None``: send the app's own."""
        guard, environ = self._guard, self._environ
        if guard is None:  # for mypy: only what is guarded is held
            return None
        key = None if guard.copies is None else self._read_key(guard.copies)
        found = guard.answer(environ, key)
        if found is not None:
            return self._send(found, error)
        held = self.held
        headers: Headers = [] if held is None else held[1]
        if not guard.options.page or (
            held is not None
            and _is_own(headers, guard.options.own_body, self._state.raised is not None)
        ):
            self._release()
            return None
        nobody = 0, "", None if error is None else asked_wait_s(error)
        _, reference, wait_s = self._state.raised or nobody
        status = 503 if held is None or held[0][:3] == "500" else int(held[0][:3])
        made = self._layer.friendly.render(environ, status, headers, reference, wait_s)
        return self._send(FallbackAnswer("page", *made), error)

    def _send(self, found: FallbackAnswer, error: Exception | None) -> list[bytes]:
        held, self.held = self.held, None
        exc_info: OptExcInfo | None = None
        if self.started:  # the server must drop the earlier start (PEP 3333)
            if error is not None:
                exc_info = cast("OptExcInfo", (type(error), error, error.__traceback__))
            elif held is not None:
                exc_info = held[2]
        cors = [] if held is None else [h for h in held[1] if _is_cors(h[0])]
        size = ("Content-Length", str(len(found.body)))
        kept = [h for h in found.headers if h[0].lower() != "content-length"]
        self._forward(f"{found.status} {get_phrase(found.status)}", [*kept, *cors, size], exc_info)
        self._emit(found, 500 if held is None else int(held[0][:3]))
        return [] if self._environ.get("REQUEST_METHOD") == "HEAD" else [found.body]

    def _emit(self, found: FallbackAnswer, failed: int) -> None:
        if self._layer.emit is None or not fallback_answered.receivers:
            return
        rule = getattr(self.request, "url_rule", None)
        path = "" if self._guard is None else self._guard.path
        self._layer.emit(
            fallback_answered,
            kind=found.kind,
            route=rule.rule if rule is not None else self._state.route or path,
            status=found.status,
            failed=failed,
            engine=found.engine,
            chain=found.chain,
        )


class _GuardedBody:
    """A body that may still fail before its first byte, or that is being copied."""

    __slots__ = ("_body", "_guarded")

    def __init__(self, guarded: _GuardedRequest, body: Iterable[bytes]) -> None:
        self._guarded = guarded
        self._body: Any = body

    def __iter__(self) -> Iterator[bytes]:
        guarded = self._guarded
        chunks = iter(self._body)
        while not guarded.begun:
            try:
                chunk = next(chunks, None)
            except Exception as error:  # noqa: BLE001 - answered, or raised again
                yield from guarded.handle_error(error)
                return
            if guarded.held is not None:
                made = guarded.answer(None)
                if made is not None:
                    yield from made
                    return
            if chunk is None:
                break
            if chunk:
                guarded.begun = True
                if guarded.copying is not None:
                    guarded.copying.add(chunk)
            yield chunk
        copying = guarded.copying
        for chunk in chunks:  # `yield from` would close it, and close() would close it again
            if copying is not None:
                copying.add(chunk)
            yield chunk
        if copying is not None:
            guarded.copying = None
            copying.end()

    def close(self) -> None:
        """Close the body; a copy that is not complete is dropped."""
        self._guarded._give_up_copy()
        close_body(self._body)


def _close(body: object) -> None:
    """Close a body that nobody will read."""
    try:
        close_body(body)
    except Exception:
        logger.exception("closing the body of a failed answer failed")


def _is_own(headers: Headers, wanted: str, raised: bool) -> bool:
    """Whether the body of the app's error is to be sent, by the option ``own_body``."""
    if wanted == "always":
        return not raised
    kind = next((v for n, v in headers if n.lower() == "content-type"), "")
    kind = kind.partition(";")[0].strip().lower()
    return wanted == "json" and (kind == "application/json" or kind.endswith("+json"))


def _is_cors(name: str) -> bool:
    return name.lower().startswith("access-control-")

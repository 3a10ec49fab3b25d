"""One request among those that want the same response: it waits for another, or others for it.

A request waits at most once, and only for one that agrees with it in what the last response of the
address depended on. What the other one really looked at decides in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...core.body import close_body
from ...core.request_state import state_of
from ..cache import CacheContext
from ..rfc9111 import ForwardReason
from ..store import Selection
from ..stored_response import StoredResponse
from .collapsing import CollapsePart
from .downstream import address_to_one
from .front_request import FrontRequest

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Crowd:
    """The part of one request in a crowd.

    Args:
        context: of the cache.
        environ: the request.
        front: the request as this layer saw it.
        key: of its address.
        selected: what is stored for it.
        background: no client waits.

    Attributes:
        part: how the request takes part in collapsing.
        found: another request's response that is for this client, too: without its body, and the
            body as it arrives; or the whole response and ``None``.
    """

    def __init__(
        self,
        context: CacheContext,
        environ: WSGIEnvironment,
        front: FrontRequest,
        key: str,
        selected: Selection,
        *,
        background: bool,
    ) -> None:
        self._context = context
        self._environ = environ
        self._front = front
        self._key = key
        self._reason = selected.reason
        self._background = background
        self._stored = selected.names, selected.cookies
        names, cookies = context.collapser.recall(key, front, self._stored)
        group = front.digest(names)
        self.part = CollapsePart(context.collapser, f"{key}\n{group}" if group else key)
        self.found: tuple[StoredResponse, Iterator[bytes] | None] | None = None
        passes = selected.reason is ForwardReason.BYPASS or front.brings(cookies)
        self._alone = passes or not self._may_share()

    def _may_share(self) -> bool:
        """Whether this request may wait for another, and others for this one."""
        environ, context = self._environ, self._context
        if environ["REQUEST_METHOD"] != "GET" or "HTTP_RANGE" in environ:
            return False
        if "HTTP_AUTHORIZATION" in environ:
            return False
        return context.observes or not context.inputs.brings_identity(environ)

    def wait(self) -> bool:
        """Wait for another request that is fetching this response, or begin to lead.

        Returns:
            Whether there is a response for this client, which :meth:`send` sends.
        """
        if self._alone:
            return False
        request = self.part.enter()
        if request is None:
            return False
        self._alone = True  # nobody waits twice
        environ = self._environ
        conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
        self.found = self.part.follow(
            request,
            self._front,
            self._context.rules.wait_s,
            may_stream=not (conditional or self._background),
            fits=state_of(environ).fits,
        )
        return self.found is not None

    def collapse(self) -> bool:
        """Wait inside of a view; see :class:`om_plugins.http_cache.cache.CacheIntent`."""
        if self.part.led or self._background:
            return False
        inputs = state_of(self._environ).inputs
        if inputs is not None and (inputs.refused or inputs.session_changed):
            return False  # the hooks of this request began an answer of its own
        return self.wait()

    def send(
        self, start_response: StartResponse, own: Iterable[tuple[str, str]] = ()
    ) -> Iterable[bytes]:
        """Send the response that was found.

        Args:
            start_response: of this request.
            own: the headers of this request's own response, which is dropped. Its cookies are sent.
        """
        context, found = self._context, self.found
        assert found is not None  # noqa: S101 - for mypy
        (response, body), self.found = found, None
        cookies = [one for one in own if one[0].lower() == "set-cookie"]

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
        ) -> Any:
            return start_response(status, address_to_one(headers, cookies) if cookies else headers)

        context.store.count("coalesced")
        status_header = context.status_header([("fwd", self._reason), ("collapsed", True)])
        if body is None:
            return context.send(self._environ, start, response, status_header)
        start(response.status, [*response.sent_headers, ("Age", "0"), *status_header])
        return body

    def leave(self) -> None:
        """Do not send the response that was found after all."""
        found, self.found = self.found, None
        if found is not None and found[1] is not None:
            close_body(found[1])

    def learn(self, names: tuple[str, ...], cookies: tuple[str, ...]) -> None:
        """Remember what the response of this request depended on, for the next crowd."""
        collapser = self._context.collapser
        collapser.learn(self._key, (names, cookies), self._front, self._stored)

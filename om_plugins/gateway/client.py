"""Who the client of an engine route is: all that a request says of it, taken together.

An answer that is stored for an ``Idempotency-Key`` goes to the client that asked, and to nobody
else. The client is the ``Caller`` that ``auth`` returns, every variable that is an identity, and
every input that ``auth`` was seen to look at (see :mod:`om_plugins.core.inputs`). Where ``auth``
only says ``True``, the client is its address and its cookies as well. What nobody looked at, such
as the id of a trace, does not count: a client that tries again may send another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import EnvironHeaders
from werkzeug.wrappers import Request

from ..core.inputs import EnvironReader, InputRules, read_location
from ..core.observed import ObservedEnviron, ObservedInputs
from ..types import Caller

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ObserveContext = Callable[[Any, InputRules], ObservedInputs | None]
"""See :attr:`om_plugins.plugins.kit.Host.observe_context`."""


class _AuthRequest(Request):
    """A request that notes what an ``auth`` callback looks at."""

    def __init__(self, environ: WSGIEnvironment, inputs: ObservedInputs) -> None:
        self._inputs = inputs
        super().__init__(environ)
        self.environ = ObservedEnviron(environ, inputs)
        self.headers = EnvironHeaders(self.environ)

    @property
    def remote_addr(self) -> str | None:
        self._inputs.note("address")
        return self._remote_addr

    @remote_addr.setter
    def remote_addr(self, value: str | None) -> None:
        self._remote_addr = value


@dataclass(slots=True, eq=False, repr=False)
class ClientInputs:
    """What a request says of its client.

    Args:
        rules: which variables are identities.
        observe_context: observes the request of the host's framework; ``None`` without one.
    """

    rules: InputRules
    observe_context: ObserveContext | None = None
    _inputs: ObservedInputs | None = field(init=False, default=None)
    _is_unseen: bool = field(init=False, default=False)

    def observe(self, context: object, request: Request) -> Request:
        """Observe what an ``auth`` callback looks at; see :func:`.policies.access.ask_auth`.

        Args:
            context: what the host's request context gave when it was entered.
            request: for the callback.

        Returns:
            The request to give to the callback.
        """
        if type(request) is Request:
            environ = request.environ
            self._inputs = ObservedInputs(EnvironReader(environ), self.rules)
            return _AuthRequest(environ, self._inputs)
        if self.observe_context is not None:
            self._inputs = self.observe_context(context, self.rules)
        self._is_unseen = self._inputs is None
        return request

    def describe(self, environ: WSGIEnvironment, said: object) -> Iterator[str | bytes]:
        """Describe the client.

        Args:
            environ: the request.
            said: what the ``auth`` callback returned.

        Yields:
            Texts and encoded values. Two requests of one client give the same.
        """
        yield from read_location(environ)
        for name, value in self.rules.read_identities(environ):
            yield from (name, value)
        if isinstance(said, Caller):
            yield from ("said", str(said.id))
        else:
            yield from ("asked", environ.get("REMOTE_ADDR", ""), environ.get("HTTP_COOKIE", ""))
        inputs = self._inputs
        if self._is_unseen or (inputs is not None and inputs.refused):
            # nobody knows which of them the callback went by
            for name in sorted(environ):
                if name.startswith("HTTP_"):
                    yield from (name, str(environ[name]))
        if inputs is not None:
            for name in inputs.names():
                yield from (name, inputs.counted[name])

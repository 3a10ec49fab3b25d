"""Requests for responses, without a framework around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from om_plugins.cache.responses.kept import ResponseQuery, StoredInputs
from om_plugins.core.inputs import EnvironReader, InputRules
from om_plugins.core.observed import ObservedInputs

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = InputRules(lambda: b"of the test")


class Asker:
    """A visitor's request for a response, and what it makes on a miss.

    Args:
        world: the cache.
        headers: that the request brings.
        address: of the response.
        more: see :class:`ResponseQuery`.
    """

    def __init__(
        self, world: Any, *, address: tuple[Any, ...] = ("view", "/page"), **more: Any
    ) -> None:
        headers = {name: more.pop(name) for name in list(more) if name.startswith("x_")}
        environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        self.responses = world.cache.internals.responses
        self.inputs = ObservedInputs(EnvironReader(environ), RULES)
        options = {"view": "page", "scope": ""} | more
        self.query = ResponseQuery(address=address, inputs=self.inputs, read=read_inputs, **options)
        self.refreshed: list[Any] = []

    def look(self, *names: str) -> Asker:
        for name in names:
            self.inputs.count(f"header:{name}")
        return self

    def refresh(self, value: Any) -> Callable[[], Any]:
        self.refreshed.append(value)
        return lambda: value

    def find(self) -> Any:
        found = self.responses.find(self.query, self.refresh)
        return None if found is None else found[0]

    def begin(self) -> Any:
        found, self.deferred = self.responses.find_or_begin(self.query, self.refresh)
        self.compared = self.inputs.compared
        return None if found is None else found[0]

    def value(self, text: str) -> Any:
        stored = self.query.observe(self.compared)
        assert stored is not None
        return [text, list(stored.names), stored.digest, list(stored.known)]

    def store(self, text: str, *names: str) -> None:
        self.look(*names)
        self.deferred.run(lambda: text)
        self.responses.store(self.query, self.deferred, self.value(text))

    def ask(self, text: str, *names: str) -> str:
        """Return the response: the stored one, else ``text``, made with looks at headers."""
        found = self.begin()
        if found is not None:
            return str(found)
        self.store(text, *names)
        return text


def read_inputs(value: Any) -> StoredInputs:
    return StoredInputs(tuple(value[1]), value[2], tuple(value[3]))


@pytest.fixture
def asker(world: Any) -> Callable[..., Asker]:
    return lambda **more: Asker(world, **more)

"""The static engine: always the same answer, from memory. The last tier that cannot fail."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

from ...settings.arguments import check_arguments
from ...settings.callbacks import explain_callback
from ...types import Answer, Call, EngineTraits

_PLAIN = (str, bytes, int, float, bool)


class StaticEngine:
    """Answers with a fixed payload.

    Args:
        name: its name in the chain.
        payload: the answer. Each caller gets its own copy, so it cannot change the answers of
            others. Or a function that takes the call and returns the payload: it must be quick
            and have no effect outside this process.

    Raises:
        TypeError: ``payload`` is an ``Answer``, which belongs to one call only, or a function that
            cannot be called with the call.
    """

    traits = EngineTraits(idempotent=True, local=True, hedge_safe=True)

    @check_arguments("StaticEngine", usage="StaticEngine('sorry', 'Please try again later.')")
    def __init__(self, name: str, payload: object) -> None:
        if isinstance(payload, Answer):
            raise TypeError(
                f"engine {name!r}: an Answer belongs to one call; "
                "pass its payload, or a function that makes a new Answer"
            )
        problem = explain_callback(payload, 1) if callable(payload) else ""
        if problem:
            raise TypeError(f"engine {name!r}: the payload is a function of the call: {problem}")
        self.name = name
        self.payload = payload

    def call(self, call: Call) -> object:
        """The payload."""
        payload = self.payload
        if callable(payload):
            return cast(Callable[[Call], object], payload)(call)
        if payload is None:
            return Answer(None)  # it was given on purpose
        return payload if isinstance(payload, _PLAIN) else copy.deepcopy(payload)

"""The request that a payload becomes, and what a service turned out not to know of it.

Two things of a request are the engine's own, and differ between services: what the limit of tokens
is called, and whether the usage of a stream can be asked for. When a service refuses one of them by
name, the engine asks once more without it. When that succeeds it remembers it for the model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from ...errors import InvalidRequest, Unsupported
from ...types import Call

logger = logging.getLogger("om_plugins")

PARAMETERS: Final = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed",
    "presence_penalty", "frequency_penalty", "response_format",
)  # fmt: skip
"""Parameters that a payload may set. Only the engine sets the model, the number of answers and the
tools: a payload often comes straight from a browser, and these decide what an answer costs."""

LIMITS: Final[tuple[str, str]] = ("max_tokens", "max_completion_tokens")
"""The names of the limit of tokens: the older one, and that of models that think first."""

USAGE: Final = "stream_options"

_ROLES = ("user", "assistant", "system", "developer")

Request = dict[str, object]


class ChatRequests:
    """The requests of one engine.

    Args:
        engine: its name, for messages.
        model, models, system: as for the engine.
        limit: the most tokens of an answer; ``None`` for no limit of the engine.
        limit_name: what the engine calls it, one of :data:`LIMITS`; "" when that was not said.
        ask_usage: ask for the usage of streams.
    """

    def __init__(
        self,
        engine: str,
        *,
        model: str,
        models: Mapping[str, str] | None,
        system: str | None,
        limit: int | None,
        limit_name: str,
        ask_usage: bool,
    ) -> None:
        self._engine = engine
        self._model = model
        self._models = dict(models) if models is not None else None
        self._system = system
        self._limit = limit
        self._limit_name = limit_name
        self._ask_usage = ask_usage
        # By model: the name of the limit, and which models do not know the option of the usage.
        # Both have at most one entry for each model that an operator named.
        self._limit_names: dict[object, str] = {}
        self._without_usage: set[object] = set()

    def build(self, call: Call) -> Request:
        """Return the request for a call.

        Raises:
            InvalidRequest: the payload is no question.
            Unsupported: it names a model that the engine does not know.
        """
        payload = call.payload
        request: Request = {
            "model": self._find_model(call),
            "messages": self._build_messages(payload),
        }
        if isinstance(payload, Mapping):
            for name in PARAMETERS:
                if payload.get(name) is not None:
                    request[name] = payload[name]
        self._set_limit(request)
        if call.stream:
            request["stream"] = True
            if self._ask_usage and request["model"] not in self._without_usage:
                request[USAGE] = {"include_usage": True}
        return request

    def replace(self, request: Request, parameter: str) -> Request | None:
        """Return the request as a service may take it that does not know a parameter.

        Args:
            request: the request that was refused.
            parameter: what the refusal names. "Use max_completion_tokens instead" names the limit
                that was not sent.

        Returns:
            ``None`` when the engine has no other way to ask.
        """
        if parameter == USAGE and USAGE in request:
            return {name: value for name, value in request.items() if name != USAGE}
        if parameter in LIMITS and (sent := _find_limit(request)):
            changed = dict(request)
            changed.setdefault(_other_limit(sent), changed.pop(sent))
            return changed
        return None

    def remember(self, refused: Request, answered: Request) -> None:
        """The service refused one request and answered another: ask like that from now on."""
        model = answered["model"]
        dropped = [name for name in (USAGE, *LIMITS) if name in refused and name not in answered]
        for parameter in dropped:
            if parameter == USAGE:
                self._without_usage.add(model)
            else:
                self._limit_names[model] = _other_limit(parameter)
            logger.info(
                "engine %r: its service does not know %r for the model %r; it is asked without it "
                "from now on", self._engine, parameter, model,
            )  # fmt: skip

    def _set_limit(self, request: Request) -> None:
        asked: Request = {name: request.pop(name) for name in LIMITS if name in request}
        name = self._limit_names.get(request["model"]) or self._limit_name
        if not name:
            name = LIMITS[1] if LIMITS[1] in asked else LIMITS[0]
        elif name not in asked and self._limit is None and asked:
            asked = {name: next(iter(asked.values()))}
        if self._limit is None:
            request.update(asked)
            return
        fewer = [
            number
            for number in asked.values()
            if isinstance(number, int) and not isinstance(number, bool) and 0 < number < self._limit
        ]
        request[name] = min(fewer, default=self._limit)

    def _find_model(self, call: Call) -> str:
        if self._models is None:
            return self._model
        asked = call.payload.get("model") if isinstance(call.payload, Mapping) else None
        if asked is None:
            return self._models.get(call.chain, self._model)
        found = self._models.get(asked) if isinstance(asked, str) else None
        if found is None:
            raise Unsupported(f"engine {self._engine!r}: knows no model of that name", sent="no")
        return found

    def _build_messages(self, payload: object) -> list[object]:
        messages: list[object] = []
        if self._system is not None:
            messages.append({"role": "system", "content": self._system})
        if isinstance(payload, Mapping) and "messages" in payload:
            return messages + self._check_messages(payload["messages"])
        question = payload
        if isinstance(payload, Mapping):
            question = payload.get("question", payload.get("prompt"))
        if not isinstance(question, str) or not question.strip():
            raise self._invalid("needs a text, or a dict with 'question', 'prompt' or 'messages'")
        messages.append({"role": "user", "content": question})
        return messages

    def _check_messages(self, given: object) -> list[object]:
        if not isinstance(given, Sequence) or isinstance(given, str | bytes) or not given:
            raise self._invalid("'messages' must be a list with at least one message")
        messages: list[object] = []
        for message in given:
            fields = message if isinstance(message, Mapping) else {}
            role, content = fields.get("role"), fields.get("content")
            if role not in _ROLES or not isinstance(content, str | list):
                raise self._invalid(f"every message needs a role ({', '.join(_ROLES)}) and content")
            if self._system is not None and role in ("system", "developer"):
                raise self._invalid(f"a message may not have the role {role!r} here")
            messages.append({"role": role, "content": content})
        return messages

    def _invalid(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"engine {self._engine!r}: {what}", sent="no")


def _find_limit(request: Request) -> str | None:
    return next((name for name in LIMITS if name in request), None)


def _other_limit(name: str) -> str:
    return LIMITS[1 - LIMITS.index(name)]

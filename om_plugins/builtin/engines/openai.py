"""The OpenAI engine: it asks an OpenAI-compatible chat service, with or without streaming.

::

    OpenAIEngine("llm", "https://llm.internal/v1", "small-8b", api_key=os.environ["LLM_KEY"])

Needs the extra ``http``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from ...errors import (
    ConfigError,
    EngineError,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)
from ...settings.arguments import check_arguments
from ...types import Answer, Call
from ..http.sse import read_events
from .counts import Counts
from .http import ConnectionOptions, HttpEngine, StreamedPieces, encode_json, read_content_type

if TYPE_CHECKING:
    from ..http.transport import HttpExchange

PARAMETERS = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed",
    "presence_penalty", "frequency_penalty", "response_format",
)  # fmt: skip
"""Parameters that a payload may set. Only the engine sets the model, the number of answers and the
tools: a payload often comes straight from a browser, and these decide what an answer costs."""

_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")
_MOST_TOKENS = 10**9

_ROLES = ("user", "assistant", "system", "developer")

_BY_CODE: Mapping[str, type[EngineError]] = {
    "context_length_exceeded": TooLong,
    "string_above_max_length": TooLong,
    "exceed_context_size_error": TooLong,
    "request_too_large": TooLong,
    "content_filter": Unsupported,
    "content_policy_violation": Unsupported,
    "invalid_prompt": Unsupported,
    "rate_limit_exceeded": RateLimited,
    "rate_limit_error": RateLimited,
    "requests": RateLimited,
    "tokens": RateLimited,
    "invalid_api_key": Misconfigured,
    "model_not_found": Misconfigured,
    "authentication_error": Misconfigured,
    "permission_error": Misconfigured,
    "billing_not_active": Misconfigured,
    "insufficient_quota": Misconfigured,  # with a 429, but waiting does not help: somebody must pay
    "server_error": Transient,
    "overloaded_error": Transient,
    "engine_overloaded": Transient,
    "api_error": Transient,
}
"""Errors for ``error.code`` and ``error.type``, which are more specific than the status."""

_BY_TEXT: Sequence[tuple[re.Pattern[str], type[EngineError]]] = (
    (
        re.compile(
            r"(maximum|exceeds?|longer than)\b.{0,60}\bcontext|context (length|window)"
            r"|(prompt|input|question) is too long|input token count.{0,60}\bexceeds?\b"
        ),
        TooLong,
    ),
    (re.compile(r"content (filter|polic|management)"), Unsupported),
)
"""Errors for the text of a refusal, for services that send no specific code."""


_PATH = "/chat/completions"


class OpenAIEngine(HttpEngine):
    """Chat completions of one model.

    A payload is a str, a dict with ``question`` or ``prompt``, or a dict with ``messages``. A dict
    may also contain :data:`PARAMETERS`. The answer is ``{"answer": text, "model": name}``, or
    pieces of text when the call streams. ``answer.metadata`` has ``model``, ``usage`` and
    ``finish_reason`` (for a stream: after its end), and ``truncated`` when the answer reached the
    limit of its tokens.

    Args:
        name: the name of the engine in chains.
        base_url: the URL before ``/chat/completions``, usually ending in ``/v1``.
        model: the name of the model at the service.
        models: more models by alias: ``{"fast": "small-8b", "assistant": "big-70b"}``. The alias is
            the ``model`` of the payload, else the name of the chain. An unknown alias in a payload
            is refused with ``Unsupported``, so that another tier may know it. Without ``models``,
            the ``model`` of a payload is ignored.
        api_key: sent as a bearer token; never shown.
        system: the system message. With it, a payload may not contain system messages.
        stream_usage: ask for the usage of a streamed answer (``stream_options``). Pass False for a
            service that refuses this option.
        headers: more headers of every request.
        max_tokens: the most tokens of an answer. A payload may ask for fewer, not for more.
        timeout: the most seconds for an attempt; for a streamed answer, until its head arrived.
        idle_timeout: the most seconds of silence within a streamed answer; ``timeout`` when not
            given.
        pass_deadline: send the remaining time of the call; see ``HttpEngine``.
        connect_timeout, pool_size, health_url, max_answer, max_concurrency, ssl_context: as for
            :class:`~om_plugins.builtin.engines.http.HttpEngine`.

    Raises:
        ConfigError: an argument is wrong.
        MissingExtra: h11 is not installed.
    """

    @check_arguments(
        "OpenAIEngine",
        usage="OpenAIEngine('model', 'https://host/v1', 'model-name')",
        keywords=ConnectionOptions.__annotations__,
    )
    def __init__(
        self,
        name: str,
        base_url: str,
        model: str,
        *,
        models: Mapping[str, str] | None = None,
        stream_usage: bool = True,
        api_key: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        timeout: float = 60.0,
        pass_deadline: bool = False,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        if not model:
            raise ConfigError(f"engine {name!r}: model", model, "must name a model")
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(f"engine {name!r}: max_tokens", max_tokens, "must be at least 1")
        for alias, one in (models or {}).items():
            if not isinstance(alias, str) or not isinstance(one, str) or not one:
                raise ConfigError(f"engine {name!r}: models", alias, "must name a model")
        if api_key is not None:
            bearer = {"Authorization": f"Bearer {api_key}"}
            options["headers"] = {**bearer, **(options.get("headers") or {})}
        base = base_url.rstrip("/")
        url = base + _PATH
        if base.endswith(_PATH):
            raise ConfigError(
                f"engine {name!r}: base_url", base_url,
                f"must be what comes before {_PATH}: {base.removesuffix(_PATH)!r}",
            )  # fmt: skip
        super().__init__(name, url, timeout=timeout, pass_deadline=pass_deadline, **options)
        # A second request costs tokens but changes nothing, so it is safe to repeat.
        self.traits = replace(self.traits, streaming=True, idempotent=True, hedge_safe=True)
        self.model = model
        self._models = dict(models) if models is not None else None
        self._stream_usage = stream_usage
        self._usage = Counts("answers", *_TOKENS)
        self._system = system
        self._max_tokens = max_tokens

    def call(self, call: Call) -> Answer:
        """Ask the model.

        Returns:
            An :class:`~om_plugins.types.Answer`; with ``chunks`` of text when ``call.stream``
            and the service streams.

        Raises:
            EngineError: the request failed; ``error.code`` of the service takes precedence over the
                status.
            Cancelled: the call was cancelled.
        """
        request = self._build_request(call)
        if not call.stream:
            body = encode_json(request, self._describe())
            return self._read_completion(self._open(call, self._target, body, "application/json"))
        request["stream"] = True
        if self._stream_usage:
            request["stream_options"] = {"include_usage": True}
        body = encode_json(request, self._describe())
        exchange = self._open(
            call, self._target, body, "text/event-stream, application/json;q=0.5", "identity"
        )
        if read_content_type(exchange) != "text/event-stream":
            # the service does not stream; raises if this is not JSON
            return self._read_completion(exchange)
        metadata: dict[str, object] = {"model": request["model"]}
        texts = self._read_texts(exchange, metadata)
        return Answer(chunks=StreamedPieces(texts, exchange), metadata=metadata)

    def usage(self) -> dict[str, int]:
        """The usage of this process as the service counts it: ``prompt_tokens``,
        ``completion_tokens``, ``total_tokens``, and ``answers``: how many answers reported it."""
        return self._usage.snapshot()

    # --- the question ---

    def _build_request(self, call: Call) -> dict[str, object]:
        payload = call.payload
        request: dict[str, object] = {
            "model": self._find_model(call),
            "messages": self._build_messages(payload),
        }
        if isinstance(payload, Mapping):
            for name in PARAMETERS:
                if payload.get(name) is not None:
                    request[name] = payload[name]
        if self._max_tokens is not None:
            name = "max_completion_tokens" if "max_completion_tokens" in request else "max_tokens"
            asked = request.get(name)
            fewer = isinstance(asked, int) and 0 < asked < self._max_tokens
            request[name] = asked if fewer else self._max_tokens
            if name == "max_completion_tokens":
                request.pop("max_tokens", None)
        return request

    def _find_model(self, call: Call) -> str:
        if self._models is None:
            return self.model
        asked = call.payload.get("model") if isinstance(call.payload, Mapping) else None
        if asked is None:
            return self._models.get(call.chain, self.model)
        found = self._models.get(asked) if isinstance(asked, str) else None
        if found is None:
            raise Unsupported(f"engine {self.name!r}: knows no model of that name", sent="no")
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
        return InvalidRequest(f"engine {self.name!r}: {what}", sent="no")

    # --- the answer ---

    def _read_completion(self, exchange: HttpExchange) -> Answer:
        document = self._read_json(exchange)
        if isinstance(document, Mapping) and document.get("error"):
            raise self._map_error(document["error"], None)
        choice = _find_choice(document)
        message = choice.get("message") if choice is not None else None
        if choice is None or not isinstance(message, Mapping):
            raise self._make_error(exchange, "answered JSON that is no chat completion")
        document = document if isinstance(document, Mapping) else {}
        used = self._count(document.get("usage"))
        text = _read_text(message.get("content")) or _read_text(message.get("refusal"))
        finish = choice.get("finish_reason")
        if finish == "content_filter":  # the text that has arrived was cut off
            raise self._make_filtered()
        if finish == "length" and not text:
            raise self._make_cut_off()
        if text is None:
            raise Unsupported(f"{self._describe()}: answered without a text", sent="yes")
        model = document.get("model")
        model = model if isinstance(model, str) else self.model
        metadata: dict[str, object] = {"model": model, "finish_reason": finish}
        if used is not None:
            metadata["usage"] = used
        if finish == "length":
            metadata["truncated"] = True
        return Answer({"answer": text, "model": model}, metadata=metadata)

    def _read_texts(self, exchange: HttpExchange, metadata: dict[str, object]) -> Iterator[str]:
        finish: object = None
        size = 0
        for event in read_events(exchange.chunks(silence_s=self._idle_timeout)):
            if event.data.strip() == "[DONE]":
                finish = finish or "stop"
                break
            try:
                document = msgspec.json.decode(event.data)
            except (ValueError, RecursionError, msgspec.DecodeError):
                raise self._make_error(exchange, "streamed broken JSON") from None
            if not isinstance(document, Mapping):
                raise self._make_error(exchange, "streamed JSON that is no chat completion")
            if document.get("error"):
                raise self._map_error(document["error"], None)
            if isinstance(document.get("model"), str):
                metadata["model"] = document["model"]
            if isinstance(document.get("usage"), Mapping):
                # some services send a growing count with every piece
                metadata["usage"] = document["usage"]
            choice = _find_choice(document)
            if choice is None:
                continue  # a piece that contains only the usage
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta")
            text = _read_text(delta.get("content")) if isinstance(delta, Mapping) else None
            if text:
                size += len(text)
                if size > self._max_answer:
                    raise self._make_error(
                        exchange, f"streamed more than {self._max_answer} letters"
                    )
                yield text
        if finish is None:
            raise self._make_error(exchange, "the stream ended before the answer did")
        metadata["finish_reason"] = finish
        self._count(metadata.get("usage"))
        if finish == "length":
            metadata["truncated"] = True
            if not size:
                raise self._make_cut_off()
        if not size and finish == "content_filter":
            raise self._make_filtered()

    def _count(self, usage: object) -> Mapping[str, object] | None:
        if not isinstance(usage, Mapping):
            return None
        counted = {name: usage.get(name) for name in _TOKENS}
        self._usage.add(
            answers=1,
            **{
                name: min(max(number, 0), _MOST_TOKENS)
                for name, number in counted.items()
                if isinstance(number, int)
            },
        )
        return usage

    def _make_filtered(self) -> Unsupported:
        return Unsupported(f"{self._describe()}: the service's content filter refused", sent="yes")

    def _make_cut_off(self) -> TooLong:
        return TooLong(
            f"{self._describe()}: used up its tokens before it answered a word", sent="yes"
        )

    # --- refusals ---

    def _explain(self, error: EngineError, body: bytes) -> EngineError:
        try:
            document = msgspec.json.decode(body)
        except (ValueError, RecursionError, msgspec.DecodeError):
            return error
        found = document.get("error") if isinstance(document, Mapping) else None
        return self._map_error(found, error) if found else error

    def _map_error(self, found: object, known: EngineError | None) -> EngineError:
        """The error for the service's own code. The service's text is never repeated, because it
        may contain the API key."""
        cls, why = _classify(found, by_text=known is None or known.status in (400, 413, 422))
        if cls is None:
            return known or Transient(f"{self._describe()}: failed while it answered", sent="yes")
        return cls(
            f"{self._describe()}: refused {why}",
            sent="yes",
            retry_after=known.retry_after if known else None,
            status=known.status if known else None,
        )


def _classify(found: object, *, by_text: bool) -> tuple[type[EngineError] | None, str]:
    """The class of a service's error, and by which part of the error it was recognized."""
    fields = found if isinstance(found, Mapping) else {"message": found}
    for code in (fields.get("code"), fields.get("type")):
        if isinstance(code, str) and code in _BY_CODE:
            return _BY_CODE[code], f"with {code!r}"
    text = fields.get("message")
    if by_text and isinstance(text, str):
        for pattern, cls in _BY_TEXT:
            if pattern.search(text[:2000].lower()):
                return cls, "by what its text says"
    return None, ""


def _find_choice(document: object) -> Mapping[str, Any] | None:
    choices = document.get("choices") if isinstance(document, Mapping) else None
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    return None


def _read_text(content: object) -> str | None:
    """The text of a message, which may consist of parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None

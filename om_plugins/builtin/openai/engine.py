"""The OpenAI engine: it asks an OpenAI-compatible chat service, with or without streaming.

::

    OpenAIEngine("llm", "https://llm.internal/v1", "small-8b", api_key=os.environ["LLM_KEY"])

Needs the extra ``http``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Unpack

from ...errors import ConfigError, EngineError
from ...settings.arguments import check_arguments
from ...types import Answer, Call, ModelRefusal, ToolCalls
from ..engines.counts import Counts
from ..engines.http import ConnectionOptions, HttpEngine
from ..engines.payloads import encode_json
from ..http.lenient_json import decode_json, read_json
from ..http.sse import ServerEvent
from ..http.texts import EVENT_STREAM, StreamedPieces, read_charset, read_content_type, resume
from .completion import CompletionReader, Piece, read_answer_events
from .refusals import find_error, judge
from .request import LIMITS, ChatRequests, Request

_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")
_MOST_TOKENS = 10**9

_MOST_CHANGES = 2
"""A service may know neither the limit's name nor the option of the usage."""

_PATH = "/chat/completions"
_STREAM = f"{EVENT_STREAM}, application/json;q=0.5"


class OpenAIEngine(HttpEngine):
    """Chat completions of one model.

    A payload is a str, a dict with ``question`` or ``prompt``, or a dict with ``messages``. A dict
    may also contain :data:`~om_plugins.builtin.openai.request.PARAMETERS`. The answer is
    ``{"answer": text, "model": name}``, or pieces of text when the call streams. A model that asks
    for tools answers with :class:`~om_plugins.types.ToolCalls`, one that refuses with
    :class:`~om_plugins.types.ModelRefusal`: as the payload, or as the last piece after a text.
    ``answer.metadata`` has ``model``, ``usage`` and ``finish_reason`` (for a stream: after its
    end), and ``truncated`` when the answer reached the limit of its tokens.

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
        stream_usage: ask for the usage of a streamed answer (``stream_options``). A service that
            refuses this option is asked without it from then on.
        headers: more headers of every request.
        max_tokens: the most tokens of an answer. A payload may ask for fewer, not for more. A
            service that asks for ``max_completion_tokens`` instead gets that from then on.
        max_completion_tokens: the same, under this name from the first request on.
        timeout: the most seconds for an attempt; for a streamed answer, until its head arrived.
        idle_timeout: the most seconds of silence within a streamed answer; ``timeout`` when not
            given.
        pass_deadline: send the remaining time of the call; see ``HttpEngine``.
        connect_timeout, pool_size, health_url, max_answer, max_concurrency, ssl_context, proxy: as
            for :class:`~om_plugins.builtin.engines.http.HttpEngine`.

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
        max_completion_tokens: int | None = None,
        timeout: float = 60.0,
        pass_deadline: bool = False,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        if not model:
            raise ConfigError(f"engine {name!r}: model", model, "must name a model")
        limits = dict(zip(LIMITS, (max_tokens, max_completion_tokens), strict=True))
        given = {key: limit for key, limit in limits.items() if limit is not None}
        for key, limit in given.items():
            if limit < 1:
                raise ConfigError(f"engine {name!r}: {key}", limit, "must be at least 1")
        if len(given) == 2:
            raise ConfigError(
                f"engine {name!r}: max_completion_tokens", max_completion_tokens,
                "means the same as max_tokens; give one of them",
            )  # fmt: skip
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
        self._requests = ChatRequests(
            name,
            model=model,
            models=models,
            system=system,
            limit=next(iter(given.values()), None),
            limit_name="max_completion_tokens" if max_completion_tokens is not None else "",
            ask_usage=stream_usage,
        )
        self._usage = Counts("answers", *_TOKENS)

    def call(self, call: Call) -> Answer:
        """Ask the model. Of a stream, wait for the first word.

        Returns:
            An :class:`~om_plugins.types.Answer`; with ``chunks`` when ``call.stream`` and the
            service streams a text.

        Raises:
            EngineError: the request failed. What the service says of a refusal takes precedence
                over the status; see :mod:`om_plugins.builtin.openai.refusals`.
            Cancelled: the call was cancelled.
        """
        first = request = self._requests.build(call)
        for _ in range(_MOST_CHANGES):
            try:
                answer = self._ask(call, request)
                break
            except EngineError as error:
                changed = self._requests.replace(request, error.parameter)
                if changed is None or changed == first:
                    raise
                request = changed
        else:
            answer = self._ask(call, request)
        if request is not first:
            self._requests.remember(first, request)
        return answer

    def usage(self) -> dict[str, int]:
        """The usage of this process as the service counts it: ``prompt_tokens``,
        ``completion_tokens``, ``total_tokens``, and ``answers``: how many answers reported it."""
        return self._usage.snapshot()

    def _ask(self, call: Call, request: Request) -> Answer:
        where = self._describe()
        accept, encoding = (_STREAM, "identity") if call.stream else ("application/json", "gzip")
        exchange = self._open(call, self._target, encode_json(request, where), accept, encoding)
        try:
            kind = read_content_type(exchange.headers)
            # JSON comes at once, whatever was asked for: then the time of the attempt is its limit.
            streams = call.stream and not kind.endswith("json")
            body = exchange.chunks(silence_s=self._idle_timeout if streams else None)
            reader = CompletionReader(
                where=where,
                headers=exchange.headers,
                model=str(request["model"]),
                max_size=self._max_answer,
            )
            charset = read_charset(exchange.headers)
            events = read_answer_events(body, kind, self._max_answer, where, charset)
            pieces = self._read_pieces(reader, events)
            first = next(pieces)  # without any word, this raises
            if call.stream and isinstance(first, str) and not reader.whole:
                return Answer(
                    chunks=StreamedPieces(resume(first, pieces), exchange),
                    metadata=reader.metadata,
                )
            payload = _build_payload([first, *pieces], reader.metadata)
        except BaseException:
            exchange.close()
            raise
        exchange.close()  # nothing, if the whole body was read: the connection is in the pool
        return Answer(payload, metadata=reader.metadata)

    def _read_pieces(
        self, reader: CompletionReader, events: Iterator[ServerEvent]
    ) -> Iterator[Piece]:
        yield from reader.read(events)
        self._count(reader.metadata.get("usage"))
        if (last := reader.conclude()) is not None:
            yield last

    def _count(self, usage: object) -> None:
        if not isinstance(usage, Mapping):
            return
        counted = {name: usage.get(name) for name in _TOKENS}
        self._usage.add(
            answers=1,
            **{
                name: min(max(number, 0), _MOST_TOKENS)
                for name, number in counted.items()
                if isinstance(number, int)
            },
        )

    def _explain(self, error: EngineError, body: bytes) -> EngineError:
        try:
            document = read_json(body)
        except ValueError:
            document = decode_json(body)
        fields = find_error(document, expected=True)
        return judge(fields, error, {}, self._describe()) if fields else error


def _build_payload(pieces: list[Piece], metadata: Mapping[str, object]) -> object:
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    last = pieces[-1]
    if isinstance(last, ToolCalls | ModelRefusal):
        return replace(last, answer=text)
    return {"answer": text, "model": metadata["model"]}

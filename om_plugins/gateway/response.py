"""The answer of an engine route: as JSON, as server-sent events, or why there is none."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator

from ..builtin.http import sse
from ..builtin.http.sse import encode_event
from ..chains.http_call import describe_answer, iterate_text, limit_retry_after
from ..core.problem import Headers, Refusal
from ..errors import Cancelled, ChainExhausted
from ..policies.error_table import is_about_caller, row_of
from ..types import Answer
from .deadline import refuse_at_restart

logger = logging.getLogger("om_plugins")


# --- events ---------------------------------------------------------------------------------------


def build_event_headers(answer: Answer) -> Headers:
    """Return the headers of an answer that is sent as events."""
    return [*sse.HEADERS, *describe_answer(answer)]


DONE = b"event: done\n"
"""How the last event of a complete stream begins."""


class AnswerEvents:
    """An answer as server-sent events: ``meta``, each ``chunk``, then ``done`` or ``error``.

    Args:
        answer: closed when the stream ends, also when the client leaves early.
        explain: turns an error in the middle of the stream into the text for the client.
        is_over: whether answers must end, because the server stops.
    """

    def __init__(
        self,
        answer: Answer,
        explain: Callable[[Exception], Refusal],
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._answer = answer
        self._explain = explain
        self._is_over = is_over
        self._events = self._run()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        self._events.close()
        self._answer.close()

    def _run(self) -> Generator[bytes, None, None]:
        answer = self._answer
        yield encode_event(
            {
                "engine": answer.engine,
                "tier": answer.tier,
                "attempts": answer.attempts,
                "degraded": answer.degraded,
                "stale": answer.stale,
            },
            event="meta",
        )
        try:
            for chunk in iterate_text(answer):
                yield encode_event(chunk, event="chunk")
                if self._is_over():
                    last = encode_event(refuse_at_restart().document, event="error")
                    break
            else:
                last = encode_event({}, event="done")
        except Exception as error:  # noqa: BLE001 - the client gets a typed event, the log the rest
            cut_off = isinstance(error, Cancelled) and self._is_over()
            refusal = refuse_at_restart() if cut_off else self._explain(error)
            last = encode_event(refusal.document, event="error")
        finally:
            answer.close()
        yield last


# --- errors ---------------------------------------------------------------------------------------

_TEXTS = {
    400: "The question cannot be answered in this form. Check its fields.",
    413: "The question is too long. Please shorten it.",
    502: "The answer broke off. Please try again.",  # of a stream: no other engine can go on
    504: "The answer took too long. Please try again.",
}
"""The text that a client gets, by the ``http_status`` of the error."""


def explain_error(error: Exception, where: str) -> Refusal:
    """Turn an error of a chain into the answer for the client.

    The client never gets the text of the error: that is written for logs, and it may repeat what
    an upstream said.

    Args:
        error: what the chain raised.
        where: the route and its chain, for the log.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ChainExhausted):
        if {row_of(one).http_status for one in error.exceptions} == {413}:
            return Refusal(413, _TEXTS[413])
        if is_about_caller(error) and not error.all_rate_limited:
            return Refusal(400, _TEXTS[400])  # to try again would not help
        seconds = limit_retry_after(error.retry_after)
        text = (
            "Too many questions at the moment."
            if error.all_rate_limited
            else "The service cannot answer at the moment."
        )
        return Refusal(
            error.http_status,
            f"{text} Please try again in {_spell_out(seconds)}.",
            _retry_after(seconds),
            retry_after=seconds,
        )
    if isinstance(error, Cancelled):
        return Refusal(
            error.http_status, "The answer was cancelled.", _retry_after(1), retry_after=1
        )
    status = row_of(error).http_status
    if status != 500:
        return Refusal(status, _TEXTS.get(status) or _TEXTS[400 if status < 500 else 502])
    refusal = Refusal(500, "Something went wrong on our side. Please try again later.")
    logger.error("%s failed, %s", where, refusal.document["instance"], exc_info=error)
    return refusal


def _spell_out(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} second" + ("s" if seconds != 1 else "")
    return f"{math.ceil(seconds / 60)} minutes"


def _retry_after(seconds: int) -> Headers:
    return [("Retry-After", str(seconds))]

"""Refusals of OpenAI-compatible services: where a document says that it is one, and what it means.

The same refusal comes as a status, as the whole of a 200, or as an event of a stream. All three are
judged here, by the first of these that says something:

1. the service's own name for the error (``code``, ``type``, ``status``);
2. its words: about what this service cannot do with this call, or about its account;
3. the number of the error, or else the status of the response, in the table of
   :func:`~om_plugins.builtin.http.status.map_status`.

Nobody's words make an engine cool down or count as its failure: a service repeats what a caller
sent, and no caller decides about others. A 400 ends the chain only where it names what no other
service accepts either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ...errors import (
    EngineError,
    Misconfigured,
    TooLong,
    Transient,
    Unsupported,
)
from ..http.status import find_status, map_status
from .request import USAGE
from .wordings import judge_text, names_refused_parameter, names_unknown_parameter

Fields = Mapping[str, object]

# --- finding it -----------------------------------------------------------------------------------

_SAYS_WHY = ("message", "msg", "detail", "details", "errors", "error_message", "error_msg",
             "error_code", "errcode")  # fmt: skip


def find_error(document: object, *, expected: bool = False) -> Fields | None:
    """Return the error in a document; ``None`` when there is none.

    Args:
        document: a JSON value.
        expected: the document says nothing but what went wrong: it came with a status other than
            2xx, or as an event ``error``.
    """
    if isinstance(document, list):  # Google's services put the error into a list
        found = (find_error(one) for one in document if isinstance(one, dict))
        return next((one for one in found if one), {"message": document} if expected else None)
    if not isinstance(document, dict):
        return {"message": document} if expected else None
    choices = document.get("choices")
    if (error := document.get("error")) and _says_something(error, bool(choices)):
        return _unfold(error, document)
    for choice in choices if isinstance(choices, list) else ():
        error = choice.get("error") if isinstance(choice, dict) else None
        if error and _says_something(error, True):
            return _unfold(error, {})
    response = document.get("base_resp")  # of MiniMax; 0 is success
    if isinstance(response, dict) and response.get("status_code") not in (0, None):
        return response
    kinds = (document.get("object"), document.get("type"), document.get("status"))
    if expected and isinstance(response := document.get("response"), dict):
        return find_error(response, expected=True)  # of the events of another protocol of OpenAI
    if expected or "error" in kinds or document.get("success") is False:
        return _unfold(document.get("detail"), document)
    if not isinstance(choices, list) and document.get("code") not in _SUCCESS:
        for name in _SAYS_WHY:
            value = document.get(name)
            # Ollama's own protocol has an answer's message here, which is a dict
            if value and not (name == "message" and isinstance(value, dict)):
                return _unfold(document.get("detail"), document)
    return None


_SUCCESS: Final = (0, "0", 200, "200")
_NOTHING: Final = frozenset({"", "null", "none", "nil", "false", "no", "ok", "success"})


def _says_something(error: object, answered: bool) -> bool:
    """Some services send an error with each answer, and say in it that there is none: its fields
    are empty, its code is 0, or it is a word such as ``none``.

    Args:
        error: it, not empty.
        answered: the document has an answer as well.
    """
    if isinstance(error, dict):
        code = error.get("code")
        return any(error.values()) and not (answered and code is not None and code in _SUCCESS)
    return not (isinstance(error, str) and error.strip().lower() in _NOTHING)


def _unfold(error: object, around: Fields) -> Fields:
    """The fields of an error, and those beside it that it does not have itself."""
    if isinstance(error, dict):
        inner = error.get("error")
        if isinstance(inner, dict):  # a gateway put the error of its upstream into its own
            error = {**error, **inner}
        return {**{k: v for k, v in around.items() if k not in ("error", "choices")}, **error}
    if error and isinstance(error, str):
        return {**around, "message": error, "error": error}  # a text, or one of the names
    if isinstance(error, list):
        return {**around, "message": error}
    return around


# --- its name and number --------------------------------------------------------------------------

_NAMES_AND_NUMBERS = (
    "code", "type", "status", "status_code", "statusCode", "error_code", "errorCode", "error_type",
    "errcode", "http_code", "http_status", "reason", "error", "__type",
)  # fmt: skip

_BY_NAME: Final[Mapping[type[EngineError], str]] = {
    TooLong: """
        context_length_exceeded string_above_max_length exceed_context_size_error request_too_large
        context_window_exceeded_error context_window_exceeded token_limit_exceeded input_too_long
        prompt_too_long max_tokens_exceeded model_max_prompt_tokens_exceeded array_above_max_length
        """,
    Unsupported: """
        content_filter content_policy_violation content_policy_violation_error invalid_prompt
        data_inspection_failed responsible_ai_policy_violation moderation moderation_blocked
        content_blocked safety unsupported_parameter unsupported_value unknown_parameter
        unrecognized_parameter extra_forbidden unsupported_params_error unsupported_operation
        unsupported_feature json_validate_failed tool_use_failed unsupported_content_type
        unsupported_image invalid_json_schema unsupported_model_capability
        """,
    Misconfigured: """
        invalid_api_key incorrect_api_key authentication_error unauthenticated permission_error
        permission_denied model_not_found model_not_exist model_decommissioned deployment_not_found
        unsupported_model model_not_supported billing_not_active billing_error
        billing_hard_limit_reached insufficient_quota insufficient_balance insufficient_credits
        account_deactivated account_suspended arrearage access_denied api_key_invalid
        access_denied_exception unrecognized_client_exception expired_token_exception
        resource_not_found_exception access_terminated invalid_authentication
        exceeded_current_quota_error budget_exceeded
        """,
}
"""Names that mean one thing whatever the status. A quota that is used up comes with a 429, but
waiting does not help: somebody must pay."""

_STATUS_OF_NAME: Final[Mapping[int, str]] = {
    400: """invalid_request_error bad_request_error bad_request invalid_argument
        failed_precondition out_of_range invalid_parameter invalid_parameter_error
        validation_error unprocessable_entity_error invalid_request invalid_value""",
    401: "unauthorized unauthorized_error auth_error",
    403: "forbidden permission_denied_error",
    404: "not_found not_found_error",
    408: "request_timeout request_timeout_error deadline_exceeded timeout timeout_error",
    429: """rate_limit_exceeded rate_limit_error rate_limit_reached_error rate_limit requests tokens
        resource_exhausted too_many_requests too_many_requests_error throttling
        throttling_exception throttling_rate_quota throttled limit_requests limit_burst_rate""",
    500: """server_error api_error internal_error internal internal_server_error unknown
        service_unavailable service_unavailable_error unavailable overloaded overloaded_error
        engine_overloaded engine_overloaded_error api_connection_error bad_gateway_error""",
}
"""The statuses of names that say no more than a status; those of gRPC are in google.rpc.Code."""

_BY_PART: Final[tuple[tuple[str, int | type[EngineError]], ...]] = (
    ("contextlength|contextwindow|contextsize|toolong|toolarge", TooLong),
    ("sensitive|moderation|contentfilter|contentpolicy|inspection|prohibited|safety", Unsupported),
    (
        "overdue|arrear|(?<!load)balance|billing|insufficientcredit|budget|insufficientfund",
        Misconfigured,
    ),
    ("throttl|ratelimit|requestlimit|toomanyrequest|quota|concurren", 429),
    ("timeout|timedout", 408),
    ("accessdenied|permission|forbidden|apikey|authenti|unauthori|credential", Misconfigured),
    ("notfound|notexist|notopen|invalidmodel|unknownmodel", Misconfigured),
)
"""What a part of a name means, for names that are in neither table, where no number says more:
``SensitiveContentDetected``, ``Throttling.AllocationQuota``, ``ResourceNotFoundException``. The
first row that fits decides."""
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,60}")


def _squeeze(name: str) -> str:
    """A name as it is compared: services write ``rate_limit_error`` or ``RateLimitError``."""
    _, _, name = name.rpartition("#")  # AWS: com.amazon.coral.service#ThrottlingException
    return re.sub(r"[^a-z0-9]", "", name[:80].lower())


_CLASS_OF: Final = {
    _squeeze(name): cls for cls, names in _BY_NAME.items() for name in names.split()
}
_STATUS_OF: Final = {
    _squeeze(name): status for status, names in _STATUS_OF_NAME.items() for name in names.split()
}


def _find_by_part(fields: Fields) -> int | type[EngineError] | None:
    sentence = fields.get("error")  # it may be a text, which may repeat what a caller wrote
    for name in _list_names(fields):
        if name != sentence and _NAME.fullmatch(name):
            squeezed = _squeeze(name)
            for part, meaning in _BY_PART:
                if re.search(part, squeezed):
                    return meaning
    return None


def _list_names(fields: Fields) -> list[str]:
    found = [fields.get(key) for key in _NAMES_AND_NUMBERS]
    for key in ("innererror", "inner_error", "details", "detail", "errors"):
        inner = fields.get(key)
        for one in inner if isinstance(inner, list) else (inner,):
            if isinstance(one, dict):
                found += [one.get("code"), one.get("type"), one.get("reason")]
    return [one for one in found if isinstance(one, str)]


# --- its words ------------------------------------------------------------------------------------

_MAX_TEXT = 2000
_NO_WORDS = frozenset((*_NAMES_AND_NUMBERS, "param", "object", "id", "input"))
"""Fields that explain nothing. Pydantic repeats in ``input`` what the caller sent."""
_NO_WORDS_INSIDE = _NO_WORDS - {"error"}
"""Within a message, a field ``error`` is the text of another service's error."""


def _collect_texts(
    value: object, depth: int = 5, no_words: frozenset[str] = _NO_WORDS
) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:_MAX_TEXT]
    elif depth and isinstance(value, dict):
        for key, one in value.items():
            if key not in no_words:
                yield from _collect_texts(one, depth - 1, _NO_WORDS_INSIDE)
    elif depth and isinstance(value, list):
        for one in value[:20]:
            yield from _collect_texts(one, depth - 1, no_words)


def _read_text(fields: Fields) -> str:
    return " ".join(" ".join(_collect_texts(fields)).lower().split())[:_MAX_TEXT]


# --- the judgement --------------------------------------------------------------------------------


_OWN_MEANING: Final[Mapping[int | None, type[EngineError]]] = {
    409: Unsupported,  # OpenAI's ConflictError, Google's ABORTED: another service has no conflict
    424: Transient,  # Bedrock, TGI: the model failed
}
"""Statuses that mean something else to these services than to an HTTP upstream of any kind."""
_ABOUT_SIZE = frozenset({413, 414, 431})
"""Groq and others call a single request of too many tokens a limit of the rate, with a 413."""


def judge(
    fields: Fields, known: EngineError | None, headers: Mapping[str, str], where: str
) -> EngineError:
    """Return the error for a refusal. Its message does not repeat the service's text, which may
    contain the API key.

    Args:
        fields: what :func:`find_error` found.
        known: the error for the status of the response; ``None`` when that was 2xx.
        headers: those of the response.
        where: the engine and its URL, for the message.
    """
    names = [_squeeze(name) for name in _list_names(fields)]
    number = known.status if known is not None else find_status(fields)
    named = next((_STATUS_OF[name] for name in names if name in _STATUS_OF), None)
    if number is None or (named == 429 and number not in _ABOUT_SIZE):
        number = named
    meaning = _find_by_part(fields) if number is None else None
    if isinstance(meaning, int):
        number = meaning
    if number is not None and (known is None or number != known.status):
        inside = where if known is not None else f"{where}, inside a 200"
        by_number: EngineError | None = map_status(number, headers, inside, fields)
    else:
        by_number = known
    if number in _OWN_MEANING and by_number is not None:
        by_number = _OWN_MEANING[number](
            str(by_number), sent="yes", retry_after=by_number.retry_after, status=number
        )
    text = _read_text(fields)
    how, cls = _classify(names, text, number)
    if cls is None and isinstance(meaning, type):
        how, cls = "by a part of its code", meaning
    error = by_number or Transient(f"{where}: failed while it answered", sent="yes")
    if cls is not None:
        wait_s = error.retry_after
        error = cls(f"{where}: refused {how}", sent="yes", retry_after=wait_s, status=number)
        if cls is Unsupported:
            error.parameter = _find_parameter(fields, names, text)
    if known is not None:
        error.status = known.status
        error.retry_after = known.retry_after if error.retry_after is None else error.retry_after
    return error


def _classify(
    names: Iterable[str], text: str, number: int | None
) -> tuple[str, type[EngineError] | None]:
    for name in names:
        if name in _CLASS_OF:
            return f"with {name!r}", _CLASS_OF[name]
    return "by what its text says", judge_text(text, number)


_UNKNOWN_PARAMETER = ("unsupportedparameter", "unknownparameter", "unrecognizedparameter",
                      "extraforbidden")  # fmt: skip
_PARAMETER_NAME = re.compile(r"\b(stream_options|max_tokens|max_completion_tokens)\b")


def _find_parameter(fields: Fields, names: Iterable[str], text: str) -> str:
    """The parameter that the service does not know; "" when it is none of those that the engine can
    leave out or call by another name."""
    given = str(fields.get("param"))
    places = (given, text, " ".join(map(str, fields)))  # marshmallow: {"max_tokens": ["Unknown …"]}
    found = {name for place in places for name in _PARAMETER_NAME.findall(place)}
    if USAGE in found:  # whatever is wrong with it: an answer does not depend on it
        return USAGE
    unknown = names_unknown_parameter(text) or any(name in _UNKNOWN_PARAMETER for name in names)
    if not found or not (unknown or names_refused_parameter(text)):
        return ""
    return given if given in found else min(found, key=text.find)

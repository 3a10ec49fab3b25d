from __future__ import annotations

import pytest

from om_plugins.builtin.http.status import map_status
from om_plugins.builtin.openai.refusals import find_error, judge
from om_plugins.errors import (
    AttemptTimeout,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)


def judged(document, status=None, headers=None):
    """The error for a document, as the body of a status or inside a 200."""
    known = map_status(status, headers or {}, "up", document) if status else None
    fields = find_error(document, expected=status is not None)
    return judge(fields, known, {} if status else headers or {}, "up")


@pytest.mark.parametrize(
    "document",
    [
        {}, [], 5, None, "text", {"error": None}, {"error": {}}, {"error": False},
        {"choices": [], "message": "ok"}, {"message": {"content": "hi"}}, {"usage": {}},
        {"choices": [{"error": None}]}, {"choices": None, "base_resp": {"status_code": 0}},
        [{"choices": []}], {"error": {"message": "", "type": "", "code": None, "param": ""}},
        {"choices": [{"error": {"message": None}}]}, [[{"error": "x"}]],
        {"choices": [{"delta": {}}], "error": {"code": 0, "message": "success"}},
        {"choices": [{"delta": {}}], "error": {"code": "200", "message": "OK"}},
        {"choices": [{"error": "none"}]}, {"error": "null"}, {"error": " OK "},
        {"code": 0, "message": "Success", "usage": {}}, {"code": "200", "msg": "ok"},
        {"error": "success"},
    ],
)  # fmt: skip
def test_a_document_without_an_error_has_none(document):
    assert find_error(document) is None


@pytest.mark.parametrize("document", ["overloaded", 5, None, [], ["x"], {}, {"x": 1}])
def test_what_came_as_an_error_is_one_whatever_it_says(document):
    assert find_error(document, expected=True) is not None
    assert type(judged(document, 500)) is Transient
    assert type(judged(document, 400)) is InvalidRequest


@pytest.mark.parametrize(
    "wrap",
    [
        lambda error: {"error": error}, lambda error: [{"error": error}],
        lambda error: {"object": "error", **error}, lambda error: {"detail": error},
        lambda error: {"error": {"message": "upstream failed", "error": error}},
        lambda error: {"choices": [{"error": error}]}, lambda error: {"errors": [error]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [None, 400])
def test_a_code_is_found_wherever_it_is(wrap, status):
    document = wrap({"message": "no", "code": "context_length_exceeded"})
    assert type(judged(document, status)) is TooLong


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"code": "unsupported_value", "param": "temperature"}, Unsupported),
        (400, {"code": "data_inspection_failed"}, Unsupported),
        (400, {"__type": "ThrottlingException", "message": "Rate exceeded"}, RateLimited),
        (400, {"__type": "com.amazon.coral.service#ThrottlingException"}, RateLimited),
        (400, {"__type": "AccessDeniedException"}, Misconfigured),
        (429, {"message": "Extra usage is required for long context requests."}, TooLong),
        (429, {"message": "Rate limit for long context requests reached"}, RateLimited),
        (None, {"message": "boom", "code": 0}, Transient),
        (400, {"message": {"error": "Violated guardrail policy", "by": "x"}}, Unsupported),
        (400, {"message": {"x": [{"error": "prompt is too long: 9 tokens > 8"}]}}, TooLong),
        (400, {"code": "DataInspectionFailed"}, Unsupported),
        (400, {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
         Unsupported),
        (400, {"innererror": {"code": "ResponsibleAIPolicyViolation"}}, Unsupported),
        (400, {"code": "json_validate_failed"}, Unsupported),
        (400, {"type": "exceed_context_size_error"}, TooLong),
        (400, {"code": "model_decommissioned"}, Misconfigured),
        (400, {"code": "Arrearage"}, Misconfigured),
        (400, {"details": [{"reason": "API_KEY_INVALID"}]}, Misconfigured),
        (429, {"code": "insufficient_quota"}, Misconfigured),
        (402, {"message": "Insufficient Balance"}, Misconfigured),
        (400, {"status": "RESOURCE_EXHAUSTED"}, RateLimited),
        (413, {"code": "rate_limit_exceeded", "message": "Request too large for model"}, TooLong),
        (413, {"code": "rate_limit_exceeded", "message": "slow down"}, TooLong),
        (500, {"message": "Context size has been exceeded.", "type": "server_error"}, TooLong),
        (503, {"message": "no", "type": "service_unavailable"}, Transient),
        (None, {"status": "DEADLINE_EXCEEDED"}, AttemptTimeout),
        (None, {"type": "not_found_error"}, Misconfigured),
        (None, {"type": "NotFoundError"}, Misconfigured),
        (None, {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"},
         TooLong),
    ],
)  # fmt: skip
def test_names_and_words_count_over_the_status(status, error, expected):
    assert type(judged({"error": {"message": "x", **error}}, status)) is expected


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 529])
def test_a_status_that_says_it_all_is_the_same_inside_a_200(status):
    error = {"error": {"message": "x", "code": status}}
    inside, outside = judged(error), judged(error, status)
    assert type(inside) is type(outside)
    assert (inside.status, outside.status) == (status, status)
    assert "inside a 200" in str(inside)
    assert "inside a 200" not in str(outside)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("RateLimitReached", RateLimited), ("rate_limited", RateLimited),
        ("Throttling.AllocationQuota", RateLimited), ("ThrottlingException", RateLimited),
        ("429 Too Many Requests", RateLimited), ("HTTP_429", RateLimited), ("429", RateLimited),
        ("quota_exceeded", RateLimited), ("REQUEST_LIMIT_EXCEEDED", RateLimited),
        ("ModelTimeoutException", AttemptTimeout),
        ("APITimeoutError", AttemptTimeout), ("access_denied_here", Misconfigured),
        ("EndpointNotFoundException", Misconfigured), ("ModelNotOpen", Misconfigured),
        ("AccountOverdueError", Misconfigured), ("invalid_model", Misconfigured),
        ("SensitiveContentDetected", Unsupported),
        ("InputTextSensitiveContentDetected", Unsupported), ("prompt_too_long_error", TooLong),
        ("load_balancer_error", Transient), ("ServiceUnavailableException", Transient),
        ("no rate limit", Transient), ("x" * 80 + "quota", Transient), ("12345", Transient),
    ],
)  # fmt: skip
def test_a_part_of_a_code_counts_where_nothing_else_says_more(code, expected):
    assert type(judged({"error": {"message": "x", "code": code}})) is expected
    assert type(judged({"error": {"message": "x", "code": code}}, 502)) in (Transient, RateLimited)


@pytest.mark.parametrize("text", ["quota", "rate_limit_tool", "throttle_valve:timeout"])
def test_a_text_in_the_place_of_an_error_is_no_code(text):
    assert type(judged({"error": text})) is Transient


def test_an_event_of_another_protocol_is_unfolded():
    failed = {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded"}}}
    assert type(judge(find_error(failed, expected=True), None, {}, "up")) is RateLimited
    bare = find_error({"type": "response.failed", "response": {}}, expected=True)
    assert type(judge(bare, None, {}, "up")) is Transient


def test_a_list_of_errors_is_read():
    for error in (["prompt is too long: 9 > 8"], [{"message": "prompt is too long: 9 tokens > 8"}]):
        assert type(judged({"error": error}, 400)) is TooLong
        assert type(judged({"error": error})) is TooLong


@pytest.mark.parametrize(
    ("status", "expected"), [(409, Unsupported), (424, Transient), (400, InvalidRequest)]
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_status_means_what_it_means_to_these_services(status, expected, inside):
    document = {"error": {"message": "x", "code": status}}
    error = judged(document) if inside else judged(document, status, {"retry-after": "3"})
    assert (type(error), error.status) == (expected, status)
    assert error.retry_after == (None if inside else 3)


def test_a_limit_of_the_rate_keeps_its_wait_whatever_it_advises():
    words = "exceeded your per-minute rate limit. Please reduce the prompt length or try again."
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": words}}
    error = judged(body, 429, {"retry-after": "7"})
    assert (type(error), error.retry_after) == (RateLimited, 7)
    assert type(judged(body)) is RateLimited


@pytest.mark.parametrize("status", [None, 400, 422, 413, 404, 500])
@pytest.mark.parametrize(
    "words",
    ["rate limit exceeded", "too many requests", "server_error", "overloaded", "quota exceeded",
     "429", "503", "timeout"],
)  # fmt: skip
def test_no_callers_words_make_an_engine_cool_down_or_fail(status, words):
    error = judged({"error": {"message": f"cannot answer '{words}' because of it"}}, status)
    quiet = judged({"error": {"message": "x"}}, status)
    assert type(error) is type(quiet) or not (error.trips or error.cooldown == "cooling down")


@pytest.mark.parametrize("status", [413, 414, 431])
@pytest.mark.parametrize("code", ["rate_limit_exceeded", "tokens", "throttled"])
def test_a_request_that_is_too_large_by_itself_is_no_limit_of_the_rate(status, code):
    document = {"error": {"message": "slow down", "code": code}}
    assert type(judged(document, status)) is TooLong
    assert type(judged(document, 403)) is RateLimited


def test_what_a_caller_sent_is_not_read():
    found = [{"loc": ["body", "x"], "msg": "bad", "type": "y", "input": "API key not valid"}]
    assert type(judged({"detail": found}, 422)) is not Misconfigured


def test_a_status_keeps_its_wait_and_no_text_of_the_service_is_shown():
    body = {"error": {"message": "sk-s3cret", "code": "rate_limit_exceeded"}}
    error = judged(body, 403, {"retry-after": "3"})
    assert (type(error), error.status, error.retry_after) == (RateLimited, 403, 3)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("document", "parameter"),
    [
        ({"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
          "'max_completion_tokens' instead.", "code": "unsupported_parameter",
          "param": "max_tokens"}, "max_tokens"),
        ({"message": "Unknown parameter: max_completion_tokens"}, "max_completion_tokens"),
        ({"message": "Unrecognized request argument supplied: stream_options"}, "stream_options"),
        ({"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]},
         "stream_options"),
        ({"message": "x", "type": "extra_forbidden", "param": "stream_options"}, "stream_options"),
        ({"message": "Additional properties are not allowed ('stream_options' was unexpected)"},
         "stream_options"),
        ({"message": "Unrecognized key(s) in object: 'stream_options'"}, "stream_options"),
        ({"message": "extraneous key [stream_options] is not permitted"}, "stream_options"),
        ({"message": "The JSON property 'stream_options' could not be mapped to any .NET member"},
         "stream_options"),
        ({"message": "this model does not do stream_options"}, "stream_options"),
        ({"stream_options": ["Unknown field."]}, "stream_options"),
        ({"message": "max_tokens is deprecated in favor of max_completion_tokens"}, "max_tokens"),
        ({"message": "this model does not support max_tokens"}, "max_tokens"),
        ({"message": "'max_tokens' is not allowed here", "param": "max_tokens"}, "max_tokens"),
        ({"message": "please use max_completion_tokens instead of max_tokens"},
         "max_completion_tokens"),
        ({"max_completion_tokens": ["Unknown field."]}, "max_completion_tokens"),
        ({"message": "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"}, ""),
        ({"message": "'max_tokens' or 'max_completion_tokens' is too large: 9"}, ""),
        ({"message": "max_tokens: 100000 > 8192, which is not supported"}, ""),
        ({"message": "Unknown parameter: 'seed'", "param": "seed"}, ""),
        ({"message": "max_tokens is too large: 9", "param": "max_tokens"}, ""),
        ({"message": "no such thing"}, ""),
    ],
)  # fmt: skip
def test_a_parameter_that_the_engine_can_do_without_is_named(document, parameter):
    assert judged(document, 400).parameter == parameter
    assert judged({"error": document}, 422).parameter == parameter

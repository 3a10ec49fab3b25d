"""Refusals as services word them, without a code that says what they mean."""

from __future__ import annotations

import time

import pytest

from om_plugins.builtin.openai.wordings import judge_text, names_unknown_parameter
from om_plugins.errors import InvalidRequest, Misconfigured, TooLong, Unsupported

TOO_LONG = """
400 the max input characters is 2000
429 Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 42000.
400 Please reduce the length of the messages or completion. Current length is 9000
400 This model's maximum context length is 128000 tokens. However, your messages resulted in 130000
400 prompt is too long: 208310 tokens > 200000 maximum
400 input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000
400 The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).
400 The input (9000 tokens) is longer than the model's context length (8192 tokens).
400 Input is too long for requested model.
400 the request exceeds the available context size
500 Context size has been exceeded.
422 Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000
422 `inputs` must have less than 1024 tokens. Given: 2010
413 Input validation error: `inputs` must have less than 512 tokens. Given: 700
400 This model's maximum prompt length is 131072 but the request contains 140000 tokens.
400 Your request exceeded model token limit: 131072
400 Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)
400 too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000
400 Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000
400 Prompt length (5000) exceeds maximum input length (4096).
400 prompt token count of 203783 exceeds the limit of 128000
400 Range of input length should be [1, 129024]
400 Prompt exceeds max length
400 the number of input tokens 9000 cannot exceed the total tokens limit 8192 for this model
400 Prompt contains 40960 tokens, too large for model with 32768 maximum context length
400 prompt too long; exceeded max context length by 4 tokens
400 Current length is 9000 while limit is 8192
400 Trying to keep the first 5000 tokens when context the overflows
413 Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7000
429 Request too large for gpt on tokens per min (TPM): Limit 30000, Requested 50000
400 Please reduce the length of the messages or completion.
400 The prompt is too long: 9000, model maximum context length: 8191
400 The total length of prompt exceeds the maximum of 32768 tokens
400 Input length 9000 exceeds the maximum allowed token length of 8192
400 输入内容长度超过最大限制
"""

UNSUPPORTED = """
400 系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语
400 该模型不支持图片输入
400 请求参数有误
400 このモデルは画像入力をサポートしていません。
400 이모델은이미지를지원하지않습니다
400 โมเดลนี้ไม่รองรับรูปภาพ
400 Additional properties are not allowed ('seed' was unexpected)
400 Unrecognized key(s) in object: 'seed'
422 #: extraneous key [seed] is not permitted
000 input new_sensitive
000 output new_sensitive
400 Unsupported parameter: 'max_tokens' is not supported with this model.
400 Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1)
400 Unrecognized request argument supplied: seed
400 Unknown parameter: 'response_format'.
400 AsyncCompletions.create() got an unexpected keyword argument 'seed'
400 Invalid JSON payload received. Unknown name "seed": Cannot find field.
422 body stream_options Extra inputs are not permitted extra_forbidden
422 Additional properties are not allowed ('seed' was unexpected)
400 `temperature` and `top_p` cannot both be specified for this model. Please use only one.
400 temperature: range: 0..1
400 max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for this model
400 max_tokens is too large: 50000. This model supports at most 16384 completion tokens
400 messages[0].role does not support 'system' with this model
400 System role not supported
400 Conversation roles must alternate user/assistant/user/assistant/...
400 Developer instruction is not enabled for this model
400 image_url is only supported by certain models
400 Invalid content type. image_url is only supported by certain models.
400 This model does not support image input
400 At most 0 image(s) may be provided in one request.
400 x is not a multimodal model
500 image input is not supported - hint: if this is unexpected, you may need to provide the mmproj
404 No endpoints found that support image input
404 No endpoints found that support tool use. To learn more about provider routing, visit
400 'response_format' of type 'json_schema' is not supported with this model
400 Invalid schema for response_format 'x': 'additionalProperties' is required to be false
400 'messages' must contain the word 'json' in some form, to use 'response_format'
400 messages 0 content Input should be a valid string
422 messages.0.content value must be a string
400 Input data may contain inappropriate content.
400 The response was filtered due to the prompt triggering our content management policy.
400 Your request was rejected as a result of our safety system.
400 Content Exists Risk: the content violates the usage policy
403 The input was flagged by moderation
400 max_tokens: Field required
400 Missing required parameter: 'reasoning_effort'.
400 No prompt template was configured for it
400 stop must be a string
400 temperature must be a float between 0 and 1
422 body temperature Input should be less than or equal to 1
400 stop: at most 4 sequences are allowed here, said the service in words that nobody knows
500 tools param requires --jinja flag
500 Failed to load image from http://x/y.png
"""

MISCONFIGURED = """
400 您的账户已欠费，请充值后重试。
400 Budget has been exceeded! Current cost: 10.0, Max budget: 5.0
400 You have reached your specified API usage limits. You will regain access on 2025-07-01
400 foo/bar is not a valid model ID
400 The provided model identifier is invalid.
000 insufficient balance
000 Your credit balance is too low to access the API
400 API key not valid. Please pass a valid API key.
400 Your credit balance is too low to access the API.
400 Incorrect API key provided
400 Access denied due to an overdue payment of this account
400 Your account is not active, please check your billing details
400 The model `x` has been decommissioned and is no longer supported
400 The model `x` does not exist or you do not have access to it
400 Model not found: x
400 This organization has been disabled.
400 You exceeded your current quota, please check your plan
"""

WRONG_FOR_ALL = """
400 We could not parse the JSON body of your request.
400 messages: at least one message is required
400 Invalid 'messages': empty array. Expected an array with minimum length 1
400 [] is too short - 'messages'; messages must not be empty
400 messages: text content blocks must be non-empty
422 body messages Field required missing
400 Missing required parameter: 'messages'.
400 No messages were provided
422 prompt is a required property
400 Unexpected token } in JSON at position 10 - could not parse JSON
400 you must provide a model parameter and a prompt; prompt is required
400 Invalid type for 'temperature': expected a decimal, but got a string instead.
422 body temperature Input should be a valid number
"""

THE_STATUS_DECIDES = """
429 tokens exceeded your per-minute rate limit. Please reduce the prompt length or try again later
429 This request would exceed the limit of 40,000 input tokens per minute; reduce the prompt length
429 Too many tokens, please wait before trying again.
000 Too many tokens, please wait before trying again.
000 This would exceed the tokens per minute; please reduce the prompt length or try again later
400 错误
400 x
400 Bad Request
422 Unprocessable Entity
401 your context length key is wrong
403 you have no permission for images
404 The model `gpt-vision` does not exist
404 Not Found
429 Rate limit reached on tokens per min (TPM): Limit 10000, Used 9000, Requested 2000
429 You exceeded your current quota
500 Internal Server Error
500 the database schema of the account is not available
503 operation not supported while the model is loading
"""


def read(table):
    return [
        pytest.param(int(line[:3]) or None, line[4:].lower(), id=line[:50])
        for line in table.strip().splitlines()
    ]


@pytest.mark.parametrize(("status", "text"), read(TOO_LONG))
def test_a_question_over_the_length_is_known_in_all_words(status, text):
    assert judge_text(text, status) is TooLong


@pytest.mark.parametrize(("status", "text"), read(UNSUPPORTED))
def test_what_this_model_cannot_do_is_for_another_one(status, text):
    assert judge_text(text, status) is Unsupported


@pytest.mark.parametrize(("status", "text"), read(MISCONFIGURED))
def test_keys_credit_and_models_are_the_operators(status, text):
    assert judge_text(text, status) is Misconfigured


@pytest.mark.parametrize(("status", "text"), read(WRONG_FOR_ALL))
def test_what_no_service_accepts_ends_the_chain(status, text):
    assert judge_text(text, status) is InvalidRequest


@pytest.mark.parametrize(("status", "text"), read(THE_STATUS_DECIDES))
def test_words_that_say_no_more_than_the_status_leave_it(status, text):
    assert judge_text(text, status) is None


@pytest.mark.parametrize(
    "text",
    [
        "internal server error", "overloaded", "model is not available",
        "too many tokens per minute", "the requests exceed the concurrency of the server",
    ],
)  # fmt: skip
def test_a_failure_without_a_status_stays_one(text):
    assert judge_text(text, None) is None


def test_a_parameter_that_is_unknown_differs_from_a_value_that_is_not_allowed():
    assert names_unknown_parameter("unsupported parameter: 'max_tokens'")
    assert names_unknown_parameter("body stream_options extra inputs are not permitted")
    assert not names_unknown_parameter("max_tokens is too large: 50000")
    assert not names_unknown_parameter("unsupported value: 'temperature'")


def test_hostile_words_are_judged_in_time_that_grows_with_their_length():
    def spent(text):
        began = time.process_time()
        for _ in range(3):
            judge_text(text, 400)
        return time.process_time() - began

    for word in ("tokens ", "prompt ", "max_tokens ", "not ", "length ", "json invalid ", "a", " "):
        short, long = spent(word * (1000 // len(word))), spent(word * (4000 // len(word)))
        assert long < 40 * short + 0.02

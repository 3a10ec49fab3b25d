"""One reader for streams and whole answers: each case is read in both forms and judged alike."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from om_plugins.builtin.http.sse import ServerEvent
from om_plugins.builtin.openai.completion import (
    CompletionReader,
    FirstWord,
    read_answer_events,
)
from om_plugins.errors import (
    EngineError,
    InvalidRequest,
    Misconfigured,
    NoAnswer,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)
from om_plugins.types import ModelRefusal, ToolCall, ToolCalls


def make_reader(max_size=1000):
    return CompletionReader(where="up", headers={}, model="m", max_size=max_size)


def read(*events):
    """The texts and the last word of an answer, or the class of its error."""
    reader = make_reader()
    got = []
    try:
        got += reader.read(events)
        if (last := reader.conclude()) is not None:
            got.append(last)
    except EngineError as error:
        return [*got, type(error)]
    return got


def event(document, name="message"):
    return ServerEvent(name, document if isinstance(document, str) else json.dumps(document))


def choice(finish=None, **more):
    return {"choices": [{"index": 0, "finish_reason": finish, **more}]}


def delta(text=None, finish=None, **more):
    return choice(finish, delta={**({} if text is None else {"content": text}), **more})


def message(text=None, finish="stop", **more):
    return choice(finish, message={"role": "assistant", "content": text, **more})


DONE = event("[DONE]")


def whole(document):
    return event(document, "whole")


CALL = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}}
ASKED = ToolCalls((ToolCall("c1", "f", '{"a": 1}'),), model="m")

ALIKE = {
    "text": ({"content": "Hello"}, "stop", ["Hello"]),
    "nothing": ({}, "stop", [NoAnswer]),
    "empty text": ({"content": ""}, "stop", [NoAnswer]),
    "null": ({"content": None}, "stop", [NoAnswer]),
    "white space": ({"content": "\n\t "}, "stop", [NoAnswer]),
    "marks of width zero": ({"content": "\u200b\ufeff\x00"}, "stop", [NoAnswer]),
    "no parts": ({"content": []}, "stop", [NoAnswer]),
    "reasoning": ({"reasoning_content": "hm"}, "stop", [NoAnswer]),
    "reasoning of OpenRouter": ({"content": "", "reasoning": "hm"}, "stop", [NoAnswer]),
    "reasoning in parts": (
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        "stop", [NoAnswer],
    ),
    "reasoning as text in a part": ({"content": [{"type": "reasoning", "text": "hm"}]}, "stop",
                                    [NoAnswer]),
    "reasoning in the text": ({"content": "<think>\nhm\n</think>\n"}, "stop", [NoAnswer]),
    "reasoning without an end": ({"content": "<think>hm"}, "stop", [NoAnswer]),
    "reasoning, then a word": ({"content": "<think>hm</think>Yes"}, "stop",
                               ["<think>hm</think>Yes"]),
    "a sign": ({"content": "<"}, "stop", ["<"]),
    "an emoji": ({"content": "👍"}, "stop", ["👍"]),
    "cut off": ({"content": "half a sen"}, "length", ["half a sen"]),
    "cut off before a word": ({"content": " "}, "length", [TooLong]),
    "cut off while it reasons": ({"reasoning": "hm"}, "max_tokens", [TooLong]),
    "filtered": ({"content": ""}, "content_filter", [Unsupported]),
    "filtered, of GLM": ({}, "sensitive", [Unsupported]),
    "filtered, of Gemini": ({}, "SAFETY", [Unsupported]),
    "filtered, of Gemini's own reasons": ({}, "content_filter: RECITATION", [Unsupported]),
    "filtered, in capitals": ({}, "IMAGE_PROHIBITED_CONTENT", [Unsupported]),
    "filtered, of .NET": ({}, "ContentFilter", [Unsupported]),
    "filtered, of Cohere": ({}, "ERROR_TOXIC", [Unsupported]),
    "filtered, of Anthropic": ({}, "refusal", [Unsupported]),
    "a refusal of Anthropic with its words": (
        {"refusal": "I may not."}, "refusal", [ModelRefusal("I may not.", model="m")]),
    "failed, of a gateway": ({}, "server_error", [Transient]),
    "failed, of Cohere": ({}, "ERROR_LIMIT", [Transient]),
    "failed, of vLLM": ({}, "exception", [Transient]),
    "failed, of Gemini": ({}, "function_call_filter: MALFORMED_FUNCTION_CALL", [Transient]),
    "a reason in an object": ({"content": "Hi"}, {"type": "stop", "matched": 2}, ["Hi"]),
    "a reason nobody knows": ({"content": "Hi"}, "eos_token", ["Hi"]),
    "a list of texts": ({"content": ["Hel", "lo"]}, "stop", ["Hello"]),
    "a number": ({"content": 42}, "stop", ["42"]),
    "true": ({"content": True}, "stop", [NoAnswer]),
    "an error with empty fields": ({"content": "Hi", "error": {"code": None}}, "stop", ["Hi"]),
    "failed": ({"content": ""}, "error", [Transient]),
    "failed, of SGLang": ({}, "abort", [Transient]),
    "failed, of DeepSeek": ({}, "insufficient_system_resource", [Transient]),
    "failed, of GLM": ({}, "network_error", [Transient]),
    "refusal": ({"content": None, "refusal": "I may not."}, "stop",
                [ModelRefusal("I may not.", model="m")]),
    "refusal in a part": ({"content": None, "refusal": [{"type": "refusal", "refusal": "No."}]},
                          "stop", [ModelRefusal("No.", model="m")]),
    "refusal in a part of the text": (
        {"content": [{"type": "refusal", "refusal": "No."}]}, "stop",
        [ModelRefusal("No.", model="m")]),
    "text and refusal in parts": (
        {"content": [{"type": "text", "text": "Hm. "}, {"type": "refusal", "refusal": "No."}]},
        "stop", ["Hm. ", ModelRefusal("No.", model="m")]),
    "tools": ({"content": None, "tool_calls": [CALL]}, "tool_calls", [ASKED]),
    "tools, finished with stop": ({"content": "", "tool_calls": [CALL]}, "stop", [ASKED]),
    "a function": ({"function_call": {"name": "f", "arguments": "{}"}}, "function_call",
                   [ToolCalls((ToolCall("", "f", "{}"),), model="m")]),
    "a function with a dict": (
        {"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"a": [1]}}}]},
        "stop", [ToolCalls((ToolCall("c1", "f", '{"a":[1]}'),), model="m")],
    ),
    "two tools without an index": (
        {"tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}]}, "stop",
        [ToolCalls((ToolCall("", "f", ""), ToolCall("", "g", "")), model="m")],
    ),
    "no tools": ({"tool_calls": []}, "tool_calls", [NoAnswer]),
    "tools without a name": ({"tool_calls": [{"index": 0, "function": {}}, 5]}, "tool_calls",
                             [NoAnswer]),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "finish", "expected"), ALIKE.values(), ids=ALIKE)
def test_a_stream_and_a_whole_answer_are_judged_alike(fields, finish, expected):
    in_pieces = read(event(choice(finish, delta=fields)), DONE)
    later = read(event(choice(delta=fields)), event(choice(finish, delta={})), DONE)
    at_once = read(whole(choice(finish, message=fields)))
    unasked = read(event(choice(finish, message=fields)), DONE)
    assert in_pieces == later == at_once == unasked == expected


ERRORS = {
    "top level": {"object": "error", "message": "boom", "type": "InternalServerError", "code": 500},
    "detail": {"detail": "Internal Server Error"},
    "message": {"message": "overloaded"},
    "list of errors": {"errors": [{"message": "boom"}]},
    "text": {"error": "boom"},
    "type": {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    "in a choice": choice("error", delta={"content": ""}, error={"code": 502, "message": "x"}),
    "beside choices": {**delta("", "error"), "error": {"code": 502, "message": "x"}},
    "in a list": [{"error": {"code": 503, "status": "UNAVAILABLE", "message": "x"}}],
    "of a gateway": {"error": {"message": "up", "error": {"code": 500}}},
    "no answer": {"choices": None, "base_resp": {"status_code": 1000, "status_msg": "unknown"}},
    "code only": {"error_code": 336003},
    "status": {"status": "error", "reason": "boom"},
    "no success": {"success": False},
    "number": 5,
    "null": None,
    "broken": '{"choices": [',
}


@pytest.mark.parametrize("document", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("before", [[], [event(delta("half a sen"))]], ids=["first", "later"])
def test_an_error_in_a_document_fails_streamed_or_not(document, before):
    assert read(whole(document)) == [Transient]
    assert read(*before, event(document), DONE)[-1] is Transient


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 400}, InvalidRequest), ({"code": "400"}, InvalidRequest),
        ({"code": 401}, Misconfigured), ({"code": 402}, Misconfigured),
        ({"status": 404}, Misconfigured), ({"status_code": 413}, TooLong),
        ({"code": 429}, RateLimited), ({"code": "429"}, RateLimited),
        ({"code": 529}, Transient), ({"code": 7}, Transient), ({"code": True}, Transient),
        ({"type": "rate_limit_error"}, RateLimited), ({"type": "RateLimitError"}, RateLimited),
        ({"status": "RESOURCE_EXHAUSTED"}, RateLimited), ({"type": "BadRequestError"},
                                                          InvalidRequest),
        ({"code": "context_length_exceeded"}, TooLong), ({"code": "content_filter"}, Unsupported),
    ],
)  # fmt: skip
def test_a_number_or_name_inside_a_200_is_judged_as_a_status(error, expected):
    document = {"error": {"message": "x", **error}}
    assert read(whole(document)) == read(event(document)) == [expected]
    assert read(event(document["error"], "error")) == [expected]


@pytest.mark.parametrize("data", ['{"message": "x"}', "overloaded", "", "[]", "null", '"x"', "{"])
def test_an_event_error_is_an_error_whatever_is_in_it(data):
    assert read(event(data, "error"), DONE) == [Transient]


def test_a_wait_in_an_error_inside_a_200_is_read():
    reader = make_reader()
    document = {"error": {"code": 429, "message": "x", "retry_after": 7}}
    with pytest.raises(RateLimited) as caught:
        list(reader.read([event(document)]))
    assert (caught.value.status, caught.value.retry_after) == (429, 7)


@pytest.mark.parametrize(
    "events",
    [
        [], [DONE], [event({"choices": []})], [event(delta("a"))], [event(delta("a", ""))],
        [event(delta("a", "null"))], [event(delta("a", "None"))], [event(delta("a", {}))],
        [event(": x", "ping"), event("")], [whole({"choices": []})], [whole({"usage": {}})],
    ],
)  # fmt: skip
def test_what_is_no_complete_answer_fails(events):
    assert read(*events)[-1] in (Transient, NoAnswer)


def test_events_that_say_nothing_are_skipped():
    events = [
        event("keep-alive", "ping"), event(""), event({"choices": [], "usage": {"n": 1}}),
        event({"id": "x", "object": "chat.completion.chunk"}), event(choice(delta=None)),
        event(delta("Hi")), event(delta(finish="stop")),
    ]  # fmt: skip
    assert read(*events) == ["Hi"]


def test_blanks_before_the_first_word_come_with_it():
    assert read(*map(event, (delta("\n"), delta("<thi"), delta("nk>h</think"), delta("> "),
                             delta("Yes"), delta("!", "stop")))) == [
        "\n<think>h</think> Yes", "!"
    ]  # fmt: skip
    word = FirstWord()
    assert [word.add(piece) for piece in ("<", "think", ">", "a" * 99, "</th", "ink>x")] == [
        False, False, False, False, False, True
    ]  # fmt: skip


def test_tool_calls_in_pieces_are_joined():
    pieces = [
        {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a'}}]},
        {"tool_calls": [{"index": 1, "function": {"name": "g", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"arguments": '": "\ud83d'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '\ude00"}'}}]},
    ]
    got = read(event(delta("Let me see.")), *(event(choice(delta=one)) for one in pieces),
               event(delta(None, "tool_calls")))  # fmt: skip
    expected = ToolCalls((ToolCall("c2", "g", "{}"), ToolCall("c1", "f", '{"a": "😀"}')), model="m")
    assert got == ["Let me see.", expected]
    pieces = [{"id": "c1", "function": {"name": "f", "arguments": "{"}}, {"function": {
        "arguments": "}"}}, {"id": "c2", "function": {"name": "g", "arguments": "{}"}}]  # fmt: skip
    got = read(*(event(choice(delta={"tool_calls": [one]})) for one in pieces), DONE)
    assert got == [ToolCalls((ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")), model="m")]


def test_a_filter_or_a_failure_after_words_does_not_end_the_answer():
    for reason, error in (
        ("content_filter: SAFETY", Unsupported), ("contentFilter", Unsupported),
        ("server_error", Transient), ("failed", Transient), ("interrupted", Transient),
    ):  # fmt: skip
        assert read(event(delta("half a sen")), event(delta("", reason))) == ["half a sen", error]
        assert read(whole(message("half a sen", reason)))[-1] is error


def test_a_refusal_in_pieces_is_one():
    got = read(*(event(delta(refusal=text)) for text in ("I ", "may ", "not.")), DONE)
    assert got == [ModelRefusal("I may not.", model="m")]
    again = event(message(None, refusal="I may not."))
    assert read(event(delta(refusal="I ")), event(delta(refusal="may ")), again) == got


def test_the_whole_message_after_its_pieces_is_not_said_again():
    pieces = [event(delta("Hel")), event(delta("lo"))]
    assert read(*pieces, event(message("Hello"))) == ["Hel", "lo"]
    assert read(*map(event, (message("Hel", None), message("Hello", None), message("Hello!")))) == [
        "Hel", "lo", "!"
    ]  # fmt: skip
    call = choice("tool_calls", message={"tool_calls": [{k: CALL[k] for k in ("id", "function")}]})
    assert read(event(delta(tool_calls=[CALL])), event(call)) == [ASKED]


def test_characters_that_are_split_over_pieces_are_joined():
    pieces = [
        r'{"choices": [{"delta": {"content": "a\ud83d"}}]}',
        r'{"choices": [{"delta": {"content": "\ude00b \ud83d"}, "finish_reason": "stop"}]}',
    ]
    assert read(*map(event, pieces)) == ["a", "😀b ", "�"]  # fmt: skip


def test_halves_of_characters_in_names_are_replaced():
    reader = make_reader()
    document = {"model": "m\ud83d", **delta("Hi", "st\ud83dop")}
    assert list(reader.read([event(json.dumps(document)), DONE])) == ["Hi"]
    reader.conclude()
    assert reader.metadata == {"model": "m�", "finish_reason": "st�op"}


def test_lenient_json_and_documents_on_single_lines_are_read():
    assert read(event('\ufeff{"choices": [{"delta": {"content": "a\n", "p": NaN}}]}'), DONE) == [
        "a\n"
    ]
    lines = "\n".join([json.dumps(delta("a")), json.dumps(delta("b")), "[DONE]"])
    assert read(event(lines)) == ["a", "b"]
    assert read(event("{}\n{")) == [Transient]


def test_an_endless_answer_is_cut():
    endless = [
        {"content": "a" * 999}, {"refusal": "a" * 999}, {"tool_calls": [CALL]},
        {"tool_calls": [{"function": {"name": "f"}}]},
    ]  # fmt: skip
    for fields in endless:
        assert read(*[event(choice(delta=fields))] * 2000, DONE)[-1] is Transient


def test_the_number_of_tools_is_limited():
    reader = make_reader(10**6)
    endless = event(delta(tool_calls=[{"function": {"name": "f"}}]))
    with pytest.raises(Transient, match="more than 1000 tools"):
        list(reader.read([*[endless] * 1001, DONE]))


def test_of_several_choices_the_first_is_read():
    choices = [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]
    assert read(event({"choices": choices}), DONE) == ["a"]
    assert read(event({"choices": [None, *choices[:1]]}), DONE) == ["b"]


# --- how the bytes are read -----------------------------------------------------------------------

STREAM = b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\ndata: [DONE]\n\n'
WHOLE = json.dumps(message("Hi")).encode()


@pytest.mark.parametrize("size", [1, 5, 4096])
@pytest.mark.parametrize(
    "kind",
    ["text/event-stream", "application/json", "text/plain", "", "application/octet-stream",
     "application/x-ndjson", "text/json", "binary/octet-stream"],
)  # fmt: skip
@pytest.mark.parametrize(
    "lead", [b"", b"\xef\xbb\xbf", b"\n\n", b": hello\n\n", b"event: message\n"]
)
def test_a_stream_is_known_by_its_bytes_whatever_its_type(size, kind, lead):
    body = lead + STREAM
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert read(*read_answer_events(pieces, kind, 10_000, "up")) == ["Hi"]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "text/json",
                                  "application/problem+json"])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_whole_answer_is_read_whatever_its_type(kind, encoding):
    body = WHOLE.decode().encode(encoding)
    events = list(read_answer_events([body[:7], body[7:]], kind, 10_000, "up"))
    assert [one.event for one in events] == ["whole"]
    assert read(*events) == ["Hi"]


def test_json_under_the_type_of_a_stream_is_judged_as_everywhere():
    for body, expected in (
        (b' \n{"error": {"message": "x", "code": 429}}', [RateLimited]),
        (b'[{"error": {"message": "x", "code": 404}}]', [Misconfigured]),
        (WHOLE.replace(b" ", b"\n"), ["Hi"]),
        (b'{"choices": [{"delta": {"content": "Hi"}}]}\n{"choices": []}\n[DONE]', ["Hi"]),
        (b'error: {"code": 400, "type": "exceed_context_size_error"}\n\n', [TooLong]),
        (b'error: {"code": 500, "message": "x"}', [Transient]),
    ):
        for kind in ("text/event-stream", "text/plain"):
            assert read(*read_answer_events([body], kind, 10_000, "up")) == expected


def test_lists_in_lists_are_no_answer():
    for depth in (2, 600, 5000):
        document = "[" * depth + "]" * depth
        assert read(whole(document)) == read(event(document), DONE) == [Transient]


@pytest.mark.parametrize(
    ("kind", "body", "what"),
    [
        ("text/html", WHOLE, "not JSON"), ("application/xhtml+xml", STREAM, "not JSON"),
        ("application/json", b" " * 9 + WHOLE, "larger than 50 bytes"),
        ("text/plain", b"<!doctype html><p>Log in</p>", "broken JSON"), ("", b"", "no chat"),
    ],
)  # fmt: skip
def test_what_is_no_answer_at_all_fails(kind, body, what):
    with pytest.raises(Transient, match=what):
        reader = make_reader()
        list(reader.read(read_answer_events([body], kind, 50, "up")))
        reader.conclude()


def test_an_endless_lead_of_blanks_takes_no_memory_and_no_time():
    pieces = [b" " * 128_000] * 20 + [STREAM]
    assert read(*read_answer_events(pieces, "", 1000, "up")) == ["Hi"]


# --- whatever a service sends ---------------------------------------------------------------------

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
              st.sampled_from(["", " ", "stop", "error", "429", "\ud83d", "<think>", "f"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.fixed_dictionaries({}, optional=dict.fromkeys(
            ("content", "text", "type", "code", "error", "function", "name", "id", "detail"), inner
        )),
    ),
    max_leaves=4,
)  # fmt: skip


def object_of(*names, **fields):
    return st.fixed_dictionaries({}, optional={**dict.fromkeys(names, values), **fields})


functions = object_of("name", "arguments")
calls = object_of("index", "id", "function") | object_of("index", function=functions)
messages = object_of("content", "refusal", "tool_calls", "function_call") | object_of(
    "content", tool_calls=st.lists(calls, max_size=2)
)
choices = object_of("index", "delta", "message", "finish_reason", "error") | object_of(
    "index", "finish_reason", "text", delta=messages, message=messages
)
documents = object_of("choices", "error", "model", "usage", "object", "message", "base_resp")
documents |= object_of("model", "usage", choices=st.lists(choices, max_size=2))


def check_documents(given):
    reader = make_reader()
    events = [event(json.dumps(document), name) for document, name in given]
    try:
        *pieces, last = [*reader.read([*events, DONE]), reader.conclude()]
    except EngineError:
        return
    assert last is not None or "".join(pieces).strip()
    msgspec.json.encode([pieces, last, reader.metadata["model"], reader.metadata["finish_reason"]])


lists_of_documents = st.lists(
    st.tuples(documents | values, st.sampled_from(["message"] * 6 + ["whole", "error", "x"])),
    max_size=3,
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(given_documents=lists_of_documents)
def test_whatever_a_service_sends_is_an_answer_or_an_error_of_the_table(given_documents):
    check_documents(given_documents)


@pytest.mark.proof
@settings(max_examples=1000, deadline=None, print_blob=True)
@given(given_documents=lists_of_documents)
def test_whatever_a_service_sends_for_long(given_documents):
    check_documents(given_documents)

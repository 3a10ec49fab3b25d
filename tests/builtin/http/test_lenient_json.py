from __future__ import annotations

import json
import math

import pytest

from om_plugins.builtin.http.lenient_json import SurrogateJoiner, join_surrogates, read_json

VALUE = {"answer": "디스크 💾", "n": [1, 2.5, None, True]}
TEXT = json.dumps(VALUE, ensure_ascii=False)


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
def test_every_unicode_encoding_is_read(encoding):
    assert read_json(TEXT.encode(encoding)) == VALUE


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_text_is_read_with_and_without_its_mark(mark):
    assert read_json(mark + TEXT) == VALUE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": Infinity}', {"a": math.inf}),
        ('{"a": [-Infinity]}', {"a": [-math.inf]}),
        ('{"a": "one\ntwo\tthree"}', {"a": "one\ntwo\tthree"}),
        (r'{"a": "\ud83d\ude00"}', {"a": "😀"}),
        (r'{"\ud83d": ["\ude00", {"b": "\ud83dx"}]}', {"�": ["�", {"b": "�x"}]}),
        (b'["caf\xe9"]', ["caf�"]),
    ],
)
def test_what_other_readers_accept_is_read(text, value):
    assert read_json(text) == value


@pytest.mark.parametrize(
    ("charset", "data", "value"),
    [
        ("latin-1", b'["caf\xe9"]', ["café"]),
        ("cp1252", b'["\x80"]', ["€"]),
        ("euc-kr", '["디스크"]'.encode("euc-kr"), ["디스크"]),
        ("shift_jis", '["日本"]'.encode("shift_jis"), ["日本"]),
        ("gb18030", '{"错误": NaN, "x": "汉字"}'.encode("gb18030"), None),
        ("latin-1", '["é"]'.encode(), ["é"]),
        ("latin-1", '["é\n"]'.encode(), ["é\n"]),
        ("latin-1", '["é"]'.encode("utf-16"), ["é"]),
        ("utf-8-sig", b'["caf\xe9"]', ["caf\ufffd"]),
    ],
)
def test_the_encoding_of_the_type_is_asked_for_what_is_no_unicode(charset, data, value):
    found = read_json(data, charset=charset)
    assert found["x"] == "汉字" if value is None else found == value


def test_nan_is_a_number():
    assert math.isnan(read_json(b"[NaN]")[0])


@pytest.mark.parametrize(
    "text", [b"", b" ", b"{", b"<p>", b"[1,]", b"{'a': 1}", b"[" * 100_000, b"9" * 5000, b"\0\0\0"]
)
def test_what_is_no_json_is_an_error(text):
    with pytest.raises(ValueError):
        read_json(text)


def test_values_of_a_strange_text_can_be_sent_on():
    read = read_json(r'{"a": "\udc00 and \ud83d\ude00", "b": NaN}')
    assert "😀" in json.dumps(read, ensure_ascii=False).encode().decode()


def test_halves_of_a_stream_wait_for_each_other():
    pieces = [read_json(text, halves=True) for text in (r'"a\ud83d"', r'"\ude00b"', r'"\ud83d"')]
    joiner = SurrogateJoiner()
    assert [joiner.add(piece) for piece in pieces] == ["a", "😀b", ""]
    assert (joiner.end(), joiner.end()) == ("�", "")
    assert join_surrogates("plain 💾") == "plain 💾"

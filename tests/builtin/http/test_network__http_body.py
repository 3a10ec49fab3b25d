"""Where a body ends: one reading only, or none."""

from __future__ import annotations

import io

import pytest

from om_plugins.builtin.http.network__http_body import (
    BadBodyError,
    Framing,
    body_chunks,
    framing_of,
)


def framed(*headers, method="GET", status=200, version=11):
    return framing_of(method, status, version, headers)


def read(data, framing):
    file = io.BufferedReader(io.BytesIO(data))
    return b"".join(body_chunks(file, framing)), file.read()


CHUNKED = ("Transfer-Encoding", "chunked")


@pytest.mark.parametrize(
    ("headers", "options", "framing"),
    [
        ([("Content-Length", "5")], {}, Framing(5)),
        ([("content-length", "5"), ("Content-Length", " 5, 5")], {}, Framing(5)),
        ([("Transfer-Encoding", "CHUNKED")], {}, Framing(chunked=True)),
        ([], {}, Framing(reusable=False)),
        ([CHUNKED], {"version": 10}, Framing(chunked=True, reusable=False)),
        ([CHUNKED, ("Content-Length", "5")], {}, Framing(chunked=True, reusable=False)),
        ([("Content-Length", "5")], {"method": "HEAD"}, Framing(0)),
        ([("Content-Length", "5")], {"status": 304}, Framing(0)),
        ([CHUNKED], {"status": 204}, Framing(0)),
    ],
)
def test_a_body_is_delimited_as_rfc_9112_says(headers, options, framing):
    assert framed(*headers, **options) == framing


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "5"), ("Content-Length", "6")],
        [("Content-Length", "5, 6")],
        *([("Content-Length", wrong)] for wrong in ("-5", "+5", "0x5", "5_0", "٥", "", "1" * 16)),
        *(
            [("Transfer-Encoding", wrong)]
            for wrong in ("gzip, chunked", "xchunked", "", "identity")
        ),
        [CHUNKED, CHUNKED],
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(headers):
    with pytest.raises(BadBodyError):
        framed(*headers)


def test_a_counted_body_is_read_to_its_end_and_no_further():
    assert read(b"12345HTTP/1.1", Framing(5)) == (b"12345", b"HTTP/1.1")
    assert read(b"HTTP/1.1", Framing(0)) == (b"", b"HTTP/1.1")
    assert read(b"all of it", Framing(reusable=False)) == (b"all of it", b"")
    with pytest.raises(BadBodyError, match="2 bytes early"):
        read(b"123", Framing(5))


@pytest.mark.parametrize(
    "data",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;ext=1;x=\"y\"\r\nhello\r\n000\r\n\r\n",
        b"2 \r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: dropped\r\nX: y\r\n\r\n",
        b"5\nhello\n0\n\n",
    ],
)  # fmt: skip
def test_chunks_are_put_together_and_trailers_dropped(data):
    assert read(data + b"HTTP/1.1", Framing(chunked=True)) == (b"hello", b"HTTP/1.1")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "early"),
        (b"5\r\nhel", "early"),
        (b"5\r\nhello", "another size"),
        (b"4\r\nhello\r\n0\r\n\r\n", "another size"),
        (b"-5\r\nhello\r\n0\r\n\r\n", "without a size"),
        (b"0x5\r\nhello\r\n", "without a size"),
        (b"+5\r\nhello\r\n", "without a size"),
        (b"5_0\r\n", "without a size"),
        (b"5" * 16 + b"\r\n", "without a size"),
        (b"5;" + b"x" * 5000 + b"\r\nhello\r\n", "without a size"),
        (b"0\r\n" + b"X: y\r\n" * 200, "more than 100 trailers"),
        (b"0\r\nX: " + b"y" * 5000, "trailer without an end"),
        (b"0\r\nX", "trailer without an end"),
    ],
)
def test_a_chunk_that_is_none_ends_the_answer(data, said):
    with pytest.raises(BadBodyError, match=said):
        read(data, Framing(chunked=True))

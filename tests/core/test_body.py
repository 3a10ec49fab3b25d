"""Bodies: read to their declared length, within a limit."""

from __future__ import annotations

import io
import signal
import time

import pytest

from om_plugins.core.body import BodyError, TimeIsUp, limit_reads, limit_time, read_body


class Source:
    """An input that blocks for ever after its end: reading there fails the test."""

    def __init__(self, data, piece=3):
        self.data, self.piece = data, piece

    def read(self, size):
        assert self.data, "read past the end"
        part, self.data = self.data[: min(size, self.piece)], self.data[min(size, self.piece) :]
        return part


def environ(data=b"", length=None, terminated=False, source=io.BytesIO):
    made = {"wsgi.input": source(data)}
    if length is not None:
        made["CONTENT_LENGTH"] = str(length)
    if terminated:
        made["wsgi.input_terminated"] = True
    return made


def status_of(request, limit=10):
    with pytest.raises(BodyError) as caught:
        read_body(request, limit)
    return caught.value.status


def test_a_body_is_read_to_its_length_and_no_further():
    assert read_body(environ(b"1234567890", 10, source=Source), 10) == b"1234567890"
    assert read_body(environ(b"12345 more", 5), 10) == b"12345"


def test_a_body_without_a_length_is_read_where_the_server_marks_its_end():
    assert read_body(environ(b"1234567890", terminated=True), 10) == b"1234567890"
    assert status_of(environ(b"12345678901", terminated=True)) == 413


def test_a_body_whose_end_nobody_knows_is_not_read():
    assert status_of(environ(b"1234", source=Source)) == 411


@pytest.mark.parametrize("length", ["-1", "1.5", "0x5", "٣", "1" * 19, "many"])
def test_a_length_that_is_no_number_is_refused(length):
    assert status_of(environ(b"1234", length)) == 400


def test_a_large_body_is_refused_before_it_is_read():
    assert status_of(environ(b"", 11, source=Source)) == 413


def test_a_body_that_ends_early_is_refused():
    assert status_of(environ(b"1234", 5)) == 400


def test_an_error_of_the_server_is_a_body_that_ended_early():
    class Broken:
        def read(self, size):
            raise OSError("the client left")

    assert status_of({"wsgi.input": Broken(), "CONTENT_LENGTH": "3"}) == 400


def test_reads_stop_at_the_limit():
    read = limit_reads(io.BytesIO(b"123456").read, 4)
    assert [read(3), read(3), read(3)] == [b"123", b"4", b""]


def test_code_that_waits_too_long_is_ended_and_the_signal_is_as_before():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeIsUp), limit_time(0.05):
        while True:
            time.sleep(0.01)
    with limit_time(60):
        pass
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_code_that_catches_everything_once_is_ended_at_its_next_wait():
    caught = 0
    with pytest.raises(TimeIsUp), limit_time(0.02):
        try:
            time.sleep(60)
        except:  # noqa: E722 - as careless code does
            caught += 1
        time.sleep(60)
    assert caught == 1

"""Fields are read as their grammars say, and nothing that is sent makes reading fail or hang."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from om_plugins.http_cache.fields import (
    age_seconds,
    delta_seconds,
    dictionary,
    directives,
    entity_tags,
    field_names,
    http_date,
    ranges,
    same_tag,
)

NOW = 1_700_000_000.0
headers = st.text(alphabet=st.characters(max_codepoint=255), max_size=300)
# what is nearly right finds more than what is random
crumbs = st.lists(
    st.sampled_from(
        ['"', "\\", ",", ";", "=", " ", "\t", "max-age", "no-cache", "60", "-", "*", "W/", "bytes",
         "(", ")", ":", "?1", "private", "ü", "\x00", "GMT", "Mon", "Jan", "a", "q=0.5"]
    ),
    max_size=60,
).map("".join)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("max-age=60", {"max-age": "60"}),
        ("MaX-aGe=60, PUBLIC", {"max-age": "60", "public": None}),
        ('max-age="60"', {"max-age": "60"}),
        ("max-age='60'", {"max-age": "'60'"}),
        ('extension="max-age=60", max-age=1', {"extension": "max-age=60", "max-age": "1"}),
        ("max-age=1, max-age=60", {"max-age": "1"}),
        ("max-age =60", {"max-age": ""}),
        ("max-age= 60", {"max-age": ""}),
        ('no-cache="a, b"', {"no-cache": "a, b"}),
        ('no-cache="a", no-cache="b"', {"no-cache": "a,b"}),
        ('no-cache="a", no-cache', {"no-cache": None}),
        (", ,max-age=60,,", {"max-age": "60"}),
        ('x="never closed, no-store', {"no-store": None}),
        ("x" * 5000, {"no-store": None}),
        ("", {}),
    ],
)
def test_cache_control_is_read_with_quotes_and_in_any_case(value, expected):
    assert directives(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("max-age=60", {"max-age": "60"}),
        ("max-age=60, private", {"max-age": "60", "private": None}),
        ("max-age=60;a=1, must-revalidate=?1", {"max-age": "60", "must-revalidate": None}),
        ("no-store=?0, max-age=5", {"max-age": "5"}),
        ('max-age="60"', {"max-age": ""}),
        ("max-age=60.5", {"max-age": ""}),
        ("max-age=(1 2)", {"max-age": ""}),
        ("max-age=60, &&&&", None),
        ("MaX-aGe=60", None),
        ("max-age =60", None),
        ("max-age=60,", None),
        ("", None),
        ("a" * 5000, None),
    ],
)
def test_a_targeted_field_is_a_structured_dictionary_or_ignored(value, expected):
    assert dictionary(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("60", 60), ("0060", 60), ("0", 0), ("99999999999", 2**31), ("9" * 4000, 2**31),
        ("-1", None), ("1.0", None), ("1a", None), ("", None), (None, None), ("٣", None),
    ],
)  # fmt: skip
def test_seconds_are_digits_and_bounded(value, expected):
    assert delta_seconds(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["60"], 60), (["60, 0"], 60), (["0", "60"], 0), (["old"], 0), (["-5"], 0), ([], 0)],
)
def test_age_is_the_first_member_of_the_first_line(values, expected):
    assert age_seconds(values) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Accept-Encoding, accept-language", ("accept-encoding", "accept-language")),
        ("B, a, b", ("a", "b")),
        ("*", ("*",)),
        ("a, *", ("*",)),
        (", *", ("*",)),
        ("not a name", ("*",)),
        ("", ()),
    ],
)
def test_vary_names_fields_or_everything(value, expected):
    assert field_names(value) == expected


DATES = [
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "SUN, 06 NOV 1994 08:49:37 gmt",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
]


@pytest.mark.parametrize("value", DATES)
def test_the_three_forms_of_a_date_are_read(value):
    assert http_date(value, NOW) == 784111777.0


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov  1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 28:49:37 GMT",
        "Sun, 45 Nov 1994 08:49:37 GMT",
        "0",
        "",
        None,
    ],
)
def test_any_other_form_is_no_date(value):
    assert http_date(value, NOW) is None


def test_two_digits_of_a_year_are_at_most_fifty_years_ahead():
    assert http_date("Thursday, 18-Aug-50 02:01:18 GMT", NOW) == 2544400878.0
    assert http_date("Sunday, 06-Nov-94 08:49:37 GMT", NOW) == 784111777.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"a"', ('"a"',)),
        ('"a", W/"b"', ('"a"', 'W/"b"')),
        ("*", ("*",)),
        ("unquoted", ()),
        ('"abcdefü"', ('"abcdefü"',)),
    ],
)
def test_entity_tags_are_listed(value, expected):
    assert entity_tags(value) == expected


def test_entity_tags_are_compared_weakly_or_strongly():
    assert same_tag('"a"', 'W/"a"')
    assert not same_tag('"a"', 'W/"a"', strong=True)
    assert not same_tag('W/"a"', 'W/"a"', strong=True)
    assert same_tag('"a"', '"a"', strong=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-1", [(0, 2)]),
        ("bytes=3-", [(3, 10)]),
        ("bytes=-3", [(7, 10)]),
        ("bytes=-30", [(0, 10)]),
        ("bytes=5-100", [(5, 10)]),
        ("bytes=10-", []),
        ("bytes=-0", []),
        ("bytes=5-2", None),
        ("bytes=0-1, 3-4", None),
        ("bytes=-", None),
        ("pages=1-2", None),
        ("bytes", None),
        ("bytes=١-٢", None),
    ],
)
def test_one_range_is_read_and_everything_else_ignored(value, expected):
    assert ranges(value, 10) == expected


@given(headers | crumbs)
@example('"\\' * 2000)
@example('"' * 4000)
@example("a=" * 2000)
@example("(" * 4000)
@example("a;" * 2000)
@example("0-" * 2000)
def test_nothing_that_is_sent_makes_reading_fail_or_hang(value):
    began = time.thread_time()
    assert isinstance(directives(value), dict)
    assert isinstance(dictionary(value), dict | None)
    assert isinstance(field_names(value), tuple)
    assert isinstance(entity_tags(value), tuple)
    assert age_seconds([value]) >= 0
    assert isinstance(http_date(value, NOW), float | None)
    for size in (0, 10):
        found = ranges(value, size)
        assert found is None or all(0 <= first < end <= size for first, end in found)
        found = ranges("bytes=" + value, size)
        assert found is None or all(0 <= first < end <= size for first, end in found)
    assert time.thread_time() - began < 1.0


@given(st.dictionaries(st.sampled_from(["max-age", "s-maxage", "x"]), st.integers(0, 10**6)))
def test_what_was_written_is_read_back(values):
    written = ", ".join(f"{name}={value}" for name, value in values.items())
    assert directives(written) == {name: str(value) for name, value in values.items()}
    if values:
        assert dictionary(written) == {name: str(value) for name, value in values.items()}

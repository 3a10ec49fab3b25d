"""What the inputs of a request are, and how two requests are compared in them."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import uuid
from collections import OrderedDict, defaultdict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from werkzeug.datastructures import LanguageAccept, MIMEAccept
from werkzeug.http import parse_accept_header
from werkzeug.wrappers import Request

from om_plugins.core.inputs import (
    IDENTITIES,
    EnvironReader,
    IncomparableInput,
    InputRules,
    answer_accept,
    brings_cookie,
    brings_override,
    encode_value,
    environ_input,
    has_body,
    header_variable,
    is_identity,
    is_session,
    list_cookies,
    normalize_header,
    parse_weights,
    read_location,
)

RULES = InputRules(lambda: b"a secret for tests")


def environ(**more):
    return {
        "REQUEST_METHOD": "GET", "wsgi.url_scheme": "https", "HTTP_HOST": "a.example",
        "SERVER_NAME": "inner", "SERVER_PORT": "80", "SCRIPT_NAME": "", "PATH_INFO": "/p",
        "QUERY_STRING": "", **more,
    }  # fmt: skip


def read(name, **more):
    return EnvironReader(environ(**more)).read(name)


# --- values ---------------------------------------------------------------------------------------

ZONE = datetime.timezone(datetime.timedelta(hours=9))
VALUES = [
    None, True, False, 0, 1, -1, 2**70, 0.0, -0.0, 1.0, 1.5, float("inf"), "", "1", "True", "é",
    "\ud800", b"", b"1", [], ["1"], [1], [[1]], [1, 1], (), (1,), {}, {"a": 1}, {"a": "1"},
    {"a": [1]}, {1: 1},
    Markup("1"), Markup("é"), uuid.UUID(int=1), decimal.Decimal(1), decimal.Decimal("1.0"),
    datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, fold=1),
    datetime.datetime(2020, 1, 1, tzinfo=ZONE), datetime.time(1), datetime.timedelta(1),
    [uuid.UUID(int=1)], (uuid.UUID(int=1),), {"a": uuid.UUID(int=1)}, {uuid.UUID(int=1): "a"},
    ["uuid.UUID", "UUID('00000000-0000-0000-0000-000000000001')"],
    [["uuid.UUID", "UUID('00000000-0000-0000-0000-000000000001')"], uuid.UUID(int=1)],
]  # fmt: skip


def test_each_value_and_each_type_has_an_encoding_of_its_own():
    found = [encode_value(value) for value in VALUES]
    assert len({*found}) == len(VALUES)
    assert b"" not in found  # which is that of no value at all


def test_an_encoding_does_not_depend_on_the_object():
    for value in VALUES:
        assert encode_value([value, value]) == encode_value(list((value,) * 2))
    joined = "".join(["ab", "cd"])  # not interned
    assert encode_value([joined, "abcd"]) == encode_value(["abcd", joined])


PLAIN = st.recursive(
    st.sampled_from([value for value in VALUES if value == value]),
    lambda some: (
        st.lists(some, max_size=3)
        | st.tuples(some, some)
        | st.dictionaries(st.sampled_from(["", "a", "1"]), some, max_size=3)
    ),
    max_leaves=5,
)


@given(PLAIN, PLAIN)
def test_equal_encodings_mean_equal_values_of_equal_types(one, other):
    assert (encode_value(one) == encode_value(other)) is (repr(one) == repr(other))


class Color(enum.IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


Point = namedtuple("Point", "x y")


def nested(depth, kind):
    value = uuid.UUID(int=1)
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        object(), Name("a"), [Name("a")], defaultdict(list), OrderedDict(a=1), Point(1, 2),
        {"a": {1, uuid.UUID(int=1)}}, lambda: 1, type, nested(60, list), nested(60, dict),
        [Name("x")] * 3, {Name("a"): 1}, Color.RED,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_known_to_be_plain_data_cannot_be_compared(value):
    with pytest.raises(IncomparableInput, match="cannot be compared"):
        encode_value(value)


@pytest.mark.parametrize("kind", [list, dict])
def test_a_value_that_contains_itself_cannot_be_compared(kind):
    value = [] if kind is list else {}
    if kind is list:
        value.append(value)
    else:
        value["a"] = value
    with pytest.raises(IncomparableInput):
        encode_value(value)


def test_large_and_deep_plain_values_are_compared():
    large = {str(n): ["x" * 100] * 3 for n in range(1000)}
    assert encode_value(large) == encode_value(json.loads(json.dumps(large)))
    deep = one = []
    for _ in range(1000):
        one.append([])
        one = one[0]
    assert encode_value(deep) == encode_value(deep)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("HTTP_COOKIE", "cookies"),
        ("REMOTE_ADDR", "address"),
        ("HTTP_X_API_KEY", "header:x-api-key"),
        ("HTTP_ACCEPT", "header:accept"),
        ("CONTENT_TYPE", "header:content-type"),
        ("CONTENT_LENGTH", "header:content-length"),
        ("HTTP_CONTENT_TYPE", "environ:HTTP_CONTENT_TYPE"),
        ("HTTP_CONTENT_LENGTH", "environ:HTTP_CONTENT_LENGTH"),
        ("HTTP_x_lower", "environ:HTTP_x_lower"),
        ("HTTP_X-DASH", "environ:HTTP_X-DASH"),
        ("HTTP_\u00df", "environ:HTTP_\u00df"),
        ("HTTP_", "header:"),
        ("REMOTE_PORT", "environ:REMOTE_PORT"),
        ("RAW_URI", "environ:RAW_URI"),
        ("http_cookie", "environ:http_cookie"),
        ("wsgi.run", "environ:wsgi.run"),
        ("", "environ:"),
        *((one, "") for one in sorted(IDENTITIES)),
        *((one, "") for one in ("PATH_INFO", "QUERY_STRING", "HTTP_HOST", "REQUEST_METHOD")),
        *((one, "") for one in ("wsgi.input", "wsgi.version", "SERVER_SOFTWARE")),
        *((one, "") for one in ("om_plugins.state", "werkzeug.request", "flask._preserve_context")),
    ],
)
def test_each_variable_is_one_input_or_none(variable, name):
    assert environ_input(variable) == name


@given(st.text(max_size=30))
def test_a_header_input_reads_the_very_variable_that_was_looked_at(text):
    for variable in (text, f"HTTP_{text}", f"HTTP_{text.upper()}"):
        name = environ_input(variable)
        if name.startswith("header:"):
            assert header_variable(name.removeprefix("header:")) == variable
        elif name.startswith("environ:"):
            assert name == f"environ:{variable}"


@pytest.mark.parametrize("name", ["X-Api-Key", "x-api-key", "X_API_KEY", "x-Api_key"])
def test_the_case_of_a_header_does_not_matter(name):
    assert header_variable(name) == "HTTP_X_API_KEY"


def test_sessions_and_identities_are_known_by_their_names():
    for name in ("session", "session?", "session:", "session:user", "session:a:b"):
        assert is_session(name)
    for name in ("sessions", "cookie:session", "header:session", ""):
        assert not is_session(name)
    for name in ("cookie:a", "cookies", "session:a", "session?", "address", "environ:X"):
        assert is_identity(name)
    for name in ("header:x", "vary:x", "accept:accept:quality:[]"):
        assert not is_identity(name)


# --- reading --------------------------------------------------------------------------------------


def test_what_is_not_brought_differs_from_what_is_empty():
    for name, variable in (("header:x", "HTTP_X"), ("address", "REMOTE_ADDR"), ("environ:X", "X")):
        assert read(name) == b""
        assert read(name, **{variable: ""}) not in (b"", read(name, **{variable: "1"}))
    assert read("cookie:a") == b""
    assert read("cookie:a", HTTP_COOKIE="a=") not in (b"", read("cookie:a", HTTP_COOKIE="a=1"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a=1", "a=1; b=2", True),
        ("a=1", "b=2;a=1", True),
        ("a=1", 'a="1"', True),  # a request shows them as the same value
        ("a=1", "a=2", False),
        ("a=1", "a=1; a=2", False),
        ("a=1; a=2", "a=2; a=1", False),
        ("a=1; a=2", "a=1", False),
        ("a=1", "aa=1", False),
        ("a=1", "A=1", False),
        ("a=1", "x_a=1; b=a=1", False),
        ("a=1", '"a=1"', False),
        ("a=\xff", "a=\xfe", False),
        ("a=\xff", "a=\xff; b", True),
    ],
)
def test_cookies_are_compared_as_a_request_shows_them(one, other, same):
    assert (read("cookie:a", HTTP_COOKIE=one) == read("cookie:a", HTTP_COOKIE=other)) is same


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.text(max_size=3))
def test_a_cookie_is_seen_whenever_a_request_shows_it(header, name):
    brought = environ(HTTP_COOKIE=header)
    shown = Request(dict(brought)).cookies
    assert (read(f"cookie:{name}", HTTP_COOKIE=header) == b"") is (name not in shown)
    for one in shown:
        assert brings_cookie(brought, (one,))
        assert brings_cookie(brought, list_cookies([f"cookie:{one}"], ""))


def test_all_cookies_are_the_whole_header():
    assert read("cookies") == read("cookies", HTTP_COOKIE="")
    assert read("cookies", HTTP_COOKIE="a=1") != read("cookies", HTTP_COOKIE="a=1; b=2")


def test_a_header_that_varies_is_read_in_its_normal_form():
    assert read("vary:x-a") == b"" == read("vary:x-a", HTTP_X_A=object())
    assert read("vary:x-a", HTTP_X_A="1,2") == read("vary:x-a", HTTP_X_A=" 1 ,\t2 ")
    assert read("header:x-a", HTTP_X_A="1,2") != read("header:x-a", HTTP_X_A="1, 2")
    assert read("vary:x-a", HTTP_X_A="") != b""


@pytest.mark.parametrize("name", ["session", "session:user", "session?", "what", "", "what:else"])
def test_what_the_environ_does_not_have_cannot_be_read(name):
    with pytest.raises(IncomparableInput):
        read(name)


def test_a_variable_of_any_type_is_read_or_refused():
    assert read("environ:x.user", **{"x.user": {"id": 1}}) != read("environ:x.user")
    with pytest.raises(IncomparableInput):
        read("environ:x.user", **{"x.user": object()})


@pytest.mark.parametrize(
    ("header", "kind", "sent"),
    [
        ("accept-language", LanguageAccept, "de-AT, en;q=0.5"),
        ("accept-language", LanguageAccept, ""),
        ("accept-language", LanguageAccept, None),
        ("accept", MIMEAccept, "text/html, */*;q=0.1"),
    ],
)
def test_an_accept_header_answers_as_werkzeug_does(header, kind, sent):
    accept = parse_accept_header(sent, kind)
    brought = environ() if sent is None else environ(**{header_variable(header): sent})
    matches = ["en", "de", "text/html", "application/json"]
    for method, arguments in (
        ("best_match", [matches[:2] if kind is LanguageAccept else matches[2:], "none"]),
        ("quality", ["en" if kind is LanguageAccept else "text/html"]),
        ("__contains__", ["de" if kind is LanguageAccept else "text/html"]),
    ):
        asked = f"{header}:{method}:{json.dumps(arguments)}"
        assert answer_accept(asked, brought) == getattr(accept, method)(*arguments)


def test_two_languages_with_one_answer_are_one_value():
    asked = 'accept:accept-language:best_match:[["en", "de"], null]'
    german = read(asked, HTTP_ACCEPT_LANGUAGE="de-AT,de;q=0.9")
    assert german == read(asked, HTTP_ACCEPT_LANGUAGE="de")
    assert german != read(asked, HTTP_ACCEPT_LANGUAGE="en, de;q=0.5")


@pytest.mark.parametrize(
    "asked",
    [
        "", "accept", "accept:best_match", "accept:best_match:", "accept:best_match:[",
        "cookie:quality:[]",
        "accept:__class__:[]", "accept:clear:[]", "accept:best_match:[5]", "accept:best_match:[]",
        "accept:best_match:5", "accept:values:[]", "accept:best_match:null",
    ],
)  # fmt: skip
def test_a_question_that_nobody_asks_is_not_answered(asked):
    with pytest.raises(IncomparableInput):
        answer_accept(asked, environ(HTTP_ACCEPT="text/html"))


# --- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("accept-encoding", "gzip, br", "br,gzip", True),
        ("accept-encoding", "gzip;q=0, br", "br", True),
        ("accept-encoding", "GZIP", "gzip", True),
        ("accept-encoding", "gzip", "br", False),
        ("accept-language", "de, en;q=0.5", "en;q=0.5,de", True),
        ("accept-language", "de, en;q=0.5", "de;q=0.5, en", False),
        ("accept-language", "de;q=0.50", "de;q=0.5", True),
        ("x-any", "a, b", "a,b", True),
        ("x-any", "a, b", "b, a", False),
        ("x-any", "A", "a", False),
    ],
)
def test_headers_have_a_normal_form(name, one, other, same):
    assert (normalize_header(name, one) == normalize_header(name, other)) is same


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", []),
        (" , ;q=1,\t", []),
        ("a", [("a", 1.0)]),
        ("A ; q=0.25 , b", [("a", 0.25), ("b", 1.0)]),
        ("a;q=2", [("a", 1.0)]),
        ("a;q=0.1234567", [("a", 1.0)]),
        ("a;q=1x", [("a", 1.0)]),
        ("a;q=-1", [("a", 1.0)]),
        ("a;level=1;q=0.5", [("a", 1.0)]),
        (",".join(["a"] * 99), [("a", 1.0)] * 30),
    ],
)
def test_weights_are_read_and_nonsense_is_one(value, found):
    assert parse_weights(value) == found


@given(st.text())
def test_no_header_is_too_strange(value):
    for name in ("accept-encoding", "accept-language", "x-any"):
        assert isinstance(normalize_header(name, value), str)


# --- what is always in the key --------------------------------------------------------------------


@pytest.mark.parametrize("length", [None, "", "0"])
def test_a_request_without_a_length_has_no_body(length):
    assert not has_body({} if length is None else {"CONTENT_LENGTH": length})


@pytest.mark.parametrize(
    "more",
    [
        {"CONTENT_LENGTH": "1"}, {"CONTENT_LENGTH": "00"}, {"CONTENT_LENGTH": "-1"},
        {"CONTENT_LENGTH": " "}, {"CONTENT_LENGTH": 5}, {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"HTTP_TRANSFER_ENCODING": "", "CONTENT_LENGTH": "0"},
    ],
)  # fmt: skip
def test_every_other_request_has_one(more):
    assert has_body(more)


def test_a_location_is_scheme_host_root_path_path_and_query():
    assert read_location(environ()) == ("https", "a.example", "", "/p", "")
    for name in ("wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"):
        assert read_location(environ(**{name: "x"})) != read_location(environ())
    for name in ("SERVER_NAME", "SERVER_PORT", "REQUEST_METHOD", "HTTP_X_FORWARDED_HOST"):
        assert read_location(environ(**{name: "x"})) == read_location(environ())
    assert read_location({"SERVER_NAME": "s", "SERVER_PORT": "1"})[1] == "s:1"


def test_identities_are_read_by_name_and_with_one_certificate_all_of_it():
    assert RULES.read_identities(environ()) == ()
    assert RULES.read_identities(environ(SSL_CLIENT_I_DN="issuer")) == ()
    found = RULES.read_identities(
        environ(SSL_CLIENT_I_DN="issuer", SSL_CLIENT_S_DN="CN=ann", REMOTE_USER="ann")
    )
    assert found == (
        ("REMOTE_USER", "ann"), ("SSL_CLIENT_I_DN", "issuer"), ("SSL_CLIENT_S_DN", "CN=ann"),
    )  # fmt: skip
    own = InputRules(identities=IDENTITIES | {"HTTP_X_USER"})
    assert own.read_identities(environ(HTTP_X_USER="")) == (("HTTP_X_USER", ""),)


def test_what_servers_always_set_is_nobody():
    for nobody in ({}, {"REMOTE_USER": ""}, {"SSL_CLIENT_VERIFY": "NONE"}):
        assert not RULES.brings_identity(environ(**nobody))
        assert RULES.is_anonymous(environ(**nobody))
    for somebody in ({"SSL_CLIENT_VERIFY": "SUCCESS"}, {"HTTP_AUTHORIZATION": "Basic x"}):
        assert RULES.brings_identity(environ(**somebody))
        assert not RULES.is_anonymous(environ(**somebody))
    assert RULES.brings_identity(environ(SSL_CLIENT_VERIFY="NONE", SSL_CLIENT_S_DN="CN=a"))


@pytest.mark.parametrize("sent", ["", "om_sid=2.ab-c_d.e", " om_sid=x;om_sid=y ", "om_sid="])
def test_a_cookie_of_ours_says_nothing(sent):
    assert RULES.is_anonymous(environ(HTTP_COOKIE=sent), {"om_sid"})


@pytest.mark.parametrize(
    "sent",
    [
        "a=1", "om_sid=x; a=1", "om_sid", "om_sid2=x", "xom_sid=x", "=om_sid", "om_sid=x; ",
        # some parsers end a pair at these
        "om_sid=x a=1", "om_sid=x,a=1", 'om_sid="x; a=1"', "om_sid=x\x0ba=1", "om_sid=x\xa0a=1",
        "om_sid=x\ta=1", "om_sid =x", "\xa0om_sid=x",
    ],
)  # fmt: skip
def test_any_other_cookie_may_say_who_asks(sent):
    assert not RULES.is_anonymous(environ(HTTP_COOKIE=sent), {"om_sid"})
    assert not RULES.is_anonymous(environ(HTTP_COOKIE=sent))


@pytest.mark.parametrize("name", sorted(environ()))
def test_an_address_has_all_that_says_where(name):
    assert RULES.read_address(environ(**{name: "other"})) != RULES.read_address(environ())


def test_an_address_has_who_asks_and_no_value_can_pass_for_another():
    one = RULES.read_address(environ(REMOTE_USER="ann"))
    assert one != RULES.read_address(environ())
    assert one != RULES.read_address(environ(AUTH_TYPE="ann"))
    assert one == RULES.read_address(environ(REMOTE_USER="ann", HTTP_X="1", REMOTE_ADDR="1.1.1.1"))


def test_a_digest_of_identities_is_keyed_and_reveals_none():
    assert RULES.digest_identities(environ()) == ""
    found = RULES.digest_identities(environ(REMOTE_USER="ann"))
    assert found == RULES.digest_identities(environ(REMOTE_USER="ann", HTTP_X="1"))
    assert "ann" not in found
    others = [
        RULES.digest_identities(environ(REMOTE_USER="bob")),
        RULES.digest_identities(environ(AUTH_TYPE="ann")),
        RULES.digest_identities(environ(REMOTE_USER="ann", AUTH_TYPE="Basic")),
        InputRules(lambda: b"other").digest_identities(environ(REMOTE_USER="ann")),
    ]
    assert len({found, *others}) == 5


def test_digests_differ_by_secret_value_and_where_one_value_ends():
    secrets = [b"", b"a", b"b", b"a" * 64, b"a" * 65, b"a" * 66]
    assert len({InputRules(lambda s=s: s).digest([b"v"]) for s in secrets}) == len(secrets)
    parts = [[], [b""], [b"", b""], [b"ab"], [b"a", b"b"], [b"", b"ab"], [b"1:a"], [b"ab", b""]]
    assert len({RULES.digest(part) for part in parts}) == len(parts)


def digest(names, reader):
    values = [reader.read(name) for name in names]
    return RULES.digest(values)


def test_a_digest_of_inputs_is_that_of_their_values_in_order():
    one = EnvironReader(environ(HTTP_A="1", HTTP_B="2"))
    both = digest(["header:a", "header:b"], one)
    assert both == digest(
        ["header:a", "header:b"], EnvironReader(environ(HTTP_A="1", HTTP_B="2", HTTP_C="3"))
    )
    assert both != digest(["header:b", "header:a"], one)
    assert both != digest(["header:a"], one)
    with pytest.raises(IncomparableInput):
        digest(["session:user"], one)


@pytest.mark.parametrize(
    "name",
    ["HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED", "HTTP_FORWARDED",
     "HTTP_X_ORIGINAL_URL", "HTTP_X_ORIGINAL_HOST", "HTTP_X_REWRITE_URL", "HTTP_X_HOST",
     "HTTP_X_HTTP_METHOD_OVERRIDE"],
)  # fmt: skip
def test_headers_that_say_another_address_are_known(name):
    assert brings_override(environ(**{name: ""}))
    assert not brings_override(environ(HTTP_X_API_KEY="1", HTTP_FORWARD="x"))


# --- cookies --------------------------------------------------------------------------------------


def test_cookies_are_listed_with_that_of_the_session():
    assert list_cookies([], "s") == ()
    assert list_cookies(["cookie:b", "cookie:a", "header:cookie", "address"], "s") == ("a", "b")
    for name in ("session", "session?", "session:user"):
        assert list_cookies([name, "cookie:a"], "s") == ("a", "s")
    assert list_cookies(["cookie:a", "cookies"], "s") == ("",)


def test_a_session_from_an_unknown_cookie_means_every_cookie():
    found = list_cookies(["session:user", "cookie:a"], "")
    assert brings_cookie(environ(HTTP_COOKIE="any=1"), found)
    assert not brings_cookie(environ(), found)


@pytest.mark.parametrize(
    ("sent", "cookies", "found"),
    [
        (None, ("a",), False),
        ("", ("",), False),
        ("a=1", (), False),
        ("a=1", ("a",), True),
        ("a=1", ("",), True),
        ("a", ("a",), True),
        (" b=1 ;\ta = 2", ("a",), True),
        ("aa=1; ab=2; ba=3", ("a",), False),
        ("b=a", ("a",), False),
        ("b=a=1", ("a",), False),
        ('b="a=1"', ("a",), False),
        ("session_id=1; mysession=2", ("session",), False),
        ("a=1; session=2", ("x", "session"), True),
        ("A=1", ("a",), False),
        ("a=1; a=2", ("a",), True),
        ("\xc3\xa9=1", ("\xc3\xa9",), True),
        ("\xc3\xa9=1", ("\xe9",), False),
    ],
)
def test_a_cookie_is_brought_or_not(sent, cookies, found):
    brought = environ() if sent is None else environ(HTTP_COOKIE=sent)
    assert brings_cookie(brought, cookies) is found


# --- a request for the same response --------------------------------------------------------------


def test_a_request_is_left_with_the_inputs_that_count():
    brought = environ(
        HTTP_COOKIE="a=1; b=2; s=3", HTTP_X_A="1", HTTP_X_B="2", HTTP_ACCEPT_LANGUAGE="de",
        HTTP_ACCEPT_ENCODING="br", REMOTE_ADDR="1.1.1.1", REMOTE_PORT="1", RAW_URI="/p",
        SSL_CLIENT_S_DN="CN=a", SSL_CLIENT_I_DN="ca", REMOTE_USER="ann",
        **{"wsgi.input": 1, "x.own": 1, "om_plugins.state": 1},
    )  # fmt: skip

    def select(*names, cookie=""):
        left = RULES.select_inputs(brought, names, cookie)
        always = {*environ(), "RAW_URI", "SSL_CLIENT_S_DN", "SSL_CLIENT_I_DN", "REMOTE_USER"}
        assert always | {"wsgi.input", "om_plugins.state"} <= set(left)
        assert RULES.read_address(left) == RULES.read_address(brought)
        return {k: v for k, v in left.items() if k not in always and "." not in k[1:]} | {
            k: v for k, v in left.items() if k == "x.own"
        }

    assert select() == {}
    assert select("header:x-a") == {"HTTP_X_A": "1"}
    assert select("vary:x-b", "accept:accept-language:quality:[]") == {
        "HTTP_X_B": "2", "HTTP_ACCEPT_LANGUAGE": "de",
    }  # fmt: skip
    assert select("cookie:a") == {"HTTP_COOKIE": "a=1"}
    assert select("cookie:b", "session:user", cookie="s") == {"HTTP_COOKIE": "b=2; s=3"}
    assert select("session?", cookie="") == {"HTTP_COOKIE": "a=1; b=2; s=3"}
    assert select("cookies") == {"HTTP_COOKIE": "a=1; b=2; s=3"}
    assert select("cookie:absent", "header:absent") == {}
    assert select("address") == {"REMOTE_ADDR": "1.1.1.1", "REMOTE_PORT": "1"}
    assert select("environ:x.own") == {"x.own": 1}


@given(
    st.sets(
        st.sampled_from(["cookie:a", "cookie:b", "cookies", "header:x-a", "vary:x-b", "address"])
    )
)
def test_what_is_left_has_the_same_values_of_what_counts(names):
    brought = environ(
        HTTP_COOKIE='a=1; b="2"; a=3', HTTP_X_A="1", HTTP_X_B="2", REMOTE_ADDR="1.1.1.1"
    )
    left = RULES.select_inputs(brought, names)
    assert digest(sorted(names), EnvironReader(left)) == digest(
        sorted(names), EnvironReader(brought)
    )
